"""The quantised store beside others: `python -m benchmarks.stores`.

Every store gets the same codes (clusters with noise, drawn from a seed); those that take floats get unit vectors.
Building and searching run in processes of their own, so that memory and opening are those of a new process. The truth
is the exact cosine of the codes. A store that is not done in time says so. With `--folder` stores stay there, and a
later run searches them without building them again.
"""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from benchmarks.machine import describe

DIMENSIONS, BATCH, QUERIES, K = 1024, 20_000, 20, 10
MADE_BY = {"model": "benchmark"}
Search = Callable[[np.ndarray], list[int]]


def batches(rows: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield first row and int8 codes, the same in every process."""
    centers = np.random.default_rng(0).standard_normal((2000, DIMENSIONS), dtype=np.float32)
    for start in range(0, rows, BATCH):
        rng = np.random.default_rng(start + 1)
        count = min(BATCH, rows - start)
        pooled = centers[rng.integers(0, 2000, count)] + 0.9 * rng.standard_normal(
            (count, DIMENSIONS), dtype=np.float32
        )
        yield start, np.rint(np.tanh(pooled * 0.5) * 127).astype(np.int8)


def unit(codes: np.ndarray) -> np.ndarray:
    floats = codes.astype(np.float32)
    return floats / np.linalg.norm(floats, axis=1, keepdims=True)


def queries_and_truth(rows: int) -> tuple[np.ndarray, list[list[int]]]:
    """Draw queries near stored rows, and find their true neighbours by exact cosine."""
    rng = np.random.default_rng(99)
    first = next(batches(rows))[1][:QUERIES].astype(np.float32)
    queries = np.clip(np.rint(first + rng.normal(0, 25, first.shape)), -127, 127).astype(np.int8)
    asked = unit(queries)
    best = np.full((QUERIES, K), -2.0)
    names = np.zeros((QUERIES, K), dtype=np.int64)
    for start, codes in batches(rows):
        scores = np.concatenate([best, asked @ unit(codes).T], axis=1)
        ids = np.concatenate(
            [names, np.broadcast_to(np.arange(start, start + len(codes)), (QUERIES, len(codes)))], axis=1
        )
        top = np.argpartition(-scores, K - 1, axis=1)[:, :K]
        best, names = np.take_along_axis(scores, top, 1), np.take_along_axis(ids, top, 1)
    return queries, names.tolist()


class Ours:
    library = "lancedb"
    folder = "ours"
    options: ClassVar[dict[str, Any]] = {}
    keep = "both"

    def build(self, folder: Path, rows: int) -> None:
        from pplx_embed_integrations.stores import Chunk, ChunkTable, StoredDocument

        table = ChunkTable(folder, made_by=MADE_BY, dimensions=DIMENSIONS, keep=self.keep)
        for start, codes in batches(rows):
            numbers = range(start, start + len(codes), 10)
            documents = [
                StoredDocument(f"d{n}", [Chunk(f"{n + row:036}", "") for row in range(10)]) for n in numbers
            ]  # ids as long as a UUID
            table.replace(documents, list(codes.reshape(-1, 10, DIMENSIONS)))
        table.compact(keep_versions=timedelta(milliseconds=1))

    def open(self, folder: Path) -> Search:
        from pplx_embed_integrations.stores import ChunkTable

        table = ChunkTable(folder)
        return lambda query: [int(hit.id) for hit in table.search(query, k=K, **self.options)]


class OursFew(Ours):
    options: ClassVar[dict[str, Any]] = {"probes": 50}


class OursFlat(Ours):
    options: ClassVar[dict[str, Any]] = {"exact": True}


class OursExact(Ours):
    options: ClassVar[dict[str, Any]] = {"by": "int8"}


class OursInt8(Ours):
    folder, keep = "ours-int8", "int8"


class OursBits(Ours):
    folder, keep = "ours-bits", "bits"


class Faiss:
    library = "faiss"
    folder = "faiss"

    def build(self, folder: Path, rows: int) -> None:
        import faiss

        index = faiss.IndexFlatIP(DIMENSIONS)
        for _, codes in batches(rows):
            index.add(unit(codes))
        faiss.write_index(index, str(folder / "index"))

    def open(self, folder: Path) -> Search:
        import faiss

        index = faiss.read_index(str(folder / "index"))
        return lambda query: index.search(unit(query[None]), K)[1][0].tolist()


class Usearch:
    library = "usearch.index"
    folder = "usearch"

    def build(self, folder: Path, rows: int) -> None:
        from usearch.index import Index

        index = Index(ndim=DIMENSIONS, metric="cos", dtype="i8")
        for start, codes in batches(rows):
            index.add(np.arange(start, start + len(codes)), codes)
        index.save(str(folder / "index"))

    def open(self, folder: Path) -> Search:
        from usearch.index import Index

        index = Index.restore(str(folder / "index"), view=True)
        return lambda query: index.search(query, K).keys.tolist()


class Qdrant:
    library = "qdrant_client"
    folder = "qdrant"

    def build(self, folder: Path, rows: int) -> None:
        from qdrant_client import QdrantClient, models

        client = QdrantClient(path=str(folder))
        client.create_collection("c", models.VectorParams(size=DIMENSIONS, distance=models.Distance.COSINE))
        for start, codes in batches(rows):
            client.upload_collection("c", unit(codes), ids=range(start, start + len(codes)))
        client.close()

    def open(self, folder: Path) -> Search:
        from qdrant_client import QdrantClient

        client = QdrantClient(path=str(folder))
        return lambda query: [
            each.id for each in client.query_points("c", unit(query[None])[0].tolist(), limit=K).points
        ]


class Chroma:
    library = "chromadb"
    folder = "chroma"

    def build(self, folder: Path, rows: int) -> None:
        import chromadb

        collection = chromadb.PersistentClient(str(folder)).create_collection(
            "chunks", metadata={"hnsw:space": "cosine"}
        )
        for start, codes in batches(rows):
            for at in range(0, len(codes), 5000):
                part = unit(codes[at : at + 5000])
                collection.add(ids=[str(start + at + row) for row in range(len(part))], embeddings=part)

    def open(self, folder: Path) -> Search:
        import chromadb

        collection = chromadb.PersistentClient(str(folder)).get_collection("chunks")
        return lambda query: [int(each) for each in collection.query(unit(query[None]), n_results=K)["ids"][0]]


CONTENDERS: dict[str, tuple[str, type[Any]]] = {
    "ours": ("ours, bits and codes", Ours),
    "ours-few": ("ours, 50 partitions of the index", OursFew),
    "ours-flat": ("ours, without the index", OursFlat),
    "ours-exact": ("ours, every code read", OursExact),
    "ours-int8": ('ours, keep="int8"', OursInt8),
    "ours-bits": ('ours, keep="bits"', OursBits),
    "faiss": ("FAISS, flat float32 (LangChain's FAISS)", Faiss),
    "usearch": ("usearch, graph over int8", Usearch),
    "qdrant": ("Qdrant, local mode", Qdrant),
    "chroma": ("Chroma, graph over float32", Chroma),
}


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def work(what: str, name: str, folder: Path, rows: int) -> None:
    """Run in a process of its own: build a store, or open it and search."""
    contender = CONTENDERS[name][1]()
    start = time.perf_counter()
    if what == "build":
        contender.build(folder, rows)
        print(json.dumps({"build": time.perf_counter() - start, "bytes": size(folder) / rows}))
        return
    asked = json.loads((folder.parent / "truth.json").read_text())
    queries = np.array(asked["queries"], dtype=np.int8)
    importlib.import_module(contender.library)
    start = time.perf_counter()
    search = contender.open(folder)
    opened = time.perf_counter() - start
    search(queries[0])
    first = time.perf_counter() - start
    times, shares = [], []
    for query, truth in zip(queries, asked["truth"], strict=True):
        start = time.perf_counter()
        found = search(query)
        times.append(time.perf_counter() - start)
        shares.append(len(set(found) & set(truth)) / K)
    status = Path("/proc/self/status").read_text()  # not ru_maxrss, which begins with the peak of the parent
    memory = int(status.split("VmHWM:")[1].split()[0]) / 1024
    result = {"open": opened, "first": first, "query": float(np.median(times)), "memory": memory}
    print(json.dumps({**result, "recall": float(np.mean(shares))}))


def run(what: str, name: str, folder: Path, rows: int, patience: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.stores", "--work", what, name, str(folder), "--rows", str(rows)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=patience, check=True)
    except subprocess.TimeoutExpired:
        return {what: f"not done in {patience / 60:.0f} minutes"}
    except subprocess.CalledProcessError as error:
        return {what: (error.stderr.strip().splitlines() or ["failed"])[-1][:120]}
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--patience", type=float, default=900.0, help="seconds a store may take to build")
    parser.add_argument("--output", type=Path, help="JSON file; by default the table is only printed")
    parser.add_argument("--folder", type=Path, help="where stores are built, and found again by a later run")
    parser.add_argument("--only-build", action="store_true", help="leave the searching to a later run")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        what, name, folder = arguments.work
        work(what, name, Path(folder), arguments.rows)
        return
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        root = (arguments.folder or Path(temporary)) / str(arguments.rows)
        root.mkdir(parents=True, exist_ok=True)
        if not (root / "truth.json").exists():
            queries, truth = queries_and_truth(arguments.rows)
            (root / "truth.json").write_text(json.dumps({"queries": queries.tolist(), "truth": truth}))
        for name in arguments.only:
            folder = root / CONTENDERS[name][1].folder
            built = folder.with_suffix(".json")
            if not built.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                built.write_text(json.dumps(run("build", name, folder, arguments.rows, arguments.patience)))
            found = json.loads(built.read_text())
            if isinstance(found["build"], float) and not arguments.only_build:
                found |= run("search", name, folder, arguments.rows, arguments.patience)
            results[name] = found
            print(f"{CONTENDERS[name][0]}: {json.dumps(found)}", flush=True)
    if arguments.output:
        data = {"machine": describe("cpu"), "rows": arguments.rows, "dimensions": DIMENSIONS, "results": results}
        arguments.output.write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
