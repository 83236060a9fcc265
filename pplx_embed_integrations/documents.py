"""Flat chunks to documents in reading order and back: keys, grouping, ordering, content hashes, overlap.

It knows sequences of keys, positions and texts; it must not know any framework, any model or any vector.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Mapping, Sequence, Set
from datetime import date, time
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from .errors import InputError, InputTypeError

__all__ = [
    "KEY_PREFIX",
    "Overlap",
    "are_offsets",
    "content_hash",
    "document_key",
    "find_overlap",
    "group",
    "is_missing",
    "overlap",
    "stable_form",
    "ungroup",
]

Row = TypeVar("Row")

#: A repeat at a border shorter than this many characters is taken for chance (offsets, where given, prove any length).
MINIMUM_OVERLAP = 20


class Overlap(NamedTuple):
    """Where two neighbouring chunks repeat the same text.

    Attributes:
        document: Position of the document.
        chunk: Position in it of the later of the two chunks.
        characters: How many characters the two have in common.
    """

    document: int
    chunk: int
    characters: int


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


def overlap(left: str, right: str, *, starts: tuple[int, int] | None = None) -> int:
    """Count the characters by which a chunk repeats the end of the chunk before it.

    Offsets count only where the text agrees with them (a loader may count from zero on every page). Without them the
    longest end of `left` that begins `right` is taken, if it has at least `MINIMUM_OVERLAP` characters in more than one
    word, stands only once in each of them, and leaves something of both chunks: a footer repeated whole is a
    repetition, and so is a line that a table or a log has again and again.

    Args:
        left: The earlier chunk.
        right: The chunk that follows it.
        starts: Where both begin in their document, in characters, if known.

    Returns:
        The number of characters, 0 for none.

    Examples:
        >>> overlap("one sentence about late chunking", "sentence about late chunking and what follows")
        28
        >>> overlap("the end of it", "it starts again")
        0
        >>> overlap("abcdef", "efgh", starts=(0, 4))
        2
    """
    if starts is not None:
        repeated = left[starts[1] - starts[0] :] if starts[0] < starts[1] else ""
        shared = min(len(repeated), len(right))
        if shared and repeated[:shared] == right[:shared]:
            return shared
    probe = right[:MINIMUM_OVERLAP]
    if len(probe) < MINIMUM_OVERLAP or (probe.isascii() and len(probe.split()) < 2):
        return 0
    at = left.find(probe, 1)
    while at >= 0:
        shared = len(left) - at
        if shared < len(right) and left.endswith(right[:shared]):
            return 0 if _repeats(left, right, shared) else shared
        at = left.find(probe, at + 1)
    return 0


def _repeats(left: str, right: str, shared: int) -> bool:
    """Whether the shared text, or how it begins, comes again where no overlap would bring it."""
    text = right[:shared]
    return text in left[:-1] or text in right[1:] or text[:MINIMUM_OVERLAP] in text[1:]


def find_overlap(
    documents: Sequence[Sequence[str]], starts: Sequence[Sequence[int | None]] | None = None
) -> Overlap | None:
    """Find the first place where neighbouring chunks of one document overlap.

    A text that a third chunk of the document contains as well is a repetition, no overlap, unless offsets prove it.

    Args:
        documents: Documents, each a list of chunk texts in reading order.
        starts: For each chunk its offset in the document, in characters, or None where unknown.

    Returns:
        The first overlap, or None where there is none.

    Examples:
        >>> find_overlap([["one"], ["chunks that share their border", "that share their border, as splitters do"]])
        Overlap(document=1, chunk=1, characters=23)
    """
    for number, chunks in enumerate(documents):
        offsets = starts[number] if starts is not None else [None] * len(chunks)
        for later in range(1, len(chunks)):
            before, after = offsets[later - 1], offsets[later]
            pair = (before, after) if before is not None and after is not None else None
            shared = overlap(chunks[later - 1], chunks[later], starts=pair)
            proved = pair and shared == min(len(chunks[later - 1]) - pair[1] + pair[0], len(chunks[later]))
            if shared and (proved or not _in_others(chunks, later, shared)):
                return Overlap(number, later, shared)
    return None


def _in_others(chunks: Sequence[str], later: int, shared: int) -> bool:
    text = chunks[later][:shared]
    return any(text in chunk for at, chunk in enumerate(chunks) if at not in (later - 1, later))
