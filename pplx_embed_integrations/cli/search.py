"""`pplx-embed search`: the chunks that answer a question best.

Knows how a result is shown; must not know how vectors are made or compared.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..errors import InputError
from .store import check_name, open_store
from .terminal import shown, terminal_width, wrapped

if TYPE_CHECKING:
    from langchain_core.documents import Document

__all__ = ["run"]

_LINES = 3


def run(arguments: argparse.Namespace) -> int:
    """Embed the query with the recorded model, search, print."""
    if not arguments.query.strip():
        raise InputError("the query is empty; type what you look for, in quotes")
    check_name(arguments.collection)
    with open_store(arguments.store, arguments.collection, create=False) as collection:
        record = collection.record()
        from .recorded import check_weights, embeddings_of

        check_weights(record, "query")
        store = collection.vector_store(embeddings_of(record))
        found = store.similarity_search_with_score(arguments.query, k=arguments.limit)
    if not found:
        print(f"The collection {shown(arguments.collection)!r} is empty.")
    for rank, (chunk, score) in enumerate(found, 1):
        print(_shown(rank, chunk, score))
    return 0


def _shown(rank: int, chunk: Document, score: float) -> str:
    width = terminal_width() - 4
    text = wrapped(shown(" ".join(chunk.page_content.split())), width)
    cut = [*text[: _LINES - 1], *wrapped(text[_LINES - 1], width - 2)[:1]] if len(text) > _LINES else text
    more = " …" if len(text) > _LINES else ""
    return "\n".join([f"{rank}. {_place(chunk)}  ({score:.3f})", *(f"    {line}" for line in cut)]) + more


def _place(chunk: Document) -> str:
    """Name folder, file and line, as far as the chunk does: others may have put theirs into the collection."""
    folder, source, line = (chunk.metadata.get(key) for key in ("folder", "source", "line"))
    named = "/".join(str(part) for part in (folder, source) if part is not None) or "(no file is named)"
    return shown(f"{named}:{line}" if line is not None else named)
