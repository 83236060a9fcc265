"""Rows by document and by chunk, and how sure they are, against ir_measures and a bootstrap written out."""

import re
from itertools import combinations
from pathlib import Path

import ir_measures
import numpy as np
import pytest
from ir_measures import R, Success, nDCG

from pplx_embed_integrations import FakeEmbedder, InputError, PplxBiEncoder
from pplx_embed_integrations.evaluation import (
    BM25Searcher,
    Collection,
    Evaluation,
    Measurement,
    Passage,
    Study,
    evaluate,
    load_collection,
)
from pplx_embed_integrations.evaluation.chunking import cut

DEMO = Path(__file__).parents[1] / "pplx_embed_integrations" / "evaluation" / "demo"
METRICS = {"nDCG@10": nDCG @ 10, "recall@10": R @ 10, "hit@1": Success @ 1, "hit@3": Success @ 3}


def split(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in re.finditer(r"\S(?:.|\n(?!\n))*", text)]


@pytest.fixture(scope="module")
def collection() -> Collection:
    return load_collection(DEMO)


@pytest.fixture(scope="module")
def evaluation(collection: Collection) -> Evaluation:
    return evaluate(collection, embedder=PplxBiEncoder(FakeEmbedder(64)), split=split, name="demo")


def test_figures_are_those_of_ir_measures_on_a_search_by_itself(collection: Collection, evaluation: Evaluation) -> None:
    embedder, chunked = FakeEmbedder(64), cut(collection, split)
    queries = embedder.encode(list(collection.queries.values())).astype(float)
    chunks = np.concatenate(embedder.encode_documents(chunked.nested)).astype(float)
    cosines = (queries @ chunks.T) / np.outer(np.linalg.norm(queries, axis=1), np.linalg.norm(chunks, axis=1))
    run_chunks = {
        query: {str(i): float(s) for i, s in enumerate(row)}
        for query, row in zip(collection.queries, cosines, strict=True)
    }
    run_documents: dict[str, dict[str, float]] = {query: {} for query in collection.queries}
    for query, row in zip(collection.queries, cosines, strict=True):
        for chunk, score in zip(chunked.chunks, row, strict=True):
            run_documents[query][chunk.document] = max(score, run_documents[query].get(chunk.document, -2))
    overlaps = {
        query: {
            str(place): 1
            for place, chunk in enumerate(chunked.chunks)
            for answer in answers
            if (chunk.document, chunk.start) == (answer.document, answer.start)
        }
        for query, answers in collection.passages.items()
    }
    row = evaluation.measurements[0]
    for level, judgements, run in [
        ("chunks", overlaps, run_chunks),
        ("documents", collection.judgements, run_documents),
    ]:
        expected = ir_measures.calc_aggregate(list(METRICS.values()), judgements, run)
        for name, measure in METRICS.items():
            assert row.means[level][name] == pytest.approx(expected[measure], abs=1e-9)
            values = {each.query_id: each.value for each in ir_measures.iter_calc([measure], judgements, run)}
            assert row.values[level][name] == pytest.approx(values, abs=1e-9)


def test_intervals_are_those_of_a_bootstrap_written_out(evaluation: Evaluation) -> None:
    rows = evaluation.measurements[:3]
    for left, right in combinations(rows, 2):
        for metric in METRICS:
            pair = [np.array(list(row.values["chunks"][metric].values())) for row in (left, right)]
            drawn = np.random.default_rng(0).integers(0, 60, size=(10_000, 60))
            low, high = np.percentile((pair[0] - pair[1])[drawn].mean(axis=1), [2.5, 97.5])
            found = evaluation.comparison(left.label, right.label, metric=metric)
            assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)
            assert found.difference == pytest.approx(pair[0].mean() - pair[1].mean(), abs=1e-9)
            counts = [sum(pair[0] > pair[1]), sum(pair[0] < pair[1]), sum(pair[0] == pair[1])]
            assert [found.won, found.lost, found.tied] == counts
            low, high = np.percentile(pair[0][drawn].mean(axis=1), [2.5, 97.5])
            assert left.intervals["chunks"][metric] == pytest.approx((low, high), abs=1e-9)


def test_many_questions_are_drawn_in_blocks_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    from pplx_embed_integrations.evaluation import statistics

    values = np.random.default_rng(5).random((33, 2))
    whole = statistics.interval(values)
    monkeypatch.setattr(statistics, "_DRAWN_AT_ONCE", 1000)
    np.testing.assert_array_equal(statistics.interval(values), whole)


