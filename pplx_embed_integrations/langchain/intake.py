"""From LangChain documents to documents of a table of codes: batches of whole ones, what is refused, what was done.

Knows documents of chunks, their ids and counts; must not know how they are embedded, nor LangChain's stores.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from langchain_core.documents import Document
from langchain_core.indexing import IndexingResult

from ..documents import document_key
from ..errors import InputError, warn
from ..stores import Chunk, Comparison, Hit, StoredDocument
from .grouping import GroupBy, Key, stamp_of
from .splitting import ChunkedDocument, Gathering

__all__ = ["Intake", "flat_chunks", "keys_of", "to_document"]

_NAMED = 20


def to_document(hit: Hit) -> Document:
    """Return a chunk of the table as LangChain knows it."""
    return Document(id=hit.id, page_content=hit.text, metadata=hit.metadata)


def keys_of(names: Any) -> list[str]:
    """Return the keys of documents, as `group_by` or `Document.id` named them."""
    several = isinstance(names, (list, set, frozenset)) or hasattr(names, "__next__")
    return [document_key(name) for name in (names if several else [names])]


def flat_chunks(texts: Sequence[str], metadatas: Any, ids: Any) -> list[Chunk]:
    """Make chunks of texts that stand for themselves.

    Raises:
        InputError: There are not as many metadata or ids as texts.
    """
    for name, values in (("metadatas", metadatas), ("ids", ids)):
        if values is not None and len(values) != len(texts):
            raise InputError(f"there are {len(values)} {name} for {len(texts)} texts; give one for each")
    metadatas = metadatas if metadatas is not None else [None] * len(texts)
    ids = ids if ids is not None else [None] * len(texts)
    return [
        Chunk(str(each) if each is not None else str(uuid.uuid4()), text, dict(metadata or {}))
        for text, metadata, each in zip(texts, metadatas, ids, strict=True)
    ]


class Intake:
    """Reads documents one by one and hands them on in batches, keeping in mind what is refused and what was done.

    Args:
        documents: A list, or an iterator in which the parts of a document follow each other.
        splitter: Splits whole documents.
        group_by: What makes several of them, or several chunks, one document.
        ids: Ids of ready chunks, one each.
        size: Chunks in a batch, at least, unless there are no more.

    Attributes:
        keys: Keys of all documents that were read.
        result: How many chunks were added, updated, skipped and deleted.
    """

    def __init__(
        self, documents: Any, *, splitter: Any, group_by: GroupBy | None, ids: Sequence[str] | None, size: int
    ) -> None:
        if splitter is not None and ids is not None:
            raise InputError("ids= names chunks, which are not there before the splitter has run; leave it out")
        if ids is not None and len(ids) != len(documents):
            raise InputError(f"there are {len(ids)} ids for {len(documents)} chunks; give one for each")
        self.keys: set[str] = set()
        self.result = IndexingResult(num_added=0, num_updated=0, num_skipped=0, num_deleted=0)
        self._stamped = splitter is None and group_by is None
        self._whole = splitter is not None
        self._given_ids, self._size = ids, size
        self._gathering = Gathering(documents, splitter=splitter, group_by=group_by, indexing=True)
        self._refused: list[str] = []
        self._places: list[tuple[int, str]] = []

    @property
    def ids(self) -> list[str]:
        """Ids of all chunks that went in, in the order of the chunks given, or document after document."""
        return [identifier for _, identifier in sorted(self._places, key=lambda entry: entry[0])]

    def batches(self) -> Iterator[list[StoredDocument]]:
        """Yield whole documents in batches; when reading fails, first what has been read wholly."""
        batch: list[StoredDocument] = []
        failure = None
        try:
            for key, parts, places in self._gathering.groups():
                document = self._read(key, parts, places)
                if document is not None:
                    batch.append(document)
                if sum(len(each.chunks) for each in batch) >= self._size:
                    yield batch
                    batch = []
        except Exception as error:  # noqa: BLE001  (raised below, when what is there has been stored)
            failure = error
        if batch:
            yield batch
        if failure is not None:
            raise failure
        self._gathering.end()

    def _read(self, key: Key, parts: list[Document], places: list[int]) -> StoredDocument | None:
        try:
            arrival = self._gathering.arrange(key, parts)
            [document] = self._gathering.read(key, parts, places, arrival)
            self._check_complete(document)
            if key.form in self.keys:
                raise InputError(
                    f"document {key.shown} comes back after other documents; let its parts follow each other, pass "
                    "list(documents), or use a key that tells the documents apart"
                )
            return self._stored(document)
        except InputError as error:
            self._refused.append(str(error))
            return None
        finally:
            self.keys.add(key.form)

    def _check_complete(self, document: ChunkedDocument) -> None:
        stamp = stamp_of(document.chunks[0]) if self._stamped else None
        if stamp is not None and stamp.chunks is not None and stamp.chunks != len(document.chunks):
            raise InputError(
                f"{len(document.chunks)} of the {stamp.chunks} chunks of document {document.key.shown} are here, and "
                "would replace all of it; pass all of them together (in a list they may be shuffled)"
            )

    def _stored(self, document: ChunkedDocument) -> StoredDocument:
        places = document.places or [len(self._places) + row for row in range(len(document.chunks))]
        chunks = []
        for row, (chunk, place) in enumerate(zip(document.chunks, places, strict=True)):
            own = self._given_ids[place] if self._given_ids is not None else None if self._whole else chunk.id
            named = own if own is not None else str(uuid.uuid5(uuid.NAMESPACE_OID, f"{document.key.form}\x1f{row}"))
            self._places.append((place, named))
            chunks.append(Chunk(named, chunk.page_content, chunk.metadata))
        return StoredDocument(document.key.form, chunks)

    def refuse(self, message: str) -> None:
        """Keep in mind that a document was refused."""
        self._refused.append(message)

    def count(self, compared: Comparison) -> None:
        """Count what has been stored."""
        result = self.result
        result["num_added"] += sum(len(document.chunks) for document in compared.to_embed)
        result["num_updated"] += sum(len(document.chunks) for document in compared.renamed)
        result["num_skipped"] += sum(len(document.chunks) for document in compared.unchanged)
        result["num_deleted"] += sum(compared.replaced[document.key] for document in compared.changed)

    def warn_of_names(self) -> None:
        """Warn if documents are named by their text, so that an edited one is another document."""
        if self._gathering.keyed_by_content:
            warn(
                "whole documents without an id are named by their text: an edited one is a new document, and its old "
                "version stays in the store. Give each a Document.id, or name them with group_by=, a metadata key such "
                "as the file's path"
            )

    def end(self) -> None:
        """Raise what was refused on the way.

        Raises:
            InputError: Some documents were refused.
        """
        if self._refused:
            more = f"; and {len(self._refused) - _NAMED} more" if len(self._refused) > _NAMED else ""
            count = f"{len(self._refused)} document{'s were' if len(self._refused) > 1 else ' was'}"
            raise InputError(f"{count} not stored, while all others are: {'; '.join(self._refused[:_NAMED])}{more}")
