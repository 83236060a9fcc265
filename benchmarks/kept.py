"""What stores really keep of a vector: `python -m benchmarks.kept`.

Each class gets the same unit vectors of int8 codes, LangChain's by `add_texts` and LlamaIndex's by `add`, with
texts of one word; what its folder holds afterwards, divided by the vectors, is the figure.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.embeddings import Embeddings

DIMENSIONS = 1024


class Prepared(Embeddings):
    """Gives the next vectors, whatever the texts."""

    def __init__(self, rows: int) -> None:
        rng = np.random.default_rng(0)
        self.codes = np.rint(np.tanh(rng.standard_normal((rows + 1, DIMENSIONS)) * 0.5) * 127).astype(np.int8)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        rows = [int(text) for text in texts if text.isdigit()] or [0] * len(texts)
        floats = self.codes[rows].astype(np.float32)
        return (floats / np.linalg.norm(floats, axis=1, keepdims=True)).tolist()

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents(["0"])[0]


def chroma(embeddings: Embeddings, folder: Path) -> Any:
    from langchain_chroma import Chroma

    return Chroma("chunks", embeddings, persist_directory=str(folder))


def qdrant(embeddings: Embeddings, folder: Path) -> Any:
    from langchain_qdrant import QdrantVectorStore
    from qdrant_client import QdrantClient, models

    client = QdrantClient(path=str(folder))
    client.create_collection("c", models.VectorParams(size=DIMENSIONS, distance=models.Distance.COSINE))
    return QdrantVectorStore(client, "c", embedding=embeddings)


def lancedb(embeddings: Embeddings, folder: Path) -> Any:
    from langchain_community.vectorstores import LanceDB

    return LanceDB(uri=str(folder), embedding=embeddings, mode="append")


def milvus(embeddings: Embeddings, folder: Path) -> Any:
    from langchain_milvus import Milvus

    return Milvus(
        embeddings,
        connection_args={"uri": str(folder / "milvus.db")},
        index_params={"index_type": "FLAT", "metric_type": "L2"},
    )


def sqlite_vec(embeddings: Embeddings, folder: Path) -> Any:
    import pysqlite3
    import sqlite_vec
    from langchain_community.vectorstores import SQLiteVec

    connection = pysqlite3.connect(str(folder / "vectors.db"), check_same_thread=False)
    connection.row_factory = pysqlite3.Row
    connection.enable_load_extension(True)
    sqlite_vec.load(connection)
    return SQLiteVec("c", connection, embeddings)


def faiss(embeddings: Embeddings, folder: Path) -> Any:
    import faiss as library
    from langchain_community.docstore import InMemoryDocstore
    from langchain_community.vectorstores import FAISS

    return FAISS(embeddings, library.IndexFlatL2(DIMENSIONS), InMemoryDocstore(), {})


STORES: dict[str, Callable[[Embeddings, Path], Any]] = {
    "Chroma": chroma,
    "Qdrant, local": qdrant,
    "LanceDB (community)": lancedb,
    "Milvus Lite": milvus,
    "SQLiteVec": sqlite_vec,
    "FAISS, saved": faiss,
}


def llama_chroma(folder: Path) -> Any:
    import chromadb
    from llama_index.vector_stores.chroma import ChromaVectorStore

    return ChromaVectorStore(chroma_collection=chromadb.PersistentClient(str(folder)).create_collection("chunks"))


def llama_qdrant(folder: Path) -> Any:
    from llama_index.vector_stores.qdrant import QdrantVectorStore
    from qdrant_client import QdrantClient

    return QdrantVectorStore(collection_name="c", client=QdrantClient(path=str(folder)))


def llama_lancedb(folder: Path) -> Any:
    from llama_index.vector_stores.lancedb import LanceDBVectorStore

    return LanceDBVectorStore(uri=str(folder))


def llama_simple(folder: Path) -> Any:
    from llama_index.core.vector_stores import SimpleVectorStore

    return SimpleVectorStore()


def llama_ours(folder: Path) -> Any:
    from pplx_embed_integrations.llama_index import QuantizedVectorStore
    from pplx_embed_integrations.stores import ChunkTable

    ChunkTable(folder, made_by={"model": "benchmark"}, dimensions=DIMENSIONS)
    return QuantizedVectorStore(folder)


LLAMA_INDEX: dict[str, Callable[[Path], Any]] = {
    "LlamaIndex: QuantizedVectorStore": llama_ours,
    "LlamaIndex: Chroma": llama_chroma,
    "LlamaIndex: Qdrant, local": llama_qdrant,
    "LlamaIndex: LanceDB": llama_lancedb,
    "LlamaIndex: SimpleVectorStore, saved": llama_simple,
}


def fill_llama_index(name: str, folder: Path, rows: int) -> None:
    from llama_index.core.schema import TextNode

    embeddings, store = Prepared(rows), LLAMA_INDEX[name](folder)
    step = rows if "LanceDB" in name else 1000  # a second call of that class wants another mode than the first
    for start in range(1, rows + 1, step):
        texts = [str(number) for number in range(start, min(start + step, rows + 1))]
        rows_of = embeddings.embed_documents(texts)
        store.add([TextNode(text=text, embedding=row) for text, row in zip(texts, rows_of, strict=True)])
    if name.endswith("saved"):
        store.persist(str(folder / "vectors.json"))
    if hasattr(store, "compact"):
        store.compact(keep_versions=timedelta(milliseconds=1))


def measure(name: str, rows: int) -> float:
    if name in LLAMA_INDEX:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as root:
            fill_llama_index(name, Path(root), rows)
            return size(Path(root)) / rows
    embeddings = Prepared(rows)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as root:
        folder = Path(root)
        store = STORES[name](embeddings, folder)
        for start in range(0, rows, 1000):
            texts = [str(number) for number in range(start + 1, min(start + 1000, rows) + 1)]
            store.add_texts(texts)
        if name.startswith("FAISS"):
            store.save_local(str(folder))
        return size(folder) / rows


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--only", nargs="+", choices=[*STORES, *LLAMA_INDEX], default=[*STORES, *LLAMA_INDEX])
    arguments = parser.parse_args()
    for name in arguments.only:
        try:
            found: Any = round(measure(name, arguments.rows))
        except Exception as error:  # noqa: BLE001  (a store that is not installed, or fails, is a row as well)
            found = f"{type(error).__name__}: {error}"[:100]
        print(json.dumps({name: found}), flush=True)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
