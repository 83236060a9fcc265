"""Which document each LangChain chunk belongs to: the key it is given, or the stamp that our splitting wrote.

Knows LangChain's `Document` and its metadata; must not know reading order, vectors, models or stores.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, NamedTuple

from langchain_core.documents import Document

from ..documents import CHUNK_KEY, CHUNKS_KEY, DOCUMENT_KEY, KEY_PREFIX, VERSION_KEY, document_key, is_missing
from ..errors import InputError, InputTypeError
from ..inputs import check_text

GroupBy = str | Callable[[Document], Hashable] | Sequence[Hashable]
"""A metadata key, a function of the chunk, or one key per chunk."""

_FEW = 8


class Stamp(NamedTuple):
    """What our splitting wrote into a chunk's metadata."""

    key: str
    version: str
    position: int
    chunks: int | None


def shown(key: str) -> str:
    """Return how messages call the document of a key, which `document_key` has written."""
    short = key if len(key) <= 200 else f"{key[:200]}..."
    return short.removeprefix(KEY_PREFIX) if short.startswith(KEY_PREFIX) else repr(short)


def check_documents(documents: object) -> list[Document]:
    """Return `documents` as a list of LangChain documents.

    Args:
        documents: Any iterable of them.

    Returns:
        The same objects in a new list.

    Raises:
        InputTypeError: It is no collection of LangChain documents.

    Example:
        >>> len(check_documents([Document("one"), Document("two")]))
        2
    """
    if isinstance(documents, (str, bytes, dict, Document)) or not isinstance(documents, Iterable):
        raise InputTypeError(f"a list of LangChain Documents is wanted, not {type(documents).__name__}")
    found = list(documents)
    for position, document in enumerate(found):
        check_document(document, position)
    return found


def check_document(document: object, position: int) -> Document:
    """Return `document` if it is a LangChain document."""
    if not isinstance(document, Document):
        raise InputTypeError(
            f"document {position} is a {type(document).__name__}; wrap each text in langchain_core.documents.Document"
        )
    return document


def check_chunk(text: str, *, name: str) -> None:
    """Refuse a chunk that cannot be embedded, whatever the model.

    Raises:
        InputError: It is empty, or not Unicode.
    """
    check_text(text, name=name)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{name} is not Unicode: the character at position {error.start} is half of a surrogate pair"
        ) from None


def number(value: Any) -> int | None:
    """Read a position out of metadata: an integer from 0 on, also as a store or a table may have given it back."""
    if isinstance(value, str):
        return int(value) if value.strip().isdecimal() else None
    try:
        whole = int(value)
        return whole if not isinstance(value, bool) and whole == value and whole >= 0 else None
    except (TypeError, ValueError, OverflowError):
        return None


def stamp_of(chunk: Document) -> Stamp | None:
    """Read the stamp of a chunk.

    Args:
        chunk: A chunk, perhaps read back from a store.

    Returns:
        The stamp, or None where there is none.

    Example:
        >>> stamp_of(Document("one", metadata={"pplx_document": "a.md", "pplx_chunk": 0.0, "pplx_chunks": 2}))
        Stamp(key='a.md', version='', position=0, chunks=2)
    """
    key, position = chunk.metadata.get(DOCUMENT_KEY), number(chunk.metadata.get(CHUNK_KEY))
    if not isinstance(key, str) or is_missing(key) or position is None:
        return None
    return Stamp(key, str(chunk.metadata.get(VERSION_KEY, "")), position, number(chunk.metadata.get(CHUNKS_KEY)))


