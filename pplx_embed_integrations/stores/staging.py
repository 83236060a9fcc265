"""Many writers, one version: rows go into files in any process, and one process makes them part of the table.

Knows Lance's files and transactions, and what becomes of documents that are there; must not know who computes where.

A file that was staged and never committed is seen by nobody; Lance's clean-up removes it after some days. A commit adds
the rows of staged files and deletes what the table holds of their documents, in one version. Two commits at the same
time may both add a document that neither found; the one that sees that others came between puts it right.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import StoreError
from .documents import StoredDocument
from .failures import failures, import_lance
from .filters import one_of
from .handle import Handle, is_remote
from .rows import document_rows, to_arrow
from .writing import check_matrices, check_unique

if TYPE_CHECKING:
    import pyarrow as pa

_Numbers = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Staged:
    """Rows that are in files, and not yet in the table.

    Attributes:
        files: What Lance says of each file, as JSON.
        documents: Keys of the documents.
        chunks: How many rows.
        write: Number of the write, the same in all of the rows.
    """

    files: tuple[str, ...]
    documents: tuple[str, ...]
    chunks: int
    write: int


@dataclass(frozen=True)
class Committed:
    """What a commit did.

    Attributes:
        added: Chunks that came in.
        replaced: For each document that was there, the numbers of the writes its old chunks were of.
        version: The table's version afterwards.
    """

    added: int
    replaced: dict[str, set[int]] = field(default_factory=dict)
    version: int = 0


@dataclass(frozen=True)
class Held:
    """Which whole documents a table holds, in some 20 bytes a document; shared memory can hold it as it is.

    A document is looked up by 64 bits of its key and 64 of its hash, so a mistake is as good as impossible.

    Attributes:
        keys: Sorted.
        hashes: One for each key.
        chunks: How many chunks each has.
    """

    keys: _Numbers
    hashes: _Numbers
    chunks: npt.NDArray[np.int32]

    def has(self, document: StoredDocument) -> bool:
        """Tell whether the table holds the document exactly as it is, in all of its chunks."""
        key, wanted = _number(document.key), _number(document.hash)
        start, stop = (int(np.searchsorted(self.keys, np.uint64(key), side)) for side in ("left", "right"))
        return any(
            int(self.hashes[at]) == wanted and int(self.chunks[at]) == len(document.chunks) for at in range(start, stop)
        )


def _number(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def held(handle: Handle) -> Held:
    """Find which documents are there; see `ChunkTable.held`."""
    import pyarrow as pa

    parts = []
    with handle.reading():
        table = handle.snapshot()
        # Voids are among them: their document is null.
        for batch in table.search().select(["document", "position", "hash"]).to_batches():
            rows = pa.Table.from_batches([batch])
            parts.append(_counted(rows.filter(rows["document"].is_valid())))
    return _together(parts)


def _counted(rows: pa.Table) -> tuple[npt.NDArray[Any], ...]:
    """Return for each document, and each hash of it, its rows: how many, the last position, the sum of positions."""
    found = rows.group_by(["document", "hash"]).aggregate(
        [("position", "count"), ("position", "max"), ("position", "sum")]
    )
    names = [
        np.array([_number(text or "") for text in found[name].to_pylist()], np.uint64) for name in ("document", "hash")
    ]
    counts = (found[f"position_{name}"].to_numpy().astype(np.int64) for name in ("count", "max", "sum"))
    return (*names, *counts)


def _together(parts: list[tuple[npt.NDArray[Any], ...]]) -> Held:
    if not parts:
        return Held(np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.int32))
    keys, hashes, counts, last, sums = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((hashes, keys))
    keys, hashes, counts, last, sums = (column[order] for column in (keys, hashes, counts, last, sums))
    # Rows of one key and hash may have come from several batches.
    first = np.flatnonzero(np.r_[True, (keys[1:] != keys[:-1]) | (hashes[1:] != hashes[:-1])])[: len(keys)]
    counts, sums, last = np.add.reduceat(counts, first), np.add.reduceat(sums, first), np.maximum.reduceat(last, first)
    keys, hashes = keys[first], hashes[first]
    whole = (counts == last + 1) & (sums == last * (last + 1) // 2)
    _, place, versions = np.unique(keys, return_inverse=True, return_counts=True)
    whole &= versions[place] == 1
    return Held(keys[whole], hashes[whole], counts[whole].astype(np.int32))


def stage(handle: Handle, documents: Sequence[StoredDocument], matrices: Sequence[Any]) -> Staged:
    """Write documents into files of their own; see `ChunkTable.stage`."""
    check_unique(documents)
    joined = check_matrices(handle.record, documents, matrices)
    rows = list(document_rows(documents))
    keys, number = tuple(document.key for document in documents), secrets.randbits(62)
    if not rows:
        return Staged((), keys, 0, number)
    table = to_arrow(rows, joined, record=handle.record, write=number)
    lance = import_lance()
    with failures(handle.label, "writing"):
        written = lance.fragment.write_fragments(
            table, handle.place, schema=table.schema, storage_options=handle.options
        )
    return Staged(tuple(json.dumps(each.to_json()) for each in written), keys, len(rows), number)


def commit(handle: Handle, staged: Sequence[Staged]) -> Committed:
    """Make staged rows part of the table; see `ChunkTable.commit`."""
    rounds = _each_document_once(staged)
    if not rounds:
        with handle.reading():
            return Committed(0, {}, handle.table.version)
    added, version, replaced = 0, 0, dict[str, set[int]]()
    for together in rounds:
        done = _commit(handle, together)
        added, version = added + done.added, done.version
        for key, writes in done.replaced.items():
            replaced.setdefault(key, set()).update(writes)
    return Committed(added, replaced, version)


def _each_document_once(staged: Sequence[Staged]) -> list[list[Staged]]:
    """Divide what was staged so that a document that came twice is committed twice, the later one in its place."""
    rounds: list[tuple[list[Staged], set[str]]] = []
    for each in staged:
        if not each.files:
            continue
        keys = set(each.documents)
        # After the last round that has one of them, or the first that is there.
        at = max((number + 1 for number, (_, known) in enumerate(rounds) if known & keys), default=0)
        if at == len(rounds):
            rounds.append(([], set()))
        rounds[at][0].append(each)
        rounds[at][1].update(keys)
    return [members for members, _ in rounds]


def _commit(handle: Handle, staged: list[Staged]) -> Committed:
    import pyarrow as pa

    lance = import_lance()
    files = [lance.fragment.FragmentMetadata.from_json(text) for each in staged for text in each.files]
    _check_there(handle, files)
    keys = pa.array([key for each in staged for key in each.documents], pa.string())

    def write() -> tuple[Committed, bool]:
        dataset = lance.dataset(handle.place, storage_options=handle.options)
        there, replaced = _rows_of(dataset, keys)
        operation: Any = lance.LanceOperation.Append(files)
        if there:
            left = {
                number: dataset.get_fragment(number).delete(one_of("document", names))
                for number, names in there.items()
            }
            operation = lance.LanceOperation.Update(
                removed_fragment_ids=[number for number, rest in left.items() if rest is None],
                updated_fragments=[rest for rest in left.values() if rest is not None],
                new_fragments=files,
            )
        done = lance.LanceDataset.commit(
            handle.place, operation, read_version=dataset.version, storage_options=handle.options
        )
        return Committed(
            sum(each.chunks for each in staged), replaced, done.version
        ), done.version == dataset.version + 1

    committed, alone = handle.writing(write)
    if not alone:
        handle.writing(lambda: _settle(handle, keys.to_pylist(), {each.write for each in staged}))
    return committed


def _check_there(handle: Handle, fragments: Sequence[Any]) -> None:
    """Refuse files that are on another machine's disk: Lance would take them, and the table would be broken."""
    if is_remote(handle.place):
        return
    folder = Path(handle.place.removeprefix("file://"), "data")
    names = [file.path for fragment in fragments for file in fragment.files]
    missing = next((name for name in names if not (folder / name).exists()), None)
    if missing is not None:
        raise StoreError(
            f"{handle.label} lacks the staged file {missing}: all who stage and commit must see one folder, on a disk "
            "that their machines share, or object storage (s3://…)"
        )


