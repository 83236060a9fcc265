"""Vectors read back out of real stores are those that `encode_documents` gives each document by itself."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from llama_index.core import Document, StorageContext, VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.vector_stores import VectorStoreQuery

from pplx_embed_integrations.llama_index import PplxEmbedding, acontextual_index, contextual_index
from tests.llama_index.cases import (
    SPLITTER,
    STORES,
    assert_same_vectors,
    chunk_id,
    expected_vectors,
    hard_documents,
    make_store,
    shuffled_nodes,
)

# FAISS deletes nothing, and says so.
DELETING = [
    "default",
    "qdrant",
    "chroma",
    pytest.param(
        "lancedb",
        marks=pytest.mark.xfail(
            raises=ValueError,
            strict=True,
            reason="llama-index-vector-stores-lancedb 0.6 quotes ids as if they were columns (lancedb 0.40)",
        ),
    ),
]


def test_the_hard_case_is_hard(exact_model: PplxEmbedding):
    documents = hard_documents()
    vectors = expected_vectors(exact_model, documents)
    footers = [vectors[chunk_id(10, document)] for document in documents]
    twice = [(vectors[chunk_id(3, document)], vectors[chunk_id(9, document)]) for document in documents]
    for one, other in [*itertools.combinations(footers, 2), *twice]:
        assert np.abs(one - other).max() > 1e-3


@pytest.mark.parametrize("kind", STORES)
def test_contextual_index_stores_each_documents_own_vectors(kind: str, exact_model: PplxEmbedding, tmp_path: Path):
    documents = hard_documents()
    store = make_store(kind, tmp_path)
    contextual_index(documents, embed_model=exact_model, vector_store=store.vector_store, splitter=SPLITTER)
    ids = [chunk_id(position, document) for document in documents for position in range(11)]
    assert_same_vectors(store.read(ids), expected_vectors(exact_model, documents))


@pytest.mark.parametrize("kind", STORES)
async def test_so_does_an_index_made_asynchronously_and_one_of_shuffled_nodes(kind, exact_model, tmp_path: Path):
    documents = hard_documents()
    ids = [chunk_id(position, document) for document in documents for position in range(11)]
    store = make_store(kind, tmp_path / "documents")
    await acontextual_index(documents, embed_model=exact_model, vector_store=store.vector_store, splitter=SPLITTER)
    assert_same_vectors(store.read(ids), expected_vectors(exact_model, documents))
    store, nodes = make_store(kind, tmp_path / "nodes"), shuffled_nodes(documents)
    index = contextual_index([], embed_model=exact_model, vector_store=store.vector_store)
    index.insert_nodes(nodes)
    assert_same_vectors(store.read([node.node_id for node in nodes]), expected_vectors(exact_model, documents))


@pytest.mark.parametrize("kind", STORES)
def test_a_pipeline_over_shuffled_nodes_does_too(kind: str, exact_model: PplxEmbedding, tmp_path: Path):
    documents = hard_documents()
    store = make_store(kind, tmp_path)
    pipeline = IngestionPipeline(transformations=[exact_model], vector_store=store.vector_store)
    nodes = pipeline.run(nodes=shuffled_nodes(documents))
    assert_same_vectors(store.read([node.node_id for node in nodes]), expected_vectors(exact_model, documents))


@pytest.mark.parametrize("kind", STORES)
async def test_so_does_an_asynchronous_run(kind: str, exact_model: PplxEmbedding, tmp_path: Path):
    documents = hard_documents()
    store = make_store(kind, tmp_path)
    pipeline = IngestionPipeline(transformations=[SPLITTER, exact_model], vector_store=store.vector_store)
    nodes = await pipeline.arun(documents=documents)
    assert_same_vectors(store.read([node.node_id for node in nodes]), expected_vectors(exact_model, documents))


@pytest.mark.parametrize("kind", STORES)
def test_so_do_shuffled_nodes_in_a_vector_store_index(kind: str, exact_model: PplxEmbedding, tmp_path: Path):
    documents = hard_documents()
    store = make_store(kind, tmp_path)
    nodes = exact_model(shuffled_nodes(documents))
    storage = StorageContext.from_defaults(vector_store=store.vector_store)
    VectorStoreIndex(nodes=nodes, embed_model=exact_model, storage_context=storage)
    assert_same_vectors(store.read([node.node_id for node in nodes]), expected_vectors(exact_model, documents))


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize("quantization", ["int8", "binary", None])
def test_the_nearest_neighbour_of_a_stored_vector_is_its_chunk(kind, quantization, make_model, tmp_path: Path):
    embed_model = make_model(quantization=quantization)
    # The replica's weights are random, and binary vectors of 32 bits meet by chance: one chunk of each document.
    documents = [
        Document(id_=f"d{n}", text=text) for n, text in enumerate(["one river", "a lake", "hills", "Ur 4", "€"])
    ]
    store = make_store(kind, tmp_path)
    index = contextual_index(documents, embed_model=embed_model, vector_store=store.vector_store, splitter=SPLITTER)
    vectors = store.read([chunk_id(0, document) for document in documents])
    for document in documents:
        vector = [float(value) for value in vectors[chunk_id(0, document)]]
        found = index.vector_store.query(VectorStoreQuery(query_embedding=vector, similarity_top_k=1)).ids
        nearest = index.index_struct.nodes_dict.get(found[0], found[0])
        assert nearest == chunk_id(0, document)


@pytest.mark.parametrize("kind", DELETING)
def test_an_edited_document_moves_all_its_chunks_and_no_other(kind: str, exact_model: PplxEmbedding, tmp_path: Path):
    documents = hard_documents(3)
    store = make_store(kind, tmp_path)
    index = contextual_index(documents, embed_model=exact_model, vector_store=store.vector_store, splitter=SPLITTER)
    before = store.read([])
    edited = documents[1].model_copy(update={"text_resource": None})
    edited.set_content(documents[1].text.replace("Part 5", "Another part"))
    assert index.refresh_ref_docs([documents[0], edited, documents[2]]) == [False, True, False]
    after = store.read([])
    assert_same_vectors(after, expected_vectors(exact_model, [documents[0], edited, documents[2]]))
    for document in documents:
        moved = [list(before[chunk_id(p, document)]) != list(after[chunk_id(p, document)]) for p in range(11)]
        assert all(moved) if document is documents[1] else not any(moved)


@pytest.mark.parametrize("kind", DELETING)
def test_a_deleted_document_is_gone(kind: str, exact_model: PplxEmbedding, tmp_path: Path):
    documents = hard_documents(2)
    store = make_store(kind, tmp_path)
    index = contextual_index(documents, embed_model=exact_model, vector_store=store.vector_store, splitter=SPLITTER)
    index.delete_ref_doc("report-0", delete_from_docstore=True)
    assert_same_vectors(store.read([]), expected_vectors(exact_model, documents[1:]))
