"""Whole documents out of a stream: read one by one, handed on in batches, with what is refused on the way.

Knows when a document is complete and why one is refused; must not know how documents are embedded, nor stores.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, Generic, TypeVar, cast

from langchain_core.documents import Document
from langchain_core.indexing import IndexingResult

from ..errors import InputError, warn
from ..inputs import check_positive
from .grouping import GroupBy, check_documents, shown
from .reading import incomplete
from .splitting import ChunkedDocument, Gathering

NAMED = 20
"""Documents that one message names."""

T = TypeVar("T")


class Intake(ABC, Generic[T]):
    """Reads documents one by one, hands them on in batches, and remembers what was refused.

    Args:
        documents: A collection, or an iterator in which the parts of a document follow each other.
        splitter: Splits whole documents.
        group_by: What makes several of them, or several chunks, one document.
        size: Chunks in a batch, at least, unless there are no more.

    Attributes:
        counts: How many chunks were added, updated, skipped and deleted, as LangChain names them.
    """

    def __init__(self, documents: Any, *, splitter: Any, group_by: GroupBy | None, size: int) -> None:
        streamed = isinstance(documents, Iterable) and not isinstance(documents, (Collection, Document))
        self.counts = Counter(num_added=0, num_updated=0, num_skipped=0, num_deleted=0)
        self._size = check_positive("batch_size", size)
        given = documents if streamed else check_documents(documents)  # a collection may be shuffled
        self._gathering = Gathering(given, splitter=splitter, group_by=group_by, indexing=True)
        self._versions: dict[str, str] = {}
        self._refused: dict[str, None] = {}  # ordered, each once

    @property
    def total(self) -> int | None:
        """How many documents there are, where that is known."""
        return self._gathering.total

    @property
    def keys(self) -> set[str]:
        """The keys of all documents that were read."""
        return set(self._versions)

    @abstractmethod
    def take(self, document: ChunkedDocument) -> T:
        """Turn a document into what a batch holds."""

    def batches(self) -> Iterator[list[T]]:
        """Yield whole documents in batches; when reading fails, first what has been read wholly."""
        batch: list[T] = []
        chunks, failure = 0, None
        try:
            for gathered in self._gathering.groups():
                document = self._read(gathered)
                if document is None:
                    continue
                batch.append(self.take(document))
                chunks += len(document.chunks)
                if chunks >= self._size:
                    yield batch
                    batch, chunks = [], 0
        except Exception as error:  # noqa: BLE001  (raised below, when what is there has been stored)
            failure = error
        if batch:
            yield batch
        if failure is not None:
            raise failure
        self._gathering.end()

    def _read(self, gathered: ChunkedDocument) -> ChunkedDocument | None:
        key, name = gathered.key, f"document {shown(gathered.key)}"
        try:
            [document] = self._gathering.read(gathered)
            if self._gathering.stamped and (some := incomplete(document.chunks)):
                raise InputError(
                    f"{some} of {name} are here, and would replace all of it; pass all of them together (in a list "
                    "they may be shuffled)"
                )
        except InputError as error:
            self._versions.setdefault(key, "")
            self.refuse(str(error))
            return None
        if key not in self._versions:
            self._versions[key] = document.version
            return document
        if self._versions[key] == document.version:
            warn(f"{name} comes more than once with the same texts, and is stored once; pass it once")
            self.counts["num_skipped"] += len(document.chunks)
        else:
            self.refuse(
                f"{name} comes back after other documents, with other texts: only what came first is stored. Let its "
                "parts follow each other, pass list(documents), or use a key that tells the documents apart"
            )
        return None

    def fits(self, key: str, texts: list[str], check: Callable[..., None]) -> bool:
        """Tell whether a document can be embedded, refusing it if a bi-encoder's `check_documents` does."""
        try:
            check([texts], names=[f"document {shown(key)}"])
        except InputError as error:
            self.refuse(str(error))
            return False
        return True

    def refuse(self, message: str) -> None:
        """Record that a document was refused."""
        self._refused[message] = None

    def warn_of_names(self, *, instead: str) -> None:
        """Warn once if documents are named by their text, so that an edited one is another document."""
        if self._gathering.keyed_by_content:
            self._gathering.doubts.once(
                "names",
                "whole documents without an id are named by their text: an edited one is a new document, and its old "
                f"version stays in the store. Give each a Document.id, {instead}",
            )

    def end(self, *, done: str) -> None:
        """Raise what was refused on the way.

        Args:
            done: What has become of all other documents.

        Raises:
            InputError: Some documents were refused.
        """
        if self._refused:
            more = f"; and {len(self._refused) - NAMED} more" if len(self._refused) > NAMED else ""
            count = f"{len(self._refused)} document{'s were' if len(self._refused) > 1 else ' was'}"
            raise InputError(f"{count} not {done}: {'; '.join(list(self._refused)[:NAMED])}{more}")

    def result(self) -> IndexingResult:
        """Return what has been done in all."""
        return cast("IndexingResult", dict(self.counts))
