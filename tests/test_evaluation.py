"""Judged collections, and figures that agree with a search and metrics written out by hand."""

import gzip
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from pplx_embed_integrations import InputError, PplxBiEncoder
from pplx_embed_integrations.cli import main
from pplx_embed_integrations.evaluation import Collection, Evaluation, evaluate, load_collection

WORDS = (
    "tide", "moon", "harbour", "ebb", "flow", "ship", "anchor", "rope",
    "sail", "wind", "storm", "calm", "reef", "sand", "shell", "gull",
)  # fmt: skip


def sentences(document: int) -> list[str]:
    return [
        f"{WORDS[(document * 3 + part) % 16]} and {WORDS[(document + part * 5) % 16]} {document}." for part in range(3)
    ]


@pytest.fixture
def collection() -> Collection:
    documents = {f"d{number}": " ".join(sentences(number)) for number in range(30)}
    queries = {f"q{number}": f"{WORDS[number]} {WORDS[(number * 7) % 16]}" for number in range(8)}
    judgements = {f"q{number}": {f"d{number}": 2, f"d{number + 9}": 1, f"d{number + 3}": 0} for number in range(8)}
    return Collection(documents, queries, judgements)


@pytest.fixture
def beir(tmp_path: Path, collection: Collection) -> Path:
    folder = tmp_path / "collection"
    (folder / "qrels").mkdir(parents=True)
    corpus = [{"_id": key, "title": "", "text": text} for key, text in collection.documents.items()]
    corpus.append({"_id": "blank", "title": " ", "text": ""})
    (folder / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in corpus))
    queries = [{"_id": key, "text": text} for key, text in collection.queries.items()]
    (folder / "queries.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*queries, {"_id": "unjudged"}]))
    rows = [f"{q}\t{d}\t{grade}" for q, grades in collection.judgements.items() for d, grade in grades.items()]
    (folder / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]) + "\n")
    return folder


def split(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in re.finditer(r"\S[^.]*\.", text)]


def cut(text: str) -> list[str]:
    return [text[start:end] for start, end in split(text)]


def by_hand(collection: Collection, queries: np.ndarray, documents: list[np.ndarray]) -> tuple[float, float]:
    """nDCG@10 and recall@10 as their definitions read, over a search by loops."""
    ndcg, recall = [], []
    for grades, query in zip(collection.judgements.values(), queries.astype(float), strict=True):
        scores = {}
        for key, chunks in zip(collection.documents, documents, strict=True):
            scores[key] = max(
                float(chunk @ query / (np.linalg.norm(chunk) * np.linalg.norm(query))) for chunk in chunks.astype(float)
            )
        top = sorted(scores, key=lambda key: -scores[key])[:10]
        gain = sum(grades.get(key, 0) / math.log2(rank + 2) for rank, key in enumerate(top))
        best = sum(g / math.log2(rank + 2) for rank, g in enumerate(sorted(grades.values(), reverse=True)))
        ndcg.append(gain / best)
        recall.append(len([key for key in top if grades.get(key, 0) > 0]) / 2)
    return float(np.mean(ndcg)), float(np.mean(recall))


def ndcg_and_recall(evaluation: Evaluation) -> list[tuple[float, float]]:
    means = [row.means["documents"] for row in evaluation.measurements]
    return [(each["nDCG@10"], each["recall@10"]) for each in means]


def test_figures_agree_with_a_search_by_hand(collection: Collection, biencoder: PplxBiEncoder) -> None:
    measured = ndcg_and_recall(evaluate(collection, embedder=biencoder, split=split))
    chunks = [cut(text) for text in collection.documents.values()]
    queries = list(collection.queries.values())
    v1, context = biencoder.query, biencoder.document
    alone = [context.encode(pieces) for pieces in chunks]
    expected = [
        by_hand(collection, v1.encode(queries), context.encode_documents(chunks)),
        by_hand(collection, v1.encode(queries), alone),
        by_hand(collection, context.encode(queries), context.encode_documents(chunks)),
        by_hand(collection, context.encode(queries), alone),
        by_hand(collection, v1.encode(queries), [v1.encode(pieces) for pieces in chunks]),
    ]
    np.testing.assert_allclose(measured[:5], expected, rtol=1e-9)
    assert len(set(expected)) > 1


def test_forms_and_widths_agree_with_encoding_in_that_form(collection: Collection, biencoder: PplxBiEncoder) -> None:
    rows = evaluate(collection, embedder=biencoder, split=split, against=()).measurements[5:]
    measured = {(row.dimensions, row.form): row for row in rows}
    assert [(*key, row.bytes_per_vector) for key, row in measured.items()] == [
        (32, "float32", 128),
        (32, "binary", 4),
        (16, "float32", 64),
        (16, "int8", 16),
        (16, "binary", 2),
        (8, "float32", 32),
        (8, "int8", 8),
        (8, "binary", 1),
    ]
    chunks = [cut(text) for text in collection.documents.values()]
    queries = list(collection.queries.values())
    for key, quantization in [((32, "float32"), None), ((16, "int8"), "int8")]:
        options = {"dimensions": key[0], "quantization": quantization}
        expected = by_hand(
            collection, biencoder.encode_queries(queries, **options), biencoder.encode_documents(chunks, **options)
        )
        means = measured[key].means["documents"]
        assert (means["nDCG@10"], means["recall@10"]) == pytest.approx(expected)


