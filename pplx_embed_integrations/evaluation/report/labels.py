"""Room for labels on a drawing: what is taken, and where beside a point a text still fits.

Knows boxes and lines in pixels; must not know what they stand for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""

_GAP = 9
_SAMPLES = 24


class Taken:
    """What a drawing's frame holds already.

    Args:
        left: Left edge of the frame.
        top: Upper edge.
        right: Right edge.
        bottom: Lower edge.

    Example:
        >>> taken = Taken(0, 0, 100, 100)
        >>> taken.find(50, 50, text_width=20, height=10, side=1)  # the middle of its base line: at the right
        (69.0, 53.0)
        >>> taken.find(50, 50, text_width=20, height=10, side=1)  # above that, as it is taken
        (69.0, 40.0)
    """

    def __init__(self, left: float, top: float, right: float, bottom: float) -> None:
        self._frame = (left, top, right, bottom)
        self._boxes: list[Box] = []

    def add(self, box: Box) -> None:
        """Take a box."""
        self._boxes.append(box)

    def add_line(self, points: Sequence[tuple[float, float]]) -> None:
        """Take what lies under a polyline, as small boxes along it."""
        for (x, y), (end_x, end_y) in pairwise(points):
            for step in range(_SAMPLES + 1):
                share = step / _SAMPLES
                at = (x + share * (end_x - x), y + share * (end_y - y))
                self.add((at[0] - 2, at[1] - 2, at[0] + 2, at[1] + 2))

    def find(
        self, x: float, y: float, *, text_width: float, height: float, side: Literal[-1, 1]
    ) -> tuple[float, float] | None:
        """Take room for a text beside a point; None if there is none.

        Args:
            x: The point.
            y: The point.
            text_width: Width of the text.
            height: Height of its letters.
            side: Where to look first: -1 at the left, 1 at the right.

        Returns:
            The middle of the text's base line.
        """
        for middle, base in _spots(x, y, text_width, height, side):
            box = (middle - text_width / 2, base - height, middle + text_width / 2, base + 2)
            if self._inside(box) and not any(_overlap(box, other) for other in self._boxes):
                self.add(box)
                return round(middle, 1), round(base, 1)
        return None

    def _inside(self, box: Box) -> bool:
        left, top, right, bottom = self._frame
        return left <= box[0] and top <= box[1] and box[2] <= right and box[3] <= bottom


def _spots(x: float, y: float, width: float, height: float, side: int) -> Iterator[tuple[float, float]]:
    level = y + height / 2 - 2
    for aside in (side * (width / 2 + _GAP), -side * (width / 2 + _GAP)):
        for rise in (0, -height - 3, height + 3, -2 * height, 2 * height):
            yield x + aside, level + rise
    yield from ((x, y - _GAP), (x, y + _GAP + height))


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
