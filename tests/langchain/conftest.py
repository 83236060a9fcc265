"""The replica pair as LangChain embeddings, a corpus that is hard to keep apart, and real stores to read back from."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.stores import InMemoryByteStore
from langchain_core.vectorstores import InMemoryVectorStore

from pplx_embed_integrations import FakeEmbedder
from pplx_embed_integrations.langchain import PplxEmbeddings

GOLDEN = Path(__file__).parents[1] / "golden"
FOOTER = "Subject to the terms of use. All rights reserved, everywhere and for ever."
Vectors = dict[tuple[str, int], list[list[float]]]


class CountingEmbeddings(PplxEmbeddings):
    """Counts the documents that really reach the model, by their text."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        object.__setattr__(self, "encoded", [])
        sync, native = self._biencoder.encode_documents, self._biencoder.aencode_documents

        def encode_documents(documents, **form):
            self.encoded.extend(map(tuple, documents))
            return sync(documents, **form)

        async def aencode_documents(documents, **form):
            self.encoded.extend(map(tuple, documents))
            return await native(documents, **form)

        self._biencoder.encode_documents = encode_documents
        self._biencoder.aencode_documents = aencode_documents


def make(cls: type[PplxEmbeddings] = PplxEmbeddings, **options: Any) -> PplxEmbeddings:
    pair = {"query_model": GOLDEN / "replica-v1", "document_model": GOLDEN / "replica-context-v1"}
    return cls(**{**pair, "dtype": "float32", **options})


def make_fake(cls: type[PplxEmbeddings] = PplxEmbeddings, *, max_tokens: int = 512, **options: Any) -> PplxEmbeddings:
    """Embeddings whose vectors need no model, and still show every neighbour and place of a chunk."""
    return cls(FakeEmbedder(64, max_tokens=max_tokens), **options)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Flat lists are what contextual vectors are compared with here; test_warnings.py sees that they are warned about.
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.filterwarnings("ignore:.*each by itself"))


@pytest.fixture(scope="session")
def embeddings() -> PplxEmbeddings:
    """The replica pair in float32, loaded once."""
    return make()


@pytest.fixture(scope="session")
def fake() -> PplxEmbeddings:
    """Embeddings without a model."""
    return make_fake()


@pytest.fixture
def new_fake() -> Callable[..., PplxEmbeddings]:
    """Makes embeddings without a model."""
    return make_fake


@pytest.fixture
def counting_fake() -> Callable[..., CountingEmbeddings]:
    """Makes embeddings without a model that count the documents reaching it."""
    return lambda **options: make_fake(CountingEmbeddings, **options)


@pytest.fixture
def counting() -> Callable[..., CountingEmbeddings]:
    """Makes embeddings that count the documents reaching the model."""
    return lambda **options: make(CountingEmbeddings, **options)


@pytest.fixture
def new_embeddings() -> Callable[..., PplxEmbeddings]:
    """Makes embeddings on the replica pair."""
    return make


@pytest.fixture
def byte_store() -> InMemoryByteStore:
    return InMemoryByteStore()


@pytest.fixture
def corpus() -> list[list[str]]:
    """12 documents of 11 chunks, all ending with the same footer, with a chunk that occurs twice in its document."""
    documents = []
    for number in range(12):
        chunks = [f"Document {number}, paragraph {row}, speaks of item {number * row % 7}." for row in range(10)]
        chunks[7] = chunks[3]
        documents.append([*chunks, FOOTER])
    return documents


@pytest.fixture
def shuffled(corpus: list[list[str]]) -> list[Document]:
    """The corpus as LangChain documents in random order; `start_index` tells the reading order."""
    chunks = [
        Document(text, metadata={"source": f"doc-{number}", "chunk": row, "start_index": 100 * row})
        for number, texts in enumerate(corpus)
        for row, text in enumerate(texts)
    ]
    random.Random(7).shuffle(chunks)
    return chunks


@pytest.fixture
def expected(embeddings: PplxEmbeddings, corpus: list[list[str]]) -> Vectors:
    """What every chunk's stored vector must be: unit rows of `encode_documents` on its whole document."""
    matrices = embeddings.encode_documents(corpus, normalize=True)
    return {
        (f"doc-{n}", row): [vector.tolist()] for n, matrix in enumerate(matrices) for row, vector in enumerate(matrix)
    }


