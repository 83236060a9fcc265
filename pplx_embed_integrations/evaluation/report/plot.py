"""Quality against bytes as places on a drawing: axes, lines, whiskers, and labels that do not cover each other.

Knows rows and geometry; must not know colours, nor how a drawing is written.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ..results import Level, Measurement
from .labels import Taken
from .series import Series, row_name
from .text import byte_count

_FORMS = {"float32": "float32", "int8": "int8", "binary": "bits"}
_ASIDE = {"float32": 4, "binary": -4}
_LINE_HEIGHT = 16


@dataclass(frozen=True)
class Mark:
    """A row: where it stands, and the ends of its interval where one is drawn."""

    x: float
    y: float
    form: str
    series: int
    title: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Line:
    """A polyline: rows of one form by width, or the level of a row that stores no vectors."""

    points: tuple[tuple[float, float], ...]
    series: int
    dashed: bool = False


@dataclass(frozen=True)
class Label:
    """A text on the drawing; one of a series has the point that its leader comes from."""

    x: float
    y: float
    text: str
    series: int
    anchor: str = "start"
    kind: str = "series"
    leader: tuple[float, float] | None = None


@dataclass(frozen=True)
class Plot:
    """Everything that is drawn, in pixels from the upper left corner."""

    width: int
    height: int
    left: float
    right: float
    top: float
    bottom: float
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    lines: tuple[Line, ...]
    marks: tuple[Mark, ...]
    labels: tuple[Label, ...]


def main_of(series: Sequence[Series]) -> int:
    """Return the place of the series that is drawn in full: the first of those with most rows.

    Example:
        >>> main_of([Series("a", "A", 0, ()), Series("b", "B", 1, (Measurement("b", "b"),))])
        1
    """
    return max(range(len(series)), key=lambda place: len(series[place].rows))


def draw(
    series: Sequence[Series], *, level: Level, metric: str = "nDCG@10", size: tuple[int, int] = (980, 480),
    letters: bool = False,
) -> Plot | None:  # fmt: skip
    """Lay a drawing out.

    Args:
        series: The rows. Those of the largest get whiskers and the names of their forms and widths.
        level: What was ranked.
        metric: What is drawn upward.
        size: Width and height in pixels.
        letters: Name the series by letter; else by name, at the right, where that leaves half of the width.

    Returns:
        The drawing; None if no row stores vectors.
    """
    placed = [
        (number, row) for number, one in enumerate(series) for row in one.rows if row.bytes_per_vector is not None
    ]
    if not placed:
        return None
    main = main_of(series)
    placed.sort(key=lambda one: one[0] == main)  # drawn last, over the others
    names = [one.letter if letters else _shortened(one.name, size[0] // 2) for one in series]
    frame = _Frame(series, placed, level, metric, size, max(map(_name_width, names)))
    marks = tuple(frame.mark(number, row, whisker=number == main) for number, row in placed)
    lines = tuple(line for number, one in enumerate(series) for line in frame.lines(number, one))
    named = _series_labels(frame, series, names)
    leaders = [Line((label.leader, (frame.right, label.leader[1])), label.series) for label in named if label.leader]
    inner = _inner_labels(frame, main, series[main], marks, [*lines, *leaders], forms=not letters)
    return Plot(
        *size, frame.left, frame.right, frame.top, frame.bottom, frame.x_ticks(), frame.y_ticks(), lines, marks,
        (*inner, *named),
    )  # fmt: skip


class _Frame:
    """The two scales."""

    def __init__(
        self, series: Sequence[Series], placed: Sequence[tuple[int, Measurement]], level: Level, metric: str,
        size: tuple[int, int], gutter: float,
    ) -> None:  # fmt: skip
        self._level, self._metric = level, metric
        self.left, self.right, self.top, self.bottom = 44.0, size[0] - gutter - 34.0, 30.0, size[1] - 44.0
        sizes = [row.bytes_per_vector or 1 for _, row in placed]
        self._first, self._last = math.log2(min(sizes)) - 0.6, math.log2(max(sizes)) + 0.6
        values = [self.value(row) for one in series for row in one.rows]
        values += [end for row in series[main_of(series)].rows for end in self.interval(row) or ()]
        room = 0.06 * (max(values) - min(values)) or 0.05
        self._low, self._high = max(0.0, min(values) - room), min(1.0, max(values) + room)

    def value(self, row: Measurement) -> float:
        return row.means[self._level].get(self._metric, 0.0)

    def interval(self, row: Measurement) -> tuple[float, float] | None:
        return row.intervals.get(self._level, {}).get(self._metric)

    def place(self, row: Measurement) -> float:
        """Where a row stands: forms of the same size side by side, so that their intervals can be told apart."""
        return round(self.x(row.bytes_per_vector or 1) + _ASIDE.get(row.form or "", 0), 1)

    def x(self, size: float) -> float:
        share = (math.log2(size) - self._first) / (self._last - self._first)
        return round(self.left + share * (self.right - self.left), 1)

    def y(self, value: float) -> float:
        share = (value - self._low) / (self._high - self._low)
        return round(self.bottom - share * (self.bottom - self.top), 1)

    def mark(self, number: int, row: Measurement, *, whisker: bool) -> Mark:
        value, size = self.value(row), row.bytes_per_vector or 1
        mark = Mark(
            self.place(row), self.y(value), row.form or "float32", number,
            f"{row_name(row)}: {self._metric} {value:.4f}, {size:,} bytes",
        )  # fmt: skip
        ends = self.interval(row)
        return mark if not whisker or ends is None else replace(mark, low=self.y(ends[0]), high=self.y(ends[1]))

    def lines(self, number: int, one: Series) -> list[Line]:
        found = []
        for form in _FORMS:
            points = sorted((self.place(row), self.y(self.value(row))) for row in one.rows
                            if row.form == form and row.bytes_per_vector is not None)  # fmt: skip
            if len(points) > 1:
                found.append(Line(tuple(points), number))
        for row in one.rows:
            if row.bytes_per_vector is None:
                height = self.y(self.value(row))
                found.append(Line(((self.left, height), (self.right, height)), number, dashed=True))
        return found

    def x_ticks(self) -> tuple[tuple[float, str], ...]:
        powers = range(math.ceil(self._first), math.floor(self._last) + 1)
        most = max(2, int((self.right - self.left) // 64))
        step = math.ceil(len(powers) / most)
        return tuple((self.x(2**power), _power(power)) for power in powers if (power - powers[-1]) % step == 0)

    def y_ticks(self) -> tuple[tuple[float, str], ...]:
        rough = (self._high - self._low) / 5
        scale = 10 ** math.floor(math.log10(rough))
        step = next(scale * nice for nice in (1, 2, 5, 10) if scale * nice >= rough)
        digits = max(1, -math.floor(math.log10(step) + 1e-9))
        numbers = range(math.ceil(self._low / step - 1e-9), math.floor(self._high / step + 1e-9) + 1)
        return tuple((self.y(number * step), f"{number * step:.{digits}f}") for number in numbers)


def _power(power: int) -> str:
    return byte_count(2**power) if power < 10 else f"{2 ** (power - 10)} KiB"


def _inner_labels(
    frame: _Frame, number: int, one: Series, marks: Sequence[Mark], lines: Sequence[Line], *, forms: bool
) -> list[Label]:
    """Name the forms of one series at their smallest rows, and the widths at every row, where there is room."""
    taken = Taken(frame.left, frame.top - 12, frame.right, frame.bottom)
    for mark in marks:
        taken.add((mark.x - 7, mark.y - 7, mark.x + 7, mark.y + 7))
        if mark.low is not None and mark.high is not None:
            taken.add((mark.x - 1, mark.high, mark.x + 1, mark.low))
    for line in lines:
        taken.add_line(line.points)
    labels, named = [], set()
    rows = sorted((row for row in one.rows if row.bytes_per_vector is not None), key=frame.place)
    for row in rows:
        if forms and row.form not in named:
            named.add(row.form)
            text = _FORMS.get(row.form or "", row.form or "")
            labels += _placed(taken, frame.place(row), frame.y(frame.value(row)), text, number, "form")
    for row in rows:
        if row.dimensions:
            labels += _placed(taken, frame.place(row), frame.y(frame.value(row)), str(row.dimensions), number, "width")
    return labels


def _placed(taken: Taken, x: float, y: float, text: str, series: int, kind: Literal["form", "width"]) -> list[Label]:
    size = 12 if kind == "form" else 11
    spot = taken.find(x, y, text_width=0.64 * size * len(text), height=size, side=-1 if kind == "form" else 1)
    return [] if spot is None else [Label(spot[0], spot[1], text, series, "middle", kind)]


def _name_width(name: str) -> float:
    return 0.61 * 13 * len(name)


def _shortened(name: str, width: float) -> str:
    most = int(width / _name_width("x"))
    return name if len(name) <= most else f"{name[: most - 1].rstrip()}…"


def _series_labels(frame: _Frame, series: Sequence[Series], names: Sequence[str]) -> list[Label]:
    """Name each series in the gutter at the height of its row of most bytes, moved apart where they are too close."""
    wanted = []
    for number, one in enumerate(series):
        row = max(one.rows, key=lambda row: row.bytes_per_vector or 0)
        x = frame.right if row.bytes_per_vector is None else frame.place(row)
        wanted.append((frame.y(frame.value(row)), x, number))
    wanted.sort()
    heights = _spread([height for height, _, _ in wanted], frame.top, frame.bottom)
    return [
        Label(frame.right + 26, height + 4, names[number], number,
              leader=(x, y))
        for height, (y, x, number) in zip(heights, wanted, strict=True)
    ]  # fmt: skip


def _spread(wanted: Sequence[float], top: float, bottom: float) -> list[float]:
    """Move sorted heights apart to a line's height, each as little as the others allow.

    Neighbours that are too close become a block about their mean (pool adjacent violators).
    """
    apart = min(_LINE_HEIGHT, (bottom - top) / max(1, len(wanted) - 1))
    blocks: list[tuple[float, int]] = []
    for height in wanted:
        blocks.append((height, 1))
        while len(blocks) > 1 and blocks[-1][0] - blocks[-2][0] < apart * (blocks[-1][1] + blocks[-2][1]) / 2:
            (second, many), (first, few) = blocks.pop(), blocks.pop()
            blocks.append(((first * few + second * many) / (few + many), few + many))
    heights: list[float] = []
    for middle, count in blocks:
        heights += [middle + apart * (place - (count - 1) / 2) for place in range(count)]
    last = len(heights) - 1
    kept = (min(height, bottom - apart * (last - place)) for place, height in enumerate(heights))
    return [round(max(height, top + apart * place), 1) for place, height in enumerate(kept)]
