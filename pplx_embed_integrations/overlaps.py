"""Where neighbouring chunks repeat each other's text, as a splitter with overlap leaves them.

Knows texts and offsets; must not know what a document is called, nor any framework.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

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
        >>> overlap("one sentence about late chunking", "sentence about late chunking and mean pooling")
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
    """Whether the shared text, or its beginning, comes again in a place that no overlap explains."""
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
