"""An answer with vectors: JSON that is made and sent piece by piece, so that a large one never is in memory as a whole.

Knows the shape of answers and how fast a client must take them; must not know what was asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from pydantic_core import to_json
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ...flow import in_thread
from ...vectors import Vectors
from ..encoding import encode_vectors
from ..protocol import EncodingFormat
from ..usage import Usage

_ROWS = 64
"""Vectors in a piece: of 2560 numbers they are some 3 MB as JSON."""


class VectorsResponse(Response):
    """The answer to a request for embeddings.

    Args:
        model: Its name.
        vectors: A row each, in the form of `encoding_format`.
        fingerprint: What tells the model from another of its name.
        chunks: How many rows each document has; None where they are single texts.
        encoding_format: How they are written.
        usage: What they took.
        seconds: For the client to take each piece.
    """

    def __init__(
        self,
        model: str,
        vectors: Vectors,
        *,
        fingerprint: str,
        chunks: Sequence[int] | None,
        encoding_format: EncodingFormat,
        usage: Usage,
        seconds: float,
    ) -> None:
        self._pieces = _pieces(model, fingerprint, vectors, chunks, encoding_format, usage)
        self._whole = len(vectors) <= _ROWS and chunks is None
        self._seconds = seconds
        super().__init__(b"".join(self._pieces) if self._whole else None, media_type="application/json")
        if not self._whole:
            del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it.

        Raises:
            TimeoutError: The client does not take it.
        """
        if self._whole:
            await super().__call__(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        while piece := await in_thread(next, self._pieces, b""):
            message = {"type": "http.response.body", "body": piece, "more_body": True}
            await asyncio.wait_for(send(message), self._seconds)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _pieces(
    model: str,
    fingerprint: str,
    vectors: Vectors,
    chunks: Sequence[int] | None,
    encoding_format: EncodingFormat,
    usage: Usage,
) -> Iterator[bytes]:
    yield b'{"object":"list","model":%b,"system_fingerprint":%b,"data":[' % (to_json(model), to_json(fingerprint))
    if chunks is None:
        yield from _items(vectors, encoding_format)
    else:
        borders = np.cumsum([0, *chunks]).tolist()
        for number, (start, end) in enumerate(pairwise(borders)):
            yield b'%b{"object":"list","index":%d,"data":[' % (b"," if number else b"", number)
            yield from _items(vectors[start:end], encoding_format)
            yield b"]}"
    yield b'],"usage":%b}' % to_json(usage.as_json())


def _items(vectors: Vectors, encoding_format: EncodingFormat) -> Iterator[bytes]:
    for start in range(0, len(vectors), _ROWS):
        written = encode_vectors(vectors[start : start + _ROWS], encoding_format)
        items = [
            {"object": "embedding", "index": start + row, "embedding": embedding}
            for row, embedding in enumerate(written)
        ]
        yield (b"," if start else b"") + to_json(items)[1:-1]
