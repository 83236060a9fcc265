"""Everything the page shows, in the order in which it does, as plain values.

Knows findings, figures and their wording; must not know HTML.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..results import METRICS, Evaluation
from .findings import EVERYDAY, Findings, level_name
from .leaving_out import LeaveOneOut
from .plot import Plot, draw, main_of
from .questions import buckets
from .series import Series, row_name, series_of
from .tables import costs, costs_lead, differences, table
from .text import signed, span


@dataclass(frozen=True)
class Page:
    """What the template fills in; see there."""

    version: str
    collection: str
    counts: list[str]
    headline: tuple[str, str]
    verdicts: list[str]
    bars: list[dict[str, Any]]
    metric: str
    ranked: str
    series: list[Series]
    wide: Plot | None
    narrow: Plot | None
    plot_text: str
    plot_note: str
    tables: list[dict[str, Any]]
    differences: dict[str, Any] | None
    buckets: list[dict[str, Any]]
    explained: bool
    complete: bool
    costs: list[dict[str, str]]
    costs_lead: str
    command: str
    settings: list[tuple[str, str]]
    notes: tuple[str, ...]


def view(evaluation: Evaluation, *, version: str, explain: LeaveOneOut | None = None) -> Page:
    """Arrange an evaluation for the page."""
    findings = Findings(evaluation)
    series = series_of(findings.rows)
    colours = {row.label: one.colour for one in series for row in one.rows}
    wide, narrow = (
        draw(series, level=findings.level, **shape) if series else None
        for shape in ({"size": (1120, 500)}, {"size": (360, 380), "letters": True})
    )
    return Page(
        version=version,
        collection=evaluation.collection,
        counts=[f"{count:,} {name}" for name, count in evaluation.counts.items() if count],
        headline=findings.headline,
        verdicts=_verdicts(findings),
        bars=list(_bars(findings)),
        metric=METRICS[0],
        ranked=level_name(findings.level),
        series=series,
        wide=wide,
        narrow=narrow,
        plot_text=_plot_text(findings, series),
        plot_note=_plot_note(series),
        tables=[table(evaluation, level, findings) for level in reversed(evaluation.levels)],
        differences=differences(findings, colours),
        buckets=buckets(findings, explain=explain),
        explained=explain is not None,
        complete=len(evaluation.questions) >= findings.asked,
        costs=costs(evaluation),
        costs_lead=costs_lead(evaluation),
        command=str(evaluation.settings.get("command", "")),
        settings=_settings(evaluation),
        notes=evaluation.notes,
    )


def _verdicts(findings: Findings) -> list[str]:
    said = [findings.verdict] if findings.verdict else []
    best = findings.strongest_plain
    if best and findings.pair:
        one = findings.compare(findings.pair[0], best, metric=METRICS[0])
        interval = f" (95 % interval {span(one.low, one.high)})" if one else ""
        difference = f"; the row in context differs from it by {signed(one.difference)}{interval}" if one else ""
        said.append(
            f"The strongest row without context at this size is {row_name(best)}, with {METRICS[0]} "
            f"{best.means[findings.level][METRICS[0]]:.3f}{difference}."
        )
    return said


def _bars(findings: Findings) -> Iterator[dict[str, Any]]:
    if findings.pair is None:
        return
    for metric, name in ((EVERYDAY, "Among the first three"), (METRICS[0], f"{METRICS[0]}, question by question")):
        one = findings.compare(*findings.pair, metric=metric)
        if one is None or not one.won + one.lost + one.tied:
            continue
        parts = [("won", one.won, "better in context"), ("tied", one.tied, "equal"), ("lost", one.lost, "better plain")]
        yield {
            "name": name,
            "difference": f"{signed(one.difference)} ({span(one.low, one.high)})",
            "told": f"{name}: {one.won} questions better in context, {one.tied} equal, {one.lost} better plain",
            "parts": [{"css": css, "count": count, "text": text} for css, count, text in parts],
        }


def _plot_text(findings: Findings, series: Sequence[Series]) -> str:
    told = []
    for one in series:
        best = max(one.rows, key=lambda row: row.means[findings.level].get(METRICS[0], 0.0))
        size = "no vectors" if best.bytes_per_vector is None else f"{best.bytes_per_vector:,} bytes"
        told.append(f"{one.name}: at best {best.means[findings.level].get(METRICS[0], 0.0):.3f} with {size}")
    return f"{METRICS[0]} by the bytes of one stored vector. {'; '.join(told)}. The table below has every figure."


def _plot_note(series: Sequence[Series]) -> str:
    whiskers = f"The whiskers are 95 % intervals, drawn for {series[main_of(series)].name}; " if series else ""
    dashed = any(row.bytes_per_vector is None for one in series for row in one.rows)
    lines = " A dashed line is a row that stores no vectors." if dashed else ""
    return f"{whiskers}the numbers beside its points are dimensions. The table has the intervals of all rows.{lines}"


def _settings(evaluation: Evaluation) -> list[tuple[str, str]]:
    settings = [(name.replace("_", " "), value) for name, value in evaluation.settings.items() if name != "command"]
    return [(name, str(value)) for name, value in (*settings, *evaluation.versions.items()) if value is not None]
