"""Token ids become sequences with spans, sequences become batches: integers only.

Knows how a document's chunks are joined, cut into windows and packed under a token budget; must not know texts,
tensors or models.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import accumulate, takewhile

import numpy as np
import numpy.typing as npt

TokenIds = npt.NDArray[np.int32]
_Tokens = Callable[[int, int], int]


@dataclass(frozen=True, eq=False)
class TokenSequence:
    """Tokens that attend to each other, and which of them are pooled into which row of the result.

    Attributes:
        ids: Token ids, `[n]` int32.
        spans: Half-open token ranges `(start, end)`, disjoint and in order; each is pooled into one vector.
        rows: For each span, the row of the result that its vector fills.
    """

    ids: TokenIds
    spans: tuple[tuple[int, int], ...]
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Window:
    """Chunks `start` to `end` of a document, read together; those in `owned` take their vectors from it."""

    start: int
    end: int
    owned: tuple[int, ...]


def document_sequences(
    chunks: Sequence[Sequence[int]], *, separator: int, max_tokens: int, first_row: int, prompt: Sequence[int] = ()
) -> list[TokenSequence]:
    """Join a document's chunks with the separator, as the contextual models read them, in windows where too long.

    Separators stand between chunks only, take positions, are attended to and belong to no span.

    Args:
        chunks: Token ids of each chunk, in reading order; each has at least one token.
        separator: Id of the separator token.
        max_tokens: Longest sequence; no chunk may be longer.
        first_row: Row of the result for the first chunk; the others follow.
        prompt: What stands before the first chunk, also of a window; it belongs to no span.

    Returns:
        One sequence, or several windows in which every chunk has exactly one span.

    Example:
        >>> [sequence] = document_sequences([[1, 2], [3]], separator=0, max_tokens=9, first_row=5)
        >>> sequence.ids.tolist(), sequence.spans, sequence.rows
        ([1, 2, 0, 3], ((0, 2), (3, 4)), (5, 6))
    """
    sequences = []
    for window in plan_windows([len(chunk) for chunk in chunks], max_tokens=max_tokens - len(prompt)):
        ids = [*prompt]
        spans = {}
        for chunk in range(window.start, window.end):
            if chunk > window.start:
                ids.append(separator)
            spans[chunk] = len(ids), len(ids) + len(chunks[chunk])
            ids.extend(chunks[chunk])
        rows = tuple(first_row + chunk for chunk in window.owned)
        owned = tuple(spans[chunk] for chunk in window.owned)
        sequences.append(TokenSequence(np.asarray(ids, dtype=np.int32), owned, rows))
    return sequences


def plan_windows(lengths: Sequence[int], *, max_tokens: int) -> list[Window]:
    """Cut a document at chunk borders into overlapping windows of at most `max_tokens` tokens, separators included.

    Neighbouring windows share a chunk, or as many as make up half of their tokens. A chunk belongs to the window in
    which its poorer side has the most context, and if that is equal its richer side; a side that ends where the
    document ends is complete.

    Args:
        lengths: Tokens of each chunk, each between 1 and `max_tokens`.
        max_tokens: Longest window.

    Returns:
        The windows that own a chunk, in order; together they own every chunk exactly once.

    Example:
        >>> plan_windows([4, 4, 4, 4], max_tokens=14)
        [Window(start=0, end=3, owned=(0, 1)), Window(start=1, end=4, owned=(2, 3))]
    """
    starts = [0, *accumulate(length + 1 for length in lengths)]

    def tokens(start: int, end: int) -> int:
        return starts[end] - starts[start] - 1

    count = len(lengths)
    owned: dict[tuple[int, int], list[int]] = {}
    # Windows start and end in rising order: those that hold a chunk are neighbours at the head of the queue.
    coming = deque(_overlapping_ranges(count, tokens, max_tokens))
    for chunk in range(count):
        while coming[0][1] <= chunk:
            coming.popleft()
        owned.setdefault(_owner(coming, chunk, count, tokens), []).append(chunk)
    return [Window(*bounds, tuple(chunks)) for bounds, chunks in owned.items()]


def _overlapping_ranges(count: int, tokens: _Tokens, max_tokens: int) -> list[tuple[int, int]]:
    ranges: list[tuple[int, int]] = []
    start = end = 0
    while end < count:
        # Step back from where the last window ended, by one chunk and on over at most half a window, but never so
        # far that the next chunk would not fit.
        start = end
        while start > 0 and tokens(start - 1, end + 1) <= max_tokens:
            if start < end and tokens(start - 1, end) > max_tokens // 2:
                break
            start -= 1
        end += 1
        while end < count and tokens(start, end + 1) <= max_tokens:
            end += 1
        ranges.append((start, end))
    # The last window has nothing to its right, so it may as well be full to its left.
    while ranges and start > 0 and tokens(start - 1, end) <= max_tokens:
        start -= 1
        ranges[-1] = (start, end)
    return ranges


def _owner(ranges: Iterable[tuple[int, int]], chunk: int, count: int, tokens: _Tokens) -> tuple[int, int]:
    holding = takewhile(lambda bounds: bounds[0] <= chunk, ranges)
    return max(holding, key=lambda bounds: _context(bounds, chunk, count, tokens))


def _context(bounds: tuple[int, int], chunk: int, count: int, tokens: _Tokens) -> tuple[float, float]:
    start, end = bounds
    left = float("inf") if start == 0 else tokens(start, chunk) + 1
    right = float("inf") if end == count else tokens(chunk + 1, end) + 1
    return min(left, right), max(left, right)


def plan_batches(lengths: Sequence[int], *, budget: int) -> list[list[int]]:
    """Sort by length, longest first, and cut into batches of at most `budget` tokens.

    A sequence longer than the budget makes a batch of its own: nothing is ever cut to fit.

    Args:
        lengths: Tokens of each sequence.
        budget: Most tokens in a batch.

    Returns:
        Indices into `lengths`, a list a batch; every index stands exactly once.

    Example:
        >>> plan_batches([3, 9, 4, 1], budget=8)
        [[1], [2, 0, 3]]
    """
    batches: list[list[int]] = []
    room = 0
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if not batches or lengths[index] > room:
            batches.append([])
            room = budget
        batches[-1].append(index)
        room -= lengths[index]
    return batches


_EVEN = 2000
"""Length at which attention takes a token as long as everything else, roughly."""
_UNEVEN = 1.15
"""How much longer than on average one may take before the others' waiting for it costs more than sharing gains."""


