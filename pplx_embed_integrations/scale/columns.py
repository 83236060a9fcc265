"""What the workers hand on: rows of documents on their way into a table, rows of chunks for any other store.

Knows Arrow's columns; must not know how vectors are made, nor Ray.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..stores import Chunk, StoredDocument
from ..stores.rows import list_column
from ..stores.scores import signs
from ..vectors import Vectors
from .source import Source

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Outcome:
    """What has become of a document.

    Attributes:
        key: Its key; None where it has none.
        document: Its chunks.
        vectors: `[chunks, d]` int8, or packed bits.
        error: Why it has no vectors.
        skipped: Whether the table holds it already.
    """

    key: str | None
    document: StoredDocument | None = None
    vectors: Vectors | None = None
    error: str | None = None
    skipped: bool = False


def document_rows(outcomes: Sequence[Outcome]) -> pa.Table:
    """Write a row for each document, which nothing can cut apart."""
    import pyarrow as pa

    chunk = pa.struct([("id", pa.string()), ("text", pa.large_string()), ("metadata", pa.large_string())])
    return pa.table(
        {
            "document": pa.array([each.key for each in outcomes], pa.string()),
            "chunks": pa.array([_chunks(each.document) for each in outcomes], pa.list_(chunk)),
            "vectors": pa.array([_bytes(each.vectors) for each in outcomes], pa.large_binary()),
            "error": pa.array([each.error for each in outcomes], pa.string()),
        }
    )


def _chunks(document: StoredDocument | None) -> list[dict[str, str]] | None:
    if document is None:
        return None
    return [
        {"id": each.id, "text": each.text, "metadata": json.dumps(each.metadata, ensure_ascii=False)}
        for each in document.chunks
    ]


def _bytes(vectors: Vectors | None) -> bytes | None:
    return None if vectors is None else vectors.tobytes()


def outcomes_of(rows: pa.Table, *, packed: bool) -> list[Outcome]:
    """Read what `document_rows` wrote.

    Args:
        rows: The rows.
        packed: Whether vectors are packed bits.
    """
    dtype = np.uint8 if packed else np.int8
    found = []
    for row in rows.to_pylist():
        key, chunks, error = row["document"], row["chunks"], row["error"]
        if chunks is None or error is not None:
            found.append(Outcome(key, error=error, skipped=error is None))
            continue
        document = StoredDocument(
            key, [Chunk(each["id"], each["text"], json.loads(each["metadata"])) for each in chunks]
        )
        found.append(Outcome(key, document, np.frombuffer(row["vectors"], dtype).reshape(len(chunks), -1)))
    return found


def chunk_rows(outcomes: Sequence[Outcome], *, source: Source) -> pa.Table:
    """Write a row for each chunk, and one for each document that has no vectors."""
    import pyarrow as pa

    done = [
        (each.document, each.vectors) for each in outcomes if each.document is not None and each.vectors is not None
    ]
    failed = [each for each in outcomes if each.error is not None]
    chunks = [(document, position, chunk) for document, _ in done for position, chunk in enumerate(document.chunks)]
    nothing = [None] * len(failed)
    columns: dict[str, Any] = {
        "id": pa.array([chunk.id for _, _, chunk in chunks] + nothing, pa.string()),
        "document": pa.array([each.key for each, _, _ in chunks] + [each.key for each in failed], pa.string()),
        "position": pa.array([position for _, position, _ in chunks] + nothing, pa.int32()),
        "hash": pa.array([each.hash for each, _, _ in chunks] + nothing, pa.string()),
        "text": pa.array([chunk.text for _, _, chunk in chunks] + nothing, pa.large_string()),
        "metadata": pa.array(
            [json.dumps(chunk.metadata, ensure_ascii=False) for _, _, chunk in chunks] + nothing, pa.large_string()
        ),
    }
    width = source.dimensions if source.quantization == "int8" else -(-source.dimensions // 8)
    dtype = np.int8 if source.quantization == "int8" else np.uint8
    matrix = np.concatenate([vectors for _, vectors in done]) if done else np.empty((0, width), dtype)
    if source.quantization == "int8":
        columns["codes"] = list_column(matrix, pa.int8(), len(failed))
    columns["bits"] = list_column(signs(matrix), pa.uint8(), len(failed))
    columns["error"] = pa.array([None] * len(chunks) + [each.error for each in failed], pa.string())
    return pa.table(columns)
