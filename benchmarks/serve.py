"""`python -m benchmarks.serve`: a server under load, beside threads in one process and what people build by hand.

Knows clients, clocks and memory; must not know how the server does anything.

The clients are connections of one process, which sends bytes and reads bytes and looks at the vectors afterwards, so
that little of what is measured is their own. Everything shares the machine's cores.
"""

import argparse
import asyncio
import base64
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np

from .machine import commit, describe

RESULTS = Path(__file__).parent / "results"
QUERY, DOCUMENT = "miniature-v1", "miniature-context-v1"

_THREADS = """
import json, sys, time
from concurrent.futures import ThreadPoolExecutor
from pplx_embed_integrations import PplxEncoder
texts, clients, each = json.load(open(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])
encoder = PplxEncoder(sys.argv[4], device="cpu").load(); encoder.encode(texts[:100])
def work(client):
    for number in range(each): encoder.encode([texts[(client * each + number) % len(texts)]])
started = time.perf_counter()
with ThreadPoolExecutor(clients) as pool: list(pool.map(work, range(clients)))
print(json.dumps(clients * each / (time.perf_counter() - started)))
"""
_BY_HAND = """
import sys
import uvicorn
from fastapi import FastAPI
from langchain_huggingface import HuggingFaceEmbeddings
from pydantic import BaseModel
import pplx_embed_integrations
pplx_embed_integrations.register()  # or the published checkpoint would need remote code
embeddings = HuggingFaceEmbeddings(model_name=sys.argv[1])
app = FastAPI()
class Asked(BaseModel):
    input: str
@app.post("/v1/embeddings")
def embed(asked: Asked) -> list[float]:
    return embeddings.embed_query(asked.input)
@app.get("/health")
def health() -> str:
    return "ok"
uvicorn.run(app, port=int(sys.argv[2]), access_log=False)
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve", description=__doc__)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--queries", type=int, default=1000, help="of each client")
    parser.add_argument("--by-hand", type=int, default=20, help="queries of each client of the endpoint made by hand")
    parser.add_argument("--only", nargs="+", choices=["threads", "server", "corpus", "by-hand"])
    options = parser.parse_args()
    path = RESULTS / f"{commit()}-serve-miniature.json"
    result: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    result |= {"machine": describe("cpu"), "command": "python -m benchmarks.serve " + " ".join(sys.argv[1:])}
    texts = _queries(4000)
    sections = {"threads": _threads, "server": _server, "corpus": _corpus, "by-hand": _hand_made}
    for name in options.only or sections:
        result[name] = sections[name](texts, options)
        print(f"{name}: {result[name]}", flush=True)
        path.write_text(json.dumps(result, indent=2) + "\n")
    return 0


def _queries(count: int) -> list[str]:
    words = "which river of all rivers that flow from north to south through old towns has most bridges".split()
    chance = random.Random(0)
    return [f"{' '.join(chance.choices(words, k=chance.randint(3, 20)))} {number}" for number in range(count)]


def _threads(texts: list[str], options: argparse.Namespace) -> dict[str, Any]:
    file = RESULTS.parent / "queries.tmp"
    file.write_text(json.dumps(texts))
    try:
        command = [sys.executable, "-W", "ignore", "-c", _THREADS, str(file)]
        told = subprocess.check_output([*command, str(options.clients), str(options.queries), QUERY], text=True)
    finally:
        file.unlink()
    return {"queries_a_second": round(json.loads(told))}


def _server(texts: list[str], options: argparse.Namespace) -> dict[str, Any]:
    from pplx_embed_integrations import PplxEncoder

    expected = PplxEncoder(QUERY).encode(texts)
    with _serving() as (port, process):
        asyncio.run(_load(port, texts, clients=options.clients, each=20))  # warm
        memory = [_megabytes(process)]
        answers, seconds, times = asyncio.run(_load(port, texts, clients=options.clients, each=options.queries))
        memory.append(_megabytes(process))
    wrong = lost = 0
    for number, (status, body) in enumerate(answers):
        if status != 200:
            lost += 1
            continue
        codes = np.frombuffer(base64.b64decode(json.loads(body)["data"][0]["embedding"]), dtype=np.int8)
        wrong += bool(np.abs(codes.astype(int) - expected[number % len(texts)]).max() > 1)
    return {
        "queries_a_second": round(len(answers) / seconds),
        "queries": len(answers),
        "lost": lost,
        "wrong": wrong,
        **_percentiles(times),
        "megabytes_before_and_after": memory,
    }


def _corpus(texts: list[str], options: argparse.Namespace) -> dict[str, Any]:
    documents = [
        [" ".join(texts[(number + chunk) % len(texts)] for _ in range(6)) for chunk in range(16)]
        for number in range(64)
    ]
    with _serving() as (port, _):
        asyncio.run(_load(port, texts, clients=8, each=20))
        _, _, alone = asyncio.run(_load(port, texts, clients=8, each=200))
        beside, chunks = asyncio.run(_beside(port, texts, documents))
    return {
        "clients": 8,
        "alone": _percentiles(alone),
        "beside_a_corpus_job": _percentiles(beside),
        "chunks_a_second_meanwhile": round(chunks),
    }


async def _beside(port: int, texts: list[str], documents: list[list[str]]) -> tuple[list[float], float]:
    body = _request("/v1/contextualizedembeddings", {"model": DOCUMENT, "input": documents})
    done = 0
    going = True

    async def index() -> None:
        nonlocal done
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while going:
            status, _ = await _ask(reader, writer, body)
            assert status == 200
            done += sum(map(len, documents))
        writer.close()

    job = asyncio.create_task(index())
    await asyncio.sleep(1)
    started = time.perf_counter()
    _, _, times = await _load(port, texts, clients=8, each=200)
    going = False
    await job
    return times, done / (time.perf_counter() - started + 1)


def _hand_made(texts: list[str], options: argparse.Namespace) -> dict[str, Any]:
    from pplx_embed_integrations.miniature import V1

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-W", "ignore", "-c", _BY_HAND, str(V1), str(port)]
    with _running(command, port) as process:
        asyncio.run(_load(port, texts, clients=options.clients, each=2))
        before = _megabytes(process)
        answers, seconds, times = asyncio.run(_load(port, texts, clients=options.clients, each=options.by_hand))
        assert all(status == 200 for status, _ in answers)
        return {
            "queries_a_second": round(len(answers) / seconds),
            **_percentiles(times),
            "megabytes_before_and_after": [before, _megabytes(process)],
        }


@contextmanager
def _serving() -> Iterator[tuple[int, "subprocess.Popen[bytes]"]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    program = "import sys; from pplx_embed_integrations.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "serve", QUERY, DOCUMENT, "--port", str(port)]
    with _running(command, port) as process:
        yield port, process


@contextmanager
def _running(command: list[str], port: int) -> Iterator["subprocess.Popen[bytes]"]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path(__file__).parent.parent)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        while True:
            try:
                with urlopen(f"http://127.0.0.1:{port}/health") as answer:
                    if answer.status == 200:
                        break
            except OSError:
                time.sleep(0.2)
        yield process
    finally:
        process.terminate()
        process.wait()


def _megabytes(process: "subprocess.Popen[bytes]") -> int:
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)


def _percentiles(times: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(times, n=100)
    return {"p50_ms": round(1000 * cuts[49], 1), "p95_ms": round(1000 * cuts[94], 1)}


def _request(path: str, body: dict[str, Any]) -> bytes:
    content = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: here", "Content-Type: application/json", f"Content-Length: {len(content)}"]
    return "\r\n".join([*lines, "", ""]).encode() + content


async def _load(
    port: int, texts: list[str], *, clients: int, each: int
) -> tuple[list[tuple[int, bytes]], float, list[float]]:
    """Return the answers, in order, how long all took, and how long each took."""
    requests = [_request("/v1/embeddings", {"model": QUERY, "input": text}) for text in texts]
    answers: list[tuple[int, bytes]] = [(0, b"")] * (clients * each)
    times: list[float] = []

    async def client(first: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in range(first, first + each):
            started = time.perf_counter()
            answers[number] = await _ask(reader, writer, requests[number % len(requests)])
            times.append(time.perf_counter() - started)
        writer.close()

    started = time.perf_counter()
    await asyncio.gather(*(client(number * each) for number in range(clients)))
    return answers, time.perf_counter() - started, times


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> tuple[int, bytes]:
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = int(head.split(None, 2)[1])
    if b"content-length: " in head:
        return status, await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return status, body


if __name__ == "__main__":
    sys.exit(main())
