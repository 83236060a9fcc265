"""Rows staged in many processes and committed by one: whole documents, one version, whatever comes between."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pplx_embed_integrations import InputError, StoreError
from pplx_embed_integrations.stores import Chunk, ChunkTable, Held, Staged, StoredDocument

from .rows import codes_of, document

Make = Callable[..., ChunkTable]


def staged(table: ChunkTable, *documents: StoredDocument, seed: int = 0) -> Staged:
    return table.stage(documents, [codes_of(seed + n, len(each.chunks)) for n, each in enumerate(documents)])


def texts(table: ChunkTable) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for hit in table.get():
        found.setdefault(hit.document, []).append(hit.text)
    return found


def test_what_is_staged_is_seen_by_nobody_until_it_is_committed(make: Make) -> None:
    table, elsewhere = make(), make()
    parts = [staged(elsewhere, document(n), document(n + 10), seed=n) for n in range(3)]
    assert table.count() == 0
    version = table.lance.version
    done = table.commit(pickle.loads(pickle.dumps(parts)))
    assert (done.added, done.replaced, done.version) == (18, {}, version + 1)
    assert texts(make()) == {f"doc-{n}": [chunk.text for chunk in document(n).chunks] for n in (0, 1, 2, 10, 11, 12)}


@pytest.mark.parametrize("keep", ["both", "int8", "bits"])
def test_committed_rows_are_those_that_replace_writes(make: Make, tmp_path: Any, keep: str) -> None:
    one, other = make(tmp_path / "one", keep=keep), make(tmp_path / "other", keep=keep)
    documents = [document(n, chunks=1 + n, tags=["a", "b"], year="1990", born=1815) for n in range(4)]
    codes = [codes_of(n, 1 + n) for n in range(4)]
    one.replace(documents, codes)
    other.commit([other.stage(documents, codes)])
    order = [("key", "ascending")]
    rows = [table.lance.to_arrow().drop(["write"]).sort_by(order) for table in (one, other)]
    assert rows[0] == rows[1]
    assert [hit.id for hit in other.search(codes[2][1], k=3)] == [hit.id for hit in one.search(codes[2][1], k=3)]
    assert other.count({"year": "1990"}) == 10
    assert other.compare(documents).unchanged == documents


def test_a_document_that_is_there_is_replaced_as_a_whole_in_the_same_version(filled: ChunkTable) -> None:
    before = filled.lance.version
    done = filled.commit(
        [staged(filled, document(3, chunks=1, version=1), document(50)), staged(filled, document(4, version=1))]
    )
    assert set(done.replaced) == {"doc-3", "doc-4"}
    assert done.version == before + 1
    found = texts(filled)
    assert len(found) == 21
    assert found["doc-3"] == ["document 3 version 1 part 0"]
    assert found["doc-4"] == [f"document 4 version 1 part {row}" for row in range(3)]
    assert found["doc-5"] == [f"document 5 version 0 part {row}" for row in range(3)]


def test_all_documents_of_a_file_replaced(filled: ChunkTable) -> None:
    filled.commit([staged(filled, *[document(n, chunks=2, version=1) for n in range(20)])])
    assert {len(chunks) for chunks in texts(filled).values()} == {2}
    filled.replace([document(0, version=2)], [codes_of(1, 3)])  # the other way of writing goes on from there
    filled.compact()
    assert texts(filled)["doc-0"] == [f"document 0 version 2 part {row}" for row in range(3)]
    assert len(texts(filled)) == 20


def test_a_document_that_was_staged_twice_is_there_once(make: Make) -> None:
    table = make()
    first, second, third = (staged(table, document(1, version=v), document(10 + v)) for v in range(3))
    done = table.commit([first, second, third])
    assert done.replaced == {"doc-1": {first.write, second.write}}
    assert texts(table)["doc-1"][0] == "document 1 version 2 part 0"
    assert len(texts(table)) == 4


def test_nothing_staged_is_no_version(make: Make) -> None:
    table = make()
    empty = table.stage([], [])
    assert table.commit([empty]).version == table.lance.version == 1


@pytest.mark.parametrize("rival", ["commit", "replace"])
def test_two_that_add_the_same_document_at_the_same_moment(
    make: Make, monkeypatch: pytest.MonkeyPatch, rival: str
) -> None:
    import lance

    table, other = make(), make()
    mine, theirs = staged(table, document(1, chunks=4)), staged(other, document(1, chunks=2, version=1))
    commit = lance.LanceDataset.commit

    def late(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(lance.LanceDataset, "commit", commit)
        if rival == "commit":
            other.commit([theirs])
        else:
            other.replace([document(1, chunks=2, version=1)], [codes_of(9, 2)])
        return commit(*arguments, **options)

    monkeypatch.setattr(lance.LanceDataset, "commit", late)
    table.commit([mine])
    assert texts(make())["doc-1"] in (
        [chunk.text for chunk in document(1, chunks=4).chunks],
        [chunk.text for chunk in document(1, chunks=2, version=1).chunks],
    )


def test_one_that_replaces_what_another_is_replacing_tries_again(
    filled: ChunkTable, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lance

    other, commit = make(), lance.LanceDataset.commit
    mine = staged(filled, document(1, version=1))

    def late(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(lance.LanceDataset, "commit", commit)
        other.replace([document(1, chunks=5, version=2)], [codes_of(9, 5)])
        return commit(*arguments, **options)

    monkeypatch.setattr(lance.LanceDataset, "commit", late)
    filled.commit([mine])
    assert texts(make())["doc-1"] == [chunk.text for chunk in document(1, version=1).chunks]
    assert len(texts(make())) == 20


def test_held_tells_whole_documents_apart(filled: ChunkTable) -> None:
    assert not ChunkTable(filled.uri, name="none", made_by={"a": 1}, dimensions=8).held().has(document(0))
    filled.commit([staged(filled, document(30, chunks=5)), staged(filled, document(2, version=1))])
    filled.delete(ids=["doc-7-2"])  # the last chunk
    filled.delete(ids=["doc-8-0"])
    filled.upsert([Chunk("loose", "a text", {})], codes_of(1, 1))
    held = pickle.loads(pickle.dumps(filled.held()))
    assert isinstance(held, Held)
    there = [n for n in range(20) if held.has(document(n))]
    assert there == [n for n in range(20) if n not in (2, 7, 8)]
    assert held.has(document(30, chunks=5))
    assert held.has(document(2, version=1))
    assert not held.has(document(31))
    assert not held.has(document(0, lang="en"))
    filled.compact()
    assert np.array_equal(filled.held().keys, held.keys)


def test_what_does_not_fit_is_refused(make: Make, tmp_path: Path) -> None:
    table = make()
    with pytest.raises(InputError, match="given twice"):
        staged(table, document(1), document(1))
    with pytest.raises(InputError, match="document 'doc-1'"):
        table.stage([document(1)], [codes_of(1, 2)])
    part = staged(table, document(1))
    for file in (Path(table.uri) / "chunks.lance" / "data").iterdir():
        file.rename(tmp_path / file.name)  # as if another machine had written it
    with pytest.raises(StoreError, match="must see one folder, on a disk that their machines share"):
        table.commit([part])
    assert table.count() == 0
    part = staged(table, document(1))
    table.drop()
    with pytest.raises(StoreError):
        table.commit([part])
