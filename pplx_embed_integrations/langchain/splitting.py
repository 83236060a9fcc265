"""From LangChain documents to documents of chunks: whole ones through a splitter, ready chunks by their keys.

Knows how a stream of documents is gathered; must not know kinds of splitters, vectors, models or stores.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from langchain_core.documents import Document

from ..documents import content_hash, document_key, stamps
from ..errors import InputError, warn
from .grouping import GroupBy, Keys, check_chunk, check_document, check_documents, shown
from .reading import Arrival, Doubts, arrange, distinguishing
from .splitters import cut, cutter

_CONTENT = "content:"


@dataclass
class ChunkedDocument:
    """One document: its key, and its chunks in reading order.

    Attributes:
        key: What names it.
        chunks: Its chunks; those of whole documents are new and stamped, ready ones are the caller's.
        places: Where ready chunks stood among all of them.
    """

    key: str
    chunks: list[Document]
    places: list[int] = field(default_factory=list)

    def add(self, chunk: Document, place: int) -> None:
        """Add a chunk that stood at a place."""
        self.chunks.append(chunk)
        self.places.append(place)

    @property
    def texts(self) -> list[str]:
        """The texts of the chunks."""
        return [chunk.page_content for chunk in self.chunks]

    @property
    def version(self) -> str:
        """A hash of the texts and their borders."""
        return content_hash(self.texts)

    def stamped(self) -> list[Document]:
        """Return copies of the chunks that carry the document's key, its version, and their position."""
        return [
            Document(page_content=chunk.page_content, metadata={**chunk.metadata, **stamp})
            for chunk, stamp in zip(self.chunks, stamps(self.key, self.texts), strict=True)
        ]


def split_documents(documents: Iterable[Document], splitter: Any, *, group_by: GroupBy | None = None) -> list[Document]:
    """Split whole documents into chunks that know their document and their place in it.

    Every chunk carries a stamp in its metadata: `pplx_document`, `pplx_version`, `pplx_chunk` and `pplx_chunks`. So the
    chunks may be shuffled, stored and read back, and `add_documents` still knows which belong together, in which order,
    and whether some are missing.

    Args:
        documents: Whole documents. One is named by its `id`, else by its own text.
        splitter: Any LangChain splitter, anything else with `split_documents`, `transform_documents` or `split_text`,
            or a function from a text to its chunks. Without overlap: the model reads the neighbours anyway.
        group_by: What makes several of them one document, as the pages of a file: a metadata key, a function of the
            document, or one key per document.

    Returns:
        The chunks, document after document.

    Raises:
        InputError: A document has no text, or no key.
        InputTypeError: `splitter` cannot split.

    Example:
        >>> chunks = split_documents([Document("One. Two.", id="a.md")], lambda text: text.split(". "))
        >>> [(chunk.page_content, chunk.metadata["pplx_document"], chunk.metadata["pplx_chunk"]) for chunk in chunks]
        [('One', 'a.md', 0), ('Two.', 'a.md', 1)]
    """
    found = chunk_documents(check_documents(documents), splitter=splitter, group_by=group_by)
    return [chunk for document in found for chunk in document.chunks]


def chunk_documents(
    documents: list[Document], *, splitter: Any = None, group_by: GroupBy | None = None
) -> list[ChunkedDocument]:
    """Group or split documents into documents of chunks, and warn of what looks wrong.

    Args:
        documents: Whole documents if there is a splitter, else chunks.
        splitter: As for `split_documents`.
        group_by: As for `split_documents`, or what makes chunks one document.

    Returns:
        The documents. One that has come several times is there once if it is split here, else as often as it came.
    """
    gathering = Gathering(documents, splitter=splitter, group_by=group_by)
    found, refused = [], []
    for gathered in gathering.groups():
        try:
            found.extend(gathering.read(gathered))
        except InputError as error:
            refused.append(str(error))
    if refused:
        raise InputError("; ".join(refused))
    gathering.end()
    return found


