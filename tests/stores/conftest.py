"""Tables to put documents in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pplx_embed_integrations.stores import ChunkTable

from .rows import DIMENSIONS, MADE_BY, codes_of, document


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
