"""Deleting documents that were indexed with a record manager: by name, or because a run has not seen them.

Knows record managers and how a document is named in one; must not know splitters or how a document is embedded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Iterator
from typing import Any

from langchain_core.indexing import RecordManager
from langchain_core.vectorstores import VectorStore

from ..documents import KEY_PREFIX, document_key, is_missing
from ..errors import InputError, StoreError
from ..flow import Flow, arun, either, run
from .held import deletable

_AT_ONCE = 1000
_LONGEST_KEY = 500


def delete_documents(keys: Hashable | Iterable[Hashable], record_manager: RecordManager, store: VectorStore) -> int:
    """Delete documents that `index_documents` has stored, by what names them.

    Args:
        keys: The name of a document, or a list of names: what `group_by` gave, or `Document.id`.
        record_manager: What remembers the documents; those of another namespace stay.
        store: The vector store.

    Returns:
        How many chunks were deleted; 0 if there was no such document.

    Raises:
        StoreError: The store says that it could not delete them; they are still recorded.

    Example:
        >>> from langchain_core.documents import Document
        >>> from langchain_core.indexing import InMemoryRecordManager
        >>> from langchain_core.vectorstores import InMemoryVectorStore
        >>> from pplx_embed_integrations.langchain import PplxEmbeddings, index_documents
        >>> store, records = InMemoryVectorStore(PplxEmbeddings("miniature")), InMemoryRecordManager("notes")
        >>> records.create_schema()
        >>> chunks = [Document("Ada wrote notes.", metadata={"source": "ada"})]
        >>> _ = index_documents(chunks, records, store, group_by="source")
        >>> delete_documents("ada", records, store), delete_documents("ada", records, store)
        (1, 0)
    """
    return run(_delete(_groups(keys), record_manager, store))


async def adelete_documents(
    keys: Hashable | Iterable[Hashable], record_manager: RecordManager, store: VectorStore
) -> int:
    """`delete_documents` without blocking the event loop."""
    return await arun(_delete(_groups(keys), record_manager, store))


def group_of(key: str) -> str:
    """Return what a record manager knows a document by: its key, unless a database could not index that.

    Example:
        >>> group_of("a.md"), len(group_of("a" * 5000))
        ('a.md', 68)
    """
    if len(key) <= _LONGEST_KEY and "\0" not in key:
        return key
    return KEY_PREFIX + hashlib.sha256(key.encode()).hexdigest()


def _groups(keys: Any) -> list[tuple[str, str]]:
    """Return each document's group, and what it would be if the key is the stamp out of a chunk's metadata."""
    several = isinstance(keys, Iterable) and not isinstance(keys, (str, bytes, tuple))
    groups = []
    for key in keys if several else [keys]:
        if is_missing(key):
            raise InputError(f"{key!r} names no document; nothing was deleted")
        form = document_key(key)
        groups.append((group_of(form), "" if form == key or not isinstance(key, str) else group_of(key)))
    return groups


def _delete(named: list[tuple[str, str]], records: RecordManager, store: VectorStore) -> Flow[int]:
    groups = []
    for group, stamp in named:
        known = not stamp or (yield either(records.list_keys, records.alist_keys, group_ids=[group], limit=1))
        groups.append(group if known else stamp)
    return (yield from clean_up(records, store, groups=groups))


def clean_up(
    records: RecordManager, store: VectorStore, *, before: float | None = None, groups: list[str] | None = None
) -> Flow[int]:
    """Delete what was last seen before a time: of some documents, or of all."""
    deleted = 0
    for part in [None] if groups is None else in_parts(groups):  # an empty list of groups would mean all of them
        options = {"group_ids": part, "before": before, "limit": _AT_ONCE}
        while ids := (yield either(records.list_keys, records.alist_keys, **options)):
            there = yield from deletable(store, ids)
            if there and (yield either(store.delete, store.adelete, there)) is False:
                raise StoreError(
                    f"{type(store).__name__} could not delete old chunks; they are still there and recorded"
                )
            yield either(records.delete_keys, records.adelete_keys, ids)
            deleted += len(ids)
    return deleted


def in_parts(names: list[str]) -> Iterator[list[str]]:
    """Cut names into queries of a size that any database takes."""
    return (names[start : start + _AT_ONCE] for start in range(0, len(names), _AT_ONCE))