def _faiss(embeddings: PplxEmbeddings, folder: Path) -> Any:
    import faiss
    from langchain_community.docstore import InMemoryDocstore
    from langchain_community.vectorstores import FAISS

    return FAISS(embeddings, faiss.IndexFlatL2(embeddings.biencoder.dimension), InMemoryDocstore(), {})


def _chroma(embeddings: PplxEmbeddings, folder: Path) -> Any:
    from langchain_chroma import Chroma

    return Chroma(f"chunks-{uuid4()}", embeddings)  # in memory, where all of a process share one database


def _qdrant(embeddings: PplxEmbeddings, folder: Path) -> Any:
    from langchain_qdrant import QdrantVectorStore
    from qdrant_client import QdrantClient, models

    client = QdrantClient(":memory:")
    size = embeddings.biencoder.dimension
    client.create_collection("chunks", models.VectorParams(size=size, distance=models.Distance.COSINE))
    return QdrantVectorStore(client, "chunks", embedding=embeddings)


def _lancedb(embeddings: PplxEmbeddings, folder: Path) -> Any:
    from langchain_community.vectorstores import LanceDB

    return LanceDB(uri=str(folder / "lance"), embedding=embeddings, mode="append")


def _milvus(embeddings: PplxEmbeddings, folder: Path) -> Any:
    from langchain_milvus import Milvus

    return Milvus(
        embeddings,
        connection_args={"uri": str(folder / "milvus.db")},
        index_params={"index_type": "FLAT", "metric_type": "L2"},
        consistency_level="Strong",
    )


def _sqlite_vec(embeddings: PplxEmbeddings, folder: Path) -> Any:
    sqlite = pytest.importorskip("pysqlite3", reason="Python's own sqlite3 is built without extensions here")
    import sqlite_vec
    from langchain_community.vectorstores import SQLiteVec

    connection = sqlite.connect(str(folder / "vectors.db"), check_same_thread=False)
    connection.row_factory = sqlite.Row
    connection.enable_load_extension(True)
    sqlite_vec.load(connection)
    return SQLiteVec("chunks", connection, embeddings)


STORES: dict[str, Callable[[PplxEmbeddings, Path], Any]] = {
    "InMemory": lambda embeddings, folder: InMemoryVectorStore(embeddings),
    "FAISS": _faiss,
    "Chroma": _chroma,
    "Qdrant": _qdrant,
    "LanceDB": _lancedb,
    "Milvus": _milvus,
    "SQLiteVec": _sqlite_vec,
}


FOUR = ["InMemory", "Chroma", "Qdrant", "FAISS"]
"""Where everything about the life of a document is read back from."""


class Row(NamedTuple):
    """What a store holds of one chunk."""

    text: str
    metadata: dict[str, Any]
    vector: Any


@dataclass(frozen=True)
class Opened:
    """A store, and everything that is in it, read out of it by its own means."""

    name: str
    store: Any

    def rows(self) -> list[Row]:
        if self.name == "FAISS":
            assert self.store.index.ntotal == len(self.store.index_to_docstore_id)
        return [
            Row(text, metadata, np.asarray(v, dtype=np.float32)) for text, metadata, v in _rows(self.name, self.store)
        ]

    def check(self, documents: dict[Any, list[str]], *, by: str | Callable[[dict[str, Any]], Any], place: str) -> None:
        """Every chunk of these documents is there once, with the vector it has in its document; and nothing else is."""
        embeddings = self.store.embeddings
        name = by if callable(by) else lambda metadata: metadata[by]
        matrices = embeddings.embed_document_chunks(list(documents.values()))
        wanted = {
            (key, row): (text, vector)
            for (key, texts), matrix in zip(documents.items(), matrices, strict=True)
            for row, (text, vector) in enumerate(zip(texts, matrix, strict=True))
        }
        found = {(name(row.metadata), int(row.metadata[place])): row for row in self.rows()}
        assert len(found) == len(self.rows())
        assert found.keys() == wanted.keys()
        for key, (text, vector) in wanted.items():
            assert found[key].text == text
            np.testing.assert_allclose(_unit(found[key].vector), _unit(vector), atol=0.006, err_msg=str(key))

    def reopened(self, embeddings: PplxEmbeddings) -> Opened:
        """The same rows under other embeddings, as another run opens them."""
        store = self.store
        if self.name == "InMemory":
            again = InMemoryVectorStore(embeddings)
            again.store = store.store
        elif self.name == "FAISS":
            again = type(store)(embeddings, store.index, store.docstore, store.index_to_docstore_id)
        elif self.name == "Chroma":
            again = type(store)(store._collection.name, embeddings)
        else:
            again = type(store)(
                store.client, store.collection_name, embedding=embeddings, validate_collection_config=False
            )
        return Opened(self.name, again)


