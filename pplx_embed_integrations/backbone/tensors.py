"""A checkpoint's tensors, read from its files one by one and checked.

Knows safetensors and the published tensor layout; must not know what becomes of a tensor.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ..errors import CheckpointError

__all__ = ["read_tensors"]


def read_tensors(folder: Path, shapes: Mapping[str, Sequence[int]]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield each tensor as a view into its memory-mapped file, the largest first.

    Args:
        folder: The checkpoint's folder.
        shapes: The names and shapes that its `config.json` asks for.

    Raises:
        CheckpointError: A file is missing or damaged, or a tensor is missing or is not as it should be.
    """
    missing = dict.fromkeys(shapes)
    for name, tensor in _tensors(folder):
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
    """Yield all tensors there are.

    A tensor's pages count as this process's memory for as long as its map is open, so each has a map of its own,
    which goes with the view. Largest first, because the map of the last one comes on top of all that is loaded.
    """
    sizes = {}
    for path in _weight_files(folder):
        with _readable(path), safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  (no mapping: it has keys() alone)
                sizes[path, name] = math.prod(file.get_slice(name).get_shape())
    for path, name in sorted(sizes, key=lambda key: -sizes[key]):
        with _readable(path), safe_open(path, framework="pt") as file:
            tensor = file.get_tensor(name)
        yield name, tensor
        del tensor


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{str(path)!r} is damaged or incomplete ({error}); delete it and download it again"
        ) from error


def _weight_files(folder: Path) -> list[Path]:
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if not index.is_file():
        raise CheckpointError(f"{str(folder)!r} has no model.safetensors and no model.safetensors.index.json")
    try:
        names: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        paths = [folder / name for name in sorted(set(names.values()))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{str(index)!r} cannot be read: {error!r}") from error
    if missing := [path.name for path in paths if not path.is_file()]:
        raise CheckpointError(f"{str(folder)!r} lacks {', '.join(missing)}, which {index.name} names")
    return paths
