"""IngestionPipeline: cached, changed, upserted, in several processes, killed and resumed; every vector contextual."""

import asyncio
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import chromadb
import numpy as np
import pytest
from llama_index.core import Document
from llama_index.core.ingestion import DocstoreStrategy, IngestionCache, IngestionPipeline
from llama_index.core.schema import MetadataMode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.vector_stores.chroma import ChromaVectorStore

from pplx_embed_integrations import ContextWarning, InputError
from pplx_embed_integrations.llama_index import PplxEmbedding
from tests.llama_index.cases import (
    SPLITTER,
    Encodes,
    assert_same_vectors,
    chunk_id,
    expected_vectors,
    hard_documents,
    make_store,
    short_documents,
)


def vectors_of(nodes):
    return {node.node_id: node.embedding for node in nodes}


def edited(document: Document) -> Document:
    return Document(id_=document.id_, text=document.text.replace("Part 5", "Another part"))


def test_a_second_run_comes_from_the_cache(fake_model: PplxEmbedding, tmp_path: Path):
    documents = hard_documents(3)
    pipeline = IngestionPipeline(transformations=[SPLITTER, fake_model])
    with Encodes() as encodes:
        first = pipeline.run(documents=documents)
        assert len(encodes.texts) == 33
        second = pipeline.run(documents=documents)
        pipeline.persist(str(tmp_path))
        later = IngestionPipeline(transformations=[SPLITTER, fake_model])
        later.load(str(tmp_path))
        third = later.run(documents=documents)
    assert len(encodes.texts) == 33
    for nodes in (first, second, third):
        assert_same_vectors(vectors_of(nodes), expected_vectors(fake_model, documents))


@pytest.mark.parametrize(
    "changed",
    [
        {"dimensions": 8},
        {"quantization": "binary"},
        {"quantization": None},
        {"normalize": False},
        {"max_tokens": 128},
        {"dtype": "bfloat16"},
        {"backend": "openvino"},
        {"metadata_mode": "none"},
        {"metadata_per_document": True},
        {"truncate": True},
        "document_model",
    ],
    ids=str,
)
def test_a_changed_option_is_never_served_from_the_cache(changed, make_model, replica_v1):
    documents = hard_documents(2)
    for document in documents:
        document.metadata["river"] = document.id_
    cache = IngestionCache()
    IngestionPipeline(transformations=[SPLITTER, make_model()], cache=cache).run(documents=documents)
    other = make_model(**({"document_model": replica_v1} if changed == "document_model" else changed))
    with Encodes() as encodes:
        found = IngestionPipeline(transformations=[SPLITTER, other], cache=cache).run(documents=documents)
    assert len(encodes.texts) == 22
    assert [node.embedding for node in found] == [node.embedding for node in other(SPLITTER(documents))]


def test_an_edit_anywhere_in_a_document_is_never_served_from_the_cache(fake_model: PplxEmbedding):
    documents = hard_documents(2)
    pipeline = IngestionPipeline(transformations=[SPLITTER, fake_model])
    pipeline.run(documents=documents)
    documents[1] = edited(documents[1])
    assert_same_vectors(vectors_of(pipeline.run(documents=documents)), expected_vectors(fake_model, documents))


@pytest.mark.parametrize("kind", ["default", "chroma", "qdrant"])
@pytest.mark.parametrize("strategy", [DocstoreStrategy.UPSERTS, DocstoreStrategy.UPSERTS_AND_DELETE])
@pytest.mark.parametrize("run", ["run", "arun"])
async def test_upserts_replace_whole_documents(kind, strategy, run, fake_model: PplxEmbedding, tmp_path: Path):
    documents = hard_documents(3)
    store = make_store(kind, tmp_path)
    pipeline = upserting(store, fake_model, docstore_strategy=strategy)

    async def ingest(given):
        result = getattr(pipeline, run)(documents=given)
        return await result if run == "arun" else result

    with Encodes() as encodes:
        await ingest(documents)
        assert len(encodes.texts) == 33
        assert await ingest(documents) == []
        assert len(encodes.texts) == 33
        await ingest([documents[0], edited(documents[1])])
        assert len(encodes.texts) == 44
    left = [documents[0], edited(documents[1])]
    if strategy == DocstoreStrategy.UPSERTS:
        left.append(documents[2])
    assert_same_vectors(store.read([]), expected_vectors(fake_model, left))


def upserting(store, model, **options) -> IngestionPipeline:
    return IngestionPipeline(
        transformations=[SPLITTER, model], vector_store=store.vector_store, docstore=SimpleDocumentStore(), **options
    )


@pytest.mark.parametrize("kind", ["default", "chroma", "qdrant"])
def test_a_refused_upsert_is_done_by_the_next_run(kind, fake_model: PplxEmbedding, tmp_path: Path):
    """LlamaIndex's pipeline deletes the old version first; `check` tells before it does."""
    documents, store = hard_documents(2), make_store(kind, tmp_path)
    pipeline = upserting(store, fake_model)
    pipeline.run(documents=documents)
    bad = Document(id_="report-1", text="4711;" * 900)
    with pytest.raises(InputError, match=r"report-1.*tokens"):
        fake_model.check(SPLITTER([documents[0], bad]))
    assert_same_vectors(store.read([]), expected_vectors(fake_model, documents))
    with pytest.raises(InputError, match=r"report-1.*tokens"):
        pipeline.run(documents=[documents[0], bad])
    pipeline.run(documents=[documents[0], edited(documents[1])])
    assert_same_vectors(store.read([]), expected_vectors(fake_model, [documents[0], edited(documents[1])]))


