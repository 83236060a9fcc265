"""A cache of document vectors over LangChain's `ByteStore`, in which a document is found by all that shaped it.

Knows keys and checksums; must not know stores of vectors, nor how to embed.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from langchain_core.stores import BaseStore, ByteStore

from ..documents import content_hash
from ..flow import Flow, Step, either, in_worker
from ..vectors import Vectors

_CHARACTERS_AT_ONCE = 200_000


class DocumentCache:
    """The vectors of documents that have been embedded before, in native form.

    A key covers the checkpoint with its revision (for a local folder: the content of its files), every option that
    changes a vector, and the whole document's chunks. A value carries a checksum over key and content: a damaged,
    truncated or misplaced entry is embedded again.

    Args:
        store: Any LangChain `ByteStore`, for example `LocalFileStore`.
        identity: Gives what `PplxBiEncoder.identity` says; asked when the first vector is wanted.
        width: Width of a vector.
        dtype: Type of its values.
    """

    def __init__(self, store: ByteStore, *, identity: Callable[[], str], width: int, dtype: np.dtype[Any]) -> None:
        self._store = store
        self._identity = identity
        self._width = width
        self._dtype = dtype

    def encode(
        self, documents: list[list[str]], encode: Callable[[list[list[str]]], Flow[list[Vectors]]]
    ) -> Flow[list[Vectors]]:
        """Return the vectors of documents, embedding those that the store does not have.

        Args:
            documents: Checked documents of chunks.
            encode: Embeds documents; what it gives is stored piece by piece, so that a crash loses one piece.

        Returns:
            A matrix for each document.
        """
        if not documents:
            return []
        keys = yield in_worker(self._keys, documents)
        found = self._read(keys, documents, (yield self._step("mget", keys)))
        for piece in _pieces(keys, documents, found):
            matrices = dict(zip(piece, (yield from encode(list(piece.values()))), strict=True))
            yield self._step("mset", [(key, _pack(key, matrix)) for key, matrix in matrices.items()])
            found.update(matrices)
        return [found[key] for key in keys]

    def _step(self, name: str, argument: list[Any]) -> Step:
        """Call a method of the store, or its asynchronous twin."""
        # The base class's own twins need a free thread of the event loop's executor, and all its threads may be waiting
        # for a document that this call has begun.
        work, awork = getattr(self._store, name), getattr(self._store, f"a{name}")
        inherited = getattr(type(self._store), f"a{name}") is getattr(BaseStore, f"a{name}")
        return in_worker(work, argument) if inherited else either(work, awork, argument)

    def _keys(self, documents: list[list[str]]) -> list[str]:
        identity = self._identity()
        return [hashlib.sha256(f"{identity}\n{content_hash(chunks)}".encode()).hexdigest() for chunks in documents]

    def _read(self, keys: list[str], documents: list[list[str]], values: list[bytes | None]) -> dict[str, Vectors]:
        found = {}
        for key, chunks, value in zip(keys, documents, values, strict=True):
            matrix = None if value is None else _unpack(key, value)
            if matrix is not None and matrix.shape == (len(chunks), self._width) and matrix.dtype == self._dtype:
                found[key] = matrix
        return found


def _pieces(keys: list[str], documents: list[list[str]], found: dict[str, Vectors]) -> Iterator[dict[str, list[str]]]:
    """Cut the documents that were not found into pieces worth storing together."""
    missing = {key: chunks for key, chunks in zip(keys, documents, strict=True) if key not in found}
    piece: dict[str, list[str]] = {}
    characters = 0
    for key, chunks in missing.items():
        piece[key] = chunks
        characters += sum(map(len, chunks))
        if characters >= _CHARACTERS_AT_ONCE:
            yield piece
            piece, characters = {}, 0
    if piece:
        yield piece


def _checksum(key: str, data: bytes) -> bytes:
    return hashlib.sha256(key.encode() + data).digest()


def _pack(key: str, matrix: Vectors) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, matrix, allow_pickle=False)
    return _checksum(key, buffer.getvalue()) + buffer.getvalue()


def _unpack(key: str, value: bytes) -> Vectors | None:
    checksum, data = value[:32], value[32:]
    if checksum != _checksum(key, data):
        return None
    matrix: Vectors = np.load(io.BytesIO(data), allow_pickle=False)
    return matrix
