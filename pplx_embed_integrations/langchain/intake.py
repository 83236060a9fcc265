"""Whole documents out of a stream: read one by one, handed on in batches, with what is refused on the way.

Knows when a document is complete and why one is refused; must not know how documents are embedded, nor stores.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

from langchain_core.documents import Document

from ..errors import InputError, warn
from ..inputs import check_positive
from .grouping import GroupBy, Key, stamp_of
from .splitting import ChunkedDocument, Gathering

__all__ = ["NAMED", "Intake"]

NAMED = 20
"""Documents that one message names."""

T = TypeVar("T")


class Intake(ABC, Generic[T]):
    """Reads documents one by one, hands them on in batches, and remembers what was refused.

    Args:
        documents: A list, or an iterator in which the parts of a document follow each other.
        splitter: Splits whole documents.
        group_by: What makes several of them, or several chunks, one document.
        size: Chunks in a batch, at least, unless there are no more.

    Attributes:
        again: Chunks of documents that came more than once.
    """

    def __init__(self, documents: Any, *, splitter: Any, group_by: GroupBy | None, size: int) -> None:
        self.again = 0
        self._size = check_positive("batch_size", size)
        self._stamped = group_by is None and splitter is None
        self._gathering = Gathering(documents, splitter=splitter, group_by=group_by, indexing=True)
        self._versions: dict[str, str] = {}
        self._refused: dict[str, None] = {}  # ordered, each once
        self._told_of_names = False

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
            for key, parts, places in self._gathering.groups():
                document = self._read(key, parts, places)
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

    def _read(self, key: Key, parts: list[Document], places: list[int]) -> ChunkedDocument | None:
        known = self._versions.get(key.form)
        try:
            [document] = self._gathering.read(key, parts, places, self._gathering.arrange(key, parts))
            self._check_complete(document)
        except InputError as error:
            self._versions.setdefault(key.form, "")
            self.refuse(str(error))
            return None
        if known is None:
            self._versions[key.form] = document.version
            return document
        if known == document.version:
            warn(f"document {key.shown} comes more than once with the same texts, and is stored once; pass it once")
            self.again += len(document.chunks)
        else:
            self.refuse(
                f"document {key.shown} comes back after other documents, with other texts: only what came first is "
                "stored. Let its parts follow each other, pass list(documents), or use a key that tells the documents "
                "apart"
            )
        return None

    def _check_complete(self, document: ChunkedDocument) -> None:
        stamp = stamp_of(document.chunks[0]) if self._stamped else None
        if stamp is not None and stamp.chunks is not None and stamp.chunks != len(document.chunks):
            raise InputError(
                f"{len(document.chunks)} of the {stamp.chunks} chunks of document {document.key.shown} are here, and "
                "would replace all of it; pass all of them together (in a list they may be shuffled)"
            )

    def refuse(self, message: str) -> None:
        """Record that a document was refused."""
        self._refused[message] = None

    def warn_of_names(self, *, instead: str) -> None:
        """Warn once if documents are named by their text, so that an edited one is another document."""
        if self._gathering.keyed_by_content and not self._told_of_names:
            self._told_of_names = True
            warn(
                "whole documents without an id are named by their text: an edited one is a new document, and its old "
                f"version stays in the store. Give each a Document.id, {instead}"
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
