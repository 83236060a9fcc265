"""The tables: every row on each level, one row against all others, and what each costs.

Knows figures and how they are printed; must not know questions, nor HTML.
"""

from __future__ import annotations

from typing import Any

from ..results import METRICS, Comparison, Evaluation, Level, Measurement
from .findings import Findings, level_name
from .series import Series, form_name, row_name, series_of
from .text import byte_count, signed, span

_STRIP = 144
"""Width of the drawing of an interval in a cell."""


def table(evaluation: Evaluation, level: Level, findings: Findings) -> dict[str, Any]:
    """Return the rows of one level, those of a series together."""
    rows = [row for row in evaluation.measurements if level in row.means]
    ends = {
        row.label: row.intervals.get(level, {}).get(METRICS[0]) or (row.means[level].get(METRICS[0], 0.0),) * 2
        for row in rows
    }
    scale = (min(low for low, _ in ends.values()), max(high for _, high in ends.values()))
    marks = dict(zip((row.label for row in findings.pair), ("ours", "plain"), strict=True)) if findings.pair else {}
    what = "passages, each judged by itself" if level == "chunks" else "documents, each by its best passage"
    return {
        "title": "All rows" if len(evaluation.levels) == 1 else f"All rows, by {level_name(level)}",
        "lead": f"Ranked are {what}. Beneath each mean stands its 95 % bootstrap interval.",
        "what": level_name(level),
        "level": level,
        "metrics": METRICS,
        "groups": [
            {
                "name": one.name,
                "series": one.colour,
                "rows": [
                    {
                        "label": row.label,
                        "short": _short(row, one),
                        "size": "–" if row.bytes_per_vector is None else f"{row.bytes_per_vector:,} B",
                        "css": marks.get(row.label, ""),
                        "strip": _strip(
                            (ends[row.label][0], row.means[level].get(METRICS[0], 0.0), ends[row.label][1]), scale
                        ),
                        "cells": [_cell(row, level, metric) for metric in METRICS],
                    }
                    for row in sorted(one.rows, key=lambda row: -(row.bytes_per_vector or 0))
                ],
            }
            for one in series_of(rows)
        ],
    }


def _short(row: Measurement, one: Series) -> str:
    """Return what tells a row from others of its series."""
    alike = sum(form_name(row) == form_name(other) for other in one.rows)
    return form_name(row) if alike == 1 else row_name(row)


def _cell(row: Measurement, level: Level, metric: str) -> dict[str, Any]:
    value, interval = row.means[level].get(metric), row.intervals.get(level, {}).get(metric)
    return {
        "metric": metric,
        "value": value,
        "text": "" if value is None else f"{value:.3f}",
        "interval": span(*interval).replace(" to ", "–") if interval else "",
    }


def _strip(values: tuple[float, float, float], scale: tuple[float, float]) -> list[float]:
    width = scale[1] - scale[0] or 1.0
    return [round(2 + (_STRIP - 4) * (value - scale[0]) / width, 1) for value in values]


def differences(findings: Findings, colours: dict[str, int]) -> dict[str, Any] | None:
    """Return each row less the one that the page is about, or None if they were not compared."""
    if not findings.rows:
        return None
    ours = findings.pair[0] if findings.pair else findings.rows[0]
    pairs = [(row, one) for row in findings.rows if (one := findings.compare(row, ours, metric=METRICS[0]))]
    if not pairs:
        return None
    most = max(max(abs(one.low), abs(one.high)) for _, one in pairs) or 1.0
    return {
        "ours": row_name(ours),
        "rows": [
            {
                "label": row_name(row),
                "series": colours[row.label],
                "difference": one.difference,
                "text": signed(one.difference),
                "interval": span(one.low, one.high),
                "strip": _strip((one.low, one.difference, one.high), (-most, most)),
                **_counts(one),
            }
            for row, one in pairs
        ],
    }


def _counts(one: Comparison) -> dict[str, int]:
    return {"won": one.won, "tied": one.tied, "lost": one.lost}


def costs(evaluation: Evaluation) -> list[dict[str, str]]:
    """Return what each row takes, in time and in room."""
    chunks = evaluation.counts.get("chunks", 0)
    return [
        {
            "label": row_name(row),
            "latency": "–" if row.latency_ms is None else _milliseconds(row.latency_ms),
            "size": "–" if row.bytes_per_vector is None else f"{row.bytes_per_vector:,} B",
            "whole": "–" if row.bytes_per_vector is None else byte_count(row.bytes_per_vector * chunks),
            "million": "–" if row.bytes_per_vector is None else byte_count(row.bytes_per_vector * 1_000_000),
        }
        for row in evaluation.measurements
    ]


def _milliseconds(time: float) -> str:
    return "< 0.1 ms" if time < 0.1 else f"{time:.2g} ms" if time < 100 else f"{time:,.0f} ms"


def costs_lead(evaluation: Evaluation) -> str:
    """Return what the times and sizes are of."""
    processor = next((text for name, text in evaluation.versions.items() if "process" in name.lower()), "")
    where = f", on {processor}" if processor else ""
    return f"Median time of a query, from its text to its ranking{where}. Sizes are those of the vectors."
