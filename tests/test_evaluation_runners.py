"""A pair inside MTEB's own task classes, and inside a runner with ConTEB's interface: figures equal to ours."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from pplx_embed_integrations import FakeEmbedder, InputError, PplxBiEncoder
from pplx_embed_integrations.evaluation import Collection, evaluate, load_collection
from pplx_embed_integrations.evaluation.runners import MTEBEncoder, conteb_embedder

DEMO = Path(__file__).parents[1] / "pplx_embed_integrations" / "evaluation" / "demo"


@pytest.fixture(scope="module")
def pair() -> PplxBiEncoder:
    return PplxBiEncoder(FakeEmbedder(64))


@pytest.fixture(scope="module")
def passages() -> Collection:
    """The demo's passages as ConTEB has them: chunks that come with the collection."""
    from pplx_embed_integrations.evaluation import Passage

    demo = load_collection(DEMO)
    chunks: dict[str, tuple[Passage, ...]] = {}
    for document, text in demo.documents.items():
        start, found = 0, []
        for part in text.split("\n\n"):
            found.append(Passage(document, start, start + len(part), part))
            start += len(part) + 2
        chunks[document] = tuple(found)
    return Collection(demo.documents, demo.queries, demo.judgements, passages=demo.passages, chunks=chunks)


def mteb_task(corpus: dict[str, str], queries: dict[str, str], judgements: dict[str, dict[str, int]]) -> Any:
    """A retrieval task of MTEB's own class over data at hand."""
    from datasets import Dataset
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
    from mteb.mocks.mock_tasks.retrieval import MockRetrievalTask

    class Local(AbsTaskRetrieval):
        metadata = MockRetrievalTask.metadata.model_copy(update={"name": "Local", "eval_splits": ["test"]})

        def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
            split = RetrievalSplitData(
                queries=Dataset.from_list([{"id": key, "text": text} for key, text in queries.items()]),
                corpus=Dataset.from_list([{"id": key, "text": text} for key, text in corpus.items()]),
                relevant_docs=judgements,
                top_ranked=None,
            )
            self.dataset = {"default": {"test": split}}
            self.data_loaded = True

    return Local()


def test_mteb_measures_what_evaluate_measures(pair: PplxBiEncoder) -> None:
    mteb = pytest.importorskip("mteb", reason="mteb wants Python 3.11")
    demo = load_collection(DEMO)
    encoder = MTEBEncoder(pair)
    assert isinstance(encoder, mteb.EncoderProtocol)
    task = mteb_task(demo.documents, demo.queries, demo.judgements)
    results = mteb.evaluate(encoder, task, cache=None, show_progress_bar=False)
    [scores] = results.task_results[0].scores["test"]
    evaluation = evaluate(demo, embedder=pair, split=lambda text: [(0, len(text))], against=())
    row = next(row for row in evaluation.measurements if not row.contextual)
    assert scores["ndcg_at_10"] == pytest.approx(row.means["documents"]["nDCG@10"], abs=1e-5)  # MTEB rounds
    assert scores["recall_at_10"] == pytest.approx(row.means["documents"]["recall@10"], abs=1e-5)
    assert results.model_name == "pplx-embed-integrations/FakeEmbedder(dimension=64, contextual=True, max_tokens=32768)"


def test_mteb_runs_tasks_without_queries(pair: PplxBiEncoder) -> None:
    mteb = pytest.importorskip("mteb", reason="mteb wants Python 3.11")
    from mteb.mocks.mock_tasks.sts import MockSTSTask

    results = mteb.evaluate(MTEBEncoder(pair), MockSTSTask(), cache=None, show_progress_bar=False)
    assert -1 <= results.task_results[0].get_score() <= 1


def test_another_width_or_form_is_another_revision() -> None:
    pytest.importorskip("mteb", reason="mteb wants Python 3.11")
    options: list[dict[str, Any]] = [{}, {"dimensions": 32}, {"quantization": "binary"}]
    metas = [MTEBEncoder(PplxBiEncoder(FakeEmbedder(64), **each)).mteb_model_meta for each in options]
    assert len({meta.revision for meta in metas}) == 3
    assert [meta.embed_dim for meta in metas] == [64, 32, 64]
    again = MTEBEncoder(PplxBiEncoder(FakeEmbedder(64))).mteb_model_meta
    assert again.revision == metas[0].revision