def test_one_model_on_both_sides_has_fewer_pairings(
    collection: Collection, replica_v1: Path, replica_context_v1: Path
) -> None:
    plain = evaluate(collection, embedder=PplxBiEncoder(replica_v1), split=split, against=())
    assert {row.contextual for row in plain.measurements} == {False}
    assert len(plain.measurements) == 1 + 8
    contextual = evaluate(collection, embedder=PplxBiEncoder(replica_context_v1), split=split, against=())
    assert [row.contextual for row in contextual.measurements[:2]] == [True, False]


def test_two_folders_of_one_name_are_told_apart(
    collection: Collection, replica_v1: Path, replica_context_v1: Path, tmp_path: Path
) -> None:
    for name, source in (("one", replica_v1), ("other", replica_context_v1)):
        shutil.copytree(source, tmp_path / name / "model")
    pair = PplxBiEncoder(query_model=tmp_path / "one" / "model", document_model=tmp_path / "other" / "model")
    found = evaluate(collection.first(1), embedder=pair, split=split, against=())
    assert found.measurements[0].query_model == "model (queries)"
    assert found.measurements[0].document_model == "model (documents)"


def test_layout_is_read_as_beir_means_it(beir: Path, collection: Collection) -> None:
    loaded = load_collection(beir)
    assert loaded.documents == collection.documents
    assert loaded.queries == collection.queries
    assert loaded.judgements == collection.judgements
    assert loaded.empty == ("blank",)


def test_a_title_comes_before_its_text(beir: Path) -> None:
    with (beir / "corpus.jsonl").open("a") as corpus:
        corpus.write('{"_id": "t", "title": "Title", "text": "Text."}\n')
    assert load_collection(beir).documents["t"] == "Title\n\nText."


