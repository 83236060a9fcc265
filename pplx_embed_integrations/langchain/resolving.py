"""Which `PplxEmbeddings` a store embeds with, and whether something between them keeps vectors by text alone.

Knows where stores keep their embeddings, and LangChain's `CacheBackedEmbeddings` by name; must not know vectors.
"""

from __future__ import annotations

from typing import Any

from ..errors import InputError, InputTypeError
from .embeddings import PplxEmbeddings


def resolve_embeddings(store: Any, embeddings: PplxEmbeddings | None) -> PplxEmbeddings:
    """Find what a store embeds with.

    Args:
        store: A vector store; None before there is one.
        embeddings: What the caller says it is, needed only where the store does not tell.

    Returns:
        The embeddings object.

    Raises:
        InputError: They are wrapped in a text cache, or the store tells of another object.
        InputTypeError: They are no PplxEmbeddings.
    """
    own = getattr(store, "embeddings", None)
    if own is None:  # not every store implements the property, but all keep what they embed with
        held = getattr(store, "__dict__", {}).values()
        own = next((value for value in held if isinstance(value, PplxEmbeddings) or _is_text_cache(value)), None)
    if _is_text_cache(own) or _is_text_cache(embeddings):
        raise InputError(
            "CacheBackedEmbeddings finds a vector by the chunk's text alone, but a contextual vector depends on the "
            "whole document: equal chunks of two documents would share one vector. Unwrap the model and give it the "
            "store itself, PplxEmbeddings(..., cache=byte_store), which finds vectors by the whole document"
        )
    if isinstance(own, PplxEmbeddings) and embeddings is not None and own is not embeddings:
        raise InputError("the store embeds with another PplxEmbeddings object; leave embeddings= out, or pass that one")
    found = own if embeddings is None else embeddings
    if not isinstance(found, PplxEmbeddings):
        where = "embeddings" if store is None else f"{type(store).__name__}.embeddings"
        raise InputTypeError(
            f"{where} is {type(found).__name__}, not PplxEmbeddings; build the store with PplxEmbeddings, "
            "or pass embeddings= if the store does not tell what it embeds with"
        )
    return found


def _is_text_cache(embeddings: object) -> bool:
    """Tell whether `embeddings` is LangChain's `CacheBackedEmbeddings`, without importing the package it lives in."""
    return any(base.__name__ == "CacheBackedEmbeddings" for base in type(embeddings).__mro__)
