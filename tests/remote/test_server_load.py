"""Many requests at a time, clients that hang up, and a server that ends while it answers."""

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import pytest

from pplx_embed_integrations import FakeEmbedder, PplxEncoder
from pplx_embed_integrations.cli import main
from pplx_embed_integrations.remote.encoding import read_documents, read_vectors
from pplx_embed_integrations.remote.protocol import CONTEXTUALIZED, EMBEDDINGS
from pplx_embed_integrations.remote.server.gathering import Gathering
from tests.remote.serving import Served, serving


def check(found: np.ndarray, expected: np.ndarray) -> None:
    """Codes are the same, but for rounding where a batch has other neighbours."""
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_concurrent_requests_are_answered_right_and_share_forward_passes() -> None:
    encoders = {name: PplxEncoder(name) for name in ("miniature-v1", "miniature-context-v1")}
    texts = [f"Which river is number {number} of all?" for number in range(120)]
    documents = [[f"Chapter {number}.", texts[number]] for number in range(0, 120, 8)]
    expected, in_context = (
        encoders["miniature-v1"].encode(texts),
        encoders["miniature-context-v1"].encode_documents(documents),
    )
    with serving(encoders) as served, httpx.Client(base_url=served.url) as client:
        before = served.metric("pplx_embed_batch_sequences_count", model="miniature-v1")

        def embed(number: int) -> None:
            body = {"model": "miniature-v1", "input": texts[number]}
            answer = client.post(EMBEDDINGS, json=body, timeout=60)
            check(read_vectors(answer.json(), count=1), expected[number : number + 1])
            if number % 8 == 0:
                asked = {"model": "miniature-context-v1", "input": [documents[number // 8]]}
                [matrix] = read_documents(client.post(CONTEXTUALIZED, json=asked, timeout=60).json(), chunks=[2])
                check(matrix, in_context[number // 8])

        with ThreadPoolExecutor(24) as pool:
            list(pool.map(embed, range(120)))
        passes = served.metric("pplx_embed_batch_sequences_count", model="miniature-v1") - before
        assert passes < 120


async def test_requests_that_are_embedded_together_have_their_own_answers_and_errors() -> None:
    embedder, calls = FakeEmbedder(128), list[int]()

    async def embed(texts: list[str], width: int) -> np.ndarray:
        calls.append(len(texts))
        await asyncio.sleep(0.01)
        if "bad" in texts:
            raise ValueError("bad")
        return embedder.encode(texts, dimensions=width)

    gathering = Gathering(embed)
    asked = [([f"text {number}", "another"][: 1 + number % 2], 64 + number % 2 * 64) for number in range(60)]
    asked[7] = (["good", "bad"], 128)
    asked[11] = (["long " * 500], 128)
    requests = [asyncio.create_task(gathering.embed(*each)) for each in asked]
    await asyncio.sleep(0)
    requests[20].cancel()
    answers = await asyncio.gather(*requests, return_exceptions=True)
    for number, ((texts, width), answer) in enumerate(zip(asked, answers, strict=True)):
        if number == 7:
            assert isinstance(answer, ValueError)
        elif number == 20:
            assert isinstance(answer, asyncio.CancelledError)
        else:
            np.testing.assert_array_equal(answer, embedder.encode(texts, dimensions=width))
    assert 1 < max(calls) <= 64
    await asyncio.sleep(0)
    assert (gathering._lines, gathering._tasks) == ({}, set())


@dataclass(frozen=True)
class Waiting(FakeEmbedder):
    """An embedder that computes until it is told to stop."""

    begun: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)
    cancelled: threading.Event = field(default_factory=threading.Event)

    async def aencode(self, texts, **options):
        self.begun.set()
        try:
            while not self.go.is_set():
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return self.encode(texts, **options)


@pytest.fixture
def embedder() -> Iterator[Waiting]:
    waiting = Waiting()
    yield waiting
    waiting.go.set()


def post(served: Served, text: str = "a") -> httpx.Response:
    return httpx.post(f"{served.url}{EMBEDDINGS}", json={"model": "fake", "input": text}, timeout=60)


def test_a_client_that_hangs_up_frees_its_place(embedder: Waiting) -> None:
    with serving({"fake": embedder}) as served:
        with socket.create_connection(("127.0.0.1", served.port)) as connection:
            texts = ["a"] * 9  # not so few that they are embedded together with those of others
            body = json.dumps({"model": "fake", "input": texts}).encode()
            head = f"POST {EMBEDDINGS} HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            assert embedder.begun.wait(10)
            assert served.metric("pplx_embed_queue_requests") == 1
        assert embedder.cancelled.wait(10)
        while served.metric("pplx_embed_queue_requests"):
            time.sleep(0.01)
        assert served.metric("pplx_embed_requests_total", status="499", route=EMBEDDINGS) == 1
        embedder.go.set()
        assert post(served).status_code == 200


def test_what_is_being_answered_when_the_server_ends_is_finished(embedder: Waiting) -> None:
    with ThreadPoolExecutor(1) as pool, serving({"fake": embedder}) as served:
        answer = pool.submit(post, served)
        assert embedder.begun.wait(10)
        served.server.should_exit = True
        while served.server.servers and any(each.is_serving() for each in served.server.servers):
            time.sleep(0.01)
        with pytest.raises(httpx.TransportError):  # nobody else comes in
            post(served)
        embedder.go.set()
        assert read_vectors(answer.result().json(), count=1).shape == (1, 1024)


def test_the_program_from_its_start_to_its_end() -> None:
    """One process: it says where it is and when it is ready, answers, and finishes what runs after SIGTERM."""
    program = [str(Path(sys.executable).with_name("pplx-embed")), "serve", "miniature-v1", "mine=miniature-context-v1"]
    with subprocess.Popen([*program, "--port", "0"], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            told = process.stdout.readline()
            found = re.fullmatch(r"Serving miniature-v1, mine at (http://127\.0\.0\.1:\d+); Ctrl-C ends it\n", told)
            assert found, told
            assert process.stdout.readline() == "Ready\n"
            url = found[1]
            assert httpx.get(f"{url}/health").status_code == 200
            documents = [[f"Chunk {chunk} of document {number}." for chunk in range(8)] for number in range(250)]
            with ThreadPoolExecutor(1) as pool:
                body = {"model": "mine", "input": documents}
                answer = pool.submit(httpx.post, f"{url}{CONTEXTUALIZED}", json=body, timeout=60)
                while "pplx_embed_queue_requests 1.0" not in httpx.get(f"{url}/metrics").text and not answer.done():
                    pass
                process.send_signal(signal.SIGTERM)
                matrices = read_documents(answer.result().json(), chunks=[8] * 250)
            expected = PplxEncoder("miniature-context-v1").encode_documents(documents[:3])
            for matrix, other in zip(matrices[:3], expected, strict=True):
                check(matrix, other)
            assert process.wait(30) in (0, -signal.SIGTERM)
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "at 0.0.0.0 everybody who reaches this machine could use the models; give an API key"),
        (["nothing-like-this"], "there is no checkpoint or folder 'nothing-like-this'"),
        (["miniature", "miniature-v1"], "two models are called 'miniature-v1'; give one of them another name"),
        (["=miniature-v1"], "'=miniature-v1' is no model; write NAME=MODEL"),
        (["miniature", "--api-key", "short"], "API key 0 has 5 characters"),
        (["miniature", "--device", "abacus"], "abacus"),
    ],
)
def test_what_cannot_be_served_is_told(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PPLX_EMBED_API_KEY", raising=False)
    assert main(["serve", "--port", "0", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", "miniature", "--port", port]) == 2
        assert f"cannot listen at 127.0.0.1, port {port}: Address already in use" in capsys.readouterr().err
