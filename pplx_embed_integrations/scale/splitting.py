"""Splitters and plain functions: from a whole text to the texts of its chunks.

Knows how each kind of splitter is called; must not know rows, vectors or Ray.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..errors import InputError, InputTypeError, PplxEmbedError, warn

Piece = tuple[str, dict[str, Any]]
"""A chunk's text, and what is known of it: the document's metadata, and what the splitter added."""
_OF_LANGCHAIN = ("split_documents", "transform_documents", "split_json")
Cut = Callable[[str, str, Mapping[str, Any]], list[Piece]]


def check_splitter(splitter: object) -> None:
    """Refuse what cannot split, and warn of one that repeats text.

    Raises:
        InputTypeError: It is a class, or has no way to split.

    Example:
        >>> check_splitter(lambda text: text.split(". "))
    """
    if splitter is None:
        return
    cutter(splitter)
    overlap = getattr(splitter, "_chunk_overlap", None)
    if isinstance(overlap, int) and overlap > 0:
        warn(
            f"{type(splitter).__name__} repeats up to {overlap} characters or tokens at each border, which the model "
            "then reads twice; it reads the neighbours anyway, so pass chunk_overlap=0"
        )


def cutter(splitter: Any) -> Cut:
    """Return a function from a document's name, text and metadata to its pieces; empty ones are left out.

    Raises:
        InputTypeError: It cannot split.

    Example:
        >>> cutter(lambda text: text.split(". "))("document 'a'", "One. Two.", {"lang": "en"})
        [('One', {'lang': 'en'}), ('Two.', {'lang': 'en'})]
    """
    if isinstance(splitter, type):
        raise InputTypeError(f"splitter is the class {splitter.__name__}; pass an object, {splitter.__name__}(...)")
    if callable(getattr(splitter, "get_nodes_from_documents", None)):
        raise InputTypeError(
            f"a {type(splitter).__name__} loses its tokenizer on the way to another process, and would split otherwise "
            "there; pass a function that makes one: lambda text: SentenceSplitter(chunk_overlap=0).split_text(text)"
        )
    if any(callable(getattr(splitter, name, None)) for name in _OF_LANGCHAIN):
        split = _documents(splitter)
    elif callable(getattr(splitter, "split_text", None)):
        split = _plain(splitter.split_text)
    elif callable(splitter):
        split = _plain(splitter)
    else:
        raise InputTypeError(
            f"splitter is {splitter!r}, which cannot split; pass a LangChain splitter, for example "
            "RecursiveCharacterTextSplitter(chunk_size=1000, chunk_overlap=0), or a function from a text to its chunks"
        )

    def cut(name: str, text: str, metadata: Mapping[str, Any]) -> list[Piece]:
        try:
            return [piece for piece in split(text, dict(metadata)) if piece[0]]
        except PplxEmbedError:
            raise
        except Exception as error:
            raise InputError(f"the splitter cannot split {name}: {type(error).__name__}: {error}") from error

    return cut


def _plain(split: Callable[[str], Any]) -> Callable[[str, dict[str, Any]], list[Piece]]:
    def pieces(text: str, metadata: dict[str, Any]) -> list[Piece]:
        found = split(text)
        if isinstance(found, str) or not isinstance(found, Iterable):
            raise InputTypeError(f"the splitter gives a bare {type(found).__name__}; it must give a list of chunks")
        return [_piece(each, metadata) for each in found]

    return pieces


def _piece(found: Any, metadata: dict[str, Any]) -> Piece:
    if hasattr(found, "page_content"):
        return found.page_content, {**metadata, **found.metadata}
    if not isinstance(found, str):
        raise InputTypeError(f"the splitter gives a {type(found).__name__}; it must give strings or Documents")
    return found, metadata


def _documents(splitter: Any) -> Callable[[str, dict[str, Any]], list[Piece]]:
    from langchain_core.documents import Document

    from ..langchain.splitters import cutter as langchain_cutter

    split = langchain_cutter(splitter)
    return lambda text, metadata: [_piece(each, {}) for each in split(Document(text, metadata=metadata))]
