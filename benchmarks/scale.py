"""`python -m benchmarks.scale`: a cluster of two nodes on this machine beside one process, and where the time goes.

Knows clocks, memory and what both ways must agree on; must not know how a cluster or a table does anything.

Documents have 1 to 40 chunks of 3 to 8 words of the articles in `data/`. They lie in Parquet files, from which both
ways read. Each node of the cluster has one actor with one thread; one process has a thread for each core.

    compare   in turn, in one cluster: one process, one actor, two actors with as many documents, two with twice as many
    profile   the steps of the way, one after the other, in one process with one thread
    full      20,000 documents: the same codes from both, memory of the driver and the workers over time
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# A cluster of this machine alone, which tells nobody of itself.
os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from .machine import commit, describe

RESULTS = Path(__file__).parent / "results"
ARTICLES = Path(__file__).parent / "data" / "articles.jsonl"
MODEL = "miniature-context-v1"
FILES = 20


def split(text: str) -> list[str]:
    return text.split("\n")


def write_documents(folder: Path, count: int) -> None:
    words = " ".join(" ".join(json.loads(line)["chunks"]) for line in ARTICLES.read_text().splitlines()).split()
    chance = random.Random(0)
    texts = []
    for _ in range(count):
        starts = [chance.randrange(len(words) - 8) for _ in range(chance.randint(1, 40))]
        texts.append("\n".join(" ".join(words[start : start + chance.randint(3, 8)]) for start in starts))
    folder.mkdir(parents=True)
    for number in range(FILES):
        numbers = range(number, count, FILES)
        table = pa.table({"id": [f"doc-{n}" for n in numbers], "text": [texts[n] for n in numbers]})
        pq.write_table(table, folder / f"{number:02}.parquet")


@dataclass(frozen=True)
class Timed:
    """An encoder that notes when it computes, to tell a job's start from its work."""

    encoder: Any
    folder: str

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "encoder":
            raise AttributeError(name)
        return getattr(self.encoder, name)

    def encode_documents(self, documents: Any, **form: Any) -> Any:
        started = time.time()
        found = self.encoder.encode_documents(documents, **form)
        with Path(self.folder, f"{os.getpid()}.times").open("a") as file:
            file.write(json.dumps([started, time.time(), len(documents), sum(map(len, documents))]) + "\n")
        return found


def spans(folder: Path) -> list[list[float]]:
    return [json.loads(line) for path in folder.glob("*.times") for line in path.read_text().splitlines()]


def rate(folder: Path) -> dict[str, float]:
    """Chunks a second from the end of every worker's first batch to the end of the last one."""
    found, chunks, first, last = {}, 0, 0.0, 0.0
    for path in folder.glob("*.times"):
        found[path.name] = [json.loads(line) for line in path.read_text().splitlines()]
    begin = max(times[0][1] for times in found.values())
    for times in found.values():
        later = [each for each in times if each[1] > begin]
        chunks += sum(each[3] for each in later)
        last = max([last, *(each[1] for each in later)])
    first = begin
    return {"chunks_a_second": round(chunks / (last - first)), "seconds": round(last - first, 1)}


def one_process(source: Path, folder: Path) -> dict[str, Any]:
    """Run in a process of its own: read, split, embed and store with as many threads as there are cores."""
    from pplx_embed_integrations import PplxEncoder
    from pplx_embed_integrations.scale.reading import Reader
    from pplx_embed_integrations.scale.source import Source
    from pplx_embed_integrations.stores import ChunkTable

    encoder = Timed(PplxEncoder(MODEL).load(), str(folder))
    given, reader = Source.of(encoder), Reader(split, "text", "id", None)
    table = ChunkTable(folder / "store", made_by=given.made_by, dimensions=given.dimensions)
    waiting: list[tuple[Any, Any]] = []
    started = time.perf_counter()
    for path in sorted(source.glob("*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(batch_size=64):
            documents = [reader.read(row) for row in batch.to_pylist()]
            waiting += zip(documents, given.encode(documents), strict=True)
            if len(waiting) >= 1000:
                table.replace(*zip(*waiting, strict=True))
                waiting = []
    if waiting:
        table.replace(*zip(*waiting, strict=True))
    return {"total_seconds": round(time.perf_counter() - started, 1)}


def in_cluster(source: Path, folder: Path, actors: int) -> dict[str, Any]:
    import ray

    from pplx_embed_integrations import PplxEncoder
    from pplx_embed_integrations.scale import index_dataset

    ray.data.DataContext.get_current().enable_progress_bars = False
    encoder = Timed(PplxEncoder(MODEL), str(folder))
    started = time.perf_counter()
    done = index_dataset(
        ray.data.read_parquet(str(source)),
        folder / "store",
        embeddings=encoder,
        splitter=split,
        concurrency=actors,
        num_cpus=1,
    )
    return {"total_seconds": round(time.perf_counter() - started, 1), "documents": done.added, "chunks": done.chunks}


@contextmanager
def cluster() -> Iterator[None]:
    import ray
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 2, "node_ip_address": "127.0.0.1", "object_store_memory": 300 * 2**20}
    running = Cluster(True, head_node_args={**node, "include_dashboard": False})
    running.add_node(**node)
    ray.init(running.address, log_to_driver=False, logging_level="error")
    try:
        yield
    finally:
        ray.shutdown()
        running.shutdown()


def alone(source: Path, folder: Path) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "benchmarks.scale", "--work", str(source), str(folder)]
    return dict(
        json.loads(
            subprocess.check_output(command, text=True, cwd=RESULTS.parent.parent, env=environment).splitlines()[-1]
        )
    )