def share_out(lengths: Sequence[int], workers: int, *, at_least: int) -> list[list[int]]:
    """Divide sequences among workers that take about equally long.

    The longest goes first, to the worker that has least (Graham 1969, "Bounds on multiprocessing timing anomalies").

    Args:
        lengths: Tokens of each sequence.
        workers: How many there are.
        at_least: Tokens below which a share is not worth a worker.

    Returns:
        Indices into `lengths`, a list a worker; or all of them in one list, where no even division is possible.

    Example:
        >>> share_out([300, 500, 200], 2, at_least=256)
        [[0, 2], [1]]
        >>> share_out([300, 5000, 200], 2, at_least=256)
        [[0, 1, 2]]
    """
    together = [list(range(len(lengths)))]
    if workers < 2 or len(lengths) < workers or sum(lengths) < workers * at_least:
        return together
    shares = [(0, number, list[int]()) for number in range(workers)]
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        work, number, share = heappop(shares)
        share.append(index)
        heappush(shares, (work + lengths[index] * (_EVEN + lengths[index]), number, share))
    even = sum(work for work, _, _ in shares) / workers
    slowest = max(work for work, _, _ in shares)
    fewest = min(sum(lengths[index] for index in share) for _, _, share in shares)
    if slowest > _UNEVEN * even or fewest < at_least:
        return together
    return [share for _, _, share in sorted(shares)]
