"""Which embeddings keep vectors by a text alone, which is wrong for chunks in the context of their document.

Knows LangChain's `CacheBackedEmbeddings` by name; must not know models or vectors.
"""

from __future__ import annotations

from typing import NoReturn

from ..errors import InputError

__all__ = ["is_text_cache", "refuse"]


def is_text_cache(embeddings: object) -> bool:
    """Tell whether `embeddings` is LangChain's `CacheBackedEmbeddings`, without importing the package it lives in.

    Example:
        >>> is_text_cache(object())
        False
    """
    return any(base.__name__ == "CacheBackedEmbeddings" for base in type(embeddings).__mro__)


def refuse() -> NoReturn:
    """Raise the error that names the cache to use instead."""
    raise InputError(
        "CacheBackedEmbeddings finds a vector by the chunk's text alone, but a contextual vector depends on the whole "
        "document: equal chunks of two documents would share one vector. Unwrap the model and give it the store "
        "itself, PplxEmbeddings(..., cache=byte_store), which finds vectors by the whole document"
    )
