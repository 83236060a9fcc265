"""Searching: bits by Hamming distance, their candidates by cosine; codes alone; words; all with a filter.

Knows LanceDB's queries and how ties are broken; must not know how rows were written, nor any model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..vectors import Vectors
from .documents import Hit
from .handle import Handle
from .rows import CONTENT, hits, matrix, vectors
from .scores import check_query, cosines, signs

if TYPE_CHECKING:
    import pyarrow as pa

By = Literal["both", "int8", "bits"]

CANDIDATES = 200
"""At least so many candidates are rescored: fewer cost recall and save next to nothing."""
OVERSAMPLING = 20
TEXT_INDEX = "text_idx"
EVERY = 1_000_000
"""Partitions of the index that are looked into: all, so that it finds what a search of every row finds."""
ORDER = ["document", "position", "id"]
"""Columns that equal scores are ordered by."""
_ROWS_READ = 4096
_WIDER = 8


def search(
    handle: Handle,
    query: npt.ArrayLike,
    *,
    k: int,
    where: str | None,
    oversampling: float | None,
    by: By | None,
    probes: int | None,
    exact: bool,
) -> list[Hit]:
    """Search by what is kept, or as the caller wants it; see `ChunkTable.search`."""
    packed = np.asarray(query).dtype == np.uint8
    asked = check_query(query, dimensions=handle.record.dimensions)
    how = _how(handle, by, k, oversampling, packed=packed)
    if how == "int8":
        return search_codes(handle, asked, k=k, where=where)
    return search_bits(
        handle, asked, k=k, where=where, oversampling=oversampling, rescore=how == "both", probes=probes, exact=exact
    )


def _how(handle: Handle, by: By | None, k: int, oversampling: float | None, *, packed: bool) -> By:
    if by is not None and by not in get_args(By):
        raise InputError(f'by={by!r} is unknown; use "both", "int8" or "bits"')
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise InputError(f"k must be a positive integer, not {k!r}")
    if oversampling is not None and oversampling < 1:
        raise InputError(f"oversampling must be at least 1, not {oversampling!r}")
    if by == "int8" and not handle.record.has_codes:
        raise InputError(f'by="int8" asks for codes, and {handle.label} keeps bits alone')
    if by in ("bits", "both") and not handle.record.has_bits:
        raise InputError(f'by="{by}" asks for bits, and {handle.label} keeps codes alone')
    if by is not None:
        return by
    return "int8" if not handle.record.has_bits else "bits" if packed else "both"


def search_bits(
    handle: Handle,
    query: npt.NDArray[np.int8],
    *,
    k: int,
    where: str | None,
    oversampling: float | None,
    rescore: bool,
    probes: int | None,
    exact: bool,
) -> list[Hit]:
    """Find candidates by Hamming distance and rank them by cosine.

    Args:
        handle: The table.
        query: `[d]` int8.
        k: How many are wanted.
        where: SQL.
        oversampling: Candidates for each one that is wanted.
        rescore: Rank by the cosine of the query's codes with what is kept; else by that of the bits alone.
        probes: Partitions of the index to look into; all by default.
        exact: Look at every row, index or not.
    """
    wanted = (
        k if not rescore else max(k, round(k * oversampling) if oversampling else max(k * OVERSAMPLING, CANDIDATES))
    )
    for table in (handle.table, None):
        table = table or handle.snapshot()
        found = _nearest(handle, table, query, wanted, where, probes, exact)
        rows = vectors(found, handle.record)
        assert rows is not None
        if rescore:
            scores = cosines(query, rows)
        else:
            scores = 1.0 - 2.0 * found["_distance"].to_numpy().astype(np.float64) / handle.record.dimensions
        order = _order(scores, found)[:k]
        with handle.reading(where):
            chosen = _taken(table, found["_rowid"].to_numpy()[order].tolist(), scores[order], rows[order])
        if len(chosen) == len(order):
            return chosen
        # Another writer replaced some of them since, so all of it is read from one version.
    raise AssertionError  # a snapshot loses no row


def _nearest(
    handle: Handle,
    table: Any,
    query: npt.NDArray[np.int8],
    wanted: int,
    where: str | None,
    probes: int | None,
    exact: bool,
) -> pa.Table:
    """Read the nearest rows by Hamming distance: at least `wanted` of them, and none left out that ties with another.

    Distances are small integers, so many rows tie, and which of them a limit keeps is chance. So more are asked for
    than wanted, and those as far away as the last one go: all that are nearer are there.
    """
    bits = signs(query[None])[0]
    columns = [*ORDER, "codes" if handle.record.has_codes else "bits", "_distance"]
    limit = wanted + max(wanted // 2, 64)
    while True:
        asked = table.search(bits, vector_column_name="bits").distance_type("hamming").limit(limit)
        asked = asked.where(where) if where else asked
        asked = asked.bypass_vector_index() if exact else asked
        asked = asked.nprobes(probes or EVERY)
        with handle.reading(where):
            found = asked.select(columns).with_row_id(True).to_arrow()
        if len(found) < limit:
            return found
        distances = found["_distance"].to_numpy()
        nearer = np.flatnonzero(distances < distances.max())
        if len(nearer) >= wanted:
            return found.take(nearer)
        limit *= _WIDER


def _order(scores: npt.NDArray[np.float64], found: pa.Table) -> npt.NDArray[np.int64]:
    """Order by score; equal ones by document and position, so that the same question has the same answer."""
    documents = np.asarray(found["document"].to_pylist(), dtype=object)
    positions = np.asarray(found["position"].to_pylist(), dtype=np.int64)
    names = np.asarray(found["id"].to_pylist(), dtype=object)
    keys = sorted(range(len(scores)), key=lambda row: (-scores[row], documents[row], positions[row], names[row]))
    return np.asarray(keys, dtype=np.int64)


def search_codes(handle: Handle, query: npt.NDArray[np.int8], *, k: int, where: str | None) -> list[Hit]:
    """Rank every row by the cosine of its codes: exact, and reads all of them.

    Args:
        handle: The table.
        query: `[d]` int8.
        k: How many are wanted.
        where: SQL.
    """
    import pyarrow as pa

    snapshot = handle.snapshot()  # rows are read twice, and must be of one version
    condition = f"id IS NOT NULL AND {where}" if where else "id IS NOT NULL"
    best: pa.Table | None = None
    scores = np.empty(0)
    with handle.reading(where):
        reader = snapshot.search().where(condition).select([*ORDER, "codes"]).with_row_id(True)
        for batch in reader.to_batches(batch_size=_ROWS_READ):
            table = pa.Table.from_batches([batch])
            fresh = cosines(query, matrix(table["codes"], np.int8))
            table = table.select([*ORDER, "_rowid"])
            best = table if best is None else pa.concat_tables([best, table])
            scores = np.concatenate([scores, fresh])
            if len(scores) > k:
                last = np.partition(scores, len(scores) - k)[len(scores) - k]
                kept = np.flatnonzero(scores >= last)  # all that tie with the last one stay
                best, scores = best.take(kept), scores[kept]
        if best is None:
            return []
        order = _order(scores, best)[:k]
        return _taken(snapshot, best["_rowid"].to_numpy()[order].tolist(), scores[order], None)


def _taken(table: Any, rowids: list[int], scores: npt.NDArray[np.float64], found: Vectors | None) -> list[Hit]:
    """Read the chunks in these rows, and their codes where they were not found before; [] if a row is gone."""
    if not rowids:
        return []
    forms = ["codes"] if found is None else []
    read = table.take_row_ids(rowids).select([*CONTENT, *forms]).with_row_id().to_arrow()
    place = {rowid: row for row, rowid in enumerate(read["_rowid"].to_pylist())}
    if len(place) < len(rowids):
        return []
    ordered = read.take([place[rowid] for rowid in rowids])
    codes = matrix(ordered["codes"], np.int8) if found is None else found
    return hits(ordered, scores=scores.tolist(), found=codes)


def search_words(handle: Handle, text: str, *, k: int, where: str | None) -> list[Hit]:
    """Find chunks by their words (BM25); see `ChunkTable.search_text`."""
    from lancedb.query import MatchQuery

    if not isinstance(text, str):
        raise InputError(f"a search by words takes a string, not {type(text).__name__}")
    if not any(index.name == TEXT_INDEX for index in handle.table.list_indices()):
        make_text_index(handle)
    match: Any = MatchQuery  # its optional arguments look required to type checkers
    asked = handle.table.search(match(text, "text"), query_type="fts").limit(k + 64)
    asked = asked.where(where) if where else asked
    forms = ["codes"] if handle.record.has_codes else ["bits"]
    with handle.reading(where):
        found = asked.select([*CONTENT, *forms, "_score"]).to_arrow()
    if not len(found):
        return []
    scores = found["_score"].to_numpy().astype(np.float64)
    order = _order(scores, found)[:k]
    rows = vectors(found, handle.record)
    return hits(found.take(order), scores=scores[order].tolist(), found=None if rows is None else rows[order])


def make_text_index(handle: Handle) -> None:
    """Make the full-text index: words as Unicode cuts them, in any language, as they are written."""
    from lancedb.index import FTS

    config = FTS(base_tokenizer="icu", stem=False, remove_stop_words=False)
    handle.writing(lambda: handle.table.create_index("text", config=config, name=TEXT_INDEX, replace=True))
