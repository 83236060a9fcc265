"""What may be embedded: the checks every entrance shares, with errors that name the position.

Knows the types and limits of arguments; must not know models or frameworks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .errors import InputError, InputTypeError

__all__ = ["check_documents", "check_dtype", "check_positive", "check_text", "check_texts"]


def check_text(text: object, *, name: str = "the text") -> str:
    """Return `text` if it is a non-empty string.

    Raises:
        InputError: It is empty.
        InputTypeError: It is no string.

    Example:
        >>> check_text("a")
        'a'
    """
    if not isinstance(text, str):
        hint = "; a document of several chunks goes through encode_documents" if isinstance(text, (list, tuple)) else ""
        raise InputTypeError(f"{name} must be a str, not {type(text).__name__}{hint}")
    if not text:
        raise InputError(f"{name} is empty; an empty text has no vector: leave it out")
    return text


def check_texts(texts: object, *, name: str = "text {}", wanted: str = "a list of strings") -> list[str]:
    """Return `texts` as a list of non-empty strings.

    Args:
        texts: Any iterable of strings that has an order.
        name: How an error calls the text at position `{}`.
        wanted: How an error calls what should have been given.

    Raises:
        InputError: A text is empty.
        InputTypeError: `texts` is a bare string or no ordered iterable, or an element is no string.

    Example:
        >>> check_texts(("a", "b"))
        ['a', 'b']
    """
    return [check_text(text, name=name.format(position)) for position, text in enumerate(_items(texts, wanted))]


def check_documents(documents: object) -> list[list[str]]:
    """Return `documents` as lists of non-empty strings, a list a document.

    Raises:
        InputError: A chunk is empty.
        InputTypeError: The nesting is not documents of chunks, or a chunk is no string.

    Example:
        >>> check_documents([["a", "b"], ["c"]])
        [['a', 'b'], ['c']]
    """
    wanted = "a list of documents, each a list of chunks (strings)"
    return [
        check_texts(
            chunks, name=f"chunk {{}} of document {position}", wanted=f"for document {position} a list of chunks"
        )
        for position, chunks in enumerate(_items(documents, wanted))
    ]


def _items(values: object, wanted: str) -> list[Any]:
    if isinstance(values, str):
        raise InputTypeError(f"{wanted} is wanted, not a bare str; put it in a list: [text]")
    if isinstance(values, (bytes, dict, set, frozenset)) or not isinstance(values, Iterable):
        raise InputTypeError(f"{wanted} is wanted, not {type(values).__name__}")
    return list(values)


def check_positive(name: str, value: object) -> int:
    """Return `value` if it is an integer of at least 1.

    Raises:
        InputError: It is below 1.
        InputTypeError: It is no integer.

    Example:
        >>> check_positive("batch_tokens", 512)
        512
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputTypeError(f"{name} must be an integer, not {type(value).__name__}")
    if value < 1:
        raise InputError(f"{name}={value} is out of range; it must be at least 1")
    return value


def check_dtype(dtype: object) -> str:
    """Return the name of an arithmetic that these models run in.

    Args:
        dtype: `"auto"`, `"float32"`, `"bfloat16"`, or the torch dtype of one of the last two.

    Raises:
        InputError: It is another one; float16 overflows in these models and gives NaN.

    Example:
        >>> check_dtype("bfloat16")
        'bfloat16'
    """
    name = str(dtype).removeprefix("torch.")
    if name in ("float16", "half", "fp16"):
        raise InputError(
            'dtype="float16" overflows in these models and gives NaN vectors; use "bfloat16" (same size) or "float32"'
        )
    if name not in ("auto", "float32", "bfloat16"):
        raise InputError(f'dtype={dtype!r} is unknown; use "auto", "float32" or "bfloat16"')
    return name
