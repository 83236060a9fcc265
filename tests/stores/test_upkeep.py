"""What a table does by itself: small files put together, an index that finds what a search of every row finds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pplx_embed_integrations import InputError
from pplx_embed_integrations.stores import ChunkTable, Hit, searching, upkeep

from .rows import codes_of, document

Make = Callable[..., ChunkTable]
DOCUMENTS, CHUNKS = 600, 20


def files(table: ChunkTable) -> int:
    return int(table.lance.stats()["fragment_stats"]["num_fragments"])


def answer(hits: list[Hit]) -> list[tuple[str, float]]:
    return [(hit.id, hit.score) for hit in hits]


@pytest.fixture
def indexed(make: Make, monkeypatch: pytest.MonkeyPatch) -> ChunkTable:
    """A table that has just become large enough for an index."""
    monkeypatch.setattr(upkeep, "INDEXED_FROM", DOCUMENTS * CHUNKS)
    table = make()
    half = DOCUMENTS // 2
    for numbers in (range(half), range(half, DOCUMENTS)):
        assert table.stats().index == "none"
        table.replace([document(n, CHUNKS) for n in numbers], [codes_of(n, CHUNKS) for n in numbers])
    return table


def test_a_large_table_has_an_index_that_misses_nothing(indexed: ChunkTable) -> None:
    stats = indexed.stats(recall_sample=5)
    assert (stats.index, stats.indexed_rows) == ("IvfFlat", DOCUMENTS * CHUNKS)
    assert stats.recall is not None
    assert stats.recall > 0.9  # of codes by 64 bits
    rows = np.concatenate([codes_of(n, CHUNKS) for n in range(DOCUMENTS)]).astype(float)
    lost = 0
    for query in codes_of(5000, 10):
        for options in ({}, {"where": {"n": {"$lt": 40}}}, {"by": "bits"}):
            found = indexed.search(query, k=10, **options)
            assert answer(found) == answer(indexed.search(query, k=10, exact=True, **options))
        scores = rows @ query.astype(float) / np.linalg.norm(rows, axis=1) / np.linalg.norm(query.astype(float))
        few, all_ = (indexed.search(query, k=1, oversampling=2000, probes=probes)[0] for probes in (1, None))
        assert all_.score == pytest.approx(scores.max(), abs=1e-12)
        lost += few.score < all_.score
    assert lost > 0  # so the index was used


def test_what_changes_after_the_index_is_found_as_it_is_now(indexed: ChunkTable) -> None:
    indexed.replace([document(3, CHUNKS, version=1)], [codes_of(9000, CHUNKS)])
    indexed.delete(documents=["doc-4"])
    for _ in range(2):
        [best] = indexed.search(codes_of(9000, CHUNKS)[7], k=1)
        assert (best.id, best.text) == ("doc-3-7", "document 3 version 1 part 7")
        old, deleted = indexed.search(codes_of(3, CHUNKS)[7], k=1)[0], indexed.search(codes_of(4, CHUNKS)[7], k=1)[0]
        assert max(old.score, deleted.score) < 0.9
        indexed.compact()  # which takes the new rows into the index
        assert indexed.stats().indexed_rows >= indexed.count()


def test_an_index_wants_bits_and_rows(filled: ChunkTable, make: Make, tmp_path: Any) -> None:
    with pytest.raises(InputError, match="has 60 rows; an index is worth its time from 10,000 on"):
        filled.index()
    with pytest.raises(InputError, match='keeps no bits, which the index is over; make it with keep="both"'):
        make(tmp_path / "codes", keep="int8").index()


def test_small_files_are_put_together_while_others_read(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "_FILES", 8)
    table, most = make(), 0
    table.replace([document(0)], [codes_of(0, 3)])
    snapshot = make().lance
    snapshot.checkout(table.lance.version)
    for n in range(1, 30):
        table.replace([document(n)], [codes_of(n, 3)])
        most = max(most, files(table))
    assert most <= 9
    assert table.documents() == {f"doc-{n}": 3 for n in range(30)}
    assert snapshot.search().to_arrow()["id"].to_pylist() == ["doc-0-0", "doc-0-1", "doc-0-2"]


def test_a_compaction_that_fails_leaves_the_write_done(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("No space left on device")

    monkeypatch.setattr(upkeep, "_FILES", 0)
    monkeypatch.setattr(upkeep, "compact", fail)
    table = make()
    assert table.replace([document(1)], [codes_of(1, 3)]).added == 3
    assert table.count() == 3
    assert "was written, and could not be compacted: No space left on device" in caplog.text


@pytest.mark.parametrize("then", ["replaced", "deleted"])
def test_a_search_is_of_one_version_whatever_happens_meanwhile(
    then: str, filled: ChunkTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = searching._taken

    def meanwhile(*arguments: Any) -> Any:
        monkeypatch.setattr(searching, "_taken", taken)
        if then == "replaced":
            filled.replace([document(3, version=1)], [codes_of(3, 3)])
        else:
            filled.delete(documents=["doc-3"])
        return taken(*arguments)

    monkeypatch.setattr(searching, "_taken", meanwhile)
    best = filled.search(codes_of(3, 3)[1], k=1)[0]
    assert best.score == 1.0 if then == "replaced" else best.document != "doc-3"
    if then == "replaced":
        assert best.text == "document 3 version 1 part 1"
