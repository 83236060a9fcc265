"""An index is saved, and opened by another process: the same vectors, and what is added later is contextual, too."""

import warnings
from pathlib import Path
from typing import Any

import chromadb
import faiss
import numpy as np
import pytest
from llama_index.core import Document, StorageContext, SummaryIndex, load_index_from_storage
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.core.vector_stores.types import BasePydanticVectorStore
from llama_index.vector_stores.chroma import ChromaVectorStore
from llama_index.vector_stores.faiss import FaissVectorStore
from llama_index.vector_stores.qdrant import QdrantVectorStore
from qdrant_client import QdrantClient

from pplx_embed_integrations import ContextWarning, InputError, InputTypeError
from pplx_embed_integrations.llama_index import (
    ContextualVectorStoreIndex,
    PplxEmbedding,
    contextual_index,
    load_contextual_index,
)
from tests.llama_index.cases import (
    SPLITTER,
    Encodes,
    assert_same_vectors,
    chunk_id,
    expected_vectors,
    hard_documents,
)


def opened_store(kind: str, folder: Path, *, again: bool = False) -> BasePydanticVectorStore | None:
    """A store that is kept in a folder."""
    if kind == "qdrant":
        return QdrantVectorStore(collection_name="chunks", client=QdrantClient(path=str(folder / "qdrant")))
    if kind == "chroma":
        client = chromadb.PersistentClient(str(folder / "chroma"))
        return ChromaVectorStore(chroma_collection=client.get_or_create_collection("chunks"))
    if kind == "faiss":
        if again:
            return FaissVectorStore.from_persist_dir(str(folder))
        return FaissVectorStore(faiss_index=faiss.IndexFlatL2(32))
    return None


def read_all(kind: str, index: ContextualVectorStoreIndex) -> dict[str, Any]:
    store = index.vector_store
    if kind == "qdrant":
        points, _ = store.client.scroll("chunks", limit=100, with_vectors=True)
        return {str(point.id): point.vector for point in points}
    if kind == "chroma":
        rows = store.client.get(include=["embeddings"])
        return dict(zip(rows["ids"], rows["embeddings"], strict=True))
    if kind == "faiss":
        rows = index.index_struct.nodes_dict
        assert store.client.ntotal == len(rows)
        return {node_id: store.client.reconstruct(int(row)) for row, node_id in rows.items()}
    return dict(store.data.embedding_dict)


def beginnings(documents: list[Document]) -> list[Document]:
    return [Document(id_=one.id_, text="\n\n".join(one.text.split("\n\n")[:8])) for one in documents]


def _go_on(kind: str, folder: Path, model: PplxEmbedding) -> None:
    """What the other process does: nothing that is there is embedded again, and what is added has its context."""
    warnings.simplefilter("error", ContextWarning)
    documents = hard_documents(3)
    store = opened_store(kind, folder, again=True)
    storage = StorageContext.from_defaults(persist_dir=str(folder), **({"vector_store": store} if store else {}))
    index = load_contextual_index(storage, embed_model=model, splitter=SPLITTER)
    known = documents if kind == "faiss" else beginnings(documents)
    with Encodes() as encodes:
        assert index.refresh_ref_docs(known) == [False] * 3
        assert encodes.texts == []
    assert len(index.as_retriever(similarity_top_k=40).retrieve("river")) == (33 if kind == "faiss" else 24)
    if kind != "faiss":
        early = {chunk_id(position, document) for document in documents for position in range(8)}
        index.insert_nodes([node for node in SPLITTER(documents) if node.node_id not in early])
        index.insert_nodes(SPLITTER([Document(id_="new", text="a new one")]))
        index.delete_ref_doc("new", delete_from_docstore=True)
    assert_same_vectors(read_all(kind, index), expected_vectors(model, documents))
    (folder / "done").touch()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["default", "faiss", "qdrant", "chroma"])
