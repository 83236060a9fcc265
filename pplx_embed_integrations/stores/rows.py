"""The table's schema, and the way from documents and codes to Arrow rows and back.

Knows columns and Arrow; must not know LanceDB, files or queries.

A row is a chunk. `key` is what the row is merged on: a chunk of a whole document is named by document and position, so
that two writers of one document meet in the same row and one of them is told. A row that holds nothing but its key is
void: what a document had more of in an earlier version. Nothing finds it, and compacting removes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..vectors import Vectors, unpack_bits
from .documents import Chunk, Hit, StoredDocument
from .metadata import dump, load
from .record import Record
from .scores import signs

if TYPE_CHECKING:
    import pyarrow as pa

CONTENT = ["id", "document", "position", "text", "metadata"]
"""Columns that a hit is made of, besides its vector."""


class Row(NamedTuple):
    """A chunk where it belongs.

    Attributes:
        key: What the row is merged on.
        document: Key of its document.
        position: Its place there.
        hash: The whole document's hash; "" where the document came in parts.
        chunk: The chunk.
    """

    key: str
    document: str
    position: int
    hash: str
    chunk: Chunk


def document_key(document: str, position: int) -> str:
    """Name the row of a whole document's chunk."""
    return f"d{document}\x1f{position}"


def chunk_key(identifier: str) -> str:
    """Name the row of a chunk that came without its document's others."""
    return f"c{identifier}"


def document_rows(documents: Iterable[StoredDocument]) -> Iterator[Row]:
    """Yield the rows of whole documents."""
    for document in documents:
        for position, chunk in enumerate(document.chunks):
            yield Row(document_key(document.key, position), document.key, position, document.hash, chunk)


def schema(record: Record) -> pa.Schema:
    """Return the schema of a table with this record."""
    import pyarrow as pa

    # Lance then notices that two writers insert the same key, and lets the second one try again.
    primary = {"lance-schema:unenforced-primary-key": "true", "lance-schema:unenforced-primary-key:position": "1"}
    fields = [
        pa.field("key", pa.string(), nullable=False, metadata=primary),
        pa.field("id", pa.string()),
        pa.field("document", pa.string()),
        pa.field("position", pa.int32()),
        pa.field("hash", pa.string()),
        pa.field("write", pa.int64()),
        pa.field("text", pa.large_string()),
        pa.field("metadata", pa.json_()),
    ]
    if record.has_bits:
        fields.append(pa.field("bits", pa.list_(pa.uint8(), -(-record.dimensions // 8))))
    if record.has_codes:
        fields.append(pa.field("codes", pa.list_(pa.int8(), record.dimensions)))
    return pa.schema(fields, metadata=record.write())


def to_arrow(
    rows: Sequence[Row], vectors: Vectors, *, record: Record, write: int, void: Sequence[str] = ()
) -> pa.Table:
    """Make the Arrow rows of chunks, and void ones behind them.

    Args:
        rows: The chunks.
        vectors: A row for each: `[n, d]` int8, or packed bits where only those are kept.
        record: What the table says of itself.
        write: Number of the write, the same in all of its rows.
        void: Keys of rows that shall hold nothing any more.
    """
    import pyarrow as pa

    nothing = [None] * len(void)
    columns: dict[str, Any] = {
        "key": [row.key for row in rows] + list(void),
        "id": [row.chunk.id for row in rows] + nothing,
        "document": [row.document for row in rows] + nothing,
        "position": pa.array([row.position for row in rows] + nothing, pa.int32()),
        "hash": [row.hash for row in rows] + nothing,
        "write": pa.array([write] * len(rows) + nothing, pa.int64()),
        "text": pa.array([row.chunk.text for row in rows] + nothing, pa.large_string()),
    }
    metadata = pa.array([dump(row.chunk.metadata, chunk=row.chunk.id) for row in rows] + nothing, pa.string())
    columns["metadata"] = pa.ExtensionArray.from_storage(pa.json_(), metadata)
    if record.has_bits:
        columns["bits"] = list_column(signs(vectors), pa.uint8(), len(void))
    if record.has_codes:
        columns["codes"] = list_column(vectors, pa.int8(), len(void))
    return pa.table(columns, schema=schema(record))


def list_column(matrix: Vectors, kind: pa.DataType, void: int) -> pa.Array:
    """Make a column of vectors, and behind them so many that are null."""
    import pyarrow as pa

    width = matrix.shape[1]
    filled = np.concatenate([matrix, np.zeros((void, width), matrix.dtype)]) if void else matrix
    mask = pa.array(np.arange(len(filled)) >= len(matrix)) if void else None
    flat = pa.array(np.ascontiguousarray(filled).reshape(-1), kind)
    return pa.FixedSizeListArray.from_arrays(flat, width, mask=mask)


def matrix(column: pa.ChunkedArray | pa.Array, dtype: type) -> Vectors:
    """Return a column of vectors as an array, without a copy where it is in one piece."""
    import pyarrow as pa

    pieces = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    width = column.type.list_size
    arrays = [piece.flatten().to_numpy().reshape(-1, width) for piece in pieces if len(piece)]
    if len(arrays) == 1:
        return np.asarray(arrays[0], dtype)
    return np.concatenate(arrays) if arrays else np.empty((0, width), dtype)


def vectors(table: pa.Table, record: Record) -> Vectors | None:
    """Return the vectors that were read along: codes, else bits as ±1."""
    if "codes" in table.column_names:
        return matrix(table["codes"], np.int8)
    if "bits" in table.column_names:
        return unpack_bits(matrix(table["bits"], np.uint8), dimensions=record.dimensions)
    return None


def hits(table: pa.Table, *, scores: Sequence[float] | None = None, found: Vectors | None = None) -> list[Hit]:
    """Make hits of rows that were read with the columns of `CONTENT`."""
    rows = zip(*(table[name].to_pylist() for name in CONTENT), strict=True)
    return [
        Hit(
            id=identifier,
            document=document,
            position=position,
            text=text,
            metadata=load(metadata),
            score=float(scores[number]) if scores is not None else 0.0,
            vector=found[number] if found is not None else None,
        )
        for number, (identifier, document, position, text, metadata) in enumerate(rows)
    ]