def test_the_first_queries_keep_their_judged_documents(collection: Collection) -> None:
    smaller = collection.first(2)
    assert list(smaller.queries) == ["q0", "q1"]
    assert {"d0", "d9", "d3", "d1", "d10", "d4"} < set(smaller.documents)
    assert len(smaller.documents) == 12


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("corpus.jsonl", None, "corpus.jsonl; the BEIR layout is"),
        ("qrels/test.tsv", None, "qrels/test.tsv; the BEIR layout is"),
        ("corpus.jsonl", '{"_id": "1", "text": "a"}\n{oops\n', "corpus.jsonl line 2 is no JSON"),
        ("corpus.jsonl", '{"text": "a"}\n', 'line 1 has no "_id"'),
        ("corpus.jsonl", b"\xff\xfe", "is not UTF-8 text"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq0\td0\n", "test.tsv line 2 is not `query id<TAB>"),
        ("qrels/test.tsv", "q0\td0\t0.5\n", "test.tsv line 1 is not `query id<TAB>"),
        ("qrels/test.tsv", "q99\td0\t1\n", "0 queries with a relevant document"),
        ("qrels/test.tsv", "q0\td0\t0\n", "0 queries with a relevant document"),
    ],
)
def test_a_broken_file_is_named(beir: Path, file: str, content: str | bytes | None, told: str) -> None:
    if content is None:
        (beir / file).unlink()
    else:
        (beir / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as error:
        load_collection(beir)
    assert told in str(error.value)


def test_an_untidy_collection_is_counted_and_gone_on_with(beir: Path, collection: Collection) -> None:
    with (beir / "corpus.jsonl").open("a") as corpus:
        corpus.write('{"_id": "d3", "text": "Another."}\n{"_id": 7, "title": null, "text": "half \\ud800"}\n')
    queries = (beir / "queries.jsonl").read_text()
    (beir / "queries.jsonl").write_bytes(b"\xef\xbb\xbf" + queries.replace("\n", "\r\n").encode())
    with (beir / "queries.jsonl").open("a") as file:
        file.write('{"_id": "silent", "text": " "}\n')
    with (beir / "qrels" / "test.tsv").open("a") as qrels:
        qrels.write("q0\tnowhere\t1\nq1\tnowhere\t1.0\nq99\td0\t1\nq0\td0\t1\nsilent\td0\t1\n")
    loaded = load_collection(beir)
    assert loaded.documents == {**collection.documents, "7": "half �"}
    assert loaded.queries == collection.queries
    assert loaded.judgements["q0"] == {"d0": 2, "d9": 1, "d3": 0, "nowhere": 1}
    assert set(loaded.notes) == {
        "lines of corpus.jsonl with the _id of an earlier document, which stands: 1",
        "texts with half a character (a lone surrogate), read as �: 1",
        "judgements of queries that are not there: 1",
        "judgements of what was judged before, of which the first stands: 1",
        "judged documents that are not in the corpus, counted as not found: 1",
        "queries without text, not asked: 1",
        "queries without a relevant document, not asked: 1",
    }


@pytest.mark.parametrize(
    "line",
    ["{q}\t{d}\t{g}.0\r\n", "{q} 0 {d} {g}\n", "{q}\t0\t{d}\t{g}\n", "{q} {d} {g}\n", "{q}\tQ0\t{d} \t {g}\t\n"],
    ids=["scores with a point", "TREC", "TREC with tabs", "spaces", "odd spaces"],
)
@pytest.mark.parametrize("name", ["test.tsv", "test.trec.gz"])
def test_judgements_in_other_columns_are_the_same(beir: Path, collection: Collection, line: str, name: str) -> None:
    rows = [
        line.format(q=q, d=d, g=grade) for q, grades in collection.judgements.items() for d, grade in grades.items()
    ]
    (beir / "qrels" / "test.tsv").unlink()
    data = "".join(rows).encode()
    (beir / "qrels" / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    corpus = beir / "corpus.jsonl"
    (beir / "corpus.jsonl.gz").write_bytes(gzip.compress(corpus.read_bytes()))
    corpus.unlink()
    loaded = load_collection(beir)
    assert loaded.judgements == collection.judgements
    assert loaded.documents == collection.documents


def test_a_document_without_chunks_takes_no_score_of_its_neighbour(
    collection: Collection, biencoder: PplxBiEncoder
) -> None:
    without = {"d0", "d9", "d10", "d29"}  # the first, neighbours, and the last

    def some(text: str) -> list[tuple[int, int]]:
        number = text.rstrip(".").rsplit(" ", 1)[1]
        return [] if f"d{number}" in without else split(text)

    measured = ndcg_and_recall(evaluate(collection, embedder=biencoder, split=some, against=()))
    kept = {key: text for key, text in collection.documents.items() if key not in without}
    chunks = [cut(text) for text in kept.values()]
    queries = list(collection.queries.values())
    smaller = Collection(kept, collection.queries, collection.judgements)
    expected = [
        by_hand(smaller, biencoder.query.encode(queries), biencoder.document.encode_documents(chunks)),
        by_hand(smaller, biencoder.query.encode(queries), [biencoder.document.encode(pieces) for pieces in chunks]),
    ]
    np.testing.assert_allclose(measured[:2], expected, rtol=1e-9)
    with pytest.raises(InputError, match="no document of the collection has a chunk"):
        evaluate(collection, embedder=biencoder, split=lambda text: [])


def test_a_split_that_is_not_there_names_those_that_are(beir: Path) -> None:
    with pytest.raises(InputError, match=r"there are: test; choose one with --split"):
        load_collection(beir, split="dev")


def test_command_prints_one_table_and_writes_the_same_figures(
    beir: Path, tmp_path: Path, replica_v1: Path, replica_context_v1: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = tmp_path / "figures.json"
    models = ["--query-model", str(replica_v1), "--document-model", str(replica_context_v1)]
    page = tmp_path / "page.html"
    command = ["evaluate", str(beir), *models, "--chunk-tokens", "12", "--json", str(written), "--report", str(page)]
    assert main([*command, "--explain"]) == 0
    assert "tide" in page.read_text(encoding="utf-8")
    output = capsys.readouterr().out
    heading, what, _, figures, *_ = output.split("\n\n")
    wanted = "30 documents (1 without text are left out), 8 judged queries; chunks of at most 12 tokens"
    assert wanted in " ".join(heading.split())
    evaluation = Evaluation.from_json(written.read_text(encoding="utf-8"))
    assert len(what.splitlines()) == len(figures.splitlines()) == len(evaluation.measurements) + 2 == 16
    for row, measurement in zip(figures.splitlines()[2:], evaluation.measurements, strict=True):
        means = measurement.means["documents"]
        names = ("hit@1", "hit@3", "recall@10", "nDCG@10")
        assert row.split()[1:5] == [f"{means[name]:.3f}" for name in names]
    second = evaluation.comparison(evaluation.measurements[1].label, evaluation.measurements[0].label)
    assert f"{second.won}/{second.lost}/{second.tied}" in figures.splitlines()[3]


def test_command_tells_a_mistake_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(tmp_path)]) == 2
    assert "the BEIR layout is corpus.jsonl, queries.jsonl and qrels/test.tsv" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--json", "--report"])
def test_a_place_for_what_is_written_is_wanted_before_anything_is_measured(
    beir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    assert main(["evaluate", str(beir), option, str(tmp_path / "nowhere" / "figures")]) == 2
    assert main(["evaluate", str(beir), option, str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert "there is no folder for" in told
    assert "is a folder; name a file in it" in told
    assert main(["evaluate", str(beir), "--explain"]) == 2
    assert "--explain is for --report" in capsys.readouterr().err
