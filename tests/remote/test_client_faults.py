"""What may happen on the wire: every vector is right, or there is one clear error, and nothing is embedded twice."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pplx_embed_integrations import EncodingError, FakeEmbedder, InputError, RemoteEncoder, ServerError
from pplx_embed_integrations.errors import PplxEmbedError
from pplx_embed_integrations.remote import transport
from tests.remote.wire import Fault, Reply, Wire, listening, perplexity, refused

FAKE = FakeEmbedder(1024)
TEXTS = [f"text {number}" for number in range(5)]
DOCUMENTS = [["one", "two"], ["three"], ["four", "five", "six"]]
NAMES = ["a.pdf", "b.pdf", "c.pdf"]


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that would have been waited."""
    seconds: list[float] = []

    async def sleep(for_seconds: float) -> None:
        seconds.append(for_seconds)

    monkeypatch.setattr(transport, "_sleep", sleep)
    return seconds


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch, slept: list[float]) -> Iterator[Wire]:
    with listening() as wire:
        monkeypatch.setenv("PERPLEXITY_BASE_URL", wire.url)
        monkeypatch.setenv("PERPLEXITY_API_KEY", "pplx-1234")
        yield wire


def texts(**options: Any) -> RemoteEncoder:
    return RemoteEncoder("v1-0.6b", base_url="perplexity", **options)


def documents(**options: Any) -> RemoteEncoder:
    return RemoteEncoder("context-v1-0.6b", base_url="perplexity", **options)


def once(fault: Fault) -> Fault:
    return lambda reply, number: fault(reply, number) if number == 1 else reply


def with_data(change: Callable[[list[Any]], object]) -> Fault:
    """Spoil the entries of an answer."""

    def fault(reply: Reply, _: int) -> Reply:
        body = json.loads(json.dumps(reply.body))
        data = change(body["data"])
        return replace(reply, body={**body, "data": body["data"] if data is None else data})

    return fault


def with_first(value: object) -> Fault:
    return with_data(lambda data: data[0].update(embedding=value))


def code(*values: int) -> str:
    return base64.b64encode(np.array(values, dtype=np.int8).tobytes()).decode()


PASSING: dict[str, Fault] = {
    "500": lambda reply, _: Reply(500, {"error": {"message": "oops"}}),
    "502 of a proxy": lambda reply, _: Reply(502, raw=b"<html>Bad Gateway</html>"),
    "503": lambda reply, _: Reply(503, {"detail": "loading"}),
    "408": lambda reply, _: Reply(408, {}),
    "409": lambda reply, _: Reply(409, {}),
    "429": lambda reply, _: Reply(429, {"error": "slow down"}),
    "429 with Retry-After": lambda reply, _: Reply(429, {}, headers={"Retry-After": "7"}),
    "cut in the middle": lambda reply, _: replace(reply, cut=300),
    "cut before anything": lambda reply, _: replace(reply, cut=0),
    "no JSON": lambda reply, _: replace(reply, raw=json.dumps(reply.body).encode()[:-40]),
}
FOR_GOOD: dict[str, tuple[Fault, type[PplxEmbedError], str]] = {
    "short": (with_data(lambda data: data[:-1]), EncodingError, "4 entries where one for each text is wanted: 5"),
    "long": (with_data(lambda data: [*data, {**data[0], "index": 5}]), EncodingError, "6 entries"),
    "doubled": (with_data(lambda data: [*data[:-1], data[0]]), EncodingError, "index 0"),
    "no index": (with_data(lambda data: data[1].pop("index") and None), EncodingError, "index None"),
    "too narrow": (with_first(code(1, 2, 3)), EncodingError, "3 numbers, not 1024"),
    "all narrow": (with_data(lambda data: [{**each, "embedding": "AQ=="} for each in data]), EncodingError, "not 1024"),
    "no base64": (with_first("%%%"), EncodingError, "base64_int8"),
    "NaN": (with_first([float("nan")] * 1024), EncodingError, "base64_int8"),
    "null": (with_first(None), EncodingError, "base64_int8"),
    "no code": (with_first(code(*[-128] * 1024)), EncodingError, "-128"),
    "no data": (lambda reply, _: replace(reply, body={"object": "list"}), EncodingError, "no data"),
    "no object": (lambda reply, _: replace(reply, body=[1]), EncodingError, "no data"),
    "400": (lambda reply, _: Reply(400, {"error": {"message": "no"}}), InputError, "answered 400 Bad Request: no"),
    "413": (lambda reply, _: Reply(413, raw=b"too large"), InputError, "answered 413"),
    "422": (lambda reply, _: refused(["body", "input", 3], "too long"), InputError, "does not take text 3: too long"),
    "401": (lambda reply, _: Reply(401, {}), ServerError, "pass api_key=, or set PERPLEXITY_API_KEY or PPLX_API_KEY"),
    "403": (lambda reply, _: Reply(403, {}), ServerError, "pass api_key="),
    "404": (lambda reply, _: Reply(404, {}), ServerError, "is base_url right"),
    "redirect": (lambda reply, _: Reply(308, {}, headers={"Location": "https://b.example/v1"}), ServerError, "https://b.example/v1"),
    "no patience": (lambda reply, _: Reply(429, {}, headers={"Retry-After": "3600"}), ServerError, "wait 3600 seconds"),
}  # fmt: skip