def test_every_pair_is_compared_once_and_reads_both_ways(evaluation: Evaluation) -> None:
    labels = [row.label for row in evaluation.measurements]
    assert len(set(labels)) == len(labels) == 2 + 8 + 1
    pairs = [(each.left, each.right, each.level, each.metric) for each in evaluation.comparisons]
    assert len(set(pairs)) == len(pairs) == 55 * 4 * 2
    forth, back = (evaluation.comparison(*pair) for pair in (labels[:2], labels[1::-1]))
    assert (forth.difference, forth.low, forth.won) == (-back.difference, -back.high, back.lost)
    with pytest.raises(InputError, match="were not compared"):
        evaluation.comparison(labels[0], "nobody")
    with pytest.raises(InputError, match="no row is called 'nobody'; there are: "):
        evaluation.measurement("nobody")


def test_the_best_chunks_are_kept_with_their_texts(collection: Collection, evaluation: Evaluation) -> None:
    for question in evaluation.questions:
        for row in evaluation.measurements:
            found = question.found[row.label]
            assert len(found) == 3 or row.system == "BM25"
            assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)
            assert any(each.right for each in found[:1]) == row.values["chunks"]["hit@1"][question.id]
            assert any(each.right for each in found) == row.values["chunks"]["hit@3"][question.id]
            for each in found:
                text = collection.documents[each.passage.document]
                assert text[each.passage.start : each.passage.end] == each.passage.text


def test_an_evaluation_survives_json(evaluation: Evaluation) -> None:
    text = evaluation.to_json()
    assert Evaluation.from_json(text) == evaluation
    assert all(row.latency_ms is not None for row in evaluation.measurements)
    assert evaluation.versions["pplx-embed-integrations"]
    assert "fake" in evaluation.versions.values()  # the checkpoint, as the embedder's identity has it
    with pytest.raises(InputError, match="no evaluation of this version"):
        Evaluation.from_json("[1]")
    with pytest.raises(InputError, match="no JSON"):
        Evaluation.from_json("{")


def test_rankings_that_something_else_made_are_judged_alike(collection: Collection, evaluation: Evaluation) -> None:
    chunked = cut(collection, split)
    searcher = BM25Searcher(list(collection.queries.values()), [chunk.text for chunk in chunked.chunks])
    rankings: dict[str, list[tuple[Passage, float]]] = {}
    for query, row in zip(collection.queries, searcher.scores(slice(None)), strict=True):
        order = np.argsort(-row, kind="stable")[:100]
        rankings[query] = [(chunked.chunks[place], float(row[place])) for place in order if row[place] > 0]
    study = Study(collection, split=split)
    row = study.rank(Measurement("a store", "LangChain"), rankings)
    expected = evaluation.measurement("BM25")
    assert (row.means, row.values) == (expected.means, expected.values)
    nothing = study.rank(Measurement("nothing", "LangChain"), {})
    assert nothing.means == {level: dict.fromkeys(METRICS, 0.0) for level in ("documents", "chunks")}
    key = ("marie-curie", 0, 1)
    for label, given, told in [
        ("nothing", {}, "a row called 'nothing' already"),
        ("b", {"q99": []}, "query 'q99' is not in the collection"),
        ("b", {"q01": [(key, 1.0)]}, r"\('marie-curie', 0, 1\), found for query 'q01', is no chunk"),
        ("b", {"q01": [(chunked.chunks[0], 1.0)] * 2}, "a chunk was found twice for query 'q01'"),
    ]:
        with pytest.raises(InputError, match=told):
            study.rank(Measurement(label, "LangChain"), given)


def test_where_only_documents_are_judged_there_is_one_level(collection: Collection) -> None:
    plain = Collection(collection.documents, collection.queries, collection.judgements)
    study = Study(plain, split=split)
    list(study.measure([BM25Searcher(study.queries, [chunk.text for chunk in study.chunked.chunks])]))
    evaluation = study.evaluation()
    assert evaluation.levels == ("documents",)
    assert {level for row in evaluation.measurements for level in row.means} == {"documents"}
    question = evaluation.questions[0]
    assert [each.right for each in question.found["BM25"]] == [
        each.passage.document in question.documents for each in question.found["BM25"]
    ]


def test_the_head_of_a_ranking_is_that_of_a_stable_sort() -> None:
    from pplx_embed_integrations.evaluation.study import DEPTH, _ranked

    generator = np.random.default_rng(3)
    for size in (1, DEPTH, DEPTH + 1, 700):
        scores = generator.integers(-40, 0, size=size).astype(np.float32)
        scores[generator.random(size) < 0.2] = -np.inf
        expected = [place for place in np.argsort(-scores, kind="stable")[:DEPTH] if np.isfinite(scores[place])]
        assert _ranked(scores) == [(place, scores[place]) for place in expected]
