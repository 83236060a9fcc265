"""Which pplx-embed checkpoints exist, what each can do, and the names by which people call them.

Knows hub ids, pinned revisions, limits, pairs and how to read a local folder's `config.json`; must not know how a
checkpoint is downloaded, loaded or run.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .errors import CheckpointError, InputTypeError
from .miniature import CONTEXT_V1, V1

__all__ = ["MODEL_TYPE", "CheckpointSpec", "list_checkpoints", "positive", "read_config", "resolve", "resolve_pair"]

MODEL_TYPE = "bidirectional_pplx_qwen3"
"""`model_type` in the `config.json` of every checkpoint of the family."""


@dataclass(frozen=True)
class CheckpointSpec:
    """One checkpoint: where it is and what it can do.

    Attributes:
        name: Short name, for example `context-v1-0.6b`; the folder's name for a local folder.
        source: Hub id, or the absolute path of a local folder.
        revision: Commit (or branch) on the hub; `None` for a local folder.
        dimension: Width of the full vector.
        min_dimension: Smallest width to which a vector may be cut.
        max_tokens: Longest input in tokens.
        contextual: Whether it embeds the chunks of a document together.
        local: Whether `source` is a folder on this machine.

    Example:
        >>> resolve("context-v1-0.6b").dimension
        1024
    """

    name: str
    source: str
    revision: str | None
    dimension: int
    min_dimension: int
    max_tokens: int
    contextual: bool
    local: bool = False


def _published(name: str, revision: str, dimension: int) -> CheckpointSpec:
    return CheckpointSpec(
        name=name,
        source=f"perplexity-ai/pplx-embed-{name}",
        revision=revision,
        dimension=dimension,
        min_dimension=128,
        max_tokens=32768,
        contextual=name.startswith("context-"),
    )


_PUBLISHED = (
    _published("v1-0.6b", "2c4d510dd4a732063c31a0f70193e35067b51fd8", 1024),
    _published("v1-4b", "06456497a00540a582918fe8dcd3a5eabb207772", 2560),
    _published("context-v1-0.6b", "b42df969d4d78d1840769e45c68c4e4ce763768b", 1024),
    # No revision of this one has been checked against published figures, so it follows the branch.
    _published("context-v1-4b", "main", 2560),
)
_EMBEDDED = {"miniature-v1": V1, "miniature-context-v1": CONTEXT_V1}
_PAIRS = {
    "0.6b": ("v1-0.6b", "context-v1-0.6b"),
    "4b": ("v1-4b", "context-v1-4b"),
    "miniature": ("miniature-v1", "miniature-context-v1"),
}


def list_checkpoints() -> list[CheckpointSpec]:
    """Return every checkpoint the package knows by name: the published ones, then the embedded miniature pair.

    Returns:
        The checkpoints, in a fixed order.

    Example:
        >>> [spec.name for spec in list_checkpoints()][:3]
        ['v1-0.6b', 'v1-4b', 'context-v1-0.6b']
    """
    return [*_PUBLISHED, *(_read_folder(path.resolve(), name=name) for name, path in _EMBEDDED.items())]


def resolve(name: str | Path, *, revision: str | None = None) -> CheckpointSpec:
    """Find the checkpoint that a name, a hub id or a local folder means.

    Hub ids and short names may be in any letter case, with or without the `pplx-embed-` prefix. A local folder is
    judged by its own files, so a renamed or fine-tuned copy works.

    Args:
        name: For example `"v1-0.6b"`, `"perplexity-ai/pplx-embed-context-v1-4b"` or a folder's path.
        revision: Commit, tag or branch on the hub, in place of the pinned one.

    Returns:
        The checkpoint.

    Raises:
        CheckpointError: Nothing has that name, the folder is no pplx-embed checkpoint, or `revision` is given
            for a folder.
        InputTypeError: `name` is neither a string nor a path.

    Example:
        >>> resolve("Perplexity-AI/PPLX-Embed-V1-4B").source
        'perplexity-ai/pplx-embed-v1-4b'
    """
    if not isinstance(name, (str, Path)):
        raise InputTypeError(
            f'the model must be a name such as "context-v1-0.6b" or a folder\'s path, not {type(name).__name__}'
        )
    spec = _named(name) if isinstance(name, str) else None
    if spec is None and (folder := _folder(name)):
        spec = _read_folder(folder)
    if spec is None:
        raise CheckpointError(_unknown(str(name)))
    if revision is None:
        return spec
    if not isinstance(revision, str) or not revision:
        raise InputTypeError(f"revision must be a commit, tag or branch, or None; not {revision!r}")
    if spec.local:
        raise CheckpointError(
            f"revision={revision!r} was given for the local folder {spec.source!r}, which has no revisions; "
            "leave it out, or name a checkpoint on the hub"
        )
    return replace(spec, revision=revision)


def resolve_pair(name: str | Path) -> tuple[str, str]:
    """Return the names of the query model and of the document model that a pair's name stands for.

    Args:
        name: `"0.6b"`, `"4b"`, `"miniature"`, or any name that `resolve` knows, which then stands on both sides.

    Returns:
        The query model and the document model.

    Raises:
        CheckpointError: Nothing has that name.
        InputTypeError: `name` is neither a string nor a path.

    Example:
        >>> resolve_pair("0.6b")
        ('v1-0.6b', 'context-v1-0.6b')
        >>> resolve_pair("v1-4b")
        ('v1-4b', 'v1-4b')
    """
    if isinstance(name, str) and (pair := _PAIRS.get(_key(name))):
        return pair
    spec = resolve(name)
    # A path stays a path: `Path("v1-0.6b")` is a folder, the string is a checkpoint on the hub.
    one = spec.source if isinstance(name, Path) else name
    return one, one


def _key(name: str) -> str:
    return name.strip().lower().removeprefix("perplexity-ai/").removeprefix("pplx-embed-")


def _named(name: str) -> CheckpointSpec | None:
    bare = name.strip().lower()
    if bare in _EMBEDDED:
        return _read_folder(_EMBEDDED[bare].resolve(), name=bare)
    return next((spec for spec in _PUBLISHED if spec.name == _key(name)), None)


def _folder(name: str | Path) -> Path | None:
    if not str(name).strip():
        return None
    try:
        # Absolute, so that it means the same after a change of directory and in another process.
        folder = Path(name).expanduser().resolve()
        return folder if folder.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # a name that cannot be a path: too long, an unknown ~user, a NUL
        return None


def _unknown(name: str) -> str:
    known = [spec.name for spec in _PUBLISHED] + list(_EMBEDDED)
    if _key(name) in _PAIRS:
        query, document = _PAIRS[_key(name)]
        return f"{name!r} names a pair of checkpoints; one is wanted here: {query!r} or {document!r}"
    nearest = difflib.get_close_matches(_key(name), [*known, *_PAIRS], n=1, cutoff=0.5)
    hint = f" (did you mean {nearest[0]!r}?)" if nearest else ""
    return (
        f"there is no checkpoint or folder {name!r}{hint}. Known checkpoints: {', '.join(known)}; "
        f"known pairs: {', '.join(_PAIRS)}; or give the path of a local folder"
    )


def _read_folder(folder: Path, *, name: str | None = None) -> CheckpointSpec:
    config = read_config(folder)
    dimension = positive(config, "hidden_size", folder)
    embedded = (known for known, path in _EMBEDDED.items() if path.resolve() == folder)
    return CheckpointSpec(
        name=name or next(embedded, folder.name),
        source=str(folder),
        revision=None,
        dimension=dimension,
        # The published limit is 128 of 1024; a smaller model may be cut in the same proportion.
        min_dimension=max(1, min(128, dimension // 8)),
        max_tokens=positive(config, "max_position_embeddings", folder),
        contextual=_is_contextual(config),
        local=True,
    )


def read_config(folder: Path) -> dict[str, Any]:
    """Read a checkpoint folder's `config.json`.

    Raises:
        CheckpointError: It is missing or damaged, or of another kind of model.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"the folder {str(folder)!r} has no config.json; give the folder that holds config.json, tokenizer.json "
            "and model.safetensors"
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{str(path)!r} cannot be read as JSON: {error}") from error
    found = config.get("model_type") if isinstance(config, dict) else None
    if found != MODEL_TYPE:
        raise CheckpointError(
            f"{str(path)!r} has model_type {found!r}; a pplx-embed checkpoint has {MODEL_TYPE!r}. "
            "Other models are used through their own integrations"
        )
    return dict(config)


def positive(config: dict[str, Any], key: str, folder: Path) -> int:
    """Return a value of a folder's `config.json` that must be a positive integer.

    Raises:
        CheckpointError: It is missing, or something else.
    """
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise CheckpointError(f"config.json in {str(folder)!r} has {key}={value!r}; a positive integer is needed")
    return value


def _is_contextual(config: dict[str, Any]) -> bool:
    # Published checkpoints say it in auto_map alone; those saved through our classes say it in `architectures`.
    auto_map, architectures = config.get("auto_map"), config.get("architectures")
    named = [*architectures] if isinstance(architectures, list) else []
    named += [auto_map.get("AutoModel")] if isinstance(auto_map, dict) else []
    return any(isinstance(entry, str) and entry.endswith("ContextualModel") for entry in named)
