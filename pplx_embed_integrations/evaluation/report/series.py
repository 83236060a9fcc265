"""Rows that belong together, and what the page calls them.

Knows what a row is; must not know its figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

from ..results import Measurement

_COLOURS = {"in context": (0, 2, 4, 6), "plain": (1, 3, 5, 7), "no vectors": (8,)}
"""Places in the palette of `page.css`."""


@dataclass(frozen=True)
class Series:
    """Rows that differ in width and form alone.

    Attributes:
        name: What they have in common.
        letter: The same where there is no room for it.
        colour: Which of the page's colours: cold in context, warm without, none where nothing is embedded.
        rows: The rows.
    """

    name: str
    letter: str
    colour: int
    rows: tuple[Measurement, ...]


def series_of(rows: Sequence[Measurement]) -> list[Series]:
    """Group rows by what searched: the pairing and whether in context, or another system.

    Example:
        >>> rows = [Measurement(f"a, 8 {form}", "pplx-embed", "v1", "c1", True, 8, form) for form in ("int8", "binary")]
        >>> [(one.letter, one.name, len(one.rows)) for one in series_of(rows)]
        [('A', 'v1 → c1, in context', 2)]
    """
    groups: dict[tuple[object, ...], list[Measurement]] = {}
    for row in rows:
        groups.setdefault((row.system, row.query_model, row.document_model, row.contextual), []).append(row)
    left = {manner: cycle(colours) for manner, colours in _COLOURS.items()}
    return [
        Series(_series_name(group), _letter(number), next(left[_manner(group[0])]), tuple(group))
        for number, group in enumerate(groups.values())
    ]


def row_name(row: Measurement) -> str:
    """Return what the page calls a row: what searched, width and form, or the label where that says something else.

    Example:
        >>> row_name(Measurement("v1 → c1, plain, 64 int8", "pplx-embed", "v1", "c1", False, 64, "int8"))
        'v1 → c1, plain, 64 int8'
        >>> row_name(Measurement("Chroma, plain", "LangChain", "v1", "c1", False, 64, "float32"))
        'Chroma, plain'
    """
    return f"{_models(row)}, {form_name(row)}" if _is_usual(row) else row.label


def form_name(row: Measurement) -> str:
    """Return a row's width and form.

    Example:
        >>> form_name(Measurement("BM25", "BM25"))
        'no vectors'
    """
    return "no vectors" if row.dimensions is None else f"{row.dimensions} {row.form}"


def _is_usual(row: Measurement) -> bool:
    return row.dimensions is not None and row.label.endswith(f", {form_name(row)}")


def _series_name(rows: Sequence[Measurement]) -> str:
    if all(map(_is_usual, rows)):
        return _models(rows[0])
    return rows[0].label if len(rows) == 1 else f"{rows[0].system}, {_manner(rows[0])}"


def _models(row: Measurement) -> str:
    system = "" if row.system == "pplx-embed" else f"{row.system}: "
    same = row.query_model == row.document_model
    return f"{system}{row.document_model if same else f'{row.query_model} → {row.document_model}'}, {_manner(row)}"


def _manner(row: Measurement) -> str:
    return "no vectors" if row.dimensions is None else "in context" if row.contextual else "plain"


def _letter(number: int) -> str:
    return chr(ord("A") + number) if number < 26 else str(number + 1)