def test_upserts_into_faiss_are_new_documents_only(fake_model: PplxEmbedding, tmp_path: Path):
    documents, store = hard_documents(3), make_store("faiss", tmp_path)
    pipeline = upserting(store, fake_model)
    nodes = [*pipeline.run(documents=documents[:2]), *pipeline.run(documents=documents)]
    with pytest.raises(NotImplementedError):
        pipeline.run(documents=[edited(documents[0])])
    assert_same_vectors(store.read([node.node_id for node in nodes]), expected_vectors(fake_model, documents))


def test_duplicates_only_skips_documents_seen_before(fake_model: PplxEmbedding, tmp_path: Path):
    documents = hard_documents(3)
    store = make_store("chroma", tmp_path)
    pipeline = IngestionPipeline(
        transformations=[SPLITTER, fake_model],
        vector_store=store.vector_store,
        docstore=SimpleDocumentStore(),
        docstore_strategy=DocstoreStrategy.DUPLICATES_ONLY,
    )
    with Encodes() as encodes:
        pipeline.run(documents=documents[:2])
        pipeline.run(documents=[*documents, documents[0]])
    assert len(encodes.texts) == 33
    assert_same_vectors(store.read([]), expected_vectors(fake_model, documents))


@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore:Specified num_workers exceed number of CPUs")
def test_several_processes_embed_whole_documents(fake_model: PplxEmbedding):
    documents = hard_documents(4)
    expected = expected_vectors(fake_model, documents)
    pipeline = IngestionPipeline(transformations=[SPLITTER, fake_model], disable_cache=True)
    assert_same_vectors(vectors_of(pipeline.run(documents=documents, num_workers=2)), expected)


def test_nodes_cut_in_the_middle_of_a_document_are_noticed(fake_model: PplxEmbedding):
    # What num_workers does to nodes that were split before they came into the pipeline.
    nodes = SPLITTER(hard_documents(1))
    with pytest.warns(ContextWarning, match="embedded in part"):
        fake_model(nodes[:5])


def test_a_document_is_the_same_alone_and_among_others(fake_model: PplxEmbedding):
    documents = hard_documents(51)
    pipeline = IngestionPipeline(transformations=[SPLITTER, fake_model], disable_cache=True)
    alone = vectors_of(pipeline.run(documents=documents[:1]))
    among = vectors_of(pipeline.run(documents=documents))
    with ThreadPoolExecutor(8) as pool:
        threads = list(pool.map(lambda document: vectors_of(pipeline.run(documents=[document])), documents[:8]))
    for node_id, vector in alone.items():
        for other in (among[node_id], threads[0][node_id]):
            assert np.dot(vector, other) >= 1 - 1e-6
    for number, found in enumerate(threads):
        assert_same_vectors(
            found, {chunk_id(p, documents[number]): among[chunk_id(p, documents[number])] for p in range(11)}
        )


def test_codes_differ_by_at_most_one_among_others(make_model):
    embed_model = make_model(normalize=False)
    documents = hard_documents(51)
    alone = embed_model(SPLITTER(documents[:1]))
    among = embed_model(SPLITTER(documents))
    for one, other in zip(alone, among, strict=False):
        codes, others = np.array(one.embedding), np.array(other.embedding)
        assert np.abs(codes - others).max() <= 1
        assert (codes != others).mean() < 0.05


def _ingest_in_two(model: PplxEmbedding) -> None:
    documents = hard_documents(4)
    pipeline = IngestionPipeline(transformations=[SPLITTER, model], disable_cache=True)
    nodes = asyncio.run(pipeline.arun(documents=documents, num_workers=2))
    assert_same_vectors(vectors_of(nodes), expected_vectors(model, documents))


def test_several_processes_of_an_asynchronous_run_do_too(fake_model: PplxEmbedding, processes):
    # In a process of its own: there arun forks, and this one has threads of every store.
    processes.run(_ingest_in_two, fake_model)


def _ingest(folder: Path, model: PplxEmbedding, kill_at: int, texts: int) -> None:
    collection = chromadb.PersistentClient(str(folder / "chroma")).get_or_create_collection("chunks")
    pipeline = IngestionPipeline(
        transformations=[SPLITTER, model],
        vector_store=ChromaVectorStore(chroma_collection=collection),
        docstore=SimpleDocumentStore(),
    )
    if (folder / "pipeline").exists():
        pipeline.load(str(folder / "pipeline"))
    documents = short_documents(60)
    with Encodes() as encodes:
        for start in range(0, len(documents), 10):
            pipeline.run(documents=documents[start : start + 10])
            if start == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)  # stored, and not yet remembered as stored
            pipeline.persist(str(folder / "pipeline"))
    assert len(encodes.texts) == texts


def test_a_killed_run_is_resumed(fake_model: PplxEmbedding, processes, tmp_path: Path):
    processes.run(_ingest, tmp_path, fake_model, 30, 0, exitcode=-signal.SIGKILL)
    processes.run(_ingest, tmp_path, fake_model, -1, 30 * 2)
    rows = chromadb.PersistentClient(str(tmp_path / "chroma")).get_collection("chunks").get(include=["embeddings"])
    found = dict(zip(rows["ids"], rows["embeddings"], strict=True))
    assert len(rows["ids"]) == len(found)
    assert_same_vectors(found, expected_vectors(fake_model, short_documents(60)))


def test_metadata_reaches_the_cache_key_and_the_vectors(make_model):
    embed_model = make_model(metadata_mode=MetadataMode.ALL)
    [document] = hard_documents(1)
    pipeline = IngestionPipeline(transformations=[SPLITTER, embed_model])
    plain = pipeline.run(documents=[document])
    document.metadata["river"] = "Rhine"
    assert [node.embedding for node in pipeline.run(documents=[document])] != [node.embedding for node in plain]