def _rows_of(dataset: Any, keys: pa.Array) -> tuple[dict[int, list[str]], dict[str, set[int]]]:
    """Find what is there of some documents: their keys by fragment, and the writes that each one's rows are of."""
    import pyarrow.compute as pc

    there: dict[int, set[str]] = {}
    writes: dict[str, set[int]] = {}
    for batch in dataset.scanner(columns=["document", "write"], with_row_address=True).to_batches():
        found = batch.filter(pc.is_in(batch["document"], keys))
        if not found.num_rows:
            continue
        columns = (found[name].to_pylist() for name in ("document", "write", "_rowaddr"))
        for key, number, address in zip(*columns, strict=True):
            there.setdefault(address >> 32, set()).add(key)
            writes.setdefault(key, set()).add(number)
    return {number: sorted(names) for number, names in there.items()}, writes


def _settle(handle: Handle, keys: list[str], ours: set[int]) -> None:
    """Leave one version of each document where another writer added it at the same moment.

    A version whose first chunk is gone has been replaced since; of several that have theirs, every writer keeps the
    same one.
    """
    found = handle.named("document", keys, ["document", "position", "write"])
    versions: dict[str, dict[int, bool]] = {}
    for key, position, number in zip(*(found[name].to_pylist() for name in found.column_names), strict=True):
        entry = versions.setdefault(key, {})
        entry[number] = entry.get(number, False) or position == 0
    for key, writes in versions.items():
        if len(writes) > 1 and ours & writes.keys():
            kept = max((number for number, whole in writes.items() if whole), default=None)
            rest = [number for number in writes if number != kept]
            if kept is not None:
                handle.table.delete(f"{one_of('document', [key])} AND write IN ({', '.join(map(str, rest))})")
