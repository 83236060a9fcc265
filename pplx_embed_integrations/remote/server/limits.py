"""How much the server takes on: limits of a request, places for requests, and bodies that are read within both.

Knows counts, bytes and seconds; must not know what is in a body.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import anyio

from ...inputs import check_positive
from ..protocol import Limits
from .refusals import ClientGoneError, RefusedError, busy

Receive = Callable[[], Awaitable[Any]]

_MIB = 1024 * 1024
_LONGEST_WAIT = 60


@dataclass(frozen=True)
class ServerLimits:
    """What a server takes on; everything beyond is refused before it takes memory.

    Attributes:
        texts: Texts or documents in a request; OpenAI's limit, which is above Perplexity's 512.
        chunks: Chunks in a request.
        tokens: Tokens in a request.
        body_bytes: Bytes of a request.
        requests: Requests that are computed or wait at the same time.
        held_bytes: Bytes of all these requests and of their vectors together. A request alone is always taken.
        seconds: For a client to send headers, to send a body, and to take each piece of the answer.

    Raises:
        InputError: A number is not positive.
        InputTypeError: A number is no integer.
    """

    texts: int = 2048
    chunks: int = 16_000
    tokens: int = 300_000
    body_bytes: int = 8 * _MIB
    requests: int = 1024
    held_bytes: int = 512 * _MIB
    seconds: int = 60

    def __post_init__(self) -> None:
        for each in fields(self):
            check_positive(each.name, getattr(self, each.name))

    def of_a_request(self) -> Limits:
        """Return what a client is told of them."""
        return Limits(texts=self.texts, chunks=self.chunks, tokens=self.tokens)


class Gate:
    """Places for requests, as many as there are and as memory allows.

    Attributes:
        requests: How many are taken.
        held_bytes: What they hold.
    """

    def __init__(self, limits: ServerLimits) -> None:
        self._limits = limits
        self.requests = 0
        self.held_bytes = 0
        self._usual_seconds = 1.0

    @contextmanager
    def place(self) -> Iterator[Place]:
        """Take a place until the end of the block.

        Raises:
            RefusedError: 429, all are taken.
        """
        if self.requests >= self._limits.requests:
            raise self._full()
        self.requests += 1
        place = Place(self)
        try:
            yield place
        finally:
            self.requests -= 1
            self.held_bytes -= place.held_bytes

    def took(self, seconds: float) -> None:
        """Learn how long a request took, to tell others when to come again."""
        self._usual_seconds += (seconds - self._usual_seconds) / 16

    def hold(self, place: Place, count: int) -> None:
        """Count bytes that a request holds from now on; see `Place.hold`."""
        others = self.held_bytes - place.held_bytes
        if others and self.held_bytes + count > self._limits.held_bytes:
            raise self._full()
        place.held_bytes += count
        self.held_bytes += count

    def _full(self) -> RefusedError:
        seconds = min(max(1, math.ceil(self._usual_seconds)), _LONGEST_WAIT)
        message = f"the server is at its limit; come again in {seconds} s"
        return busy(429, message, kind="rate_limit_error", seconds=seconds)


class Place:
    """A request's place: what it holds of the memory that all share."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self.held_bytes = 0

    def hold(self, count: int) -> None:
        """Count bytes that the request holds from now on.

        Raises:
            RefusedError: 429, with those of the others they are too many.
        """
        self._gate.hold(self, count)


async def read_body(headers: Mapping[str, str], receive: Receive, place: Place, limits: ServerLimits) -> bytes:
    """Read a request's body, no more of it than is allowed and no longer than that.

    Raises:
        ClientGoneError: It hung up.
        RefusedError: 408, it was too slow; 413, too large; 429, there is no room; 400 or 415, it cannot be JSON.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        # A web page may make a browser send other types anywhere, without asking.
        raise RefusedError(415, "the body must be JSON; send the header: Content-Type: application/json")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise RefusedError(415, "a compressed body is not taken; send it as it is")
    declared = headers.get("content-length", "0")
    if not (declared.isascii() and declared.isdigit()):
        raise RefusedError(400, "Content-Length is no number")
    if int(declared) > limits.body_bytes:
        raise _too_large(limits)
    place.hold(int(declared))
    try:
        with anyio.fail_after(limits.seconds):
            return await _collect(receive, place, int(declared), limits)
    except TimeoutError:
        message = f"the body did not arrive within {limits.seconds} s"
        raise RefusedError(408, message, code="timeout", headers={"Connection": "close"}) from None


async def _collect(receive: Receive, place: Place, declared: int, limits: ServerLimits) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        piece = message.get("body", b"")
        if len(body) + len(piece) > limits.body_bytes:
            raise _too_large(limits)
        place.hold(max(0, len(body) + len(piece) - max(declared, len(body))))
        body += piece
        if not message.get("more_body", False):
            return bytes(body)


def _too_large(limits: ServerLimits) -> RefusedError:
    message = f"the body is larger than {limits.body_bytes} bytes; send fewer texts in a request"
    return RefusedError(413, message, code="request_too_large", headers={"Connection": "close"})
