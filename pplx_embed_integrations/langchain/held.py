"""What a vector store really holds, where that differs from what a record manager or its caller believes.

Knows ids and how stores are asked for them; must not know vectors or how a document is embedded.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from langchain_core.documents import Document

from ..errors import InputError, StoreError
from ..flow import Flow, either, run

_ADDS_AGAIN = ("FAISS", "LanceDB")
"""Stores that do not overwrite a known id: LanceDB has both rows, FAISS fails and mixes its rows up from then on."""
_STRICT = ("FAISS",)
"""Stores that delete nothing if one of the ids is unknown."""


def _is_one_of(store: Any, names: Sequence[str]) -> bool:
    return any(each.__name__ in names for each in type(store).__mro__)


def held_ids(store: Any, ids: list[str]) -> Flow[set[str] | None]:
    """Tell which of these ids are in a store.

    Args:
        store: The vector store.
        ids: What to look for.

    Returns:
        Those that are there; None where the store does not tell.
    """
    try:
        chunks = (yield either(store.get_by_ids, store.aget_by_ids, ids)) if ids else []
        found = [chunk.metadata.get("_id") if chunk.id is None else chunk.id for chunk in chunks]  # Qdrant's is there
    except Exception:  # noqa: BLE001  (one cannot be asked at all, another has no table yet and raises what it likes)
        return None
    return None if None in found else set(map(str, found))


def clear(store: Any, ids: list[str]) -> Flow[None]:
    """Take rows with these ids out of a store that would not overwrite them.

    They are what a run has stored that was killed before it was recorded, or that is to be stored anew.
    """
    if not _is_one_of(store, _ADDS_AGAIN):
        return
    held = yield from held_ids(store, ids)
    if there := ids if held is None else [each for each in ids if each in held]:
        with suppress(AttributeError):  # LanceDB has no table before its first row
            yield either(store.delete, store.adelete, there)


def check_rows(store: Any) -> None:
    """Refuse a FAISS store that answers with the wrong chunks.

    Raises:
        StoreError: It has vectors that belong to no chunk, so those after them belong to the wrong ones.
    """
    if _is_one_of(store, _STRICT) and store.index.ntotal != len(store.index_to_docstore_id):
        raise StoreError(
            f"{type(store).__name__} holds {store.index.ntotal} vectors for {len(store.index_to_docstore_id)} chunks, "
            "since an add to it failed or two ran at once: its searches give wrong chunks. Build it anew, with an "
            "empty record manager, and let one call at a time write to it"
        )


def deletable(store: Any, ids: list[str]) -> Flow[list[str]]:
    """Return the ids that a store can be told to delete: all, or those it holds where another one makes it fail."""
    held = (yield from held_ids(store, ids)) if _is_one_of(store, _STRICT) else None
    return ids if held is None else [each for each in ids if each in held]


def check_ids(store: Any, chunks: Sequence[Document], ids: Sequence[str | None] | None) -> None:
    """Refuse ids of which a store would lose a chunk.

    Args:
        store: The vector store, if there is one yet.
        chunks: What is to be added.
        ids: Their ids; None for those that the chunks bear.

    Raises:
        InputError: There are not as many ids as chunks, two chunks have one, or the store holds one and would not
            overwrite it.
        StoreError: The store is damaged.
    """
    given = [chunk.id for chunk in chunks] if ids is None else ids
    if len(given) != len(chunks):
        raise InputError(f"ids has {len(given)} entries for {len(chunks)} chunks; give one per chunk")
    where: dict[str, int] = {}
    for position, each in enumerate(given):
        if each is not None and where.setdefault(each, position) != position:
            way = "give each its own in ids=" if ids is not None else "give each its own, or leave Document.id out"
            raise InputError(
                f"chunks {where[each]} and {position} have the same id {each!r}, and a store keeps one row for an id; "
                f"{way}. An id names a chunk; its document is named by group_by="
            )
    if store is None:
        return
    check_rows(store)
    if not where or not _is_one_of(store, _STRICT):
        return
    if held := run(held_ids(store, list(where))):
        raise InputError(
            f"{type(store).__name__} holds {min(held)!r} already and cannot replace what it holds; delete the old "
            "chunks first, with store.delete(ids), or use index_documents"
        )
