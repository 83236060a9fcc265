"""A checkpoint's tensors, read from its files one by one and checked.

Knows safetensors, the published tensor layout and how trainers change its names; must not know what becomes of a
tensor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ..errors import CheckpointError
from ..files import INDEX, WEIGHTS, family_of, read_config, unreadable, weight_names

_EMBEDDINGS = "embed_tokens.weight"


def read_tensors(
    folder: Path, shapes: Mapping[str, Sequence[int]], *, head: bool = False
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield each tensor of a network, or of its head, as a view into its memory-mapped file, the largest first.

    Names may have a prefix in common, as in `model.norm.weight` or `_orig_mod.norm.weight`: classes with a head and
    compiled or wrapped modules are saved like that. A head for next tokens is passed over where it is the embedding
    table once more.

    Args:
        folder: The checkpoint's folder.
        shapes: The names and shapes that its `config.json` asks for.
        head: Whether these are the tensors of the family's head, else those of all but it.

    Raises:
        CheckpointError: A file is missing or damaged, or a tensor is missing or is not as it should be.
    """
    missing = dict.fromkeys(shapes)
    layer = family_of(read_config(folder)).head
    heads = (layer.weight, layer.bias) if layer else ()
    for name, tensor in _tensors(folder):
        if (name in heads) != head:
            continue
        if name not in missing:
            raise CheckpointError(f"{str(folder)!r} holds the tensor {name!r}, which its config.json does not foresee")
        if tuple(tensor.shape) != tuple(shapes[name]):
            raise CheckpointError(
                f"tensor {name!r} in {str(folder)!r} has shape {tuple(tensor.shape)}; config.json asks for "
                f"{tuple(shapes[name])}"
            )
        if not tensor.is_floating_point():
            raise CheckpointError(
                f"tensor {name!r} in {str(folder)!r} is {tensor.dtype}; quantised weights are not supported, floats are"
            )
        del missing[name]
        yield name, tensor
        del tensor
    if missing:
        raise CheckpointError(f"{str(folder)!r} lacks {len(missing)} tensors, {next(iter(missing))!r} the first")


def _tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield all tensors there are, by their published names, without a head that repeats the embeddings.

    A tensor's pages count as this process's memory for as long as its map is open, so each has a map of its own,
    which goes with the view. Largest first, because the map of the last one comes on top of all that is loaded.
    """
    shapes: dict[str, list[int]] = {}
    files: dict[str, Path] = {}
    for path in _weight_files(folder):
        with _readable(path), safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  (no mapping: it has keys() alone)
                if name in files:
                    raise CheckpointError(
                        f"{str(folder)!r} holds the tensor {name!r} twice, in {files[name].name} and in {path.name}"
                    )
                shapes[name], files[name] = file.get_slice(name).get_shape(), path
    prefix = _prefix(shapes)
    table = prefix + _EMBEDDINGS
    for name in [name for name in shapes if name.rpartition("lm_head.")[1:] == ("lm_head.", "weight")]:
        if shapes[name] == shapes.get(table):
            tied = read_config(folder).get("tie_word_embeddings") is True
            if tied or torch.equal(_read(files[name], name), _read(files[table], table)):
                del shapes[name]
    for name in sorted(shapes, key=lambda name: (-math.prod(shapes[name]), name)):
        tensor = _read(files[name], name)
        yield name.removeprefix(prefix), tensor
        del tensor


def _read(path: Path, name: str) -> torch.Tensor:
    with _readable(path), safe_open(path, framework="pt") as file:
        tensor: torch.Tensor = file.get_tensor(name)
    return tensor


def _prefix(names: Mapping[str, object]) -> str:
    """Return what stands before the published name of the embedding table, and so before every published name."""
    found = [name for name in names if name == _EMBEDDINGS or name.endswith(f".{_EMBEDDINGS}")]
    return found[0].removesuffix(_EMBEDDINGS) if len(found) == 1 else ""


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise unreadable(path, error) from error


def _weight_files(folder: Path) -> list[Path]:
    paths = [folder / name for name in weight_names(folder)]
    missing = [path.name for path in paths if not path.exists()]
    if missing == [WEIGHTS]:
        raise CheckpointError(f"{str(folder)!r} has no {WEIGHTS} and no {INDEX}")
    if missing:
        raise CheckpointError(f"{str(folder)!r} lacks {', '.join(missing)}, which {INDEX} names")
    return paths
