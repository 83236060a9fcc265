"""The hard case on real stores: 12 documents of 11 chunks, an identical footer in each, a repeated chunk, shuffled."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.indexing import InMemoryRecordManager

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
    add_documents(store, shuffled)
    same(read_vectors(request.node.callspec.id, store), expected)


@pytest.mark.parametrize("store", STORES, indirect=True, ids=STORES)
async def test_aadd(request, store, shuffled, expected, read_vectors, same):
    await aadd_documents(store, shuffled)
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
    result = index_documents(shuffled, _records(), store, cleanup=cleanup, batch_size=25)
    assert result == {"num_added": 132, "num_updated": 0, "num_skipped": 0, "num_deleted": 0}
    same(read_vectors(request.node.callspec.id.split("-")[0], store), expected)


@pytest.mark.parametrize("store", INDEXABLE, indirect=True, ids=INDEXABLE)
async def test_aindex(request, store, shuffled, expected, read_vectors, same):
    await aindex_documents(shuffled, _records(), store)
    same(read_vectors(request.node.callspec.id, store), expected)


def test_from_documents(embeddings, shuffled, expected, read_vectors, same):
    from langchain_community.vectorstores import FAISS

    store = from_documents(FAISS, shuffled, embeddings)
    same(read_vectors("FAISS", store), expected)


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
    index_documents(shuffled, records, store)
    edited = [Document(chunk.page_content, metadata=dict(chunk.metadata)) for chunk in shuffled]
    for chunk in edited:
        if (chunk.metadata["source"], chunk.metadata["chunk"]) == ("doc-4", 5):
            chunk.page_content = "Something else entirely has happened here."
    result = index_documents(edited, records, store)
    assert (result["num_added"], result["num_deleted"], result["num_skipped"]) == (11, 11, 121)
    chunks = [*corpus[4][:5], "Something else entirely has happened here.", *corpus[4][6:]]
    [matrix] = embeddings.encode_documents([chunks], normalize=True)
    wanted = {**expected, **{("doc-4", row): [vector.tolist()] for row, vector in enumerate(matrix)}}
    found = read_vectors(request.node.callspec.id, store)
    same(found, wanted)
    for row in range(11):
        assert np.abs(np.subtract(found["doc-4", row], expected["doc-4", row])).max() > 0.006


def test_eight_threads_and_fifty_neighbours_change_no_vector(embeddings, shuffled, expected, read_vectors, same):
    from concurrent.futures import ThreadPoolExecutor

    from langchain_core.vectorstores import InMemoryVectorStore

    sources = sorted({chunk.metadata["source"] for chunk in shuffled})

    def index_one(source):
        store = InMemoryVectorStore(embeddings)
        others = [Document(f"noise {n} by {source}", metadata={"source": f"noise {n}", "chunk": 0}) for n in range(50)]
        add_documents(store, [*[chunk for chunk in shuffled if chunk.metadata["source"] == source], *others])
        found = read_vectors("InMemory", store)
        return {key: vectors for key, vectors in found.items() if key[0] == source}

    with ThreadPoolExecutor(8) as pool:
        found = {key: vectors for part in pool.map(index_one, sources) for key, vectors in part.items()}
    _close(found, expected)
    alone = InMemoryVectorStore(embeddings)
    add_documents(alone, [chunk for chunk in shuffled if chunk.metadata["source"] == "doc-3"])
    _close(read_vectors("InMemory", alone), {key: value for key, value in expected.items() if key[0] == "doc-3"})


def _close(found, wanted):
    """Other batches may move a float over a rounding border: codes of 127 at most one apart."""
    assert found.keys() == wanted.keys()
    for key in wanted:
        np.testing.assert_allclose(found[key], wanted[key], atol=0.006)


def test_concurrent_tasks_do_not_see_each_others_documents(embeddings, shuffled, expected, read_vectors):
    from langchain_core.vectorstores import InMemoryVectorStore

    async def one(source):
        store = InMemoryVectorStore(embeddings)
        await aadd_documents(store, [chunk for chunk in shuffled if chunk.metadata["source"] == source])
        return read_vectors("InMemory", store)

    async def everything():
        return await asyncio.gather(*[one(f"doc-{n}") for n in range(12)])

    found = {key: vectors for part in asyncio.run(everything()) for key, vectors in part.items()}
    _close(found, expected)
