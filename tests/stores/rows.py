"""Documents with codes of their own, made from a number, for tests and for the processes that they start.

Knows the table; must not know pytest, which takes long to import.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pplx_embed_integrations.stores import Chunk, ChunkTable, StoredDocument

DIMENSIONS = 64
MADE_BY = {"query": "v1", "document": "context-v1"}
Codes = npt.NDArray[np.int8]


def codes_of(number: int, chunks: int, dimensions: int = DIMENSIONS) -> Codes:
    """Codes that only this document has."""
    return np.random.default_rng(number).integers(-127, 128, (chunks, dimensions)).astype(np.int8)


def document(number: int, chunks: int = 3, version: int = 0, **metadata: Any) -> StoredDocument:
    """A document that tells in every chunk which version it is of."""
    return StoredDocument(
        f"doc-{number}",
        [
            Chunk(f"doc-{number}-{row}", f"document {number} version {version} part {row}", {"n": number, **metadata})
            for row in range(chunks)
        ],
    )


def update(table: ChunkTable, version: int, count: int, batch: int) -> None:
    """Bring as many documents to a version, as many at a time."""
    documents = [document(n, chunks=1 + (n + version) % 4, version=version) for n in range(count)]
    for start in range(0, count, batch):
        wanted = table.compare(documents[start : start + batch]).to_embed
        table.replace(wanted, [codes_of(1000 * version + int(d.key[4:]), len(d.chunks)) for d in wanted])