def compare(work: Path, options: argparse.Namespace) -> dict[str, Any]:
    write_documents(work / "once", options.documents)
    write_documents(work / "twice", 2 * options.documents)
    ways: dict[str, Any] = {
        "one process, two threads": lambda folder: alone(work / "once", folder),
        "one actor": lambda folder: in_cluster(work / "once", folder, 1),
        "two actors": lambda folder: in_cluster(work / "once", folder, 2),
        "two actors, twice the documents": lambda folder: in_cluster(work / "twice", folder, 2),
    }
    found: dict[str, list[dict[str, Any]]] = {name: list(options.earlier.get(name, [])) for name in ways}
    with cluster():
        for turn in range(options.rounds):
            for name, way in ways.items():
                folder = work / f"{turn}-{name}"
                folder.mkdir()
                found[name].append(way(folder) | rate(folder))
                print(f"  {name}: {found[name][-1]}", flush=True)
    best = {name: max(each["chunks_a_second"] for each in turns) for name, turns in found.items()}
    return {
        "documents": options.documents,
        "rounds": found,
        "two_actors_beside_one_process": round(best["two actors"] / best["one process, two threads"], 2),
        "weak_scaling": round(best["two actors, twice the documents"] / best["one actor"] / 2, 2),
    }


def profile(work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Time each step for the same documents; the forward pass is what embedding takes beyond tokenising."""
    import torch

    from pplx_embed_integrations import PplxEncoder
    from pplx_embed_integrations.scale.columns import Outcome, document_rows, outcomes_of
    from pplx_embed_integrations.scale.reading import Reader
    from pplx_embed_integrations.scale.source import Source
    from pplx_embed_integrations.stores import ChunkTable

    torch.set_num_threads(1)
    write_documents(work / "profile", 1000)
    encoder = PplxEncoder(MODEL).load()
    given, reader = Source.of(encoder), Reader(split, "text", "id", None)
    table = ChunkTable(work / "profiled", made_by=given.made_by, dimensions=given.dimensions)
    encoder.encode_documents([["warm", "up"]] * 64)
    clock = [time.perf_counter()]

    def lap() -> float:
        clock.append(time.perf_counter())
        return clock[-1] - clock[-2]

    rows = pq.read_table(work / "profile").to_pylist()
    seconds = {"read": lap()}
    documents = [reader.read(row) for row in rows]
    seconds["split, name and stamp"] = lap()
    for start in range(0, 1000, 64):
        encoder.count_tokens([text for each in documents[start : start + 64] for text in each.texts])
    seconds["tokenise"] = lap()
    matrices = [each for start in range(0, 1000, 64) for each in given.encode(documents[start : start + 64])]
    seconds["forward"] = lap() - seconds["tokenise"]
    packed = document_rows(
        [Outcome(each.key, each, matrix) for each, matrix in zip(documents, matrices, strict=True)]  # type: ignore[arg-type]
    )
    handed = outcomes_of(packed, packed=False)
    seconds["hand over"] = lap()
    staged = table.stage([each.document for each in handed], [each.vectors for each in handed])  # type: ignore[misc]
    seconds["write"] = lap()
    table.commit([staged])
    seconds["commit"] = lap()
    chunks = sum(len(each.chunks) for each in documents)
    return {"chunks": chunks, "milliseconds_a_1000_chunks": {k: round(1e6 * v / chunks, 2) for k, v in seconds.items()}}


def full(work: Path, options: argparse.Namespace) -> dict[str, Any]:
    write_documents(work / "full", 20_000)
    for name in ("process", "cluster"):
        (work / name).mkdir()
    single = alone(work / "full", work / "process") | rate(work / "process")
    print(f"  one process: {single}", flush=True)
    with cluster(), watched() as memory:
        many = in_cluster(work / "full", work / "cluster", 2) | rate(work / "cluster")
    print(f"  cluster: {many}", flush=True)
    return {"one process": single, "two actors": many, "agreement": agreement(work), "megabytes": memory}


@contextmanager
def watched() -> Iterator[dict[str, list[Any]]]:
    """Note every two seconds what the driver, and the largest process of each kind of worker, has for itself."""
    found: dict[str, list[Any]] = {"seconds": [], "driver": [], "actors": [], "writers": []}
    over, started = threading.Event(), time.perf_counter()

    def look() -> None:
        while not over.wait(2.0):
            sizes: dict[str, list[float]] = {"driver": [_own(psutil.Process())], "actors": [], "writers": []}
            for process in psutil.process_iter(["name", "cmdline"]):
                title = " ".join(process.info["cmdline"] or [process.info["name"] or ""])
                if title.startswith("ray::"):
                    sizes["actors" if "MapWorker" in title else "writers"].append(_own(process))
            found["seconds"].append(round(time.perf_counter() - started, 1))
            for kind, each in sizes.items():
                found[kind].append(round(max(each, default=0.0)))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def _own(process: psutil.Process) -> float:
    try:
        return float(process.memory_full_info().uss) / 1e6
    except psutil.Error:
        return 0.0


def agreement(work: Path) -> dict[str, Any]:
    from pplx_embed_integrations.stores import ChunkTable
    from pplx_embed_integrations.stores.rows import matrix

    tables = []
    for name in ("process", "cluster"):
        rows = ChunkTable(work / name / "store").lance.to_arrow().select(["key", "id", "hash", "text", "codes"])
        tables.append(rows.sort_by("key"))
    one, other = tables
    same = one.drop(["codes"]) == other.drop(["codes"])
    apart = np.abs(matrix(one["codes"], np.int8).astype(np.int16) - matrix(other["codes"], np.int8))
    return {
        "chunks": len(one),
        "same_keys_ids_hashes_and_texts": same,
        "codes": int(apart.size),
        "codes_that_differ": int((apart > 0).sum()),
        "by_at_most": int(apart.max()),
    }


def plot(result: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(15, 4.2), width_ratios=[1, 1, 1.3])
    if "compare" in result:
        names = ["one process, two threads", "one actor", "two actors", "two actors, twice the documents"]
        turns = [[each["chunks_a_second"] for each in result["compare"]["rounds"][name]] for name in names]
        labels = ["one process,\n2 threads", "1 actor", "2 actors", "2 actors,\ntwice as much"]
        axes[0].bar(labels, [max(each) for each in turns], color=["#888888", "#4c72b0", "#4c72b0", "#4c72b0"])
        for place, each in enumerate(turns):
            axes[0].plot([place] * len(each), each, "k.", markersize=5)
        axes[0].set_title("Chunks a second (bar: best round)")
    if "profile" in result:
        parts = result["profile"]["milliseconds_a_1000_chunks"]
        axes[1].barh(list(parts)[::-1], list(parts.values())[::-1], color="#4c72b0")
        for place, value in enumerate(list(parts.values())[::-1]):
            axes[1].text(value, place, f" {value:.0f}" if value >= 10 else f" {value:.1f}", va="center")
        axes[1].set_xlim(0, max(parts.values()) * 1.15)
        axes[1].set_title("Milliseconds for 1,000 chunks, one thread")
    if "full" in result:
        memory = result["full"]["megabytes"]
        for kind in ("driver", "actors", "writers"):
            axes[2].plot(memory["seconds"], memory[kind], label=kind)
        axes[2].set(title="Memory over 20,000 documents, MB", xlabel="seconds", ylim=(0, None))
        axes[2].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


SECTIONS = {"compare": compare, "profile": profile, "full": full}


def main() -> int:
    warnings.filterwarnings("ignore", message=".*fork")  # what is started by this process executes another program
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--documents", type=int, default=1000, help="of `compare`")
    parser.add_argument("--rounds", type=int, default=2, help="of `compare`, after those that are there already")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS))
    parser.add_argument("--work", nargs=2, metavar=("SOURCE", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        print(json.dumps(one_process(*map(Path, options.work))))
        return 0
    path = RESULTS / f"{commit()}-scale-miniature.json"
    result: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    result |= {"machine": describe("cpu"), "command": "python -m benchmarks.scale " + " ".join(sys.argv[1:])}
    with tempfile.TemporaryDirectory() as folder:
        earlier = result.get("compare", {})
        options.earlier = earlier.get("rounds", {}) if earlier.get("documents") == options.documents else {}
        for name in options.only or SECTIONS:
            print(f"{name}:", flush=True)
            (Path(folder) / name).mkdir()
            result[name] = SECTIONS[name](Path(folder) / name, options)
            path.write_text(json.dumps(result, indent=1) + "\n")
    plot(result, path.with_suffix(".png"))
    shown = {name: result[name] for name in SECTIONS if name in result}
    shown.get("full", {}).pop("megabytes", None)
    print(json.dumps(shown, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
