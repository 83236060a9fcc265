"""A table's upkeep: an index for the bits, compaction, and what there is to know of its size and recall.

Knows LanceDB's indexes, files and versions; must not know documents or models.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, StoreError
from .handle import Handle, is_remote
from .rows import vectors
from .searching import search_bits, search_codes

logger = logging.getLogger(__name__)

BITS_INDEX = "bits_idx"
INDEXED_FROM = 200_000
"""From so many rows on there is an index, 1 bit a number; fewer are read in some hundredths of a second."""
_SMALLEST_INDEXED = 10_000
_FILES, _ROWS_A_FILE = 64, 10_000
"""More files than 64, and one more for each 10,000 rows, are put together: each costs every write and search."""
KEEP_VERSIONS = timedelta(hours=1)
"""Versions younger than this stay, for those who are reading them."""
_ITERATIONS = 4
"""Rounds of k-modes: the partitions of the first few are as good as those of fifty, at a tenth of the time."""


@dataclass(frozen=True)
class Stats:
    """What there is to know of a table.

    Attributes:
        rows: Chunks.
        documents: Documents.
        bytes_by_form: Bytes that each form of the vectors takes, as `{"codes": …, "bits": …}`.
        bytes_on_disk: Bytes of all files, old versions included; None on object storage.
        versions: Versions that can still be read.
        index: `"none"` (every row is looked at) or the index's kind.
        indexed_rows: How many rows the index knows; the others are looked at one by one.
        recall: Share of the exact ten nearest that the search finds; None where it was not measured.
    """

    rows: int
    documents: int
    bytes_by_form: dict[str, int]
    bytes_on_disk: int | None
    versions: int
    index: str
    indexed_rows: int
    recall: float | None


def index_bits(handle: Handle, *, partitions: int | None) -> None:
    """Make the index over the bits; see `ChunkTable.index`."""
    from lancedb.index import IvfFlat

    if not handle.record.has_bits:
        raise InputError(f'{handle.label} keeps no bits, which the index is over; make it with keep="both"')
    rows = handle.table.count_rows("id IS NOT NULL")
    if rows < _SMALLEST_INDEXED:
        raise InputError(
            f"{handle.label} has {rows} rows; an index is worth its time from {_SMALLEST_INDEXED:,} on, and up to "
            "there every row is looked at in milliseconds"
        )
    parts = partitions or max(1, round(math.sqrt(rows) / 4))
    config = IvfFlat(distance_type="hamming", num_partitions=parts, max_iterations=_ITERATIONS)
    handle.writing(lambda: handle.table.create_index("bits", config=config, name=BITS_INDEX, replace=True))


def compact(handle: Handle, *, keep_versions: timedelta) -> None:
    """Put small files together and remove what no recent version needs; see `ChunkTable.compact`."""
    handle.writing(lambda: handle.table.delete("id IS NULL"))
    handle.writing(lambda: handle.table.optimize(cleanup_older_than=keep_versions))
    if handle.record.has_bits and handle.table.count_rows() >= INDEXED_FROM and _bits_index(handle) is None:
        index_bits(handle, partitions=None)


def tidy(handle: Handle) -> None:
    """Compact the table if many writes have left it in small files, or with many rows that its index does not know.

    A failure is told to the log alone: what was written before is written.
    """
    try:
        counts = handle.table.stats()
        rows, files = counts["num_rows"], counts["fragment_stats"]["num_fragments"]
        due = files > _FILES + rows // _ROWS_A_FILE
        if not due and rows >= INDEXED_FROM and handle.record.has_bits:
            due = rows - _indexed_rows(handle) > max(INDEXED_FROM - 1, rows // 2)
        if due:
            compact(handle, keep_versions=KEEP_VERSIONS)
    except (StoreError, RuntimeError, OSError, ValueError) as error:
        logger.warning("%s was written, and could not be compacted: %s", handle.label, error)


def _bits_index(handle: Handle) -> Any:
    return next((each for each in handle.table.list_indices() if each.name == BITS_INDEX), None)


def _indexed_rows(handle: Handle) -> int:
    return 0 if _bits_index(handle) is None else int(handle.table.index_stats(BITS_INDEX).num_indexed_rows)


def measure(handle: Handle, *, sample: int) -> Stats:
    """Measure a table; see `ChunkTable.stats`."""
    import pyarrow.compute as pc

    table, record = handle.table, handle.record

    with handle.reading():
        documents = handle.read(["document"])["document"]
        rows, versions = len(documents), len(table.list_versions())
        index, known = _bits_index(handle), _indexed_rows(handle)
    sizes = {"codes": record.has_codes * rows * record.dimensions}
    sizes["bits"] = record.has_bits * rows * -(-record.dimensions // 8)
    return Stats(
        rows=rows,
        documents=len(pc.unique(documents)),
        bytes_by_form={form: size for form, size in sizes.items() if size},
        bytes_on_disk=None if is_remote(handle.uri) else _size(table),
        versions=versions,
        index=index.index_type if index is not None else "none",
        indexed_rows=known,
        recall=_recall(handle, rows, sample) if sample and rows else None,
    )


def _size(table: object) -> int:
    folder = Path(str(getattr(table, "uri")).removeprefix("file://"))  # noqa: B009
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _recall(handle: Handle, rows: int, sample: int) -> float:
    """Ask for the neighbours of rows of its own, spread over the table, and compare with an exact search."""
    form = "codes" if handle.record.has_codes else "bits"
    if not handle.record.has_bits:
        return 1.0  # every search reads every row
    search = partial(search_bits, handle, k=10, where=None, oversampling=None, probes=None)
    shares = []
    for number in range(min(sample, rows)):
        row = handle.read([form], limit=1, offset=number * rows // min(sample, rows))
        found = vectors(row, handle.record)
        assert found is not None
        query = found[0].astype(np.int8)
        if handle.record.has_codes:
            truth = search_codes(handle, query, k=10, where=None)
        else:
            truth = search(query, rescore=False, exact=True)
        got = search(query, rescore=True, exact=False)
        # By score, not by name: of two equal chunks either will do.
        last = min(hit.score for hit in truth)
        shares.append(sum(hit.score >= last for hit in got) / len(truth))
    return float(np.mean(shares))
