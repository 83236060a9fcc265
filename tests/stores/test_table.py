"""The table: documents as wholes, exact searches, forms, names, refusals."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pplx_embed_integrations import EncodingError, InputError, InputTypeError, StoreError
from pplx_embed_integrations.stores import Chunk, ChunkTable, StoredDocument
from pplx_embed_integrations.stores.scores import cosines, diversify

from .rows import DIMENSIONS, MADE_BY, codes_of, document

Make = Callable[..., ChunkTable]


def pack_bits(codes: np.ndarray) -> np.ndarray:
    return np.packbits(codes >= 0, axis=1)


def naive_cosines(query: np.ndarray, rows: np.ndarray) -> np.ndarray:
    left, right = query.astype(np.float64), rows.astype(np.float64)
    return (right @ left) / np.linalg.norm(left) / np.linalg.norm(right, axis=1)


def everything(table: ChunkTable) -> dict[str, list[str]]:
    """Texts by document, in order, read past this package."""
    rows = table.lance.search().where("id IS NOT NULL").select(["document", "position", "text"]).to_list()
    texts: dict[str, list[str]] = {}
    for row in sorted(rows, key=lambda row: (row["document"], row["position"])):
        texts.setdefault(row["document"], []).append(row["text"])
    return texts


def test_a_document_is_replaced_as_a_whole(filled: ChunkTable) -> None:
    shorter, longer = document(3, chunks=1, version=1), document(4, chunks=5, version=1)
    before = filled.lance.version
    written = filled.replace([shorter, longer], [codes_of(103, 1), codes_of(104, 5)])
    assert (written.added, written.deleted, written.version) == (6, 6, before + 1)
    texts = everything(filled)
    assert texts["doc-3"] == shorter.texts
    assert texts["doc-4"] == longer.texts
    assert filled.count() == 60
    assert filled.documents() == {f"doc-{n}": {3: 1, 4: 5}.get(n, 3) for n in range(20)}
    # What the shorter one had more of is found by nothing: not by its vector, its name, its words or a reader.
    assert all(hit.document != "doc-3" or hit.position == 0 for hit in filled.search(codes_of(3, 3)[2], k=60))
    assert filled.get(ids=["doc-3-2"]) == []
    assert not [hit for hit in filled.search_text("version 0 document 3", k=60) if hit.document == "doc-3"][1:]


def test_every_version_that_a_reader_can_see_is_whole(filled: ChunkTable) -> None:
    for version in range(1, 4):
        changed = [document(n, chunks=1 + (n + version) % 4, version=version) for n in range(20)]
        filled.replace(changed, [codes_of(n, len(each.chunks)) for n, each in enumerate(changed)])
    for each in filled.lance.list_versions():
        view = filled.lance
        view.checkout(each["version"])
        for name, texts in everything(filled).items():
            assert len({text.split(" part ")[0] for text in texts}) == 1, name
    filled.lance.checkout_latest()


def test_unchanged_documents_are_known(filled: ChunkTable) -> None:
    documents = [document(3), document(4, version=1), document(5, lang="en"), document(99), document(6, chunks=2)]
    compared = filled.compare(documents)
    assert [each.key for each in compared.unchanged] == ["doc-3"]
    assert [each.key for each in compared.changed] == ["doc-4", "doc-6"]
    assert [each.key for each in compared.renamed] == ["doc-5"]
    assert [each.key for each in compared.new] == ["doc-99"]
    assert compared.replaced == {"doc-4": 3, "doc-5": 3, "doc-6": 3}
    np.testing.assert_array_equal(filled.vectors_of(compared.renamed)[0], codes_of(5, 3))


def test_a_document_with_a_chunk_missing_is_not_unchanged(filled: ChunkTable) -> None:
    filled.delete(ids=["doc-3-1"])
    assert filled.compare([document(3)]).changed == [document(3)]


@pytest.mark.parametrize("keep", ["both", "int8", "bits"])
def test_codes_come_back_exactly(make: Make, keep: str) -> None:
    table = make(keep=keep)
    codes = codes_of(1, 7)
    table.replace([document(1, chunks=7)], [codes])
    got = np.stack([hit.vector for hit in table.get(with_vectors=True)])
    np.testing.assert_array_equal(got, codes if keep != "bits" else np.where(codes >= 0, 1, -1))


@pytest.mark.parametrize("by", ["both", "int8", "bits", None])
def test_searches_agree_with_numpy(filled: ChunkTable, by: Any) -> None:
    rows = np.concatenate([codes_of(n, 3) for n in range(20)])
    for query in codes_of(1000, 5):
        scores = naive_cosines(query, rows)
        if by == "bits":
            scores = naive_cosines(np.where(query >= 0, 1, -1), np.where(rows >= 0, 1, -1))
        hits = filled.search(query, k=10, by=by)
        np.testing.assert_allclose([hit.score for hit in hits], np.sort(scores)[::-1][:10], atol=1e-12)
        for hit in hits:
            row = int(hit.document.removeprefix("doc-")) * 3 + hit.position
            assert hit.score == pytest.approx(scores[row], abs=1e-12)
            np.testing.assert_array_equal(hit.vector, rows[row])


def test_wide_codes_have_exact_cosines() -> None:
    codes = np.random.default_rng(0).choice(np.array([-127, 126, 127], np.int8), (50, 2560))
    exact = [
        int(codes[0].astype(int) @ row) / np.sqrt(float(int(codes[0].astype(int) @ codes[0])) * int(row @ row))
        for row in codes.astype(int)
    ]
    np.testing.assert_allclose(cosines(codes[0], codes), exact, rtol=1e-15)


def test_bits_alone(make: Make) -> None:
    table = make(keep="bits")
    rows = codes_of(5, 40)
    packed = pack_bits(rows)
    table.replace([document(5, chunks=40)], [packed])
    query = codes_of(6, 1)[0]
    signs = np.where(rows >= 0, 1, -1)
    # The query's codes rank the candidates' signs ...
    np.testing.assert_allclose(
        [hit.score for hit in table.search(query, k=40)], np.sort(naive_cosines(query, signs))[::-1], atol=1e-12
    )
    # ... and a packed query ranks by Hamming distance alone.
    asked = np.where(query >= 0, 1, -1)
    np.testing.assert_allclose(
        [hit.score for hit in table.search(pack_bits(query[None])[0], k=40)],
        np.sort(naive_cosines(asked, signs))[::-1],
        atol=1e-12,
    )
    with pytest.raises(InputError, match="keeps bits alone"):
        table.search(query, by="int8")


def test_a_width_that_fills_no_byte(make: Make) -> None:
    table = make(dimensions=67)
    rows = codes_of(5, 40, 67)
    table.replace([document(5, chunks=40)], [rows])
    hits = table.search(rows[7], k=3, by="bits")
    assert (hits[0].position, hits[0].score) == (7, 1.0)
    np.testing.assert_allclose(table.search(rows[8], k=3)[0].score, 1.0)


@pytest.mark.parametrize("by", ["both", "int8", "bits"])
def test_ties_have_one_order(make: Make, by: Any) -> None:
    table = make()
    footer = codes_of(1, 1)[0]
    documents = [document(n, chunks=1) for n in range(400)]
    table.replace(documents[200:], [footer[None]] * 200)
    table.replace(documents[:200], [footer[None]] * 200)
    first = [hit.id for hit in table.search(footer, k=10, by=by, oversampling=1)]
    assert first == sorted(each.chunks[0].id for each in documents)[:10]
    table.compact()
    assert [hit.id for hit in table.search(footer, k=10, by=by, oversampling=1)] == first


@pytest.mark.parametrize("by", ["both", "int8", "bits"])
def test_filters_are_applied_before_the_search(filled: ChunkTable, by: Any) -> None:
    hits = filled.search(codes_of(3, 1)[0], k=5, by=by, where={"n": {"$in": [7, 8]}})
    assert len(hits) == 5
    assert {hit.document for hit in hits} == {"doc-7", "doc-8"}
    assert filled.search(codes_of(3, 1)[0], k=5, by=by, where={"n": -1}) == []


def test_words(filled: ChunkTable) -> None:
    filled.replace([StoredDocument("zh", [Chunk("zh-0", "机器学习很有趣")])], [codes_of(500, 1)])
    assert [hit.id for hit in filled.search_text("学习")] == ["zh-0"]
    assert {hit.document for hit in filled.search_text('"7" (part: AND', k=3)} == {"doc-7"}
    assert [hit.id for hit in filled.search_text("7", where={"n": 7}, k=2)] == ["doc-7-0", "doc-7-1"]
    assert filled.search_text("nowhere") == []
    filled.replace([document(7, version=9)], [codes_of(7, 3)])  # after the index was made
    assert {hit.document for hit in filled.search_text("9", k=6)} == {"doc-9", "doc-7"}


def test_upsert_and_delete(filled: ChunkTable) -> None:
    chunk = Chunk("doc-3-1", "new text", {"n": 3})
    filled.upsert([chunk, Chunk("loose", "loose text")], codes_of(9, 2), documents=["doc-3", "loose"], positions=[1, 0])
    assert filled.get(ids=["loose", "nowhere", "doc-3-1"])[1].text == "new text"
    assert filled.count() == 61
    assert filled.delete(ids=["loose", "nowhere"]) == 1
    assert filled.delete(documents=["doc-3", "doc-4"]) == 6
    assert filled.delete(where={"n": {"$gte": 15}}) == 15
    assert filled.delete(documents=[f"doc-{n}" for n in range(5000)], where={"n": 5}) == 3
    assert filled.delete(ids=[]) == 0
    assert filled.count() == 60 - 6 - 15 - 3
    with pytest.raises(InputError, match="say what to delete"):
        filled.delete()


def test_another_model_width_or_form_is_refused_by_name(filled: ChunkTable, make: Make) -> None:
    with pytest.raises(InputError, match="document: 'context-v1' there, 'other' given"):
        make(filled.uri, made_by={**MADE_BY, "document": "other"})
    with pytest.raises(InputError, match="dimensions: 64 there, 128 given"):
        make(filled.uri, dimensions=128)
    with pytest.raises(InputError, match="keep: 'both' there, 'bits' given"):
        make(filled.uri, keep="bits")
    assert make(filled.uri, keep=None).record == ChunkTable(filled.uri).record == filled.record


def test_a_table_that_is_not_there_or_not_ours(filled: ChunkTable, tmp_path: Path) -> None:
    import lancedb
    import pyarrow as pa

    with pytest.raises(StoreError, match="there is no folder"):
        ChunkTable(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(StoreError, match="no table 'other'; it has: chunks"):
        ChunkTable(filled.uri, name="other")
    lancedb.connect(filled.uri).create_table("foreign", pa.table({"x": [1]}))
    with pytest.raises(StoreError, match="not made by this package"):
        ChunkTable(filled.uri, name="foreign", made_by=MADE_BY, dimensions=DIMENSIONS)
    with pytest.raises(InputError, match="is a file"):
        ChunkTable(__file__, made_by=MADE_BY, dimensions=DIMENSIONS)


@pytest.mark.parametrize(
    ("documents", "codes", "error", "message"),
    [
        ([document(1)], [codes_of(1, 2)], InputError, "has 3 chunks, so 3 x 64"),
        ([document(1)], [codes_of(1, 3, 32)], InputError, r"given: int8 of shape \(3, 32\)"),
        ([document(1)], [codes_of(1, 3).astype(np.float32)], InputError, "given: float32"),
        ([document(1)], [pack_bits(codes_of(1, 3))], InputError, "given: uint8"),
        ([document(1)], [np.zeros((3, 64), np.int8)], EncodingError, "'doc-1' is all zeros"),
        ([document(1)], [[[1] * 64]], InputTypeError, "must be an array"),
        ([document(1), document(1)], [codes_of(1, 3)] * 2, InputError, "given twice"),
        ([document(1)], [], InputError, "1 documents came with the vectors of 0"),
        ([StoredDocument("x", [Chunk("doc-2-0", "t")])], [codes_of(1, 1)], InputError, "chunk of document 'doc-2'"),
    ],
)
def test_what_cannot_be_stored(
    filled: ChunkTable, documents: Any, codes: Any, error: type[Exception], message: str
) -> None:
    before = everything(filled)
    with pytest.raises(error, match=message):
        filled.replace(documents, codes)
    assert everything(filled) == before


def test_what_is_no_query(filled: ChunkTable) -> None:
    for query, error, message in [
        (np.ones(64, np.float32), InputError, "given: float32"),
        (np.ones(32, np.int8), InputError, r"shape \(32,\)"),
        (np.zeros(64, np.int8), EncodingError, "all zeros"),
    ]:
        with pytest.raises(error, match=message):
            filled.search(query)
    for options, message in [
        ({"k": 0}, "positive integer"), ({"by": "hamming"}, "unknown"), ({"oversampling": 0.5}, "at least 1"),
    ]:  # fmt: skip
        with pytest.raises(InputError, match=message):
            filled.search(codes_of(1, 1)[0], **options)


def test_what_is_no_document() -> None:
    with pytest.raises(InputError, match="no chunk"):
        StoredDocument("x", [])
    with pytest.raises(InputTypeError, match="key must be a string"):
        StoredDocument("", [Chunk("a", "b")])
    with pytest.raises(InputError, match="same id"):
        StoredDocument("x", [Chunk("a", "b"), Chunk("a", "c")])


def test_compaction_and_stats(filled: ChunkTable) -> None:
    for version in range(1, 6):
        filled.replace([document(n, chunks=2, version=version) for n in range(20)], [codes_of(n, 2) for n in range(20)])
    before, answer = filled.stats(recall_sample=5), filled.search(codes_of(3, 1)[0], k=5)
    filled.compact(keep_versions=timedelta(milliseconds=1))
    after = filled.stats()
    assert (after.rows, after.documents, after.recall) == (40, 20, None)
    assert before.recall == 1.0
    assert after.bytes_by_form == {"codes": 40 * 64, "bits": 40 * 8}
    assert after.versions < before.versions
    assert after.bytes_on_disk < before.bytes_on_disk
    assert filled.search(codes_of(3, 1)[0], k=5) == answer
    assert len(filled.lance) == 40  # nothing void is left


def test_diversity_follows_the_definition() -> None:
    rows, query = codes_of(1, 30), codes_of(2, 1)[0]
    relevance = naive_cosines(query, rows)
    chosen: list[int] = []
    for _ in range(8):
        gains = {
            row: 0.6 * relevance[row]
            - 0.4 * max((naive_cosines(rows[row], rows[c : c + 1])[0] for c in chosen), default=0)
            for row in range(30)
            if row not in chosen
        }
        chosen.append(max(gains, key=gains.__getitem__))
    assert diversify(query, rows, k=8, diversity=0.4) == chosen
