"""What somebody may send who means harm, or whose program is broken: the right status, and no more memory than that."""

import json
import logging
import os
import re
import socket
import struct
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator

import httpx
import numpy as np
import pytest

from pplx_embed_integrations import FakeEmbedder
from pplx_embed_integrations.remote.protocol import CONTEXTUALIZED, EMBEDDINGS
from pplx_embed_integrations.remote.server import ServerLimits
from tests.remote.serving import Served, serving

KEY = "a-key-of-the-tests"
JSON = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    limits = ServerLimits(seconds=1, requests=4)
    with serving({"fake": FakeEmbedder(contextual=True)}, api_keys=[KEY], limits=limits) as served:
        yield served


@pytest.fixture(scope="module")
def patient() -> Iterator[Served]:
    """A server for what takes its time on a loaded machine, and is no attack of slowness."""
    with serving({"fake": FakeEmbedder(contextual=True)}, api_keys=[KEY], limits=ServerLimits(requests=4)) as served:
        yield served


@pytest.fixture
def connect(server: Served) -> Iterator[Callable[[], socket.socket]]:
    """Open connections that say what a test wants."""
    opened: list[socket.socket] = []

    def open_one() -> socket.socket:
        opened.append(socket.create_connection(("127.0.0.1", server.port), timeout=20))
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()


def head(length: int | None, *, key: str = KEY, path: str = EMBEDDINGS) -> bytes:
    size = b"Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}".encode()
    lines = [f"POST {path} HTTP/1.1", "Host: here", "Content-Type: application/json", f"Authorization: Bearer {key}"]
    return "\r\n".join(lines).encode() + b"\r\n" + size + b"\r\n\r\n"


def status_of(connection: socket.socket) -> int:
    answer = b""
    while b"\r\n" not in answer and (piece := connection.recv(4096)):
        answer += piece
    return int(answer.split()[1]) if answer else 0


def send_all(connection: socket.socket, piece: bytes, times: int) -> None:
    """Send until the other side has had enough of it."""
    try:
        for _ in range(times):
            connection.sendall(piece)
    except OSError:
        pass


def is_well(server: Served) -> bool:
    answer = httpx.post(f"{server.url}{EMBEDDINGS}", json={"model": "fake", "input": "a"}, headers=JSON)
    return answer.status_code == 200 and server.metric("pplx_embed_queue_bytes") == 0


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
@pytest.mark.parametrize(("key", "status"), [(KEY, 413), ("a-wrong-key", 401)])
def test_a_body_of_200_megabytes(
    server: Served, connect: Callable[[], socket.socket], key: str, status: int, declared: bool
) -> None:
    megabyte = b"x" * MIB
    piece = megabyte if declared else b"%x\r\n%b\r\n" % (MIB, megabyte)
    connection = connect()
    tracemalloc.start()
    try:
        sender = threading.Thread(target=send_all, args=(connection, piece, 200))
        connection.sendall(head(200 * MIB if declared else None, key=key))
        sender.start()
        assert status_of(connection) == status
        sender.join()
        assert tracemalloc.get_traced_memory()[1] < 40 * MIB
    finally:
        tracemalloc.stop()
    assert is_well(server)


@pytest.mark.parametrize("limit", ["declared", "real"])
def test_a_clients_library_hears_of_a_large_body(patient: Served, limit: str) -> None:
    content = b"x" * (9 * MIB) if limit == "declared" else iter([b"x" * MIB] * 9)
    answer = httpx.post(f"{patient.url}{EMBEDDINGS}", content=content, headers=JSON)
    assert answer.status_code == 413
    assert answer.json()["error"]["message"] == "the body is larger than 8388608 bytes; send fewer texts in a request"