def test_answers_in_any_order(wire: Wire) -> None:
    wire.fault = with_data(lambda data: data.reverse())
    np.testing.assert_array_equal(texts().encode(TEXTS), FAKE.encode(TEXTS))
    wire.fault = with_data(lambda data: [{**each, "data": each["data"][::-1]} for each in data[::-1]])
    for found, wanted in zip(documents().encode_documents(DOCUMENTS), FAKE.encode_documents(DOCUMENTS), strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("name", PASSING)
def test_what_passes_is_tried_again(wire: Wire, slept: list[float], name: str) -> None:
    wire.fault = once(PASSING[name])
    np.testing.assert_array_equal(texts().encode(TEXTS), FAKE.encode(TEXTS))
    assert len(wire.seen) == 2
    [seconds] = slept
    assert 7 <= seconds <= 8 if "Retry" in name else 0.25 <= seconds <= 0.5


@pytest.mark.parametrize("name", PASSING)
def test_what_does_not_pass_is_one_error(wire: Wire, slept: list[float], name: str) -> None:
    wire.fault = PASSING[name]
    with pytest.raises(ServerError, match=r"it was asked 4 times\. Not embedded: text 0, text 1, text 2 and 2 more$"):
        texts(max_retries=3).encode(TEXTS)
    assert len(wire.seen) == 4
    assert len(slept) == 3


def test_waiting_grows_and_differs(wire: Wire, slept: list[float]) -> None:
    wire.fault = PASSING["500"]
    for _ in range(2):
        with pytest.raises(ServerError, match="500 Internal Server Error: oops"):
            texts(max_retries=9).encode(TEXTS)
    for attempt, seconds in enumerate(slept[:9]):
        most = min(30, 0.5 * 2**attempt)
        assert most / 2 <= seconds <= most
    assert slept[:9] != slept[9:]


@pytest.mark.parametrize("name", FOR_GOOD)
def test_what_is_wrong_for_good_is_one_error_at_once(wire: Wire, name: str) -> None:
    wire.fault, kind, said = FOR_GOOD[name]
    with pytest.raises(kind) as caught:
        texts().encode(TEXTS)
    assert said in str(caught.value)
    assert wire.url in str(caught.value)
    assert len(wire.seen) == 1


@pytest.mark.parametrize("name", ["short", "doubled", "too narrow", "no code"])
def test_the_same_of_documents(wire: Wire, name: str) -> None:
    spoil = FOR_GOOD[name][0]

    def fault(reply: Reply, number: int) -> Reply:
        inner = spoil(replace(reply, body=reply.body["data"][2]), number).body["data"]
        return with_data(lambda data: data[2].update(data=inner))(reply, number)

    wire.fault = fault
    with pytest.raises(EncodingError, match=r"It was asked for a\.pdf, b\.pdf, c\.pdf"):
        documents().encode_documents(DOCUMENTS, names=NAMES)


def test_an_error_names_the_users_chunk(wire: Wire) -> None:
    wire.fault = lambda reply, number: refused(["body", "input", 2, 1], "40000 tokens are too many")
    with pytest.raises(InputError, match=r"does not take chunk 1 of c\.pdf: 40000 tokens are too many"):
        documents().encode_documents(DOCUMENTS, names=NAMES)


def test_a_server_that_hangs(wire: Wire, slept: list[float]) -> None:
    wire.fault = lambda reply, number: Reply(hang=True)
    with pytest.raises(ServerError, match=r"did not answer within 0\.05 seconds .*; it was asked 2 times"):
        texts(timeout=0.05, max_retries=1).encode(TEXTS)


def test_nobody_listens(slept: list[float]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ServerError, match=f"http://127.0.0.1:{port} cannot be reached .ConnectError.* asked 3 times"):
        RemoteEncoder("v1-0.6b", base_url=f"http://127.0.0.1:{port}", max_retries=2).encode(TEXTS)
    assert len(slept) == 2


def test_a_large_job_survives_resets_and_repeats_nothing_that_came_back(wire: Wire) -> None:
    """A million tokens in requests of the largest size, with connections that break in the middle of answers."""
    many = [f"{number:05d} " + "word " * 400 for number in range(500)]  # a byte a token to the server, and to us

    def fault(reply: Reply, number: int) -> Reply:
        return replace(reply, cut=2000) if number in (3, 4, 7, 8, 9) else reply

    wire.fault = fault
    encoder = texts(concurrency=3)
    found = encoder.encode(many)
    np.testing.assert_array_equal(found, FAKE.encode(many))
    came_back = Counter(text for body in wire.answered for text in body["input"])
    assert set(came_back.values()) == {1}
    assert len(came_back) == 500
    assert encoder.usage.total_tokens == sum(map(len, many)) > 1_000_000
    assert wire.most_at_once <= 3


def test_the_first_failure_ends_the_call(wire: Wire) -> None:
    many = [f"{number:05d} " + "word " * 4000 for number in range(60)]
    wire.fault = lambda reply, number: Reply(400, {}) if number == 2 else reply
    with pytest.raises(InputError):
        texts(concurrency=1).encode(many)
    assert len(wire.seen) == 2
    wire.fault = None
    np.testing.assert_array_equal(texts().encode(TEXTS), FAKE.encode(TEXTS))  # nothing is left behind


def test_one_calls_failure_is_no_others(wire: Wire) -> None:
    encoder = texts()

    def embed(path: str, body: dict[str, Any]) -> Any:
        return Reply(400, {}) if body["input"] == ["bad"] else perplexity(path, body)

    wire.embed = embed

    async def all_at_once() -> list[Any]:
        calls = [encoder.aencode([text]) for text in ("bad", "good", "bad", "fine")]
        return await asyncio.gather(*calls, return_exceptions=True)

    first, second, third, fourth = asyncio.run(all_at_once())
    assert isinstance(first, InputError)
    assert isinstance(third, InputError)
    np.testing.assert_array_equal(np.concatenate([second, fourth]), FAKE.encode(["good", "fine"]))


def test_a_cancelled_task_ends_its_request(wire: Wire) -> None:
    wire.fault = lambda reply, number: Reply(hang=True)

    async def give_up() -> None:
        await asyncio.wait_for(texts().aencode(TEXTS), 0.1)

    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(give_up())
    wire.fault = None
    np.testing.assert_array_equal(texts().encode(TEXTS), FAKE.encode(TEXTS))


def test_an_interruption_ends_the_call(wire: Wire) -> None:
    wire.fault = lambda reply, number: Reply(hang=True)
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        texts().encode(TEXTS)
    timer.join()
