"""Between LangChain's documents and a table of codes: chunks and ids on the way in, documents on the way out.

Knows how both write a chunk and who names it; must not know how documents are embedded, nor LanceDB.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from langchain_core.documents import Document

from ..documents import document_key
from ..errors import InputError
from ..stores import Chunk, Comparison, Hit, StoredDocument
from ..stores.documents import chunk_id
from .grouping import GroupBy
from .intake import Intake
from .splitting import ChunkedDocument


def to_document(hit: Hit) -> Document:
    """Return a chunk of the table as LangChain knows it."""
    return Document(id=hit.id, page_content=hit.text, metadata=hit.metadata)


def keys_of(names: Any) -> list[str]:
    """Return the keys of documents, as `group_by` or `Document.id` named them."""
    several = isinstance(names, (list, set, frozenset)) or hasattr(names, "__next__")
    return [document_key(name) for name in (names if several else [names])]


def flat_chunks(texts: Sequence[str], metadatas: Any, ids: Any) -> list[Chunk]:
    """Turn independent texts into chunks.

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


class TableIntake(Intake[StoredDocument]):
    """Documents on their way into a table, and what was done with them.

    Args:
        documents: A list, or an iterator in which the parts of a document follow each other.
        splitter: Splits whole documents.
        group_by: What makes several of them, or several chunks, one document.
        ids: Ids of ready chunks, one each.
        size: Chunks in a batch, at least, unless there are no more.
    """

    def __init__(
        self, documents: Any, *, splitter: Any, group_by: GroupBy | None, ids: Sequence[str] | None, size: int
    ) -> None:
        if splitter is not None and ids is not None:
            raise InputError("ids= names chunks, which are not there before the splitter has run; leave it out")
        if ids is not None and len(ids) != len(documents):
            raise InputError(f"there are {len(ids)} ids for {len(documents)} chunks; give one for each")
        super().__init__(documents, splitter=splitter, group_by=group_by, size=size)
        self._whole = splitter is not None
        self._given_ids = ids
        self._places: list[tuple[int, str]] = []

    def take(self, document: ChunkedDocument) -> StoredDocument:
        """Give each chunk the id that the caller chose, else one made of its document and place."""
        places = document.places or [len(self._places) + row for row in range(len(document.chunks))]
        chunks = []
        for row, (chunk, place) in enumerate(zip(document.chunks, places, strict=True)):
            own = self._given_ids[place] if self._given_ids is not None else None if self._whole else chunk.id
            named = own if own is not None else chunk_id(document.key, row)
            self._places.append((place, named))
            chunks.append(Chunk(named, chunk.page_content, chunk.metadata))
        return StoredDocument(document.key, chunks)

    @property
    def ids(self) -> list[str]:
        """Ids of all chunks that went in, in the order of the chunks given, or document after document."""
        return [identifier for _, identifier in sorted(self._places, key=lambda entry: entry[0])]

    def count(self, compared: Comparison) -> None:
        """Count what has been stored."""
        self.counts.update(
            num_added=sum(len(document.chunks) for document in compared.to_embed),
            num_updated=sum(len(document.chunks) for document in compared.renamed),
            num_skipped=sum(len(document.chunks) for document in compared.unchanged),
            num_deleted=sum(compared.replaced[document.key] for document in compared.changed),
        )
