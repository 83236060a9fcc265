"""A real cluster of two nodes on this machine: documents to vectors, into the table, through kills, and out again."""

from __future__ import annotations

import base64
import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_text_splitters import RecursiveCharacterTextSplitter
from llama_index.core import Document as Text
from llama_index.core.node_parser import SentenceSplitter

from pplx_embed_integrations import (
    ContextWarning,
    EncodingError,
    FakeEmbedder,
    InputError,
    InputTypeError,
    MissingDependencyError,
    NotContextualError,
    PplxBiEncoder,
    PplxEmbedError,
    RemoteEncoder,
)
from pplx_embed_integrations.langchain import PplxEmbeddings, QuantizedVectorStore
from pplx_embed_integrations.llama_index import PplxEmbedding, SplitAndEmbed, contextual_index
from pplx_embed_integrations.llama_index import QuantizedVectorStore as LlamaIndexStore
from pplx_embed_integrations.scale import embed_dataset, index_dataset
from pplx_embed_integrations.scale.faults import WorkerError, carried, carrying
from pplx_embed_integrations.scale.reading import Reader
from pplx_embed_integrations.scale.source import Source
from pplx_embed_integrations.scale.splitting import check_splitter, cutter
from pplx_embed_integrations.stores import ChunkTable

from .remote.serving import serving
from .scale_jobs import DIMENSION, FOOTER, Noting, index, rows, sentences

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes, each with room for an actor and a task; the first has some for what the second leaves behind."""
    import ray
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 2, "node_ip_address": "127.0.0.1", "object_store_memory": 100 * 2**20}
    soon = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 3}
    head = {**node, "num_cpus": 3, "include_dashboard": False, "include_log_monitor": False, "_system_config": soon}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))  # where the processes of the cluster find these tests
        folder = tempfile.mkdtemp(prefix="ray-")  # a short path: sockets lie in it
        patch.setenv("RAY_TMPDIR", folder)  # not temp_dir=: the cluster's address would go into /tmp/ray all the same
        cluster = Cluster(True, head_node_args=head)
        try:
            cluster.add_node(**node)
            ray.init(cluster.address, log_to_driver=False, logging_level="error")
            ray.data.DataContext.get_current().enable_progress_bars = False
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def embedder(tmp_path: Path) -> Noting:
    return Noting(DIMENSION, folder=str(tmp_path))


def check(table: ChunkTable, count: int, version: int = 0, *, but: frozenset[int] = frozenset()) -> None:
    """Every document is there once, in the version wanted, with the codes that one process gives it."""
    wanted = {row["id"]: sentences(row["text"]) for row in rows(count, version) if row["n"] not in but}
    codes = FakeEmbedder(DIMENSION).encode_documents(list(wanted.values()))
    hits = table.get(with_vectors=True)
    assert Counter(hit.document for hit in hits) == {key: len(texts) for key, texts in wanted.items()}
    found = {(hit.document, hit.position): hit for hit in hits}
    for (key, texts), matrix in zip(wanted.items(), codes, strict=True):
        for position, text in enumerate(texts):
            hit = found[key, position]
            assert hit.text == text
            np.testing.assert_array_equal(hit.vector, matrix[position])


@pytest.mark.slow
def test_driver_node_and_actor_are_killed_and_every_document_is_there_once(
    cluster: Any, embedder: Noting, tmp_path: Path
) -> None:
    """Jobs on one table: one whose driver dies, its rerun in which a node dies, an update in which an actor dies."""
    import ray

    uri, count = str(tmp_path / "store"), 120
    ChunkTable(uri, made_by=json.loads(embedder.identity()), dimensions=DIMENSION)
    driver = [sys.executable, "-m", "tests.scale_jobs", cluster.address, str(tmp_path), uri, str(count)]
    subprocess.run(driver, cwd=ROOT, capture_output=True, timeout=200)
    there = ChunkTable(uri).documents()
    assert 0 < len(there) < count
    before = len(embedder.embedded())

    (tmp_path / "killed").unlink()
    spared = ray.get_runtime_context().get_node_id()
    done = index(replace(embedder, kill="node", target=spared), uri, rows(count))
    assert (tmp_path / "killed").exists()
    assert (done.added, done.skipped, done.replaced, done.failures) == (count - len(there), len(there), 0, 0)
    assert not there.keys() & set(embedder.embedded()[before:])  # nothing that was finished is done again
    check(ChunkTable(uri), count)
    cluster.add_node(num_cpus=2, node_ip_address="127.0.0.1", object_store_memory=100 * 2**20)

    (tmp_path / "killed").unlink()
    before = len(embedder.embedded())
    update = rows(count)
    for number in (3, 4, 119):
        update[number] = rows(count, version=1)[number]
    update[50]["text"] = None
    update += [rows(count + 1)[-1], dict(update[0], text="Another text with the same key"), {**update[0], "id": None}]
    done = index(replace(embedder, kill="actor"), uri, update, concurrency=1)
    assert (tmp_path / "killed").exists()
    assert (done.added, done.replaced, done.skipped, done.failures) == (1, 4, count - 4, 2)
    assert sorted(done.failed, key=str) == [
        ("doc-50", "document 'doc-50' has no text; leave it out"),
        (None, "a row has nothing in 'id', so its document has no name"),
    ]
    assert sorted(set(embedder.embedded()[before:])) == ["doc-119", "doc-120", "doc-3", "doc-4", "doc-text"]
    table = ChunkTable(uri)
    assert table.documents().keys() == {f"doc-{n}" for n in range(count + 1)}
    assert {hit.text.split()[4] for hit in table.get(documents=["doc-3", "doc-4", "doc-119"])} == {"1"}
    assert [hit.text for hit in table.get(documents=["doc-0"])] == ["Another text with the same key"]
    assert len(table.get(documents=["doc-50"])) == 2  # its old version


@pytest.fixture
def corpus() -> dict[str, list[str]]:
    """12 documents of 11 chunks, all ending with the same footer, with a chunk that occurs twice in its document."""
    documents = {}
    for number in range(12):
        chunks = [f"Document {number}, paragraph {row}, speaks of item {number * row % 7}." for row in range(10)]
        chunks[7] = chunks[3]
        documents[f"doc-{number}"] = [*chunks, FOOTER]
    return documents


@pytest.mark.slow
def test_both_frameworks_open_what_a_cluster_wrote(cluster: Any, corpus: dict[str, list[str]], tmp_path: Path) -> None:
    """The hard case through the miniature, into the table and into Parquet, and LlamaIndex's own pipeline on Ray."""
    import pyarrow.parquet as pq
    import ray

    embeddings, embed_model = PplxEmbeddings("miniature"), PplxEmbedding("miniature", metadata_mode="none")
    splitter = RecursiveCharacterTextSplitter(chunk_size=80, chunk_overlap=0, separators=["\n"], keep_separator=False)
    whole = [{"id": key, "text": "\n".join(texts), "n": n} for n, (key, texts) in enumerate(corpus.items())]
    codes = embeddings.encode_documents(list(corpus.values()))
    done = index_dataset(
        ray.data.from_items(whole), tmp_path / "store", embeddings=embeddings, splitter=splitter, concurrency=1
    )
    assert (done.added, done.chunks, done.failed) == (12, 132, [])

    store = QuantizedVectorStore(embeddings, tmp_path / "store")
    found = {(hit.document, hit.position): hit for hit in store.table.get(with_vectors=True)}
    assert len(found) == 132
    for (key, texts), matrix in zip(corpus.items(), codes, strict=True):
        for row, text in enumerate(texts):
            assert found[key, row].text == text
            assert (
                np.abs(found[key, row].vector.astype(int) - matrix[row]).max() <= 1
            )  # another batch may move it by one
    documents = [Document(row["text"], id=row["id"], metadata={"n": row["n"]}) for row in whole]
    assert store.index(documents, splitter=splitter)["num_skipped"] == 132  # as if LangChain had written them
    question = "Which document speaks of item 3 in paragraph 5?"
    [best] = store.similarity_search(question, k=1, filter={"n": {"$lt": 6}})
    assert best.metadata["n"] < 6
    other = LlamaIndexStore(tmp_path / "store", embed_model=embed_model)
    index_ = contextual_index([], vector_store=other, embed_model=embed_model)
    nodes = index_.as_retriever(similarity_top_k=5).retrieve(question)
    assert [node.text for node in nodes] == [each.page_content for each in store.similarity_search(question, k=5)]
    assert nodes[0].node.ref_doc_id == nodes[0].metadata["pplx_document"]
    assert "pplx_" not in nodes[0].node.get_content("llm")
    index_.delete_ref_doc("doc-3")
    assert store.table.count() == 121

    listed = [{"key": key, "chunks": texts} for key, texts in corpus.items()] + [{"key": "bad", "chunks": []}]
    options = {"key": "key", "text": "chunks", "batch_size": 5, "concurrency": 1}
    dataset = embed_dataset(ray.data.from_items(listed), embeddings=embed_model, **options)
    dataset.write_parquet(str(tmp_path / "parquet"))
    rows = pq.read_table(tmp_path / "parquet").to_pylist()
    assert [(row["document"], row["error"]) for row in rows if row["error"]] == [
        ("bad", "document 'bad' has no text; leave it out")
    ]
    kept = {(row["document"], row["position"]): row for row in rows if not row["error"]}
    assert kept.keys() == {(key, row) for key in corpus for row in range(11)}
    for (key, _), matrix in zip(corpus.items(), codes, strict=True):
        written = np.array([kept[key, row]["codes"] for row in range(11)])
        assert np.abs(written - matrix).max() <= 1
        np.testing.assert_array_equal([kept[key, row]["bits"] for row in range(11)], np.packbits(written >= 0, axis=1))
    assert json.loads(kept["doc-0", 3]["metadata"])["pplx_chunk"] == 3


