"""`pplx-embed search`: the chunks that answer a question best.

Knows how a result is shown; must not know how vectors are made or compared.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..errors import InputError
from .store import open_collection
from .terminal import shown, terminal_width, wrapped

if TYPE_CHECKING:
    from ..stores import Hit

_LINES = 3


def run(arguments: argparse.Namespace) -> int:
    """Embed the query with the recorded model, search, print."""
    if not arguments.query.strip():
        raise InputError("the query is empty; type what you look for, in quotes")
    table = open_collection(arguments.store, arguments.collection)
    from .recorded import check_weights, pair_of

    check_weights(table.record.notes, "query")
    codes = pair_of(table.record.notes).encode_query(arguments.query, quantization="int8")
    found = table.search(codes, k=arguments.limit)
    if not found:
        print(f"The collection {shown(arguments.collection)!r} is empty.")
    for rank, hit in enumerate(found, 1):
        print(_shown(rank, hit))
    return 0


def _shown(rank: int, hit: Hit) -> str:
    width = terminal_width() - 4
    text = wrapped(shown(" ".join(hit.text.split())), width)
    cut = [*text[: _LINES - 1], *wrapped(text[_LINES - 1], width - 2)[:1]] if len(text) > _LINES else text
    more = " …" if len(text) > _LINES else ""
    return "\n".join([f"{rank}. {_place(hit)}  ({hit.score:.3f})", *(f"    {line}" for line in cut)]) + more


def _place(hit: Hit) -> str:
    """Name folder, file and line, as far as the chunk does: others may have put theirs into the collection."""
    folder, source, line = (hit.metadata.get(key) for key in ("folder", "source", "line"))
    named = "/".join(str(part) for part in (folder, source) if part is not None) or "(no file is named)"
    return shown(f"{named}:{line}" if line is not None else named)