def test_each_side_embeds_what_is_its_own(replica_v1: Path, replica_context_v1: Path) -> None:
    pair = PplxBiEncoder(query_model=replica_v1, document_model=replica_context_v1)
    encoder, batches = MTEBEncoder(pair), [{"text": ["tides", "the moon"]}, {"text": ["ships"]}]
    texts = ["tides", "the moon", "ships"]
    for prompt_type, expected in [
        ("query", pair.encode_queries(texts, normalize=True)),
        (None, pair.encode_queries(texts, normalize=True)),
        ("document", pair.encode_texts(texts, normalize=True)),
    ]:
        np.testing.assert_array_equal(encoder.encode(batches, prompt_type=prompt_type), expected)
    queries, documents = (encoder.encode(batches, prompt_type=each) for each in ("query", "document"))
    every, pairwise = encoder.similarity(queries, documents), encoder.similarity_pairwise(queries, documents)
    torch.testing.assert_close(every.diagonal(), pairwise)
    np.testing.assert_allclose(every.numpy(), queries @ documents.T, atol=1e-6)
    with pytest.raises(InputError, match="ubinary"):
        MTEBEncoder(PplxBiEncoder(FakeEmbedder(64), quantization="ubinary"))


class Runner:
    """What ConTEB's base class asks of an embedder, written anew from its interface; the package is on no index."""

    def __init__(self, is_contextual_model: bool = False) -> None:
        self.is_contextual_model = is_contextual_model

    def ranks(self, documents: dict[str, list[str]], queries: list[str]) -> list[list[str]]:
        if self.is_contextual_model:
            nested = self.embed_documents(list(documents.values()))  # type: ignore[attr-defined]
            rows = [row for matrix in nested for row in matrix]
        else:
            rows = self.embed_documents([text for chunks in documents.values() for text in chunks])  # type: ignore[attr-defined]
        ids = [f"{name}_{place}" for name, chunks in documents.items() for place in range(len(chunks))]
        embedded = torch.stack(list(rows))
        scores = torch.mm(self.embed_queries(queries), embedded.t())  # type: ignore[attr-defined]
        return [[ids[place] for place in row.argsort(descending=True, stable=True)] for row in scores]


@pytest.fixture
def conteb(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cde_benchmark", "cde_benchmark.embedders", "cde_benchmark.embedders.base_embedder"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["cde_benchmark.embedders.base_embedder"].Embedder = Runner  # type: ignore[attr-defined]


@pytest.mark.usefixtures("conteb")
@pytest.mark.parametrize("contextual", [True, False])
def test_a_runner_like_contebs_ranks_what_evaluate_ranks(passages: Collection, contextual: bool) -> None:
    pair = PplxBiEncoder(FakeEmbedder(64, contextual=contextual))
    embedder = conteb_embedder(pair)
    assert isinstance(embedder, Runner)
    assert embedder.is_contextual_model is contextual
    assert passages.chunks is not None
    documents = {key: [chunk.text for chunk in chunks] for key, chunks in passages.chunks.items()}
    ranks = embedder.ranks(documents, list(passages.queries.values()))
    evaluation = evaluate(passages, embedder=pair, against=())
    row = evaluation.measurements[0]
    assert row.contextual is contextual
    for question, ranked in zip(evaluation.questions, ranks, strict=True):
        [answer] = question.answers
        place = passages.chunks[answer.document].index(answer)
        hit = f"{answer.document}_{place}" in ranked[:3]
        assert hit == row.values["chunks"]["hit@3"][question.id]


def test_without_the_package_the_command_is_told(pair: PplxBiEncoder) -> None:
    with pytest.raises(InputError, match=r"type: pip install git\+https://github.com/illuin-tech/conteb"):
        conteb_embedder(pair)
