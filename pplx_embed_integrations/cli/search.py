"""`pplx-embed search`: the chunks that answer a question best.

Knows how a result is shown; must not know how vectors are made or compared.
"""

from __future__ import annotations

import argparse
import shutil
import textwrap
from typing import TYPE_CHECKING

from ..errors import InputError
from .store import open_store

if TYPE_CHECKING:
    from langchain_core.documents import Document

__all__ = ["run"]

_LINES = 3


def run(arguments: argparse.Namespace) -> int:
    """Embed the query with the recorded model, search, print."""
    if not arguments.query.strip():
        raise InputError("the query is empty; type what you look for, in quotes")
    with open_store(arguments.store, arguments.collection, create=False) as collection:
        record = collection.record()
        from .recorded import check_weights, embeddings_of

        check_weights(record, "query")
        store = collection.vector_store(embeddings_of(record))
        found = store.similarity_search_with_score(arguments.query, k=arguments.limit)
    if not found:
        print(f"The collection {arguments.collection!r} is empty.")
    for rank, (chunk, score) in enumerate(found, 1):
        print(_shown(rank, chunk, score))
    return 0


def _shown(rank: int, chunk: Document, score: float) -> str:
    width = min(shutil.get_terminal_size().columns, 120)
    text = textwrap.wrap(" ".join(chunk.page_content.split()), width - 4)
    cut = [*text[: _LINES - 1], f"{text[_LINES - 1][: width - 6]} …"] if len(text) > _LINES else text
    place = f"{chunk.metadata['source']}:{chunk.metadata['line']}"
    return "\n".join([f"{rank}. {place}  ({score:.3f})", *(f"    {line}" for line in cut)])
