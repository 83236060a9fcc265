"""The miniature pair as users get it: offline, one space for both halves, and better than chance by far."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from pplx_embed_integrations import PplxBiEncoder, PplxEncoder
from pplx_embed_integrations.miniature import CONTEXT_V1, V1
from pplx_embed_integrations.vectors import cosine_similarity

ROOT = Path(__file__).parents[1]
ARTICLES = ROOT / "benchmarks" / "data" / "articles.jsonl"
FACTS = {
    "which planet has rings": "Saturn is a planet with bright rings made of ice and rock.",
    "how to bake bread": "Mix flour, water, salt and yeast, let the dough rise, then bake the bread.",
    "install a package with apt": "Use apt-get install to download and install a Debian package.",
    "heart disease and blood pressure": "High blood pressure raises the risk of disease of the heart.",
    "tax on the income of a company": "The company pays tax on its yearly income and profit.",
    "write data to a file in Python": "Open the file in Python and write the data with the write method.",
    "lift of an aircraft wing": "Air flowing over the wing of an aircraft produces lift.",
    "music for piano and violin": "The composer wrote music for the violin and the piano.",
}


@pytest.fixture(scope="module")
def v1() -> PplxEncoder:
    return PplxEncoder("miniature-v1", dtype="float32")


@pytest.fixture(scope="module")
def context() -> PplxEncoder:
    return PplxEncoder("miniature-context-v1", dtype="float32")


def hits(queries: npt.NDArray[np.generic], documents: npt.NDArray[np.generic]) -> float:
    """Share of the queries whose own document comes first."""
    best = np.asarray(cosine_similarity(queries, documents)).argmax(axis=1)
    return float((best == np.arange(len(queries))).mean())


def test_both_load_offline_with_the_registered_shape(v1: PplxEncoder, context: PplxEncoder) -> None:
    assert v1.dimension == context.dimension == 384
    assert not v1.checkpoint.contextual
    assert context.checkpoint.contextual
    assert v1.checkpoint.max_tokens >= 2048
    assert v1.encode(["a text"]).dtype == np.int8


@pytest.mark.parametrize("quantization", ["int8", "binary", None])
@pytest.mark.parametrize("dimensions", [384, 192])
def test_questions_find_their_answers(v1: PplxEncoder, quantization: str | None, dimensions: int) -> None:
    options = {"quantization": quantization, "dimensions": dimensions}
    assert hits(v1.encode(list(FACTS), **options), v1.encode(list(FACTS.values()), **options)) >= 0.75  # type: ignore[arg-type]


def test_v1_queries_find_chunks_of_the_context_model(v1: PplxEncoder, context: PplxEncoder) -> None:
    chunks = np.concatenate(context.encode_documents([[fact] for fact in FACTS.values()]))
    assert hits(v1.encode(list(FACTS)), chunks) >= 0.75
    same = np.diag(np.asarray(cosine_similarity(v1.encode(list(FACTS.values())), chunks)))
    assert same.min() > 0.8


def test_context_tells_apart_what_alone_reads_the_same() -> None:
    pair = PplxBiEncoder("miniature")
    line = "It was released in spring and is used by many people."
    articles = [["Saturn is a planet with rings.", line], ["Python is a programming language.", line]]
    plain = pair.encode_texts([article[1] for article in articles])
    assert (plain[0] == plain[1]).all()
    chunks = np.stack([rows[1] for rows in pair.encode_documents(articles)])
    queries = pair.encode_queries(["planet Saturn released", "Python programming language released"])
    assert hits(queries, chunks) == 1.0


def test_context_raises_recall_on_articles_whose_subject_is_named_only_earlier() -> None:
    rows = [json.loads(line) for line in ARTICLES.read_text(encoding="utf-8").splitlines()[:50]]
    pair = PplxBiEncoder("miniature")
    chunks = [chunk for row in rows for chunk in row["chunks"]]
    starts = np.cumsum([0] + [len(row["chunks"]) for row in rows])
    placed = zip(rows, starts[:-1], strict=True)
    asked = [(query, int(start) + at) for row, start in placed for query, at in row["queries"]]
    queries = pair.encode_queries([query for query, _ in asked])

    def recall(vectors: npt.NDArray[np.generic]) -> float:
        best = np.argsort(-np.asarray(cosine_similarity(queries, vectors)), axis=1)[:, :10]
        return float(np.mean([answer in row for row, (_, answer) in zip(best, asked, strict=True)]))

    contextual = np.concatenate(pair.encode_documents([row["chunks"] for row in rows]))
    assert recall(contextual) > 1.25 * recall(pair.encode_texts(chunks))


def test_context_depends_on_which_chunks_stand_near(context: PplxEncoder) -> None:
    rows = [json.loads(line)["chunks"] for line in ARTICLES.read_text(encoding="utf-8").splitlines()]
    documents = [chunks for chunks in rows if len(chunks) == 10][:20]
    rng = np.random.default_rng(0)
    kept = 4
    shuffled = []
    for chunks in documents:
        others = [chunks[i] for i in rng.permutation(10) if i != kept]
        shuffled.append([*others[:kept], chunks[kept], *others[kept:]])
    before = context.encode_documents(documents, quantization=None)
    after = context.encode_documents(shuffled, quantization=None)
    moved = [1 - _cosine(a[kept], b[kept]) for a, b in zip(before, after, strict=True)]
    assert float(np.mean(moved)) > 1e-3  # the same chunks in another order: rounding alone moves it by 1e-6
    beside_another = context.encode_documents([documents[0], *shuffled[1:]], quantization=None)[0]
    assert 1 - _cosine(before[0][kept], beside_another[kept]) < 1e-6


def _cosine(a: npt.NDArray[np.generic], b: npt.NDArray[np.generic]) -> float:
    return float(np.asarray(cosine_similarity(a[None], b[None]))[0, 0])


def test_long_input_stays_sane(v1: PplxEncoder) -> None:
    text = FACTS["how to bake bread"]
    long = v1.encode([" ".join([text] * 100)], quantization=None)
    assert float(np.asarray(cosine_similarity(long, v1.encode([text], quantization=None)))[0, 0]) > 0.8


def test_pooled_values_are_of_a_size_that_int8_resolves(v1: PplxEncoder) -> None:
    pooled = v1.encode(list(FACTS.values()), quantization=None)
    assert 0.1 < float(np.sqrt((pooled**2).mean())) < 1.0


def test_the_pair_keeps_the_published_layout() -> None:
    assert (V1 / "modules.json").is_file()
    assert not (CONTEXT_V1 / "modules.json").exists()
    configs = [json.loads((folder / "config.json").read_text()) for folder in (V1, CONTEXT_V1)]
    assert [config["architectures"] for config in configs] == [["PPLXQwen3Model"], ["PPLXQwen3ContextualModel"]]
    assert all(config["model_type"] == "bidirectional_pplx_qwen3" for config in configs)


def test_cards_and_licence_are_there() -> None:
    card = (ROOT / "docs" / "miniature.md").read_text(encoding="utf-8")
    for word in ("not for production", "MIT", "all-MiniLM-L6-v2", "not the vendor's"):
        assert word in card
    assert (ROOT / "training" / "DATA_CARD.md").is_file()
