"""Documents with codes of their own, made from a number, and tables to put them in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

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


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., ChunkTable]:
    """Opens a table in a folder of this test's own."""

    def open_table(folder: Path | str = tmp_path / "store", **options: Any) -> ChunkTable:
        return ChunkTable(folder, **{"made_by": MADE_BY, "dimensions": DIMENSIONS, **options})

    return open_table


@pytest.fixture
def filled(make: Callable[..., ChunkTable]) -> ChunkTable:
    """Twenty documents of three chunks."""
    table = make()
    table.replace([document(n) for n in range(20)], [codes_of(n, 3) for n in range(20)])
    return table