class Gathering:
    """Gathers the parts of each document from a stream: its pages, or its chunks.

    Args:
        documents: A list, whose documents may be shuffled, or an iterator, where the parts of one follow each other.
        splitter: As for `split_documents`.
        group_by: As for `split_documents`, or what makes chunks one document.
        indexing: Whether a document replaces its old version, so that it can be there once only.

    Attributes:
        total: How many documents there are, where that is known.
        stamped: Whether chunks are grouped by the stamp that our splitting wrote.
        keyed_by_content: Whether a document was named by its text.
        doubts: Looks at each document.
    """

    def __init__(
        self,
        documents: Iterable[Document],
        *,
        splitter: Any = None,
        group_by: GroupBy | None = None,
        indexing: bool = False,
    ) -> None:
        self.total: int | None = None
        self.stamped = group_by is None and splitter is None
        self.keyed_by_content = False
        self._documents = documents
        self._split = None if splitter is None else cutter(splitter)
        self._indexing = indexing
        self._joined = group_by is not None
        listed = documents if isinstance(documents, list) else None
        self._keys = Keys(group_by, listed) if self._joined or self.stamped else None
        self.doubts = Doubts(self._keys.named if self._keys is not None else None)
        self._alike: dict[str, dict[str, str]] = {}

    def groups(self) -> Iterator[ChunkedDocument]:
        """Yield each document as its parts in input order, with the places where they stood."""
        if isinstance(self._documents, list):
            gathered: dict[str, ChunkedDocument] = {}
            for place, part in enumerate(self._documents):
                key = self._key(part, place)
                gathered.setdefault(key, ChunkedDocument(key, [])).add(part, place)
            self.total = len(gathered)
            yield from gathered.values()
            return
        document = None
        try:
            for place, part in enumerate(self._documents):
                key = self._key(check_document(part, place), place)
                if document is not None and document.key != key:
                    yield document
                    document = None
                document = document or ChunkedDocument(key, [])
                document.add(part, place)
        except Exception:
            if document is not None and not self._joined and self._split is not None:  # whole, whatever came after
                yield document
            raise
        if document is not None:
            yield document

    def _key(self, document: Document, position: int) -> str:
        if self._keys is not None:
            return self._keys.of(document, position)
        if document.id is not None and document.id.strip():
            return document_key(document.id)
        self.keyed_by_content = True
        return self._by_content(document)

    def _by_content(self, document: Document) -> str:
        """Name a document by its text; several of one text are numbered, unless nothing tells them apart."""
        form = _CONTENT + content_hash([document.page_content])[:32]
        known = self._alike.setdefault(form, {})
        whose, all_of_it = _digest(distinguishing(document.metadata)), _digest(document.metadata)
        if all_of_it not in known:
            if whose in known.values():
                warn(
                    "several whole documents have the same text, and no source, id or title tells them apart: they "
                    "are kept as so many documents. If it is one that comes several times, pass it once; else give "
                    "each a Document.id"
                )
            known[all_of_it] = whose
        number = list(known).index(all_of_it)
        return form if number == 0 else f"{form}:{number + 1}"

    def _arrange(self, parts: list[Document]) -> Arrival:
        if self._split is None:
            return arrange(parts)
        if not self._joined:  # each of them is whole
            texts = {part.page_content for part in parts}
            return Arrival([[index] for index in range(len(parts))], versions=len(texts) > 1)
        arrival = arrange(parts)
        return arrival if len(arrival.orders) > 1 else Arrival([list(range(len(parts)))])  # pages stay as they came

    def read(self, gathered: ChunkedDocument) -> list[ChunkedDocument]:
        """Read a document's parts in order, splitting them if they are whole; as often as it has come.

        Raises:
            InputError: The document has no text, or one that is not Unicode, or has come in several versions, of which
                only one can replace the old one.
        """
        name = f"document {shown(gathered.key)}"
        orders, versions = self._arrange(gathered.chunks)
        if len(orders) > 1:
            texts, remedy = "the same texts", "pass it once"
            if versions:
                texts, remedy = "different texts", "pass one version only, or a key that tells the documents apart"
            comes = f"{name} comes {len(orders)} times with {texts}"
            if versions and self._indexing:
                raise InputError(f"{comes}; {remedy}")
            once = not versions and (self._indexing or self._split is not None)
            warn(f"{comes}, and {'is taken once' if once else 'each is read by itself'}; {remedy}")
            orders = orders[:1] if once else orders
        return [self._read(gathered, order, name) for order in orders]

    def _read(self, gathered: ChunkedDocument, order: list[int], name: str) -> ChunkedDocument:
        document = ChunkedDocument(gathered.key, [gathered.chunks[index] for index in order])
        if self._split is None:
            document.places = [gathered.places[index] for index in order]
        else:
            document.chunks = [piece for part in document.chunks for piece in cut(part, self._split, name=name)]
            if not document.chunks:
                raise InputError(f"{name} has no text; leave it out")
        for position, text in enumerate(document.texts):
            check_chunk(text, name=f"chunk {position} of {name}")
        if self._split is not None:
            document.chunks = document.stamped()
        self.doubts.look(document.key, document.chunks, stamped=self.stamped)
        return document

    def end(self) -> None:
        """Warn of what can be said only when all documents have been seen."""
        if self._split is None:
            self.doubts.end()


def _digest(metadata: dict[str, Any]) -> str:
    return hashlib.sha256(repr(sorted(metadata.items(), key=repr)).encode("utf-8", "replace")).hexdigest()
