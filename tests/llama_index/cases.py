"""What the LlamaIndex tests share: a splitter with known borders, the hard documents, stores, and an encode counter."""

import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.bridge.pydantic import Field
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent
from llama_index.core.node_parser import TextSplitter
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.core.vector_stores.types import BasePydanticVectorStore
from llama_index.vector_stores.faiss import FaissVectorStore

from pplx_embed_integrations.llama_index import PplxEmbedding

FOOTER = "All rights reserved. No part of this page may be copied."


def chunk_id(position: int, document: BaseNode) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{document.id_}/{position}"))


class Paragraphs(TextSplitter):
    """Splits at blank lines, so that a test knows every chunk."""

    @classmethod
    def class_name(cls) -> str:
        return "Paragraphs"

    def split_text(self, text: str) -> list[str]:
        return text.split("\n\n")


SPLITTER = Paragraphs(id_func=chunk_id)


def hard_documents(count: int = 12) -> list[Document]:
    """Documents of eleven chunks; the last is the same footer in all, and one chunk of each stands in it twice."""
    documents = []
    for number in range(count):
        chunks = [
            f"Part {part} of the report on river {number}, written in {1900 + number * part}." for part in range(9)
        ]
        documents.append(Document(id_=f"report-{number}", text="\n\n".join([*chunks, chunks[3], FOOTER])))
    return documents


def short_documents(count: int) -> list[Document]:
    """Documents of two chunks, the second of which is the same in all."""
    return [
        Document(id_=f"note-{n}", text=f"River {n} rises in the hills.\n\nIt ends in the sea.") for n in range(count)
    ]


def shuffled_nodes(documents: list[Document], *, seed: int = 0) -> list[BaseNode]:
    nodes = SPLITTER(documents)
    random.Random(seed).shuffle(nodes)
    return nodes


def expected_vectors(embed_model: PplxEmbedding, documents: list[Document]) -> dict[str, npt.NDArray[np.float32]]:
    """By node id, what `encode_documents` gives each document alone."""
    vectors = {}
    for document in documents:
        [matrix] = embed_model.encode_documents([document.text.split("\n\n")], normalize=True)
        vectors.update({chunk_id(position, document): row for position, row in enumerate(matrix)})
    return vectors


def assert_same_vectors(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert set(found) == set(expected)
    for node_id, vector in expected.items():
        np.testing.assert_allclose(found[node_id], vector, atol=1e-5)


@dataclass
class Store:
    """A vector store and how to read every vector in it back; `read` takes the node ids in the order of adding."""

    vector_store: BasePydanticVectorStore
    read: Callable[[list[str]], dict[str, Any]]


def make_store(kind: str, folder: Path) -> Store:
    return {"default": _default, "faiss": _faiss, "qdrant": _qdrant, "chroma": _chroma, "lancedb": _lancedb}[kind](
        folder
    )


STORES = ["default", "faiss", "qdrant", "chroma", "lancedb"]
FOUR = ["default", "chroma", "qdrant", "faiss"]
"""Where everything about the life of a document is read back from."""


def read_back(index: VectorStoreIndex, store: Store) -> dict[str, Any]:
    """Every vector that is in the store of an index, by the id of its node; FAISS itself knows numbers only."""
    if not isinstance(store.vector_store, FaissVectorStore):
        return store.read([])
    rows = index.index_struct.nodes_dict
    assert store.vector_store.client.ntotal == len(rows)
    return {node_id: store.vector_store.client.reconstruct(int(row)) for row, node_id in rows.items()}


def _default(folder: Path) -> Store:
    store = SimpleVectorStore()
    return Store(store, lambda ids: dict(store.data.embedding_dict))


def _faiss(folder: Path) -> Store:
    import faiss

    index = faiss.IndexFlatL2(32)

    def read(ids: list[str]) -> dict[str, Any]:
        assert index.ntotal == len(ids)
        return {node_id: index.reconstruct(row) for row, node_id in enumerate(ids)}

    return Store(FaissVectorStore(faiss_index=index), read)


def _qdrant(folder: Path) -> Store:
    from llama_index.vector_stores.qdrant import QdrantVectorStore
    from qdrant_client import AsyncQdrantClient, QdrantClient

    client = QdrantClient(":memory:")
    async_client = AsyncQdrantClient(":memory:")
    # One set of collections behind both faces of the local client.
    async_client._client.collections = client._client.collections
    store = QdrantVectorStore(collection_name="chunks", client=client, aclient=async_client)

    def read(ids: list[str]) -> dict[str, Any]:
        points, _ = client.scroll("chunks", limit=10_000, with_vectors=True)
        return {str(point.id): point.vector for point in points}

    return Store(store, read)


def _chroma(folder: Path) -> Store:
    import chromadb
    from llama_index.vector_stores.chroma import ChromaVectorStore

    collection = chromadb.EphemeralClient().create_collection(f"chunks-{uuid.uuid4()}")

    def read(ids: list[str]) -> dict[str, Any]:
        rows = collection.get(include=["embeddings"])
        return dict(zip(rows["ids"], rows["embeddings"], strict=True))

    return Store(ChromaVectorStore(chroma_collection=collection), read)


def _lancedb(folder: Path) -> Store:
    from llama_index.vector_stores.lancedb import LanceDBVectorStore

    store = LanceDBVectorStore(uri=str(folder / "lancedb"), table_name="chunks", mode="overwrite")

    def read(ids: list[str]) -> dict[str, Any]:
        table = store.table.to_arrow()
        return dict(zip(table["id"].to_pylist(), table["vector"].to_pylist(), strict=True))

    return Store(store, read)


class Encodes(BaseEventHandler):
    """Counts the texts that were embedded, as LlamaIndex's own instrumentation sees them."""

    texts: list[str] = Field(default_factory=list)

    @classmethod
    def class_name(cls) -> str:
        return "Encodes"

    def handle(self, event: Any, **kwargs: Any) -> None:
        if isinstance(event, EmbeddingEndEvent):
            assert len(event.chunks) == len(event.embeddings)
            self.texts.extend(event.chunks)

    def __enter__(self) -> "Encodes":
        get_dispatcher().add_event_handler(self)
        return self

    def __exit__(self, *error: object) -> None:
        get_dispatcher().event_handlers.remove(self)
