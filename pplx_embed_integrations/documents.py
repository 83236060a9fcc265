"""Flat chunks to documents in reading order and back: keys, grouping, ordering, content hashes.

Knows sequences of keys, positions and texts; must not know any framework, any model or any vector.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Mapping, Sequence, Set
from datetime import date, time
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, TypeVar
from uuid import UUID

from .errors import InputError, InputTypeError
from .overlaps import Overlap, find_overlap, overlap

__all__ = [
    "CHUNKS_KEY",
    "CHUNK_KEY",
    "DOCUMENT_KEY",
    "KEY_PREFIX",
    "VERSION_KEY",
    "Overlap",
    "are_offsets",
    "content_hash",
    "document_key",
    "find_overlap",
    "group",
    "is_missing",
    "overlap",
    "stable_form",
    "stamps",
    "ungroup",
]

Row = TypeVar("Row")

DOCUMENT_KEY = "pplx_document"
"""Metadata key under which a chunk names its document."""
VERSION_KEY = "pplx_version"
"""Metadata key under which a chunk carries a hash of its document's texts."""
CHUNK_KEY = "pplx_chunk"
"""Metadata key under which a chunk carries its position in its document."""
CHUNKS_KEY = "pplx_chunks"
"""Metadata key under which a chunk carries the number of its document's chunks."""


def group(keys: Sequence[Hashable], positions: Sequence[Any | None] | None = None) -> list[list[int]]:
    """Group flat chunks into documents, each in reading order.

    Documents come in the order of their first chunk. Inside a document the positions decide where every chunk of it
    has one and no two are equal (equal ones are not positions in one text); otherwise the input order stands.

    Args:
        keys: One document key per chunk.
        positions: One sortable position per chunk, or None where a chunk has none.

    Returns:
        For each document the indices into `keys`, in reading order. Every index occurs exactly once.

    Raises:
        InputError: `positions` is not as long as `keys`.
        InputTypeError: A key cannot be hashed.

    Examples:
        >>> group(["a", "b", "a"])
        [[0, 2], [1]]
        >>> group(["a", "b", "a"], positions=[80, 0, 0])
        [[2, 0], [1]]
    """
    if positions is not None and len(positions) != len(keys):
        raise InputError(
            f"positions has {len(positions)} entries for {len(keys)} chunks; give one per chunk (None where unknown)"
        )
    groups: dict[Hashable, list[int]] = {}
    for index, key in enumerate(keys):
        if not isinstance(key, Hashable):
            raise InputTypeError(
                f"the document key of chunk {index} is a {type(key).__name__}, which cannot be hashed; "
                "use a string, a number or a tuple of them"
            )
        groups.setdefault(key, []).append(index)
    if positions is None:
        return list(groups.values())
    return [_in_order(indices, positions) for indices in groups.values()]


def _in_order(indices: list[int], positions: Sequence[Any]) -> list[int]:
    known = {positions[index]: index for index in indices}
    if None in known or len(known) < len(indices):
        return indices
    return [known[position] for position in sorted(known)]


