"""A chunk's metadata as one JSON column: written so that every value can be asked for, and comes back as it was.

Knows the layout of the column; must not know operators, queries or rows.

LanceDB keeps JSON in a binary form and reads a value out of it with `json_get_string(metadata, 'year')`, fast, but with
an error as soon as one row holds a list there, and without a difference between `1990` and `"1990"`. So lists and
dictionaries stand under their key with `[]` behind it, and a string that could be taken for a number or a truth value
begins with U+0001.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from ..errors import InputError, InputTypeError

MARK = "\x01"
"""Begins a string that reads as something else without it."""
LIST = "[]"
"""Ends the key of a list or a dictionary."""
NAN = "\x02nan"
_LARGEST = 2**63 - 1


def marked(text: str) -> str:
    r"""Return a string as the column holds it.

    Example:
        >>> marked("en"), marked("1990")
        ('en', '\x011990')
    """
    if text in ("true", "false") or text[:1] in (MARK, NAN[0]) or _is_number(text):
        return MARK + text
    return text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def dump(metadata: Mapping[str, Any], *, chunk: str) -> str:
    """Write metadata.

    Args:
        metadata: A dictionary of what JSON can hold; NaN, as pandas writes what is missing, may stand at its top.
        chunk: What errors call the chunk.

    Returns:
        JSON for the column.

    Raises:
        InputError: A number is too large, or two keys fall together.
        InputTypeError: A key is no string, or a value nothing that JSON can hold.

    Example:
        >>> dump({"year": 1843, "tags": ["math"]}, chunk="ada-0")
        '{"year": 1843, "tags[]": ["math"]}'
    """
    row: dict[str, Any] = {}
    for key, value in metadata.items():
        if not isinstance(key, str):
            raise InputTypeError(f"a metadata key of chunk {chunk!r} is {key!r}; keys must be strings")
        name = key + LIST if isinstance(value, (list, tuple, dict)) else key
        if name in row:
            raise InputError(f"the metadata of chunk {chunk!r} has {key!r} and another key that is written like it")
        row[name] = _writable(value, key, chunk)
    return json.dumps(row, ensure_ascii=False, allow_nan=False)


def _writable(value: Any, key: str, chunk: str, *, nested: bool = False) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value) if nested else marked(value)
    if isinstance(value, int) and -_LARGEST <= value <= _LARGEST:
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if isinstance(value, float) and math.isnan(value) and not nested:
        return NAN
    if isinstance(value, (list, tuple)):
        # Elements of a list are asked for like values; what lies deeper is only kept.
        return [_writable(each, key, chunk, nested=True) if nested else _element(each, key, chunk) for each in value]
    if isinstance(value, dict):
        if not all(isinstance(each, str) for each in value):
            raise InputTypeError(f"metadata {key!r} of chunk {chunk!r} has keys that are no strings")
        return {name: _writable(each, key, chunk, nested=True) for name, each in value.items()}
    if isinstance(value, (int, float)):
        raise InputError(f"metadata {key!r} of chunk {chunk!r} is {value!r}, which is no 64-bit number")
    raise InputTypeError(
        f"metadata {key!r} of chunk {chunk!r} is a {type(value).__name__}, which JSON cannot hold; "
        "store a string, a number, True, False, None, or a list of them (a date: value.isoformat())"
    )


def _element(value: Any, key: str, chunk: str) -> Any:
    return marked(value) if isinstance(value, str) else _writable(value, key, chunk, nested=True)


def load(column: str) -> dict[str, Any]:
    """Read metadata back: the inverse of `dump` (a tuple comes back as a list).

    Example:
        >>> load('{"year": 1843, "tags[]": ["math"]}')
        {'year': 1843, 'tags': ['math']}
    """
    metadata: dict[str, Any] = {}
    for key, value in json.loads(column).items():
        if isinstance(value, list):
            metadata[key.removesuffix(LIST)] = [_plain(each) for each in value]
        elif isinstance(value, dict):
            metadata[key.removesuffix(LIST)] = value
        else:
            metadata[key] = math.nan if value == NAN else _plain(value)
    return metadata


def _plain(value: Any) -> Any:
    return value[1:] if isinstance(value, str) and value.startswith(MARK) else value