@pytest.mark.slow
def test_a_pipeline_of_llama_index_on_ray(cluster: Any, tmp_path: Path) -> None:
    from llama_index.ingestion.ray import RayIngestionPipeline, RayTransformComponent

    embed_model = PplxEmbedding(FakeEmbedder(DIMENSION))
    step = RayTransformComponent(
        SplitAndEmbed,
        splitter=words,
        embed_model=embed_model,
        map_batches_kwargs={"batch_size": 3, "concurrency": 1},
    )
    store = LlamaIndexStore(tmp_path / "store", embed_model=embed_model)
    documents = [Text(text=" ".join(sentences_of(n)), id_=f"doc-{n}", metadata={"n": n}) for n in range(10)]
    nodes = RayIngestionPipeline(transformations=[step], vector_store=store).run(documents=documents)
    alone = SplitAndEmbed(words(), embed_model)(documents)
    assert Counter(node.ref_doc_id for node in nodes) == Counter(node.ref_doc_id for node in alone)
    assert {node.text: node.embedding for node in nodes} == {node.text: node.embedding for node in alone}
    assert store.table.count() == len(alone) == 20


@pytest.mark.slow
def test_an_error_of_a_worker_is_the_error_of_the_job(cluster: Any, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"^the dataset has no column 'body' \(text=\); its columns are id, text, n, lang$"
    ):
        index(FakeEmbedder(DIMENSION), str(tmp_path / "store"), rows(9), text="body", concurrency=1)
    assert ChunkTable(tmp_path / "store").count() == 0


