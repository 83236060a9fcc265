"""What the stores of both frameworks share: how a model opens their table, and its upkeep.

Knows which forms of vectors a table keeps; must not know a framework, nor how vectors are made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .record import Keep
from .table import ChunkTable
from .upkeep import Stats

_FORMS: dict[str | None, tuple[Keep, ...]] = {"int8": ("both", "int8"), "binary": ("bits",)}


def table_for(
    uri: str | Path,
    *,
    identity: str,
    dimensions: int,
    quantization: str | None,
    model: str,
    name: str,
    keep: Keep | None,
    storage_options: Mapping[str, str] | None,
) -> ChunkTable:
    """Open the table in which a model's vectors are kept, as the codes or bits that they are.

    Args:
        uri: Where it lies.
        identity: What makes the model's vectors comparable.
        dimensions: Their width.
        quantization: Their form.
        model: How an error calls the model.
        name: The table's name.
        keep: What is kept; by default what the table has, and in a new one what the model gives.
        storage_options: LanceDB's options of the object storage.

    Raises:
        InputError: The form does not go with what is kept, or the table was made with another model or width.
        StoreError: It cannot be opened.
    """
    forms = _FORMS.get(quantization, ())
    if not forms or (keep is not None and keep not in forms):
        raise InputError(
            f"keep={keep!r} does not go with {model}(quantization={quantization!r}): codes, "
            'keep="both" or "int8", want quantization="int8", and keep="bits" wants quantization="binary"'
        )
    table = ChunkTable(
        uri,
        name=name,
        made_by=dict(json.loads(identity)),
        dimensions=dimensions,
        keep=keep or (None if "both" in forms else "bits"),
        storage_options=storage_options,
    )
    if table.record.keep not in forms:
        raise InputError(f"{table!r} does not go with {model}(quantization={quantization!r})")
    return table


class TableStore:
    """A store of vectors whose chunks are in one table."""

    if TYPE_CHECKING:
        _table: ChunkTable

    @property
    def table(self) -> ChunkTable:
        """The table itself: searches by codes, whole documents, versions, LanceDB's own table."""
        return self._table

    def build_index(self, *, partitions: int | None = None) -> None:
        """Make an index over the bits, for millions of chunks; see `ChunkTable.index`."""
        self._table.index(partitions=partitions)

    def compact(self, **options: Any) -> None:
        """Put small files together and remove old versions; see `ChunkTable.compact`."""
        self._table.compact(**options)

    def stats(self, *, recall_sample: int = 0) -> Stats:
        """Measure the store; see `ChunkTable.stats`."""
        return self._table.stats(recall_sample=recall_sample)