def test_another_process_goes_on(kind, fake_model: PplxEmbedding, processes, tmp_path: Path):
    documents = hard_documents(3)
    index = contextual_index(
        documents if kind == "faiss" else beginnings(documents),
        embed_model=fake_model,
        splitter=SPLITTER,
        vector_store=opened_store(kind, tmp_path),
    )
    index.storage_context.persist(str(tmp_path))
    if kind == "qdrant":
        index.vector_store.client.close()  # its folder takes one process at a time
    processes.run(_go_on, kind, tmp_path, fake_model)
    assert (tmp_path / "done").exists()


@pytest.fixture
def folder(fake_model: PplxEmbedding, tmp_path: Path) -> str:
    index = contextual_index(hard_documents(2), embed_model=fake_model, splitter=SPLITTER)
    index.storage_context.persist(str(tmp_path))
    return str(tmp_path)


def opened(folder: str) -> StorageContext:
    return StorageContext.from_defaults(persist_dir=folder)


def test_no_documents_over_a_saved_index_open_it(fake_model: PplxEmbedding, folder):
    index = contextual_index([], embed_model=fake_model, storage_context=opened(folder), splitter=SPLITTER)
    assert isinstance(index, ContextualVectorStoreIndex)
    assert len(index.as_retriever(similarity_top_k=30).retrieve("river")) == 22
    assert index.refresh_ref_docs(hard_documents(3)) == [False, False, True]
    assert_same_vectors(index.vector_store.data.embedding_dict, expected_vectors(fake_model, hard_documents(3)))


def test_llama_indexes_own_way_to_open_it_warns_of_bare_nodes(fake_model: PplxEmbedding, folder):
    index = load_index_from_storage(opened(folder), embed_model=fake_model, transformations=[SPLITTER, fake_model])
    with pytest.warns(ContextWarning, match=r"load_contextual_index\(storage_context"):
        index.insert_nodes([TextNode(text="one more")])
    index.insert(Document(id_="new", text="one\n\ntwo"))
    [expected] = fake_model.encode_documents([["one", "two"]], normalize=True)
    found = list(index.vector_store.data.embedding_dict.values())[-2:]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_several_indexes_are_told_apart_by_their_ids(fake_model: PplxEmbedding, tmp_path):
    storage = StorageContext.from_defaults()
    options = {"embed_model": fake_model, "storage_context": storage, "splitter": SPLITTER}
    rivers = contextual_index(hard_documents(1), index_id="rivers", **options)
    contextual_index([Document(id_="x", text="one\n\ntwo")], index_id="others", **options)
    SummaryIndex.from_documents([Document(text="a summary")], storage_context=storage, transformations=[SPLITTER])
    assert rivers.index_id == "rivers"
    storage.persist(str(tmp_path))
    storage = opened(str(tmp_path))
    for call in (
        load_contextual_index,
        lambda storage, **given: contextual_index([], storage_context=storage, **given),
    ):
        with pytest.raises(InputError, match=r"holds 2 vector indexes, 'rivers', 'others'; say which: .*index_id="):
            call(storage, embed_model=fake_model)
    again = load_contextual_index(storage, embed_model=fake_model, index_id="others")
    assert len(again.as_retriever(similarity_top_k=30).retrieve("one")) == 2
    grown = contextual_index(hard_documents(2), index_id="rivers", **{**options, "storage_context": storage})
    assert len(grown.as_retriever(similarity_top_k=30).retrieve("one")) == 22
    with pytest.raises(InputError, match="holds no vector index named 'lakes'"):
        load_contextual_index(storage, embed_model=fake_model, index_id="lakes")


def test_what_cannot_be_opened_is_refused(fake_model: PplxEmbedding, folder):
    with pytest.raises(InputError, match="holds no vector index; open the folder"):
        load_contextual_index(StorageContext.from_defaults(), embed_model=fake_model)
    with pytest.raises(InputTypeError, match=r"not str; write StorageContext.from_defaults\(persist_dir='folder'\)"):
        load_contextual_index(folder, embed_model=fake_model)
    lone = SimpleVectorStore.from_persist_dir(folder)
    with pytest.raises(InputError, match="SimpleVectorStore holds 22 vectors already"):
        contextual_index([], embed_model=fake_model, vector_store=lone)
