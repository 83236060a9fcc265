"""Reading chunks by name or condition, counting them, listing documents.

Knows which columns are read for what; must not know searching or writing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .documents import Hit
from .filters import one_of
from .handle import Handle
from .rows import CONTENT, hits, vectors


def get(
    handle: Handle,
    names: Mapping[str, Sequence[str]],
    where: str | None,
    *,
    limit: int | None,
    offset: int | None,
    with_vectors: bool,
) -> list[Hit]:
    """Read chunks; see `ChunkTable.get`."""
    forms = (["codes"] if handle.record.has_codes else ["bits"]) if with_vectors else []
    parts = [one_of(column, values) for column, values in names.items()] + ([where] if where else [])
    found = handle.read([*CONTENT, *forms], " AND ".join(parts) or None, limit=limit, offset=offset or None)
    rows = hits(found, found=vectors(found, handle.record))
    if "id" not in names:
        return sorted(rows, key=lambda hit: (hit.document, hit.position, hit.id))
    by_id = {hit.id: hit for hit in rows}
    return [by_id[each] for each in names["id"] if each in by_id]


def count(handle: Handle, where: str | None) -> int:
    """Count chunks."""
    with handle.reading(where):
        return int(handle.table.count_rows(f"id IS NOT NULL AND {where}" if where else "id IS NOT NULL"))


def documents(handle: Handle, where: str | None) -> dict[str, int]:
    """Count the chunks of each document."""
    import pyarrow.compute as pc

    counts = pc.value_counts(handle.read(["document"], where)["document"])
    return {entry["values"].as_py(): entry["counts"].as_py() for entry in counts}
