"""From LangChain documents to documents of chunks: whole ones through a splitter, ready chunks by their keys.

Knows how a stream of documents is gathered; must not know kinds of splitters, vectors, models or stores.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from langchain_core.documents import Document

from ..documents import content_hash, document_key, stamps
from ..errors import InputError, warn
from .grouping import GroupBy, Key, Keys, check_chunk, check_document, check_documents
from .reading import Arrival, Doubts, arrange, distinguishing
from .splitters import cut, cutter

__all__ = ["ChunkedDocument", "Gathering", "chunk_documents", "split_documents"]

_CONTENT = "content:"


@dataclass
class ChunkedDocument:
    """One document: its key, and its chunks in reading order.

    Attributes:
        key: What names it.
        chunks: Its chunks; those of whole documents are new and stamped, ready ones are the caller's.
        places: Where ready chunks stood among all of them.
    """

    key: Key
    chunks: list[Document]
    places: list[int] = field(default_factory=list)

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
            for chunk, stamp in zip(self.chunks, stamps(self.key.form, self.texts), strict=True)
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
    for key, parts, places in gathering.groups():
        try:
            found.extend(gathering.read(key, parts, places, gathering.arrange(key, parts)))
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
    """

    def __init__(
        self,
        documents: Iterable[Document],
        *,
        splitter: Any = None,
        group_by: GroupBy | None = None,
        indexing: bool = False,
    ) -> None:
        self._documents = documents
        self._listed = documents if isinstance(documents, list) else None
        self._split = None if splitter is None else cutter(splitter)
        self._indexing = indexing
        self._once = indexing or splitter is not None
        self.total: int | None = None
        self._joined = group_by is not None
        self._stamped = group_by is None and splitter is None
        self.keyed_by_content = False
        self._keys = None if splitter is not None and group_by is None else Keys(group_by, self._listed)
        self.doubts = Doubts(self._keys.named if self._keys is not None else None)
        self._alike: dict[str, dict[str, str]] = {}
        self._versions: Counter[str] = Counter()

    def groups(self) -> Iterator[tuple[Key, list[Document], list[int]]]:
        """Yield each document's key, its parts in input order, and where they stood."""
        if self._listed is not None:
            gathered: dict[Key, tuple[list[Document], list[int]]] = {}
            for position, document in enumerate(self._listed):
                parts, places = gathered.setdefault(self._key(document, position), ([], []))
                parts.append(document)
                places.append(position)
            self.total = len(gathered)
            self._versions = Counter(key.form for key in gathered)
            yield from ((key, parts, places) for key, (parts, places) in gathered.items())
            return
        key, parts, places = None, [], []
        try:
            for position, document in enumerate(self._documents):
                own = self._key(check_document(document, position), position)
                if key is not None and own != key:
                    yield key, parts, places
                    parts, places = [], []
                key = own
                parts.append(document)
                places.append(position)
        except Exception:
            if key is not None and not self._joined and self._split is not None:  # it is whole, whatever came after
                yield key, parts, places
            raise
        if key is not None:
            yield key, parts, places

    def _key(self, document: Document, position: int) -> Key:
        if self._keys is not None:
            return self._keys.of(document, position)
        if document.id is not None and document.id.strip():
            return Key(document_key(document.id))
        self.keyed_by_content = True
        return Key(self._by_content(document))

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

    def arrange(self, key: Key, parts: list[Document]) -> Arrival:
        """Find the reading order of a document's parts, and whether it has come more than once.

        Raises:
            InputError: It has come in several versions, of which only one can replace the old one.
        """
        if self._split is None:
            arrival = arrange(parts)
        elif self._joined:
            arrival = arrange(parts)
            if arrival.kind == "once":  # pages are joined in the order given
                arrival = Arrival([list(range(len(parts)))], "once")
        else:
            same = len({part.page_content for part in parts}) == 1
            kind = "once" if len(parts) == 1 else "copies" if same else "versions"
            arrival = Arrival([[index] for index in range(len(parts))], kind)  # type: ignore[arg-type]
        times = max(self._versions[key.form], len(arrival.orders))
        versions = arrival.kind == "versions" or self._versions[key.form] > 1
        if versions and self._indexing:
            raise InputError(
                f"document {key.shown} comes {times} times with different texts; pass one version only, or a key that "
                "tells the documents apart"
            )
        if times > 1:
            self._versions[key.form] = 1  # one warning is enough
            self._warn_of(key, times, versions=versions)
        return arrival

    def _warn_of(self, key: Key, times: int, *, versions: bool) -> None:
        if versions:
            warn(
                f"document {key.shown} comes {times} times with different texts, and each is read by itself; pass one "
                "version only, or a key that tells the documents apart"
            )
        else:
            once = "is taken once" if self._once else "each is read by itself"
            warn(f"document {key.shown} comes {times} times with the same texts, and {once}; pass it once")

    def read(self, key: Key, parts: list[Document], places: list[int], arrival: Arrival) -> list[ChunkedDocument]:
        """Read a document's parts in order, splitting them if they are whole.

        Raises:
            InputError: The document has no text, or one that is not Unicode.
        """
        orders = arrival.orders[:1] if arrival.kind == "copies" and self._once else arrival.orders
        found = []
        for order in orders:
            chunks = [parts[index] for index in order]
            name = f"document {key.shown}"
            if self._split is not None:
                chunks = [piece for part in chunks for piece in cut(part, self._split, name=name)]
                if not chunks:
                    raise InputError(f"{name} has no text; leave it out")
            for position, chunk in enumerate(chunks):
                check_chunk(chunk.page_content, name=f"chunk {position} of {name}")
            document = ChunkedDocument(key, chunks, [places[index] for index in order] if self._split is None else [])
            if self._split is not None:
                document.chunks = document.stamped()
            self.doubts.look(key, document.chunks, stamped=self._stamped)
            found.append(document)
        return found

    def end(self) -> None:
        """Warn of what can be said only when all documents have been seen."""
        if self._split is None:
            self.doubts.end()


def _digest(metadata: dict[str, Any]) -> str:
    return hashlib.sha256(repr(sorted(metadata.items(), key=repr)).encode("utf-8", "replace")).hexdigest()