BOMBS = {
    "lists": (422, b"[" * (7 * MIB)),
    "objects": (422, b'{"a":' * MIB),
    "lists within the limit": (400, b"[" * 9999),
    "objects within the limit": (400, b'{"a":' * 9999),
    "lists in the input": (400, b'{"model": "fake", "input": ' + b"[" * 9999 + b"]" * 9999 + b"}"),
    "quotes": (400, b'"' * (7 * MIB)),
    "escaped quotes": (400, b'"' + rb"\"," * (2 * MIB)),
    "a long number": (400, b'{"model": "fake", "input": "a", "dimensions": ' + b"9" * 100_000 + b"}"),
    "an exponent": (422, b'{"model": "fake", "input": "a", "dimensions": 1e999999999}'),
    "not a number": (400, b'{"model": "fake", "input": "a", "dimensions": NaN}'),
    "invalid UTF-8": (400, b'{"model": "fake", "input": "\xff\xfe"}'),
    "half a character": (400, b'{"model": "fake", "input": "\xf0\x9f"}'),
    "a lone surrogate": (400, rb'{"model": "fake", "input": "\ud83c"}'),
    "a surrogate in UTF-8": (400, b'{"model": "fake", "input": "\xed\xa0\x80"}'),
    "UTF-16": (400, '{"model": "fake", "input": "a"}'.encode("utf-16")),
    "zeros": (400, bytes(1000)),
    "text after the end": (400, b'{"model": "fake", "input": "a"} {}'),
}


@pytest.mark.parametrize("case", BOMBS)
def test_what_is_no_request_is_refused(patient: Served, case: str) -> None:
    status, content = BOMBS[case]
    answer = httpx.post(f"{patient.url}{EMBEDDINGS}", content=content, headers=JSON)
    assert answer.status_code == status, answer.text
    assert len(answer.content) < 1000
    assert is_well(patient)


@pytest.mark.parametrize("value", ["[]", "{}", "1", '""', "null", '"a"', "[[]]", '{"a":1}'])
def test_many_small_things_take_little_memory(patient: Served, value: str) -> None:
    body = f'{{"model": "fake", "input": [{",".join([value] * (7 * MIB // (len(value) + 1)))}]}}'.encode()
    tracemalloc.start()
    try:
        answer = httpx.post(f"{patient.url}{CONTEXTUALIZED}", content=body, headers=JSON)
        assert answer.status_code == 422
        assert tracemalloc.get_traced_memory()[1] < 6 * len(body)
    finally:
        tracemalloc.stop()


def test_punctuation_in_texts_is_not_counted(patient: Served) -> None:
    text = 'a "quoted" \\ [list], {"of": 1}, ' * 1800  # many parts of what looks like JSON
    answer = httpx.post(f"{patient.url}{EMBEDDINGS}", json={"model": "fake", "input": [text, "a"]}, headers=JSON)
    assert answer.status_code == 200, answer.text
    documents = [["[,{" * 100] * 8] * 2000  # as many chunks as there may be
    answer = httpx.post(f"{patient.url}{CONTEXTUALIZED}", json={"model": "fake", "input": documents}, headers=JSON)
    assert "tokens and the limit is 300000" in answer.text


NAMES = [
    "../../../etc/passwd",
    "/etc/passwd",
    "..\\..\\x",
    "file:///etc/passwd",
    "fake\x00",
    "a" * 100_000,
    "",
    "~",
    ".",
]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_names_of_models_are_never_opened(server: Served, name: str) -> None:
    answer = httpx.post(f"{server.url}{EMBEDDINGS}", json={"model": name, "input": "a"}, headers=JSON)
    assert answer.status_code == 404
    assert len(answer.content) < 1000
    assert answer.json()["error"]["message"].endswith("there are: fake")


@pytest.mark.parametrize("begun", [b"", b'{"model": "fake", '])
def test_a_slow_client_is_told_and_frees_its_place(
    server: Served, connect: Callable[[], socket.socket], begun: bytes
) -> None:
    connection = connect()
    connection.sendall(head(100) + begun)
    assert status_of(connection) == 408
    assert is_well(server)