def _unit(vector: Any) -> Any:
    return np.asarray(vector) / np.linalg.norm(vector)  # Qdrant's cosine keeps directions only


def _rows(name: str, store: Any) -> list[tuple[str, dict[str, Any], Any]]:
    """All texts, metadata and vectors."""
    if name == "InMemory":
        return [(entry["text"], entry["metadata"], entry["vector"]) for entry in store.store.values()]
    if name == "FAISS":
        found = {i: store.docstore.search(key) for i, key in store.index_to_docstore_id.items()}
        return [(chunk.page_content, chunk.metadata, store.index.reconstruct(i)) for i, chunk in found.items()]
    if name == "Chroma":
        got = store.get(include=["metadatas", "embeddings", "documents"])
        return list(zip(got["documents"], got["metadatas"], got["embeddings"], strict=True))
    if name == "Qdrant":
        points, _ = store.client.scroll(store.collection_name, limit=10_000, with_vectors=True)
        return [(point.payload["page_content"], point.payload["metadata"] or {}, point.vector) for point in points]
    if name == "LanceDB":
        return [(row["text"], row["metadata"], row["vector"]) for row in store.get_table().to_arrow().to_pylist()]
    if name == "Milvus":
        rows = store.client.query(store.collection_name, filter="", limit=10_000, output_fields=["*"])
        return [(row["text"], row, row["vector"]) for row in rows]
    import json

    rows = store._connection.execute("SELECT text, metadata, text_embedding FROM chunks").fetchall()
    return [
        (row["text"], json.loads(row["metadata"]), np.frombuffer(row["text_embedding"], dtype=np.float32))
        for row in rows
    ]


@pytest.fixture
def read_vectors() -> Callable[[str, Any], Vectors]:
    """Reads every stored vector back, by source and chunk; all of them, so that a duplicate shows."""

    def read(name: str, store: Any) -> Vectors:
        found: Vectors = {}
        for _, metadata, vector in _rows(name, store):
            row = np.asarray(vector, dtype=np.float32).tolist()
            found.setdefault((metadata["source"], int(metadata["chunk"])), []).append(row)
        return found

    return read


@pytest.fixture
def open_store(tmp_path: Path) -> Callable[..., Any]:
    """Opens a store by name in a fresh folder."""
    return lambda name, embeddings, folder=tmp_path: STORES[name](embeddings, folder)


@pytest.fixture(params=FOUR)
def new_store(request: pytest.FixtureRequest, fake: PplxEmbeddings, tmp_path: Path) -> Callable[..., Opened]:
    """Makes empty stores of one kind, of each kind in turn; without a model unless embeddings are given."""
    return lambda embeddings=fake: Opened(request.param, STORES[request.param](embeddings, tmp_path))


@pytest.fixture
def opened(new_store: Callable[..., Opened]) -> Opened:
    """An empty store of each kind, without a model."""
    return new_store()


@pytest.fixture
def same() -> Callable[[Vectors, Vectors], None]:
    """Compares stored vectors with the expected ones; other batches may move an int8 code by one."""

    def compare(found: Vectors, wanted: Vectors) -> None:
        assert found.keys() == wanted.keys()
        for key, vectors in wanted.items():
            np.testing.assert_allclose(found[key], vectors, atol=0.006, err_msg=str(key))

    return compare
