"""One table of chunks: opened or made, documents in as a whole or not at all, and out again, upkeep.

Knows the public face of opening and writing and checks what callers give; must not know models, frameworks or files.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy.typing as npt

from ..errors import InputError
from . import staging, upkeep, writing
from .documents import Chunk, StoredDocument
from .filters import Where, condition
from .handle import Handle
from .reader import TableReader
from .record import Keep, Record, check_keep
from .staging import Committed, Staged
from .writing import Written


class ChunkTable(TableReader):
    """A LanceDB table of chunks whose vectors stay int8 codes and packed bits.

    Several processes may read and write one table. A write is one version of the table: it is there as a whole or not
    at all, whatever happens to the process, and a reader sees one version. Of two that replace the same document at
    the same time the later one wins, as a whole.

    Args:
        uri: A folder, or `s3://…`, `gs://…`, `az://…`.
        name: The table's name; a folder may hold several.
        made_by: What makes vectors comparable: the embedder's identity. A new table remembers it, an old one is
            compared with it.
        dimensions: Width of the vectors.
        keep: `"both"`, `"int8"` or `"bits"`; by default what the table has, `"both"` in a new one.
        notes: What else a new table shall keep for its maker, in `record.notes`: a dictionary of what JSON can hold.
        storage_options: LanceDB's options of the object storage, such as `{"aws_region": "eu-central-1"}`.

    Raises:
        InputError: The table was made by something else, or keeps another form; or an option is wrong.
        MissingDependencyError: LanceDB is not installed.
        StoreError: It cannot be opened, or is not there and `made_by` and `dimensions` do not say how to make it.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> table = ChunkTable(tempfile.mkdtemp(), made_by={"model": "mine"}, dimensions=8)
        >>> ada = StoredDocument("ada", [Chunk("ada-0", "Ada wrote notes.", {"year": 1843})])
        >>> table.replace([ada], [np.array([[9, -9, 9, 9, -9, 9, 9, 9]], np.int8)]).added
        1
        >>> [hit.id for hit in table.search(np.array([9, -9, 9, 9, -9, 9, 9, 8], np.int8), k=1)]
        ['ada-0']
        >>> table.count({"year": {"$lt": 1900}})
        1
    """

    def __init__(
        self,
        uri: str | Path,
        *,
        name: str = "chunks",
        made_by: Mapping[str, Any] | None = None,
        dimensions: int | None = None,
        keep: Keep | None = None,
        notes: Mapping[str, Any] | None = None,
        storage_options: Mapping[str, str] | None = None,
    ) -> None:
        if keep is not None:
            check_keep(keep)
        wanted = None
        if made_by is not None and dimensions is not None:
            if isinstance(dimensions, bool) or not isinstance(dimensions, int) or dimensions < 1:
                raise InputError(f"dimensions must be a positive integer, not {dimensions!r}")
            wanted = Record(made_by, dimensions, keep or "both", notes=notes or {})
        self._handle = Handle(str(uri), name, record=wanted, storage_options=storage_options)
        self.record.check(made_by=made_by, dimensions=dimensions, keep=keep, table=self._handle.label)
        self._made_by = made_by
        self._lock = threading.Lock()

    def check_writable(self) -> None:
        """Refuse vectors that were made with other arithmetic than those of the table.

        Vectors of one checkpoint can be searched together, whatever the machine that made them. What is written must be
        made like the rest.

        Raises:
            InputError: `made_by` differs from the table's; the message names in what.
        """
        self.record.check(made_by=self._made_by, table=self._handle.label, writing=True)

    def replace(self, documents: Sequence[StoredDocument], codes: Sequence[npt.ArrayLike]) -> Written:
        """Store documents, each in place of what the table holds of it, in one version of the table.

        Args:
            documents: Whole documents, each key once.
            codes: For each `[chunks, d]` int8; packed bits `[chunks, ceil(d / 8)]` uint8 will do where the table
                keeps bits alone.

        Returns:
            How many chunks came and went.

        Raises:
            EncodingError: A vector is all zeros.
            InputError: Vectors do not fit, or an id is that of another document's chunk.
            StoreError: It could not be written; the table is as it was.
        """
        self.check_writable()
        with self._lock:
            written = writing.replace(self._handle, documents, codes)
            upkeep.tidy(self._handle)
        return written

    def stage(self, documents: Sequence[StoredDocument], codes: Sequence[npt.ArrayLike]) -> Staged:
        """Write documents into files that nobody sees until a `commit`, here or in another process.

        Many processes may stage at once. What is never committed is cleaned up by Lance after some days.

        Args:
            documents: Whole documents, each key once. That no other document of the table has a chunk of the same id is
                not looked at here.
            codes: As for `replace`.

        Returns:
            What `commit` takes, small and picklable.

        Raises:
            EncodingError: A vector is all zeros.
            InputError: Vectors do not fit.
            MissingDependencyError: pylance is not installed.
            StoreError: They could not be written.
        """
        self.check_writable()
        return staging.stage(self._handle, documents, codes)

    def commit(self, staged: Sequence[Staged]) -> Committed:
        """Make staged documents part of the table, each in place of what it holds of it, in one version.

        It reads the keys of all rows, so it is called after much was staged. Of a document that was staged twice the
        later one stays, and there are two versions of the table. Compacting is left to the caller; see `tidy`.

        Raises:
            StoreError: It could not be done; the table is as it was, and what was staged can be committed later.
        """
        self.check_writable()
        with self._lock:
            return staging.commit(self._handle, staged)

    def tidy(self) -> None:
        """Compact the table if many small files have come together, as `replace` does by itself."""
        with self._lock:
            upkeep.tidy(self._handle)

    def upsert(
        self,
        chunks: Sequence[Chunk],
        codes: npt.NDArray[Any],
        *,
        documents: Sequence[str] | None = None,
        positions: Sequence[int] | None = None,
    ) -> Written:
        """Store chunks one by one, in place of those of the same ids.

        Args:
            chunks: Chunks, each id once.
            codes: `[n, d]` int8, or packed bits where the table keeps those alone.
            documents: Key of each one's document; by default each is a document of its own, named by its id.
            positions: Place of each in its document; 0 by default.

        Returns:
            How many chunks came, and how many of them were there before.
        """
        self.check_writable()
        with self._lock:
            written = writing.upsert(self._handle, chunks, codes, documents=documents, positions=positions)
            upkeep.tidy(self._handle)
        return written

    def delete(
        self,
        *,
        ids: Sequence[str] | None = None,
        documents: Sequence[str] | None = None,
        where: Where | None = None,
    ) -> int:
        """Delete chunks by id, by document, or by a condition; by both where both are given.

        Returns:
            How many chunks were deleted.

        Raises:
            InputError: Nothing says what to delete.
        """
        if ids is None and documents is None and where is None:
            raise InputError('say what to delete: ids=, documents= or where=; all of it: where="true"')
        if ids is not None and documents is not None:
            raise InputError("delete by ids= or by documents=, not by both at once")
        names = {name: list(values) for name, values in (("id", ids), ("document", documents)) if values is not None}
        if names and not any(names.values()):
            return 0
        with self._lock:
            return writing.delete(self._handle, names, condition(where))

    def index(self, *, partitions: int | None = None) -> None:
        """Make an index over the bits (IVF) now; by itself `compact` makes one from 200,000 chunks on.

        A search looks into every part of it, so it finds what a search of every row finds, some times faster;
        `search(probes=…)` looks into some, is faster still and misses some; `stats(recall_sample=20)` says how many.
        Rows that come later are looked at one by one until the table is compacted.

        Args:
            partitions: How many parts; by default a quarter of the square root of the rows.

        Raises:
            InputError: The table keeps no bits, or is too small to need one.
        """
        upkeep.index_bits(self._handle, partitions=partitions)

    def drop(self) -> None:
        """Delete the table itself; this object is of no use afterwards."""
        with self._lock:
            self._handle.drop()

    def compact(self, *, keep_versions: timedelta = upkeep.KEEP_VERSIONS) -> None:
        """Put small files together, make the index or take new rows into it, and remove old versions.

        Writing does so by itself when many small files have come together. Call it after large changes, or nightly.

        Args:
            keep_versions: Versions younger than this stay, for those who are reading them.
        """
        with self._lock:
            upkeep.compact(self._handle, keep_versions=keep_versions)
