"""Whole documents that a record manager and a store take together: their ids, what they are recorded by, what is new.

Knows documents of chunks and ids; must not know record managers' or stores' methods, nor why a document is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

from langchain_core.documents import Document

from ..documents import CHUNK_KEY, DOCUMENT_KEY, KEY_PREFIX
from .splitting import ChunkedDocument

__all__ = ["AT_ONCE", "Batch", "NamedDocument", "group_of"]

AT_ONCE = 1000
"""Ids in one query, which any database takes."""
_LONGEST_KEY = 500


def group_of(form: str) -> str:
    """Return what a record manager knows a document by: its key, unless a database could not index that.

    Args:
        form: The key as a string that no other is written as.

    Example:
        >>> group_of("a.md"), len(group_of("a" * 5000))
        ('a.md', 68)
    """
    if len(form) <= _LONGEST_KEY and "\0" not in form:
        return form
    return KEY_PREFIX + hashlib.sha256(form.encode()).hexdigest()


class NamedDocument(NamedTuple):
    """A document, its chunks stamped, with the ids of its chunks."""

    document: ChunkedDocument
    ids: list[str]


class Batch:
    """Whole documents that are embedded, stored and recorded together.

    Args:
        named: The documents.

    Attributes:
        documents: The same, without those that were dropped.
        recorded: Which of `ids()` the record manager knows.
        new: The documents that are not recorded yet, or not wholly.
    """

    def __init__(self, named: list[NamedDocument]) -> None:
        self.documents = [each.document for each in named]
        self.recorded: set[str] = set()
        self.new: list[ChunkedDocument] = []
        self._forced = False
        self._ids = {each.document.key.form: each.ids for each in named}

    def ids(self) -> Iterator[list[str]]:
        """Yield the ids of all chunks in parts of a size that any database takes."""
        flat = [each for document in self.documents for each in self._ids[document.key.form]]
        for start in range(0, len(flat), AT_ONCE):
            yield flat[start : start + AT_ONCE]

    def id_of(self, chunk: Document) -> str:
        """Return the id of a chunk."""
        return self._ids[chunk.metadata[DOCUMENT_KEY]][int(chunk.metadata[CHUNK_KEY])]

    def groups(self) -> list[str]:
        """Return what the record manager knows the documents by."""
        return [group_of(document.key.form) for document in self.documents]

    def chunks(self) -> list[Document]:
        """Return all chunks, document after document.

        In the order of their keys, which is the same in every process: a database that is given the same rows in
        different orders by two of them has to break a deadlock.
        """
        ordered = sorted(self.documents, key=lambda document: document.key.form)
        return [chunk for document in ordered for chunk in document.chunks]

    def singly(self) -> Iterator[Batch]:
        """Yield a batch for each of the documents."""
        for document in self.documents:
            one = Batch([NamedDocument(document, self._ids[document.key.form])])
            one.new = [each for each in self.new if each is document]
            one.recorded, one._forced = self.recorded, self._forced
            yield one

    def unrecorded(self) -> list[str]:
        """Return the ids of those chunks that were not recorded before."""
        return [each for ids in self.ids() for each in ids if each not in self.recorded]

    def to_store(self) -> list[str]:
        """Return the ids of the chunks that the store is going to be given."""
        new = [each for document in self.new for each in self._ids[document.key.form]]
        return new if self._forced else [each for each in new if each not in self.recorded]

    def to_look_up(self) -> list[str]:
        """Return an id of each document that is recorded, to see whether the store really holds it."""
        return [ids[0] for ids in self._ids.values() if self.recorded.issuperset(ids)]

    def forget(self, absent: set[str]) -> list[str]:
        """Take documents whose first id is one of these for unrecorded, and return all their ids."""
        lost = [each for ids in self._ids.values() if ids[0] in absent for each in ids]
        self.recorded.difference_update(lost)
        return lost

    def choose(self, *, force: bool) -> None:
        """Find out which documents are not recorded yet, or not wholly; with `force` all of them count as new."""
        self._forced = force
        self.new = [each for each in self.documents if force or not self.recorded.issuperset(self._ids[each.key.form])]

    def drop(self, document: ChunkedDocument) -> None:
        """Leave a document out."""
        self.documents = [each for each in self.documents if each is not document]
        self.new = [each for each in self.new if each is not document]
