"""Which pplx-embed checkpoints exist, what each can do, and the names by which people call them.

Knows hub ids, pinned revisions, limits and pairs; must not know how a checkpoint is downloaded, loaded or run.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from .errors import CheckpointError, DownloadError, InputTypeError
from .families import PPLX_EMBED, Family
from .files import family_of, positive, read_config
from .miniature import CONTEXT_V1, V1

Fetch = Callable[[str, str], tuple[str, Path]]
"""Gets the `config.json` of a repository at a revision: the commit that the revision means, and the file's folder."""


@dataclass(frozen=True)
class CheckpointSpec:
    """One checkpoint: where it is and what it can do.

    Attributes:
        name: Short name, for example `context-v1-0.6b`; the folder's name for a local folder, the hub id for any other
            repository.
        source: Hub id, or the absolute path of a local folder.
        revision: Commit on the hub, or branch of a checkpoint in the list; `None` for a local folder.
        dimension: Width of the full vector.
        min_dimension: Smallest width to which a vector may be cut.
        max_tokens: Longest input in tokens.
        contextual: Whether it embeds the chunks of a document together.
        local: Whether `source` is a folder on this machine.
        family: How its family reads texts and makes vectors.

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
    family: Family = field(default=PPLX_EMBED, repr=False)


def _published(name: str, revision: str, dimension: int) -> CheckpointSpec:
    return CheckpointSpec(
        name=name,
        source=f"perplexity-ai/pplx-embed-{name}",
        revision=revision,
        dimension=dimension,
        min_dimension=PPLX_EMBED.min_dimension(dimension),
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
_EMBEDDED = {"miniature-v1": V1.resolve(), "miniature-context-v1": CONTEXT_V1.resolve()}
_PAIRS = {
    "0.6b": ("v1-0.6b", "context-v1-0.6b"),
    "4b": ("v1-4b", "context-v1-4b"),
    "miniature": ("miniature-v1", "miniature-context-v1"),
}
# What the hub takes as a name: no leading or trailing dash or dot, nor two of them in a row.
_HUB_ID = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9_](?:[\w.-]*\w)?/[A-Za-z0-9_](?:[\w.-]*\w)?", re.ASCII)


def list_checkpoints() -> list[CheckpointSpec]:
    """Return every checkpoint the package knows by name: the published ones, then the embedded miniature pair.

    Returns:
        The checkpoints, in a fixed order.

    Example:
        >>> [spec.name for spec in list_checkpoints()][:3]
        ['v1-0.6b', 'v1-4b', 'context-v1-0.6b']
    """
    return [*_PUBLISHED, *map(_read_folder, _EMBEDDED.values())]


def resolve(name: str | Path, *, revision: str | None = None, fetch: Fetch | None = None) -> CheckpointSpec:
    """Find the checkpoint that a name, a hub id or a local folder means.

    Published hub ids and short names may be in any letter case, with or without the `pplx-embed-` prefix. A local
    folder, and any other repository on the hub, is judged by its own `config.json`, so a renamed or fine-tuned copy
    works; of a repository the result names the commit.

    Args:
        name: For example `"v1-0.6b"`, `"perplexity-ai/pplx-embed-context-v1-4b"`, a folder's path, or the hub id of a
            fine-tuned copy.
        revision: Commit, tag or branch on the hub, in place of the pinned one or of the branch `main`.
        fetch: What reads the `config.json` of a repository that is not in the list; without it only the list and
            folders are known.

    Returns:
        The checkpoint.

    Raises:
        CheckpointError: Nothing has that name, the folder or repository is no pplx-embed checkpoint, or `revision` is
            given for a folder.
        DownloadError: The `config.json` of a repository can neither be fetched nor found in the cache.
        InputTypeError: `name` is neither a string nor a path.

    Example:
        >>> resolve("Perplexity-AI/PPLX-Embed-V1-4B").source
        'perplexity-ai/pplx-embed-v1-4b'
    """
    if not isinstance(name, (str, Path)):
        raise InputTypeError(
            f'the model must be a name such as "context-v1-0.6b" or a folder\'s path, not {type(name).__name__}'
        )
    if revision is not None and (not isinstance(revision, str) or not revision):
        raise InputTypeError(f"revision must be a commit, tag or branch, or None; not {revision!r}")
    if fetch is not None and (source := hub_id(name)):
        return _read_repository(source, revision or "main", fetch)
    spec = _named(name) if isinstance(name, str) else None
    if spec is None and (folder := _folder(name)):
        spec = _read_folder(folder)
    if spec is None:
        raise CheckpointError(_unknown(str(name)))
    if revision is None:
        return spec
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
            The hub is not asked whether it has a repository of that name.

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
    if isinstance(name, str) and (pair := _PAIRS.get(short_name(name))):
        return pair
    if source := hub_id(name):
        return source, source
    spec = resolve(name)
    # A path stays a path: `Path("v1-0.6b")` is a folder, the string is a checkpoint on the hub.
    one = spec.source if isinstance(name, Path) else name
    return one, one


def hub_id(name: str | Path) -> str | None:
    """Return the hub id of a repository that is not in the list of checkpoints, `None` for any other name.

    A string of the form `owner/name` is one, unless a folder lies at that path.

    Example:
        >>> hub_id("someone/pplx-embed-v1-0.6b"), hub_id("perplexity-ai/pplx-embed-v1-0.6b"), hub_id("v1-06b")
        ('someone/pplx-embed-v1-0.6b', None, None)
    """
    if not isinstance(name, str) or not _HUB_ID.fullmatch(name.strip()) or _named(name) or _folder(name):
        return None
    return name.strip()


def is_commit(revision: str | None) -> bool:
    """Whether a revision is a commit's full hash, which never comes to mean anything else.

    Example:
        >>> is_commit("2c4d510dd4a732063c31a0f70193e35067b51fd8"), is_commit("main")
        (True, False)
    """
    return re.fullmatch(r"[0-9a-f]{40}", revision or "") is not None


def short_name(name: str) -> str:
    """Return a checkpoint's name without the owner and `pplx-embed-`, in small letters.

    Example:
        >>> short_name("perplexity-ai/pplx-embed-context-v1-0.6b")
        'context-v1-0.6b'
    """
    return name.strip().lower().removeprefix("perplexity-ai/").removeprefix("pplx-embed-")


def _named(name: str) -> CheckpointSpec | None:
    bare = name.strip().lower()
    if bare in _EMBEDDED:
        return _read_folder(_EMBEDDED[bare])
    return next((spec for spec in _PUBLISHED if spec.name == short_name(name)), None)


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
    if short_name(name) in _PAIRS:
        query, document = _PAIRS[short_name(name)]
        return f"{name!r} names a pair of checkpoints; one is wanted here: {query!r} or {document!r}"
    nearest = difflib.get_close_matches(short_name(name), [*known, *_PAIRS], n=1, cutoff=0.5)
    hint = f" (did you mean {nearest[0]!r}?)" if nearest else ""
    return (
        f"there is no checkpoint or folder {name!r}{hint}. Known checkpoints: {', '.join(known)}; "
        f"known pairs: {', '.join(_PAIRS)}; or give the path of a local folder, or a hub id: owner/name"
    )


def _read_folder(folder: Path) -> CheckpointSpec:
    name = next((known for known, path in _EMBEDDED.items() if path == folder), folder.name)
    return _described(folder, name=name, source=str(folder), revision=None)


def _read_repository(source: str, revision: str, fetch: Fetch) -> CheckpointSpec:
    try:
        commit, folder = fetch(source, revision)
    except DownloadError as error:
        nearest = difflib.get_close_matches(short_name(source), [spec.name for spec in _PUBLISHED], n=1, cutoff=0.8)
        hint = f"; did you mean {nearest[0]!r}?" if nearest and source.lower().startswith("perplexity-ai/") else ""
        raise DownloadError(f"{error}. There is no folder {source!r} either{hint}") from error
    return _described(folder, name=source, source=source, revision=commit)


def _described(folder: Path, *, name: str, source: str, revision: str | None) -> CheckpointSpec:
    config = read_config(folder)
    family = family_of(config)
    dimension = positive(config, family.head.dimension if family.head else "hidden_size", folder)
    return CheckpointSpec(
        name=name,
        source=source,
        revision=revision,
        dimension=dimension,
        min_dimension=family.min_dimension(dimension),
        max_tokens=positive(config, "max_position_embeddings", folder),
        contextual=family.contextual(config),
        local=revision is None,
        family=family,
    )
