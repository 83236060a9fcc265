"""What can be asked of a table of chunks: by vector, by words, by name, by document; its size and its recall.

Knows the public face of reading and checks what callers give; must not know how a table is opened or written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from . import reading, searching, staging, upkeep, writing
from .documents import Hit, StoredDocument
from .filters import Where, condition
from .handle import Handle
from .record import Record
from .searching import By
from .staging import Held
from .upkeep import Stats
from .writing import Comparison


class TableReader:
    """The half of `ChunkTable` that reads."""

    _handle: Handle

    @property
    def record(self) -> Record:
        """What the table says of itself: what made its vectors, their width, the forms kept."""
        return self._handle.record

    @property
    def uri(self) -> str:
        """Where the table lies."""
        return self._handle.uri

    @property
    def name(self) -> str:
        """The table's name."""
        return self._handle.name

    @property
    def lance(self) -> Any:
        """LanceDB's own table, for what this class does not do; read it freely, write through this class."""
        return self._handle.table

    def compare(self, documents: Sequence[StoredDocument]) -> Comparison:
        """Tell which documents the table holds already, so that only the others are embedded.

        Args:
            documents: Whole documents, each key once.

        Returns:
            The documents, by what is to be done with them.

        Raises:
            InputError: A document is given twice, or two of its chunks share an id.
        """
        return writing.compare(self._handle, documents)

    def held(self) -> Held:
        """Tell which whole documents are there, in some 20 bytes for each, for who must ask of millions."""
        return staging.held(self._handle)

    def vectors_of(self, documents: Sequence[StoredDocument]) -> list[npt.NDArray[np.int8]]:
        """Read the vectors of documents whose texts the table holds: those that `compare` calls renamed.

        Returns:
            For each `[chunks, d]` int8, ±1 where the table keeps bits alone.
        """
        return writing.stored_vectors(self._handle, documents)

    def get(
        self,
        *,
        ids: Sequence[str] | None = None,
        documents: Sequence[str] | None = None,
        where: Where | None = None,
        limit: int | None = None,
        offset: int | None = None,
        with_vectors: bool = False,
    ) -> list[Hit]:
        """Read chunks by id, in the order asked for; or else in reading order, document by document.

        Args:
            ids: Ids; those that are not there are left out.
            documents: Keys of documents.
            where: A condition; see `filters.condition`.
            limit: At most so many.
            offset: Leave out so many first.
            with_vectors: Read the vectors along.
        """
        return reading.get(
            self._handle,
            {name: values for name, values in (("id", ids), ("document", documents)) if values is not None},
            condition(where),
            limit=limit,
            offset=offset,
            with_vectors=with_vectors,
        )

    def count(self, where: Where | None = None) -> int:
        """Count chunks."""
        return reading.count(self._handle, condition(where))

    def documents(self, where: Where | None = None) -> dict[str, int]:
        """Return the keys of all documents, each with how many chunks of it there are."""
        return reading.documents(self._handle, condition(where))

    def search(
        self,
        query: npt.ArrayLike,
        *,
        k: int = 10,
        where: Where | None = None,
        oversampling: float | None = None,
        by: By | None = None,
        probes: int | None = None,
        exact: bool = False,
    ) -> list[Hit]:
        """Find the chunks nearest to a query.

        With both forms the bits find candidates by Hamming distance, and the codes rank them by cosine. Where bits
        alone are kept, the query's codes rank the candidates' signs. Equal scores come in the order of document and
        position, so the same question has the same answer.

        Args:
            query: `[d]` int8 codes, or packed bits, which then rank by themselves.
            k: How many.
            where: A condition; only chunks that meet it are looked at.
            oversampling: Candidates for each chunk that is wanted; by default 20, and 200 at least.
            by: `"both"`, `"int8"` (every row's codes: exact) or `"bits"` (Hamming alone); by default the best of what
                is kept.
            probes: Partitions of the index to look into, where there is one; all by default, which misses nothing.
            exact: Look at every row, index or not.

        Returns:
            Chunks, best first, with their cosine in [-1, 1].

        Raises:
            EncodingError: The query is all zeros.
            InputError: Query, filter or option is wrong.
            StoreError: The table cannot be read.
        """
        return searching.search(
            self._handle,
            query,
            k=k,
            where=condition(where),
            oversampling=oversampling,
            by=by,
            probes=probes,
            exact=exact,
        )

    def search_text(self, text: str, *, k: int = 10, where: Where | None = None) -> list[Hit]:
        """Find chunks by their words, ranked by BM25; the full-text index is made at the first call.

        Args:
            text: Words, in any language; punctuation has no meaning.
            k: How many.
            where: A condition.
        """
        return searching.search_words(self._handle, text, k=k, where=condition(where))

    def stats(self, *, recall_sample: int = 0) -> Stats:
        """Measure the table.

        Args:
            recall_sample: Ask so many of the table's own rows for their neighbours and compare with an exact search;
                0 to leave that out.
        """
        return upkeep.measure(self._handle, sample=recall_sample)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.uri!r}, name={self.name!r}, keep={self.record.keep!r})"