def test_slow_clients_leave_no_place_and_keep_none(server: Served, connect: Callable[[], socket.socket]) -> None:
    slow = [connect() for _ in range(4)]
    for each in slow:
        each.sendall(head(100))
    while server.metric("pplx_embed_queue_requests") < 4:
        time.sleep(0.01)
    answer = httpx.post(f"{server.url}{EMBEDDINGS}", json={"model": "fake", "input": "a"}, headers=JSON)
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 0
    assert [status_of(each) for each in slow] == [408] * 4
    assert is_well(server)


ENDLESS = {
    "headers": (b"POST /v1/embeddings HTTP/1.1\r\n", b"X-Header: " + b"x" * 1000 + b"\r\n"),
    "a header": (b"POST /v1/embeddings HTTP/1.1\r\nX-Header: ", b"x" * 1000),
    "a path": (b"POST /", b"x" * 1000),
    "trailers": (head(None) + b"1\r\n{\r\n0\r\n", b"X-Header: " + b"x" * 1000 + b"\r\n"),
    "a trailer": (head(None) + b"1\r\n{\r\n0\r\nX-Header: ", b"x" * 1000),
    "what is said of a chunk": (head(None) + b"1;", b"x" * 1000),
}


@pytest.mark.parametrize("what", ENDLESS)
def test_without_an_end(server: Served, connect: Callable[[], socket.socket], what: str) -> None:
    begun, piece = ENDLESS[what]
    connection = connect()
    tracemalloc.start()
    try:
        connection.sendall(begun)
        sender = threading.Thread(target=send_all, args=(connection, piece, 20_000))
        sender.start()
        assert status_of(connection) in (400, 0)  # told, unless the system drops what is said to one who still sends
        sender.join()
        assert tracemalloc.get_traced_memory()[1] < 2 * MIB
    finally:
        tracemalloc.stop()
    assert is_well(server)


def test_a_body_in_the_smallest_pieces(patient: Served) -> None:
    body = json.dumps({"model": "fake", "input": "a" * 30_000}).encode()
    pieces = (body[number : number + 1] for number in range(len(body)))  # whose frames are larger than a head may be
    answer = httpx.post(f"{patient.url}{EMBEDDINGS}", content=pieces, headers=JSON)
    assert answer.status_code == 200, answer.text


def test_who_offers_another_protocol_is_answered_in_this(server: Served, connect: Callable[[], socket.socket]) -> None:
    body = b'{"model": "fake", "input": "a"}'
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\n"  # as Java does
    request = head(len(body))[:-2] + offer + b"\r\n" + body
    for sent in ([request], [request[:-5], request[-5:]]):
        connection = connect()
        for piece in sent:
            connection.sendall(piece)
            time.sleep(0.05)  # so that they arrive one by one
        assert status_of(connection) == 200


@pytest.mark.parametrize("sent", [b"", b"POST /v1/emb", head(0)[:-2]])
def test_who_never_asks_is_disconnected(server: Served, connect: Callable[[], socket.socket], sent: bytes) -> None:
    connection = connect()
    connection.sendall(sent)
    assert connection.recv(1) == b""
    assert is_well(server)


def test_who_hangs_up_is_gone(server: Served, connect: Callable[[], socket.socket]) -> None:
    for sent in (b"", head(100)[:30], head(100), head(100) + b'{"model": '):
        connection = connect()
        connection.sendall(sent)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
        connection.close()
    assert is_well(server)


