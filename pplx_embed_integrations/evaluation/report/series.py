"""Rows that belong together, and what the page calls them.

Knows what a row is; must not know its figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..results import Measurement

__all__ = ["Series", "row_name", "series_of"]


@dataclass(frozen=True)
class Series:
    """Rows that differ in width and form alone.

    Attributes:
        name: What they have in common.
        letter: The same where there is no room for it.
        rows: The rows.
    """

    name: str
    letter: str
    rows: tuple[Measurement, ...]


def series_of(rows: Sequence[Measurement]) -> list[Series]:
    """Group rows by what searched: the pairing and whether in context, or another system.

    Example:
        >>> rows = [Measurement("a", "pplx-embed", "v1", "c1", True, 64, form) for form in ("int8", "binary")]
        >>> [(one.letter, one.name, len(one.rows)) for one in series_of(rows)]
        [('A', 'v1 → c1, in context', 2)]
    """
    groups: dict[tuple[object, ...], list[Measurement]] = {}
    for row in rows:
        groups.setdefault((row.system, row.query_model, row.document_model, row.contextual), []).append(row)
    return [
        Series(_series_name(group[0], alone=len(group) == 1), _letter(number), tuple(group))
        for number, group in enumerate(groups.values())
    ]


def row_name(row: Measurement) -> str:
    """Return what the page calls a row: its series, width and form; its label where it stores no vectors.

    Example:
        >>> row_name(Measurement("a", "pplx-embed", "v1", "c1", False, 64, "int8"))
        'v1 → c1, plain, 64 int8'
    """
    return row.label if row.dimensions is None else f"{_series_name(row, alone=True)}, {row.dimensions} {row.form}"


def _series_name(row: Measurement, *, alone: bool) -> str:
    if row.query_model is None or row.document_model is None:
        return row.label if alone else row.system
    models = (
        row.document_model if row.query_model == row.document_model else f"{row.query_model} → {row.document_model}"
    )
    system = "" if row.system == "pplx-embed" else f"{row.system}: "
    return f"{system}{models}, {'in context' if row.contextual else 'plain'}"


def _letter(number: int) -> str:
    return chr(ord("A") + number) if number < 26 else str(number + 1)
