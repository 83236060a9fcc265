"""Documents into the table, each replaced as a whole in one version of it, and out again.

Knows which rows a document has and what becomes of them when several write; must not know models or searching.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from ..errors import InputError
from ..vectors import Vectors
from .documents import Chunk, StoredDocument
from .filters import one_of
from .handle import Handle
from .record import Record
from .rows import Row, chunk_key, document_rows, to_arrow, vectors
from .scores import check_codes, signs

_DELETED_TOGETHER = 2000


@dataclass(frozen=True)
class Comparison:
    """Which of some documents the table holds already.

    Attributes:
        new: Documents that it does not hold.
        changed: Documents that it holds with other texts.
        renamed: Documents of the same texts whose ids or metadata changed: their vectors are still right.
        unchanged: Documents that it holds as they are.
        replaced: For each changed or renamed document, how many chunks of it the table holds.
    """

    new: list[StoredDocument] = field(default_factory=list)
    changed: list[StoredDocument] = field(default_factory=list)
    renamed: list[StoredDocument] = field(default_factory=list)
    unchanged: list[StoredDocument] = field(default_factory=list)
    replaced: dict[str, int] = field(default_factory=dict)

    @property
    def to_embed(self) -> list[StoredDocument]:
        """Documents whose vectors are wanted."""
        return self.new + self.changed


@dataclass(frozen=True)
class Written:
    """What a write did, in chunks.

    Attributes:
        added: Chunks that came in.
        deleted: Chunks that went.
        version: The table's version afterwards.
    """

    added: int
    deleted: int
    version: int


def check_unique(documents: Sequence[StoredDocument]) -> None:
    """Refuse two documents of one key, and two chunks of one id.

    Raises:
        InputError: There are such.
    """
    keys: set[str] = set()
    ids: dict[str, str] = {}
    for document in documents:
        if document.key in keys:
            raise InputError(f"document {document.key!r} is given twice; give each document once")
        keys.add(document.key)
        for chunk in document.chunks:
            owner = ids.setdefault(chunk.id, document.key)
            if owner != document.key:
                raise InputError(f"documents {owner!r} and {document.key!r} both have a chunk of id {chunk.id!r}")


def compare(handle: Handle, documents: Sequence[StoredDocument]) -> Comparison:
    """Compare documents with what the table holds of them; see `ChunkTable.compare`."""
    check_unique(documents)
    stored: dict[str, list[tuple[int, str]]] = {}
    found = handle.named("document", [document.key for document in documents], ["document", "position", "hash"])
    for key, position, digest in zip(*(found[name].to_pylist() for name in found.column_names), strict=True):
        stored.setdefault(key, []).append((position, digest))
    comparison = Comparison()
    for document in documents:
        rows = stored.get(document.key)
        if rows is None:
            comparison.new.append(document)
            continue
        hashes = {digest for _, digest in rows}
        whole = sorted(position for position, _ in rows) == list(range(len(document.chunks)))
        if whole and hashes == {document.hash}:
            comparison.unchanged.append(document)
            continue
        comparison.replaced[document.key] = len(rows)
        same = whole and {digest[: len(document.content)] for digest in hashes} == {document.content}
        (comparison.renamed if same else comparison.changed).append(document)
    return comparison


def stored_vectors(handle: Handle, documents: Sequence[StoredDocument]) -> list[Vectors]:
    """Read the vectors of documents whose texts the table holds already."""
    forms = ["codes"] if handle.record.has_codes else ["bits"]
    found = handle.named("document", [document.key for document in documents], ["document", "position", *forms])
    matrix = vectors(found, handle.record)
    assert matrix is not None
    rows: dict[str, list[tuple[int, int]]] = {}
    places = zip(found["document"].to_pylist(), found["position"].to_pylist(), strict=True)
    for row, (key, position) in enumerate(places):
        rows.setdefault(key, []).append((position, row))
    return [matrix[[row for _, row in sorted(rows[document.key])]] for document in documents]


def replace(handle: Handle, documents: Sequence[StoredDocument], matrices: Sequence[Any]) -> Written:
    """Replace documents; see `ChunkTable.replace`."""
    check_unique(documents)
    record = handle.record
    joined = check_matrices(record, documents, matrices)
    rows = list(document_rows(documents))
    if not rows:
        return Written(0, 0, handle.table.version)
    keys = [document.key for document in documents]
    number = secrets.randbits(62)

    def write() -> Written:
        version = handle.table.version
        held = handle.named("document", keys, ["key"])["key"].to_pylist()
        _check_ids(handle, rows, set(keys))
        left = sorted(set(held) - {row.key for row in rows})
        result = handle.merge(to_arrow(rows, joined, record=record, write=number, void=left))
        if result.version != version + 1:
            _take_back(handle, rows, number)
        return Written(len(rows), len(held), result.version)

    return handle.writing(write)


def check_matrices(record: Record, documents: Sequence[StoredDocument], matrices: Sequence[Any]) -> Vectors:
    """Return the vectors of documents in one matrix: codes, or packed bits where those alone are kept.

    Raises:
        EncodingError: A vector is all zeros.
        InputError: They do not fit the documents or the table.
    """
    if len(documents) != len(matrices):
        raise InputError(f"{len(documents)} documents came with the vectors of {len(matrices)}; give a matrix for each")
    checked = [
        check_codes(
            matrix,
            rows=len(document.chunks),
            dimensions=record.dimensions,
            packed=not record.has_codes,
            document=document.key,
        )
        for document, matrix in zip(documents, matrices, strict=True)
    ]
    if not checked:
        return np.empty((0, record.dimensions), np.int8)
    return np.concatenate(checked if record.has_codes else [signs(matrix) for matrix in checked])


def _check_ids(handle: Handle, rows: Sequence[Row], keys: set[str]) -> None:
    """Refuse ids that chunks of other documents have: replacing one document must not take from another."""
    found = handle.named("id", [row.chunk.id for row in rows], ["id", "document"])
    for identifier, document in zip(found["id"].to_pylist(), found["document"].to_pylist(), strict=True):
        if document not in keys:
            raise InputError(
                f"the id {identifier!r} is that of a chunk of document {document!r} already; give each chunk an id "
                "of its own, or delete that document first"
            )


def _take_back(handle: Handle, rows: Sequence[Row], number: int) -> None:
    """Delete what another writer gave these documents just before this write, and this write could not know of.

    A document whose first row is not of this write has been replaced since, by a writer that came later.
    """
    documents = sorted({row.document for row in rows})
    found = handle.named("document", documents, ["key", "document", "write"])
    first = {row.key for row in rows if row.position == 0}
    entries = list(zip(*(found[name].to_pylist() for name in found.column_names), strict=True))
    ours = {document for key, document, write in entries if key in first and write == number}
    older = [(key, write) for key, document, write in entries if document in ours and write != number]
    if older:
        writes = ", ".join(str(write) for write in sorted({write for _, write in older}))
        handle.table.delete(f"{one_of('key', [key for key, _ in older])} AND write IN ({writes})")


def upsert(
    handle: Handle,
    chunks: Sequence[Chunk],
    matrix: Vectors,
    *,
    documents: Sequence[str] | None,
    positions: Sequence[int] | None,
) -> Written:
    """Insert chunks that come without the rest of their documents; see `ChunkTable.upsert`."""
    record = handle.record
    if not chunks:
        return Written(0, 0, handle.table.version)
    ids = [chunk.id for chunk in chunks]
    keys = documents if documents is not None else ids
    places = positions if positions is not None else [0] * len(chunks)
    rows = [Row("", key, place, "", chunk) for chunk, key, place in zip(chunks, keys, places, strict=True)]
    if len(set(ids)) < len(ids):
        twice = next(each for each in ids if ids.count(each) > 1)
        raise InputError(f"the id {twice!r} is given twice; give each chunk its own")
    checked = check_codes(
        matrix, rows=len(rows), dimensions=record.dimensions, packed=not record.has_codes, document=rows[0].document
    )
    number = secrets.randbits(62)

    def write() -> Written:
        found = handle.named("id", ids, ["id", "key"])
        held = dict(zip(found["id"].to_pylist(), found["key"].to_pylist(), strict=True))
        placed = [row._replace(key=held.get(row.chunk.id) or chunk_key(row.chunk.id)) for row in rows]
        result = handle.merge(to_arrow(placed, checked, record=record, write=number))
        return Written(len(rows), len(held), result.version)

    return handle.writing(write)


def delete(handle: Handle, conditions: Mapping[str, Sequence[str]], where: str | None) -> int:
    """Delete rows by names, by a condition, or by both; return how many."""
    parts = [
        one_of(column, values[start : start + _DELETED_TOGETHER])
        for column, values in conditions.items()
        for start in range(0, len(values), _DELETED_TOGETHER)
    ]
    if where is not None:
        parts = [f"{part} AND {where}" for part in parts] if parts else [where]
    count = 0
    for part in parts:
        with handle.reading(where):
            there = handle.table.count_rows(f"id IS NOT NULL AND {part}")
        if there:
            handle.writing(partial(handle.table.delete, f"id IS NOT NULL AND {part}"))
        count += there
    return count