def is_missing(value: object) -> bool:
    """Tell whether a value names nothing: None, NaN, a blank string, or a tuple that holds such a value.

    Examples:
        >>> [is_missing(value) for value in (None, "", "  ", float("nan"), ("a", None))]
        [True, True, True, True, True]
        >>> [is_missing(value) for value in (0, False, "a", ("a", 0))]
        [False, False, False, False]
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return True
    if isinstance(value, tuple):
        return not value or any(map(is_missing, value))
    try:
        return bool(value != value)
    except (TypeError, ValueError):
        return type(value).__name__ == "NAType"  # pandas' own, which refuses to say


def stable_form(value: object) -> str:
    """Write a plain value so that equal values are written alike in every process, and different ones differently.

    Args:
        value: None, a str, bool, number, bytes, date, time, UUID, path or Enum, or a collection of such values.

    Returns:
        One line. Sets and mappings are sorted; a float without a fraction is written like the integer it equals,
        since stores and tables give one back for the other.

    Raises:
        InputTypeError: It is something else, such as an object that is written by its address in memory.

    Examples:
        >>> [stable_form(value) for value in (1, "1", True, 1.0, ("a", 1), {"b", "a"})]
        ['1', '"1"', 'true', '1', '["a",1]', '{"a","b"}']
    """
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        value = value.item()  # type: ignore[attr-defined]
    if isinstance(value, Enum):
        return f"enum {type(value).__qualname__}.{value.name}"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is None or isinstance(value, (str, bool, int, float)):
        return json.dumps(value)
    if isinstance(value, (date, time)):
        return f"{type(value).__name__} {value.isoformat()}"
    if isinstance(value, PurePath):
        return f"path {json.dumps(value.as_posix())}"
    if isinstance(value, bytes):
        return f"bytes {value.hex()}"
    if isinstance(value, (UUID, Decimal)):
        return f"{type(value).__name__} {value}"
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(stable_form, value))}]"
    if isinstance(value, Set):
        return f"{{{','.join(sorted(map(stable_form, value)))}}}"
    if isinstance(value, Mapping):
        return f"{{{','.join(sorted(f'{stable_form(key)}:{stable_form(each)}' for key, each in value.items()))}}}"
    raise InputTypeError(
        f"an object of type {type(value).__name__} has no form that is the same in every run; use a string, a number, "
        "a date or a tuple of them"
    )


KEY_PREFIX = "key:"
"""What the key of a document begins with, if its name is no string."""


def document_key(value: object) -> str:
    """Write what names a document as a string that no other name is written as.

    Args:
        value: What names it, as for `stable_form`.

    Returns:
        A string as it is, anything else with a prefix: 1 and "1" are two documents.

    Raises:
        InputTypeError: The value has no stable form.

    Examples:
        >>> document_key("report.pdf"), document_key(1), document_key(("ann", "report.pdf"))
        ('report.pdf', 'key:1', 'key:["ann","report.pdf"]')
    """
    if isinstance(value, str) and not isinstance(value, Enum) and not value.startswith(KEY_PREFIX):
        return value.encode("utf-8", "backslashreplace").decode()  # a file's name need not be Unicode
    return KEY_PREFIX + stable_form(value)


def are_offsets(texts: Sequence[str], starts: Sequence[int]) -> bool:
    """Tell whether numbers can be the places of these chunks in one text.

    They can be if no two chunks lie over each other, or only with the same characters, as a splitter with overlap
    leaves them. Places that were counted anew on every page or in every section cannot.

    Args:
        texts: The chunks.
        starts: For each of them a number.

    Examples:
        >>> are_offsets(["one", "two"], [0, 4]), are_offsets(["one", "two"], [0, 0])
        (True, False)
        >>> are_offsets(["abcd", "cd"], [0, 2])
        True
    """
    reached, last = 0, -1
    for index in sorted(range(len(starts)), key=starts.__getitem__):
        start, text = starts[index], texts[index]
        if last >= 0 and start < reached:
            shared = texts[last][start - starts[last] :][: len(text)]
            if start == starts[last] or shared != text[: len(shared)]:
                return False
        if start + len(text) >= reached:
            reached, last = start + len(text), index
    return True


def ungroup(groups: Sequence[Sequence[int]], rows: Sequence[Sequence[Row]]) -> list[Row]:
    """Bring one row per chunk, given per document, back into the flat order: the inverse of [`group`][].

    Args:
        groups: What `group` returned.
        rows: For each document one row per chunk, in the same order.

    Returns:
        The rows in the order of the original flat chunks.

    Raises:
        InputError: The shapes of `groups` and `rows` differ.

    Examples:
        >>> ungroup([[0, 2], [1]], [["first", "third"], ["second"]])
        ['first', 'second', 'third']
    """
    shape, given = [len(indices) for indices in groups], [len(document) for document in rows]
    if shape != given:
        raise InputError(f"rows has documents of {given} rows, the groups have {shape}; give one row per chunk")
    flat: dict[int, Row] = {}
    for indices, document in zip(groups, rows, strict=True):
        flat.update(zip(indices, document, strict=True))
    return [flat[index] for index in range(len(flat))]


def content_hash(chunks: Sequence[str]) -> str:
    """Hash a document by the texts and the borders of its chunks.

    Every text is preceded by its length in bytes, so moving a border, swapping two chunks or changing one character
    anywhere in the document changes the hash.

    Args:
        chunks: The document's chunk texts in reading order.

    Returns:
        The SHA-256 as 64 hexadecimal digits.

    Examples:
        >>> content_hash(["one", "two"])[:16]
        '498df273324bee20'
        >>> content_hash(["one", "two"]) == content_hash(["onet", "wo"])
        False
    """
    digest = hashlib.sha256()
    for chunk in chunks:
        data = chunk.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()


def stamps(key: str, texts: Sequence[str]) -> list[dict[str, Any]]:
    """Return for each chunk of a document the metadata that says which one it is.

    Args:
        key: The document's key.
        texts: Its chunks in reading order.

    Example:
        >>> [stamp["pplx_chunk"] for stamp in stamps("a.md", ["one", "two"])]
        [0, 1]
    """
    version = content_hash(texts)[:16]
    return [
        {DOCUMENT_KEY: key, VERSION_KEY: version, CHUNK_KEY: position, CHUNKS_KEY: len(texts)}
        for position in range(len(texts))
    ]
