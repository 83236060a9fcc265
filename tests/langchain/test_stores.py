"""The hard case on real stores: 12 documents of 11 chunks, an identical footer in each, a repeated chunk, shuffled."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.indexing import InMemoryRecordManager
from langchain_core.vectorstores import InMemoryVectorStore

from pplx_embed_integrations.langchain import (
    aadd_documents,
    add_documents,
    aindex_documents,
    from_documents,
    index_documents,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20"),
]
STORES = ["InMemory", "FAISS", "Chroma", "Qdrant", "LanceDB", "Milvus", "SQLiteVec"]
# SQLiteVec has no delete and takes no ids, so LangChain's index() refuses it.
INDEXABLE = STORES[:-1]


@pytest.fixture
def store(request, open_store, embeddings):
    return open_store(request.param, embeddings)


@pytest.mark.parametrize("store", STORES, indirect=True, ids=STORES)
def test_add(request, store, shuffled, expected, read_vectors, same):
    add_documents(store, shuffled, group_by="source")
    same(read_vectors(request.node.callspec.id, store), expected)


@pytest.mark.parametrize("store", STORES, indirect=True, ids=STORES)
async def test_aadd(request, store, shuffled, expected, read_vectors, same):
    await aadd_documents(store, shuffled, group_by="source")
    same(read_vectors(request.node.callspec.id, store), expected)


@pytest.mark.parametrize("store", STORES, indirect=True, ids=STORES)
def test_plain_add_inside_the_block(request, store, embeddings, shuffled, expected, read_vectors, same):
    with embeddings.documents(shuffled, group_by="source", on_miss="error"):
        store.add_documents(shuffled)
    same(read_vectors(request.node.callspec.id, store), expected)


def _records() -> InMemoryRecordManager:
    records = InMemoryRecordManager("chunks")
    records.create_schema()
    return records


@pytest.mark.parametrize("cleanup", ["scoped_full", "incremental"])
@pytest.mark.parametrize("store", INDEXABLE, indirect=True, ids=INDEXABLE)
def test_index(request, store, cleanup, shuffled, expected, read_vectors, same):
    result = index_documents(shuffled, _records(), store, group_by="source", cleanup=cleanup, batch_size=25)
    assert result == {"num_added": 132, "num_updated": 0, "num_skipped": 0, "num_deleted": 0}
    same(read_vectors(request.node.callspec.id.split("-")[0], store), expected)


@pytest.mark.parametrize("store", INDEXABLE, indirect=True, ids=INDEXABLE)
async def test_aindex(request, store, shuffled, expected, read_vectors, same):
    await aindex_documents(shuffled, _records(), store, group_by="source")
    same(read_vectors(request.node.callspec.id, store), expected)


@pytest.mark.parametrize("name", ["InMemory", "FAISS", "Chroma", "Qdrant", "Milvus"])
def test_from_documents(embeddings, shuffled, expected, read_vectors, same, tmp_path, name):
    """Also where making the store makes it probe the embeddings, which is no miss."""
    from langchain_chroma import Chroma
    from langchain_community.vectorstores import FAISS
    from langchain_milvus import Milvus
    from langchain_qdrant import QdrantVectorStore

    flat = {"index_type": "FLAT", "metric_type": "L2"}
    store_class, options = {
        "InMemory": (InMemoryVectorStore, {}),
        "FAISS": (FAISS, {}),
        "Chroma": (Chroma, {"collection_name": "chunks", "persist_directory": str(tmp_path)}),
        "Qdrant": (QdrantVectorStore, {"collection_name": "chunks", "location": ":memory:"}),
        "Milvus": (Milvus, {"connection_args": {"uri": str(tmp_path / "m.db")}, "index_params": flat, "auto_id": True}),
    }[name]
    store = from_documents(store_class, shuffled, embeddings, group_by="source", on_miss="error", **options)
    same(read_vectors(name, store), expected)


@pytest.mark.parametrize("store", STORES, indirect=True, ids=STORES)
def test_nearest_to_a_stored_vector_is_its_own_text(store, embeddings):
    texts = [f"the {animal} number {n}" for n in range(6) for animal in ("otter", "heron", "lynx")]
    store.add_documents([Document(text, metadata={"source": "none", "chunk": 0}) for text in texts])
    for text, vector in zip(texts, embeddings.embed_documents(texts), strict=True):
        [nearest] = store.similarity_search_by_vector(vector, k=1)
        assert nearest.page_content == text


@pytest.mark.parametrize("store", INDEXABLE, indirect=True, ids=INDEXABLE)
def test_an_edited_chunk_changes_all_its_siblings_and_leaves_nothing_old(
    request, store, embeddings, shuffled, corpus, expected, read_vectors, same
):
    records = _records()
    index_documents(shuffled, records, store, group_by="source")
    edited = [Document(chunk.page_content, metadata=dict(chunk.metadata)) for chunk in shuffled]
    for chunk in edited:
        if (chunk.metadata["source"], chunk.metadata["chunk"]) == ("doc-4", 5):
            chunk.page_content = "Something else entirely has happened here."
    result = index_documents(edited, records, store, group_by="source")
    assert (result["num_added"], result["num_deleted"], result["num_skipped"]) == (11, 11, 121)
    chunks = [*corpus[4][:5], "Something else entirely has happened here.", *corpus[4][6:]]
    [matrix] = embeddings.encode_documents([chunks], normalize=True)
    wanted = {**expected, **{("doc-4", row): [vector.tolist()] for row, vector in enumerate(matrix)}}
    found = read_vectors(request.node.callspec.id, store)
    same(found, wanted)
    for row in range(11):
        assert np.abs(np.subtract(found["doc-4", row], expected["doc-4", row])).max() > 0.006


@pytest.mark.parametrize("quantization", [None, "int8"])
def test_eight_threads_and_fifty_neighbours_change_no_vector(new_embeddings, shuffled, read_vectors, quantization):
    embeddings = new_embeddings(quantization=quantization)
    sources = sorted({chunk.metadata["source"] for chunk in shuffled})

    def index_one(source, others=50):
        store = InMemoryVectorStore(embeddings)
        noise = [
            Document(f"noise {n} by {source}", metadata={"source": f"noise {n}", "chunk": 0}) for n in range(others)
        ]
        add_documents(
            store,
            [*[chunk for chunk in shuffled if chunk.metadata["source"] == source], *noise],
            group_by=lambda chunk: chunk.metadata["source"],
        )
        found = read_vectors("InMemory", store)
        return {key: vectors for key, vectors in found.items() if key[0] == source}

    with ThreadPoolExecutor(8) as pool:
        together = {key: vectors for part in pool.map(index_one, sources) for key, vectors in part.items()}
    alone = {key: vectors for source in sources for key, vectors in index_one(source, others=0).items()}
    assert together.keys() == alone.keys()
    for key, vectors in together.items():
        if quantization is None:
            assert np.dot(vectors[0], alone[key][0]) >= 1 - 1e-6
        np.testing.assert_allclose(vectors, alone[key], atol=0.006)  # int8 codes at most one apart


async def test_concurrent_tasks_do_not_see_each_others_documents(opened, corpus, monkeypatch):
    documents = {f"doc-{n}": texts for n, texts in enumerate(corpus)}

    if opened.name == "Qdrant":  # whose local mode is not safe in the threads that LangChain calls it in
        lock, upsert = threading.Lock(), opened.store.client.upsert

        def locked(*given, **options):
            with lock:
                return upsert(*given, **options)

        monkeypatch.setattr(opened.store.client, "upsert", locked)

    async def one(name):
        chunks = [Document(text, metadata={"source": name, "n": n}) for n, text in enumerate(documents[name])]
        await aadd_documents(opened.store, chunks, group_by="source")

    await asyncio.gather(*map(one, documents))
    opened.check(documents, by="source", place="n")
