"""In which few sizes rows are multiplied, whatever their number is.

Knows what a product of so many rows costs next to another; must not know what the rows are.

oneDNN plans a product for each new number of rows, and keeps every plan: half a megabyte each, a thousand of them. A
service that meets every length of text would fill gigabytes with them, and take twice as long for each new length.
"""

from __future__ import annotations

from functools import cache

_LARGEST = 512
"""Most rows in a product on a CPU. What lies between the layers of a feed-forward network is three times wider than a
hidden state, and of a long document would fill gigabytes."""
_SIZES = (4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 48, 56, 64, 72, 80, 88, 96, 112, 128, 160, 192, 256, _LARGEST)
"""Each an eighth more than the last where most texts are: padding costs a twentieth of the time there, and each size
some megabytes."""
_MANY = 256
"""Rows from which the sizes are multiples of a sixteenth of this: a few rows more or less do not count then."""
_ONE_MORE = 12
"""Rows that take about as long as fetching the weights once more, for another block."""


def row_blocks(rows: int) -> tuple[int, ...]:
    """Return sizes of blocks that hold so many rows, the largest first; together they may be a few rows more.

    Args:
        rows: How many there are, at least one.

    Example:
        >>> row_blocks(13), row_blocks(100), row_blocks(1100)
        ((16,), (112,), (512, 512, 80))
    """
    whole, rest = divmod(rows, _LARGEST)
    sizes = _SIZES if rows < _MANY else tuple(size for size in _SIZES if size % (_MANY // 16) == 0)
    return (_LARGEST,) * whole + (_cheapest(rest, sizes) if rest else ())


@cache
def _cheapest(rows: int, sizes: tuple[int, ...]) -> tuple[int, ...]:
    together = (min(size for size in sizes if size >= rows),)
    smaller = [size for size in sizes if size < rows]
    divided = [(size, *_cheapest(rows - size, sizes)) for size in smaller]
    best = min((together, *divided), key=lambda blocks: sum(blocks) + _ONE_MORE * len(blocks))
    return tuple(sorted(best, reverse=True))


def padded_length(length: int) -> int:
    """Return the length that a sequence of so many tokens is padded to where attention is planned by length.

    There are at most eight of them between a number and its double.

    Example:
        >>> padded_length(33), padded_length(500), padded_length(2049)
        (48, 512, 2304)
    """
    step = max(16, 1 << max(0, (length - 1).bit_length() - 4))
    return -(-length // step) * step
