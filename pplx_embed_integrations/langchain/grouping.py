"""Which LangChain documents are chunks of one text, and in which order they are read.

Knows LangChain's `Document`, its metadata and the splitters' habits; must not know vectors, models or stores.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterable, Sequence
from threading import Lock
from typing import Any

from langchain_core.documents import Document

from ..documents import find_overlap, group
from ..errors import ContextWarning, InputError, InputTypeError
from ..inputs import check_text

__all__ = ["GroupBy", "check_chunks", "document_groups", "document_keys", "tell_apart", "warn_of_overlap"]

GroupBy = str | Callable[[Document], Hashable] | Sequence[Hashable]
"""A metadata key, a function of the chunk, or one key per chunk."""

_DEFAULT_KEYS = ("doc_id", "document_id", "source")
_PAGE_KEYS = ("page", "page_number")
_telling_apart = Lock()


def check_chunks(documents: object) -> list[Document]:
    """Return `documents` as a list of chunks that all have a text.

    Args:
        documents: LangChain documents, each a chunk.

    Returns:
        The same objects in a new list.

    Raises:
        InputError: A chunk has no text.
        InputTypeError: It is no collection of LangChain documents.

    Example:
        >>> len(check_chunks([Document("one"), Document("two")]))
        2
    """
    if isinstance(documents, (str, bytes, dict, Document)) or not isinstance(documents, Iterable):
        raise InputTypeError(f"a list of LangChain Documents is wanted, not {type(documents).__name__}")
    chunks = list(documents)
    for position, chunk in enumerate(chunks):
        if not isinstance(chunk, Document):
            raise InputTypeError(
                f"document {position} is a {type(chunk).__name__}; wrap each chunk in langchain_core.documents.Document"
            )
        check_text(chunk.page_content, name=f"page_content of document {position}")
    return chunks


def document_keys(chunks: list[Document], group_by: GroupBy | None = None) -> list[Hashable]:
    """Tell for every chunk which document it belongs to.

    Args:
        chunks: The chunks.
        group_by: A metadata key, a function of the chunk, or one key per chunk. By default the first of `doc_id`,
            `document_id` and `source` that all chunks carry.

    Returns:
        One key per chunk.

    Raises:
        InputError: A chunk lacks the key, or there are not as many keys as chunks.
        InputTypeError: `group_by` is none of the three.

    Example:
        >>> document_keys([Document("one", metadata={"source": "a.md"}), Document("two", metadata={"source": "b.md"})])
        ['a.md', 'b.md']
        >>> document_keys([Document("one"), Document("two")], group_by=["a", "a"])
        ['a', 'a']
    """
    if group_by is None:
        return _metadata(chunks, _default_key(chunks)) if chunks else []
    if isinstance(group_by, str):
        return _metadata(chunks, group_by)
    if callable(group_by):
        return [group_by(chunk) for chunk in chunks]
    if not isinstance(group_by, Iterable) or isinstance(group_by, (bytes, dict, set, frozenset)):
        raise InputTypeError(
            f"group_by is a {type(group_by).__name__}; pass a metadata key, a function of the Document, "
            "or a list with one key per chunk"
        )
    keys = list(group_by)
    if len(keys) != len(chunks):
        raise InputError(f"group_by has {len(keys)} keys for {len(chunks)} chunks; give one key per chunk")
    return keys


def _default_key(chunks: list[Document]) -> str:
    for key in _DEFAULT_KEYS:
        if all(chunk.metadata.get(key) is not None for chunk in chunks):
            return key
    found = sorted(set.intersection(*(set(chunk.metadata) for chunk in chunks)))
    raise InputError(
        f"the chunks cannot be grouped into documents: none of {', '.join(_DEFAULT_KEYS)} is in the metadata of all "
        f"{len(chunks)} chunks (all carry: {', '.join(found) or 'nothing'}); pass group_by= a metadata key, a function "
        "of the Document, or a list with one key per chunk"
    )


def _metadata(chunks: list[Document], key: str) -> list[Hashable]:
    for position, chunk in enumerate(chunks):
        if chunk.metadata.get(key) is None:
            raise InputError(
                f"document {position} has no {key!r} in its metadata (it has: "
                f"{', '.join(sorted(chunk.metadata)) or 'nothing'}); every chunk needs the key given as group_by"
            )
    return [chunk.metadata[key] for chunk in chunks]


def document_groups(chunks: list[Document], keys: list[Hashable]) -> list[list[int]]:
    """Group chunks by their keys, each document in reading order.

    `start_index` decides where all chunks of a document carry it, within `page` where that is there too (a loader may
    count every page from zero); otherwise the input order stands.

    Args:
        chunks: The chunks.
        keys: One document key per chunk.

    Returns:
        For each document the positions of its chunks.

    Example:
        >>> chunks = [Document("two", metadata={"start_index": 9}), Document("one", metadata={"start_index": 0})]
        >>> document_groups(chunks, ["a", "a"])
        [[1, 0]]
    """
    return group(keys, [_position(chunk) for chunk in chunks])


def _integer(value: Any) -> int | None:
    # -1 is what a splitter writes when it could not find its own chunk again.
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _position(chunk: Document) -> tuple[int, int] | None:
    start = _integer(chunk.metadata.get("start_index"))
    if start is None:
        return None
    pages = (_integer(chunk.metadata.get(key)) for key in _PAGE_KEYS)
    return next((page for page in pages if page is not None), 0), start


def warn_of_overlap(chunks: list[Document], keys: list[Hashable], groups: list[list[int]]) -> None:
    """Warn once if chunks that follow each other share text, which a contextual model would read twice.

    Args:
        chunks: The chunks.
        keys: One document key per chunk.
        groups: For each document the positions of its chunks in reading order.
    """
    found = find_overlap(
        [[chunks[index].page_content for index in indices] for indices in groups],
        [[_integer(chunks[index].metadata.get("start_index")) for index in indices] for indices in groups],
    )
    if found is not None:
        key = keys[groups[found.document][0]]
        warnings.warn(
            f"chunks {found.chunk - 1} and {found.chunk} of document {key!r} share {found.characters} characters: the "
            "model reads a document's chunks together, so shared text is read twice. Set chunk_overlap=0 in the "
            "splitter",
            ContextWarning,
            stacklevel=2,
        )


def tell_apart(chunks: list[Document]) -> None:
    """Give chunks of equal text a string object each.

    A store hands the embedder plain strings. Their identity says which chunk is meant, unless two chunks hold the very
    same object, as those made from one constant do; these get an equal copy.

    Args:
        chunks: The chunks; `page_content` may be replaced by an equal string.

    Example:
        >>> footer = "All rights reserved."
        >>> chunks = [Document(footer), Document(footer)]
        >>> tell_apart(chunks)
        >>> chunks[0].page_content == chunks[1].page_content, chunks[0].page_content is chunks[1].page_content
        (True, False)
    """
    with _telling_apart:
        owners: dict[int, Document] = {}
        for chunk in chunks:
            owner = owners.setdefault(id(chunk.page_content), chunk)
            if owner is not chunk:
                text = chunk.page_content
                chunk.page_content = text[:1] + text[1:]
                owners[id(chunk.page_content)] = chunk
