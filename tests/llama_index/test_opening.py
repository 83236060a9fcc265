"""An index is saved, and opened by another process: the same vectors, and what is added later is contextual, too."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from llama_index.core import Document, StorageContext, SummaryIndex, load_index_from_storage
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import SimpleVectorStore

from pplx_embed_integrations import ContextWarning, InputError, InputTypeError
from pplx_embed_integrations.llama_index import (
    ContextualVectorStoreIndex,
    PplxEmbedding,
    contextual_index,
    load_contextual_index,
)
from tests.llama_index.cases import SPLITTER, assert_same_vectors, expected_vectors, hard_documents

PROCESS = """
import json, sys
from pathlib import Path
from llama_index.core import Document, StorageContext
from pplx_embed_integrations.llama_index import PplxEmbedding, contextual_index, load_contextual_index
from tests.llama_index.cases import SPLITTER, Encodes, chunk_id, hard_documents

kind, step, folder, query_model, document_model = sys.argv[1:]
folder = Path(folder)
embed_model = PplxEmbedding(query_model=query_model, document_model=document_model, dtype="float32", quantization=None)
documents = hard_documents(3)
first = [Document(id_=one.id_, text="\\n\\n".join(one.text.split("\\n\\n")[:8])) for one in documents]

def store():
    if kind == "qdrant":
        from llama_index.vector_stores.qdrant import QdrantVectorStore
        from qdrant_client import QdrantClient
        return QdrantVectorStore(collection_name="chunks", client=QdrantClient(path=str(folder / "qdrant")))
    if kind == "chroma":
        import chromadb
        from llama_index.vector_stores.chroma import ChromaVectorStore
        return ChromaVectorStore(
            chroma_collection=chromadb.PersistentClient(str(folder / "chroma")).get_or_create_collection("chunks")
        )
    if kind == "faiss":
        import faiss
        from llama_index.vector_stores.faiss import FaissVectorStore
        if step == "read":
            return FaissVectorStore.from_persist_dir(str(folder))
        return FaissVectorStore(faiss_index=faiss.IndexFlatL2(32))
    return None

if step == "write":
    given = documents if kind == "faiss" else first
    contextual_index(
        given, embed_model=embed_model, splitter=SPLITTER, vector_store=store()
    ).storage_context.persist(str(folder))
    sys.exit()

storage = StorageContext.from_defaults(persist_dir=str(folder), **({"vector_store": store()} if store else {}))
index = load_contextual_index(storage, embed_model=embed_model, splitter=SPLITTER)
with Encodes() as encodes:
    assert index.refresh_ref_docs(documents if kind == "faiss" else first) == [False] * 3
    assert encodes.texts == []
assert len(index.as_retriever(similarity_top_k=40).retrieve("river")) == (33 if kind == "faiss" else 24)
if kind != "faiss":
    early = {chunk_id(position, document) for document in documents for position in range(8)}
    late = [node for node in SPLITTER(documents) if node.node_id not in early]
    index.insert_nodes(late)
    [one] = SPLITTER([Document(id_="new", text="a new one")])
    index.insert_nodes([one])
    index.delete_ref_doc("new", delete_from_docstore=True)
vector_store = index.vector_store
if kind == "qdrant":
    points, _ = vector_store.client.scroll("chunks", limit=100, with_vectors=True)
    found = {str(point.id): point.vector for point in points}
elif kind == "chroma":
    rows = vector_store.client.get(include=["embeddings"])
    found = {key: row.tolist() for key, row in zip(rows["ids"], rows["embeddings"])}
elif kind == "faiss":
    rows = index.index_struct.nodes_dict
    assert vector_store.client.ntotal == len(rows)
    found = {node_id: vector_store.client.reconstruct(int(row)).tolist() for row, node_id in rows.items()}
else:
    found = vector_store.data.embedding_dict
print(json.dumps(found))
"""


def run(*arguments: str) -> str:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-W", "error::pplx_embed_integrations.errors.ContextWarning", "-c", PROCESS, *arguments],
        capture_output=True,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["default", "faiss", "qdrant", "chroma"])
def test_another_process_goes_on(kind, exact_model: PplxEmbedding, replica_v1, replica_context_v1, tmp_path: Path):
    import json

    models = [str(tmp_path), str(replica_v1), str(replica_context_v1)]
    run(kind, "write", *models)
    found = json.loads(run(kind, "read", *models).splitlines()[-1])
    assert_same_vectors(found, expected_vectors(exact_model, hard_documents(3)))


@pytest.fixture
def folder(exact_model: PplxEmbedding, tmp_path: Path) -> str:
    index = contextual_index(hard_documents(2), embed_model=exact_model, splitter=SPLITTER)
    index.storage_context.persist(str(tmp_path))
    return str(tmp_path)


def opened(folder: str) -> StorageContext:
    return StorageContext.from_defaults(persist_dir=folder)


def test_no_documents_over_a_saved_index_open_it(exact_model: PplxEmbedding, folder):
    index = contextual_index([], embed_model=exact_model, storage_context=opened(folder), splitter=SPLITTER)
    assert isinstance(index, ContextualVectorStoreIndex)
    assert len(index.as_retriever(similarity_top_k=30).retrieve("river")) == 22
    assert index.refresh_ref_docs(hard_documents(3)) == [False, False, True]
    assert_same_vectors(index.vector_store.data.embedding_dict, expected_vectors(exact_model, hard_documents(3)))


def test_llama_indexes_own_way_to_open_it_warns_of_bare_nodes(exact_model: PplxEmbedding, folder):
    index = load_index_from_storage(opened(folder), embed_model=exact_model, transformations=[SPLITTER, exact_model])
    with pytest.warns(ContextWarning, match=r"load_contextual_index\(storage_context"):
        index.insert_nodes([TextNode(text="one more")])
    index.insert(Document(id_="new", text="one\n\ntwo"))
    [expected] = exact_model.encode_documents([["one", "two"]], normalize=True)
    found = list(index.vector_store.data.embedding_dict.values())[-2:]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_several_indexes_are_told_apart_by_their_ids(exact_model: PplxEmbedding, tmp_path):
    storage = StorageContext.from_defaults()
    options = {"embed_model": exact_model, "storage_context": storage, "splitter": SPLITTER}
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
            call(storage, embed_model=exact_model)
    again = load_contextual_index(storage, embed_model=exact_model, index_id="others")
    assert len(again.as_retriever(similarity_top_k=30).retrieve("one")) == 2
    grown = contextual_index(hard_documents(2), index_id="rivers", **{**options, "storage_context": storage})
    assert len(grown.as_retriever(similarity_top_k=30).retrieve("one")) == 22
    with pytest.raises(InputError, match="holds no vector index named 'lakes'"):
        load_contextual_index(storage, embed_model=exact_model, index_id="lakes")


def test_what_cannot_be_opened_is_refused(exact_model: PplxEmbedding, folder):
    with pytest.raises(InputError, match="holds no vector index; open the folder"):
        load_contextual_index(StorageContext.from_defaults(), embed_model=exact_model)
    with pytest.raises(InputTypeError, match=r"not str; write StorageContext.from_defaults\(persist_dir='folder'\)"):
        load_contextual_index(folder, embed_model=exact_model)
    lone = SimpleVectorStore.from_persist_dir(folder)
    with pytest.raises(InputError, match="SimpleVectorStore holds 22 vectors already"):
        contextual_index([], embed_model=exact_model, vector_store=lone)
