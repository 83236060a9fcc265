"""A server that answers as Perplexity's API was seen to, on a real socket, and breaks as networks do.

Its vectors come of `FakeEmbedder`, so what arrives can be compared with what was made.
"""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from pplx_embed_integrations import FakeEmbedder
from pplx_embed_integrations.remote.protocol import CONTEXTUALIZED, EMBEDDINGS

WIDTHS = {
    "pplx-embed-v1-0.6b": 1024,
    "pplx-embed-context-v1-0.6b": 1024,
    "pplx-embed-v1-4b": 2560,
    "pplx-embed-context-v1-4b": 2560,
}
PRICE = 0.004e-6


@dataclass
class Reply:
    """What goes over the wire: a status, headers and bytes; cut after so many of them."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    cut: int | None = None
    hang: bool = False


Fault = Callable[[Reply, int], Reply]
"""Spoils the answer to the request of a number."""


@dataclass
class Wire:
    """What the server saw, and how it is to break.

    Attributes:
        fault: Spoils answers.
        seen: Path and body of each request that was read to its end.
        answered: Bodies of those whose right answer went out whole.
        keys: What they were authorised with.
    """

    url: str = ""
    fault: Fault | None = None
    models: Reply = field(default_factory=lambda: Reply(404, {"error": {"message": "not found"}}))
    embed: Callable[[str, dict[str, Any]], Any] | None = None
    seen: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    answered: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    at_once: int = 0
    most_at_once: int = 0

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [body for _, body in self.seen]

    def reply(self, path: str, body: dict[str, Any]) -> Reply:
        embed = self.embed or perplexity
        reply = embed(path, body)
        reply = reply if isinstance(reply, Reply) else Reply(body=reply)
        with self.lock:
            self.seen.append((path, body))
            number = len(self.seen)
        spoilt = self.fault(reply, number) if self.fault else reply
        if spoilt.status == 200 and spoilt.cut is None and not spoilt.hang and spoilt.raw is None:
            with self.lock:
                self.answered.append(body)
        return spoilt


def written(vectors: np.ndarray, encoding_format: str) -> list[str]:
    """Base64 of codes, or of bits with the least significant first, made without the package's own code."""
    if encoding_format == "base64_binary":
        vectors = np.packbits(vectors > 0, axis=1, bitorder="little")
    return [base64.b64encode(np.ascontiguousarray(row).tobytes()).decode() for row in vectors]


def perplexity(path: str, body: dict[str, Any]) -> Any:
    """Answer as the hosted API does, or refuse as it does."""
    texts = body["input"]
    documents = texts if path == CONTEXTUALIZED else [[text] for text in texts]
    for place, chunks in enumerate(documents):
        if not all(chunks) or not chunks:
            return refused(["body", "input", place], "input text must not be empty")
    if len(documents) > 512 or sum(map(len, documents)) > 16_000:
        return refused(["body", "input"], "too many inputs")
    tokens = sum(len(text.encode()) for chunks in documents for text in chunks)
    if tokens > 120_000:
        return refused(["body", "input"], "too many tokens")
    if body["model"] not in WIDTHS or (path == CONTEXTUALIZED) != ("context" in body["model"]):
        return refused(["body", "model"], "no such model here")
    encoding_format = body.get("encoding_format", "base64_int8")
    if encoding_format not in ("base64_int8", "base64_binary"):
        return refused(["body", "encoding_format"], "Input should be 'base64_int8' or 'base64_binary'")
    embedder = FakeEmbedder(WIDTHS[body["model"]])
    form = "int8" if encoding_format == "base64_int8" else "binary"
    matrices = embedder.encode_documents(documents, quantization=form, dimensions=body.get("dimensions"))
    rows = [
        [{"object": "embedding", "index": n, "embedding": value} for n, value in enumerate(written(m, encoding_format))]
        for m in matrices
    ]
    if path == CONTEXTUALIZED:
        data = [{"object": "list", "index": n, "data": row} for n, row in enumerate(rows)]
    else:
        data = [{**row[0], "index": n} for n, row in enumerate(rows)]
    cost = {"input_cost": tokens * PRICE, "total_cost": tokens * PRICE, "currency": "USD"}
    usage = {"prompt_tokens": tokens, "total_tokens": tokens, "cost": cost}
    return {"object": "list", "model": body["model"], "data": data, "usage": usage}


def refused(loc: list[Any], message: str) -> Reply:
    return Reply(422, {"detail": [{"loc": loc, "msg": message, "type": "value_error"}]})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wire: Wire

    def do_GET(self) -> None:
        self._send(self.wire.models)

    def do_POST(self) -> None:
        wire = self.wire
        with wire.lock:
            wire.at_once += 1
            wire.most_at_once = max(wire.most_at_once, wire.at_once)
            wire.keys.append(self.headers.get("Authorization"))
        try:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.path in (EMBEDDINGS, CONTEXTUALIZED)
            self._send(wire.reply(self.path, body))
        finally:
            with wire.lock:
                wire.at_once -= 1

    def _send(self, reply: Reply) -> None:
        if reply.hang:
            self.wire.stop.wait()
            self.close_connection = True
            return
        content = reply.raw if reply.raw is not None else json.dumps(reply.body).encode()
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: reply.cut])
        if reply.cut is not None:
            self.wfile.flush()
            # A reset, not a polite end.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def listening(port: int = 0) -> Iterator[Wire]:
    """Serve on a port of 127.0.0.1 until the block ends."""
    wire = Wire()
    handler = type("Handler", (_Handler,), {"wire": wire})
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    server.daemon_threads = True
    wire.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield wire
    finally:
        wire.stop.set()
        server.shutdown()
        server.server_close()
        thread.join()
