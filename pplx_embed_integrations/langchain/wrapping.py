"""Refuses a cache that keys on text alone around a model whose vectors depend on the whole document.

Knows how LangChain's `CacheBackedEmbeddings` holds and calls what it wraps; must not know models or vectors.
"""

from __future__ import annotations

import sys
from typing import Any, NoReturn

from ..errors import InputError

__all__ = ["is_text_cache", "refuse", "refuse_calling_cache"]

_FRAMES = 6
"""How far up a caller is looked for: the method itself, an awaiting coroutine, a tracing decorator or two."""

_METHODS = frozenset({"embed_documents", "aembed_documents"})


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


def refuse_calling_cache(embeddings: object) -> None:
    """Raise if the running call comes from a text cache wrapped around `embeddings`.

    The wrapper neither registers with what it wraps nor passes anything but texts, and asks for exactly those texts
    whose vectors it is about to keep; so this is the moment, and the caller's frame the only sign.

    Args:
        embeddings: The contextual embeddings that are being called.

    Raises:
        InputError: A text cache is calling.
    """
    frame: Any = sys._getframe(1)
    for _ in range(_FRAMES):
        frame = frame.f_back
        if frame is None:
            return
        if frame.f_code.co_name not in _METHODS:
            continue  # reading a frame's variables keeps them alive until it ends, so no stranger's
        caller = frame.f_locals.get("self")
        if is_text_cache(caller) and getattr(caller, "underlying_embeddings", None) is embeddings:
            refuse()