@pytest.mark.slow
def test_actors_ask_a_server_and_of_a_thousand_documents_the_bad_one_is_named(cluster: Any, tmp_path: Path) -> None:
    uri, count, bad = str(tmp_path / "store"), 1000, 500
    documents = rows(count)
    documents[bad]["text"] = ""
    with serving({"fake": FakeEmbedder(DIMENSION)}) as served:
        embedder = RemoteEncoder("fake", base_url=served.url)
        done = index(embedder, uri, documents, batch_size=100, documents_per_file=500)
        asked = served.metric("pplx_embed_texts_total")
    assert (done.added, done.failures) == (count - 1, 1)
    [(key, why)] = done.failed
    assert key == f"doc-{bad}"
    assert "has no text" in why
    check(ChunkTable(uri), count, but=frozenset({bad}))
    assert asked == done.chunks  # each once


def words() -> SentenceSplitter:
    """A splitter that a pickle would change: one of its own tokenizer."""
    return SentenceSplitter(chunk_size=25, chunk_overlap=0, tokenizer=str.split)


def sentences_of(number: int) -> list[str]:
    return [f"Document {number} says in sentence {row} what no other one says." for row in range(4)]


def test_a_splitter_of_any_kind() -> None:
    text, metadata = "One sentence here. Another one there.", {"lang": "en"}
    kinds: list[Any] = [
        sentences,
        RecursiveCharacterTextSplitter(chunk_size=20, chunk_overlap=0, separators=[". "]),
        lambda text: SentenceSplitter(chunk_size=4, chunk_overlap=0, tokenizer=str.split).split_text(text),
    ]
    for splitter in kinds:
        pieces = cutter(pickle.loads(cloudpickle.dumps(splitter)))("document 'a'", text, metadata)
        assert len(pieces) == 2
        assert pieces[0][0].startswith("One sentence")
        assert all(known == metadata for _, known in pieces)
    with pytest.raises(InputTypeError, match=r"the class SentenceSplitter; pass an object, SentenceSplitter\(...\)"):
        cutter(SentenceSplitter)
    with pytest.raises(InputTypeError, match="which cannot split"):
        check_splitter("sentences")
    with pytest.raises(InputError, match="the splitter cannot split document 'a': ZeroDivisionError"):
        cutter(lambda text: [str(1 // 0)])("document 'a'", text, metadata)
    with pytest.warns(ContextWarning, match="RecursiveCharacterTextSplitter repeats up to 200"):
        check_splitter(RecursiveCharacterTextSplitter())
    with pytest.raises(InputTypeError, match="a SentenceSplitter loses its tokenizer on the way to another process"):
        check_splitter(SentenceSplitter())


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": None, "text": "a"}, "a row has nothing in 'id', so its document has no name"),
        ({"id": float("nan"), "text": "a"}, "a row has nothing in 'id'"),
        ({"id": "a", "text": None}, "document 'a' has no text; leave it out"),
        ({"id": "a", "text": ""}, "document 'a' has no text; leave it out"),
        ({"id": "a", "text": b"bytes"}, "the text of document 'a' must be a str, not bytes"),
        ({"id": "a", "text": ["a", "b"]}, "the text of document 'a' must be a str, not list"),
        ({"id": "a", "text": "lone \ud800. b"}, "chunk 0 of document 'a' has a lone surrogate"),
        ({"id": "a", "text": "a", "when": object()}, "metadata 'when' of chunk .* is a object, which JSON cannot hold"),
    ],
)
def test_a_row_that_is_no_document(row: dict[str, Any], message: str) -> None:
    with pytest.raises((InputError, InputTypeError), match=message):
        Reader(sentences, "text", "id", None).read(row)


class Harmful:
    """Runs something when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("harm",)


def test_an_error_comes_back_and_nothing_in_its_message_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    harm = f"[pplx-embed error {base64.b64encode(pickle.dumps(Harmful())).decode()}]"

    class DerivedError(InputError):
        pass

    for error in (
        InputError(f"document {harm!r}"),
        MissingDependencyError("ray", extra="ray"),
        DerivedError("derived"),
    ):

        def fails(error: PplxEmbedError = error) -> None:
            raise error

        with pytest.raises(WorkerError) as raised:
            carrying(fails)()
        found = carried(RuntimeError(f"somewhere: {raised.value}\n  in a line of Ray's"))
        assert type(found) is (PplxEmbedError if isinstance(error, DerivedError) else type(error))
        assert str(found) == str(error)
    assert not list(tmp_path.iterdir())
    assert carried(ValueError("of somebody else")).args == ("of somebody else",)


def test_a_row_that_is_a_document() -> None:
    document = Reader(sentences, "text", "id", ["n"]).read({"id": 7, "text": "One. Two", "n": 1, "rest": object()})
    assert (document.key, document.texts) == ("key:7", ["One", "Two"])
    assert document.chunks[1].metadata["n"] == 1
    assert document.chunks[1].metadata["pplx_chunk"] == 1
    lists = Reader(None, "text", "id", [])
    assert lists.read({"id": "a", "text": ["One", "Two"]}).texts == ["One", "Two"]
    with pytest.raises(InputTypeError, match="is one string; pass splitter=, or a column of lists of chunks"):
        lists.read({"id": "a", "text": "One"})
    with pytest.raises(InputError, match="chunk 1 of document 'a' is empty"):
        lists.read({"id": "a", "text": ["One", ""]})
    with pytest.raises(InputError, match=r"no column 'body' \(text=\); its columns are id, text"):
        Reader(sentences, "body", "id", None).check_columns(["id", "text"])


def test_what_may_embed(biencoder: PplxBiEncoder) -> None:
    source = Source.of(PplxEmbeddings(FakeEmbedder(DIMENSION), dimensions=16))
    assert (source.dimensions, source.quantization) == (16, "int8")
    assert Source.of(FakeEmbedder(DIMENSION)).made_by == json.loads(FakeEmbedder(DIMENSION).identity())
    assert Source.of(biencoder).identity == biencoder.document.identity()
    assert (
        Source.of(PplxEmbedding(FakeEmbedder(64), metadata_mode="none", quantization="binary")).quantization == "binary"
    )
    with pytest.raises(InputError, match=r'the text alone is embedded here.*metadata_mode="none"'):
        Source.of(PplxEmbedding(FakeEmbedder(64)))
    with pytest.raises(InputError, match=r"PplxEmbeddings\(quantization=None\) gives floats"):
        Source.of(PplxEmbeddings(FakeEmbedder(64), quantization=None))
    with pytest.raises(InputTypeError, match="or an embedder, not str"):
        Source.of("miniature")
    with pytest.raises(NotContextualError):
        Source.of(FakeEmbedder(64, contextual=False))
    with pytest.raises(InputError, match=r"a worker would make other vectors .*max_tokens"):
        replace(source, embedder=FakeEmbedder(DIMENSION, max_tokens=5)).check_same()


def test_one_bad_document_does_not_take_its_batch_along() -> None:
    reader = Reader(sentences, "text", "id", None)
    source = Source.of(FakeEmbedder(DIMENSION, max_tokens=20))
    documents = [reader.read(row) for row in rows(9)]
    documents[4] = reader.read({"id": "long", "text": "word " * 30})
    found = source.encode(documents)
    assert isinstance(found[4], str)
    assert found[4].startswith("chunk 0 of document 'long' has 31 tokens and the limit is 20; split it")
    for document, matrix in zip(documents, found, strict=True):
        if document.key != "long":
            np.testing.assert_array_equal(matrix, source.embedder.encode_documents([document.texts])[0])


def test_a_device_that_has_failed_is_no_documents_fault() -> None:
    class Gone(FakeEmbedder):
        def encode_documents(self, *arguments: Any, **form: Any) -> Any:
            raise EncodingError("the device failed")

    with pytest.raises(EncodingError, match="the device failed"):
        Source.of(Gone(DIMENSION)).encode([Reader(sentences, "text", "id", None).read(row) for row in rows(2)])


def test_only_whole_documents_are_split_and_embedded() -> None:
    step = SplitAndEmbed(SentenceSplitter(chunk_overlap=0), PplxEmbedding(FakeEmbedder(DIMENSION)))
    nodes = step([Text(text="One document.", id_="a")])
    with pytest.raises(InputError, match=r"is a part of document 'a' already.*let SplitAndEmbed be the first"):
        step(nodes)