class Keys:
    """Names the document of each chunk in turn.

    Args:
        group_by: A metadata key, a function of the chunk, or one key per chunk; None for the stamp.
        chunks: All chunks, where they are at hand: an error can say what they offer.

    Attributes:
        named: The metadata key that names documents, if one does.

    Raises:
        InputError: There are not as many keys as chunks.
        InputTypeError: `group_by` is none of the three.

    Example:
        >>> keys = Keys("source")
        >>> keys.of(Document("one", metadata={"source": "a.md"}), 0)
        'a.md'
    """

    def __init__(self, group_by: GroupBy | None, chunks: Sequence[Document] | None = None) -> None:
        self._chunks = chunks
        self._group_by = group_by
        self.named = group_by if isinstance(group_by, str) else None
        if group_by is None or isinstance(group_by, str) or callable(group_by):
            return
        if not isinstance(group_by, Iterable) or isinstance(group_by, (bytes, dict, set, frozenset)):
            raise InputTypeError(
                "group_by must be a metadata key, a function of the Document, or a list with one key per chunk, "
                f"not {type(group_by).__name__}"
            )
        self._group_by = keys = list(group_by)
        if chunks is None:
            raise InputError(
                "group_by is a list of keys, one per chunk, but the chunks come from a loader or an iterator; "
                "pass list(documents), or a metadata key or a function of the Document"
            )
        if len(keys) != len(chunks):
            hint = ""
            if chunks and all(isinstance(key, str) and all(key in chunk.metadata for chunk in chunks) for key in keys):
                several = ", ".join(f"chunk.metadata[{key!r}]" for key in keys)
                hint = f"; for several metadata keys together: group_by=lambda chunk: ({several})"
            raise InputError(f"group_by has {len(keys)} keys for {len(chunks)} chunks; give one key per chunk{hint}")

    def of(self, chunk: Document, position: int) -> str:
        """Return the key of a chunk's document.

        Args:
            chunk: The chunk.
            position: Its position among all of them.

        Raises:
            InputError: The chunk has no key.
            InputTypeError: The key has no stable form.
        """
        if self._group_by is None:
            return self._stamped(chunk, position)
        if isinstance(self._group_by, str):
            if self._group_by not in chunk.metadata:
                raise InputError(
                    f"document {position} has no {self._group_by!r} in its metadata (it has: {_names(chunk)}); every "
                    "chunk needs the key given as group_by"
                )
            value, where = chunk.metadata[self._group_by], f"metadata[{self._group_by!r}]"
        elif callable(self._group_by):
            where = "what group_by returns"
            try:
                value = self._group_by(chunk)
            except Exception as error:
                raise InputError(
                    f"group_by cannot name document {position}: {type(error).__name__}: {error}; its metadata has "
                    f"{_names(chunk)}"
                ) from error
        else:
            value, where = self._group_by[position], "the key in group_by"
        if is_missing(value):
            raise InputError(f"{where} is {value!r} for document {position}, which names no document; each needs a key")
        try:
            return document_key(value)
        except InputTypeError as error:
            raise InputTypeError(f"{where} of document {position} cannot be a document's key: {error}") from None

    def _stamped(self, chunk: Document, position: int) -> str:
        stamp = stamp_of(chunk)
        if stamp is not None:
            return stamp.key
        chunks = self._chunks if self._chunks is not None else [chunk]
        if any(map(stamp_of, chunks)):
            raise InputError(
                f"document {position} lacks the stamp that split_documents writes ({DOCUMENT_KEY}, {CHUNK_KEY}), which "
                "others have; add the two kinds in two calls, or pass group_by="
            )
        raise InputError(
            "which chunks belong to one document is not known. For whole documents pass splitter=, for example "
            "RecursiveCharacterTextSplitter(chunk_size=1000, chunk_overlap=0); for ready chunks pass group_by=, the "
            f"metadata key of their document, a function of the chunk, or one key per chunk. {_offer(chunks)}"
        )


def _names(chunk: Document) -> str:
    return ", ".join(sorted(map(str, chunk.metadata))) or "nothing"


def _offer(chunks: Sequence[Document]) -> str:
    shared = [name for name in chunks[0].metadata if all(not is_missing(each.metadata.get(name)) for each in chunks)]
    if not shared:
        return "No metadata key is on every chunk"
    counted = [f"{name!r} ({len({repr(each.metadata[name]) for each in chunks})})" for name in shared[:_FEW]]
    more = f" and {len(shared) - _FEW} more" if len(shared) > _FEW else ""
    carried = "Its metadata has" if len(chunks) == 1 else f"All {len(chunks)} chunks carry (with so many values)"
    return f"{carried}: {', '.join(counted)}{more}"