@pytest.mark.parametrize(
    "lines",
    [
        [b"Content-Length: 1e3"],
        [b"Content-Length: -1"],
        [b"Content-Length: 3", b"Content-Length: 4"],
        [b"Content-Length: 3", b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: gzip"],
    ],
)
def test_lengths_that_two_may_read_in_two_ways(
    server: Served, connect: Callable[[], socket.socket], lines: list[bytes]
) -> None:
    connection = connect()
    start = head(0).partition(b"Content-Length")[0]
    connection.sendall(start + b"\r\n".join(lines) + b"\r\n\r\n" + b"0\r\n\r\n")
    assert status_of(connection) in (400, 501)
    assert is_well(server)


def test_a_compressed_bomb(server: Served) -> None:
    headers = JSON | {"Content-Encoding": "gzip"}
    answer = httpx.post(f"{server.url}{EMBEDDINGS}", content=b"\x1f\x8b", headers=headers)
    assert answer.status_code == 415


def test_who_does_not_take_the_answer_is_disconnected(server: Served, connect: Callable[[], socket.socket]) -> None:
    texts = [f"word {number}" for number in range(2000)]
    body = json.dumps({"model": "fake", "input": texts, "encoding_format": "float"}).encode()
    connection = connect()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.sendall(head(len(body)) + body)
    while server.metric("pplx_embed_queue_requests") == 0:
        time.sleep(0.01)
    while server.metric("pplx_embed_queue_requests") > 0:  # it gives up, and with it the place
        time.sleep(0.05)
    assert is_well(server)


def test_memory_is_refused_before_it_is_gone() -> None:
    limits = ServerLimits(held_bytes=2 * MIB, requests=100, seconds=2)
    with serving({"fake": FakeEmbedder(128)}, limits=limits) as served:
        waiting = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(2)]
        for each in waiting:
            each.sendall(head(MIB))
        while served.metric("pplx_embed_queue_bytes") < 2 * MIB:
            time.sleep(0.01)
        answer = httpx.post(f"{served.url}{EMBEDDINGS}", json={"model": "fake", "input": "a"})
        assert answer.status_code == 429
        for each in waiting:
            each.close()
        while served.metric("pplx_embed_queue_bytes"):
            time.sleep(0.01)
        # Alone, a request is taken whose vectors need more than that.
        many = {"model": "fake", "input": ["a"] * 2048 + []}
        small = ServerLimits(held_bytes=1000)
    with serving({"fake": FakeEmbedder(128)}, limits=small) as served:
        assert httpx.post(f"{served.url}{EMBEDDINGS}", json=many).status_code == 200


def test_neither_keys_nor_texts_are_logged(server: Served, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    texts = ["a very secret text", "a very secret text " * 40_000]
    for asked in (
        {"model": "fake", "input": texts[0]},
        {"model": "fake", "input": texts[1]},  # too long
        {"model": "fake", "input": [[texts[0]]]},
        {"model": texts[0], "input": "a"},
    ):
        httpx.post(f"{server.url}{EMBEDDINGS}?text={texts[0]}", json=asked, headers=JSON)
    httpx.post(f"{server.url}{EMBEDDINGS}", content=texts[0].encode(), headers=JSON)
    ours = [record for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))]
    told = "\n".join(record.getMessage() for record in ours)
    assert "POST /v1/embeddings 200: 1 texts, 4 tokens" in told
    assert "secret" not in told
    assert KEY not in told


def test_comparing_keys_looks_at_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time tells nothing where the work is the same; what is compared are hashes of one length."""
    from pplx_embed_integrations.remote.server import keys

    seen: list[tuple[bytes, bytes]] = []

    def compare(left: bytes, right: bytes) -> bool:
        seen.append((left, right))
        return left == right

    monkeypatch.setattr(keys.hmac, "compare_digest", compare)
    both = keys.Keys(["the-first-key", "the-second-key-which-is-longer"])
    both.check(b"Bearer the-first-key")
    assert [(len(left), len(right)) for left, right in seen] == [(32, 32), (32, 32)]
    assert not re.search("first|second", repr(both))
    assert "the-first-key" not in str(vars(both))
    assert os.environ.get("PPLX_EMBED_API_KEY") is None
    assert np.unique([len(left) for left, _ in seen]).tolist() == [32]
