"""Splitters of every kind: LangChain's, others with one of their methods, plain functions from a text to its chunks.

Knows how each is called, and that one is at work; must not know how documents are named or ordered.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from typing import Any

from langchain_core.documents import Document

from ..errors import InputError, InputTypeError, PplxEmbedError
from .grouping import check_chunk

_splitting: ContextVar[bool] = ContextVar("pplx_embed_splitting", default=False)


def cutter(splitter: Any) -> Callable[[Document], list[Document]]:
    """Return a function from a whole document to its pieces, whatever kind of splitter there is.

    Raises:
        InputTypeError: It cannot split.
    """
    if isinstance(splitter, type):
        raise InputTypeError(f"splitter is the class {splitter.__name__}; pass an object, {splitter.__name__}(...)")
    for method in ("split_documents", "transform_documents"):
        split = getattr(splitter, method, None)
        if callable(split):
            return lambda document, split=split: [_piece(document, each) for each in split([document])]  # type: ignore[misc]
    if callable(getattr(splitter, "split_json", None)):
        return lambda document: _pieces(document, _split_json(splitter, document.page_content))
    if callable(getattr(splitter, "split_text", None)):
        return lambda document: _pieces(document, splitter.split_text(document.page_content))
    if callable(splitter):
        return lambda document: _pieces(document, splitter(document.page_content))
    raise InputTypeError(
        f"splitter is {splitter!r}, which cannot split; pass a LangChain splitter, for example "
        "RecursiveCharacterTextSplitter(chunk_size=1000, chunk_overlap=0), or a function from a text to its chunks"
    )


def cut(document: Document, split: Callable[[Document], list[Document]], *, name: str) -> list[Document]:
    """Split a whole document into its pieces; an empty one, a blank page for example, has none.

    Args:
        document: The document.
        split: What `cutter` has made of a splitter.
        name: What an error calls the document.

    Raises:
        InputError: The text is not Unicode, or the splitter fails on it.
    """
    if not document.page_content:
        return []
    check_chunk(document.page_content, name=f"the text of {name}")
    token = _splitting.set(True)
    try:
        return [piece for piece in split(document) if piece.page_content]
    except PplxEmbedError:
        raise
    except Exception as error:
        raise InputError(f"the splitter cannot split {name}: {type(error).__name__}: {error}") from error
    finally:
        _splitting.reset(token)


def is_splitting() -> bool:
    """Tell whether a splitter is at work in this thread or task: what it embeds are texts by themselves."""
    return _splitting.get()


def _split_json(splitter: Any, text: str) -> list[str]:
    pieces = splitter.split_text(json.loads(text), convert_lists=True, ensure_ascii=False)
    return [piece for piece in pieces if piece != "{}"]  # it begins with one where the first value fills a chunk


def _pieces(document: Document, found: Sequence[str | Document]) -> list[Document]:
    if isinstance(found, str) or not isinstance(found, Iterable):
        raise InputTypeError(f"the splitter gives a bare {type(found).__name__}; it must give a list of chunks")
    return [_piece(document, each) for each in found]


def _piece(document: Document, found: Any) -> Document:
    if isinstance(found, Document):
        return Document(page_content=found.page_content, metadata={**document.metadata, **found.metadata})
    if not isinstance(found, str):
        raise InputTypeError(f"the splitter gives a {type(found).__name__}; it must give strings or Documents")
    return Document(page_content=found, metadata=dict(document.metadata))
