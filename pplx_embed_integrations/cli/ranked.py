"""An evaluation as tables of 80 columns: what each row is, then how well it does, beside the first one.

Knows columns and numbers' widths; must not know how anything is measured.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..evaluation import Evaluation, Measurement
from ..evaluation.results import Level
from .table import table
from .terminal import wrapped

_WIDTH = 79
_METRICS = ("hit@1", "hit@3", "recall@10", "nDCG@10")
_ROW, _NUMBER, _BESIDE, _COUNTS = "searched with", "#", "nDCG@10 beside row 1", "won/lost/tied"
_WHAT = (_NUMBER, _ROW, "chunks", "vector", "bytes", "ms")
_EXPLAINED = (
    "bytes: of one stored vector. ms: median time of one query, embedded and searched exactly. Beside row 1: the "
    "difference and its 95 % interval (paired bootstrap over the questions), and on how many questions the row is "
    "better, worse and equal."
)
_CHUNKS = (
    "recall@10: the share of the right chunks. A chunk is right if it holds half of a judged passage, or half of it "
    "lies in one."
)
_DOCUMENTS = "A document's score is that of its best chunk."


def ranked(evaluation: Evaluation) -> str:
    """Lay out an evaluation for the terminal.

    Returns:
        A table of the rows, one of the figures for each level, and what the columns mean.
    """
    rows = evaluation.measurements
    parts = [table(_WHAT, [_what(number, row) for number, row in enumerate(rows, 1)], right="#,bytes,ms")]
    for level in reversed(evaluation.levels):
        questions = len(next(iter(rows[0].values[level].values())))
        asked = f"{questions} questions" if questions > 1 else "1 question"
        header = [_NUMBER, *_METRICS, _BESIDE, _COUNTS]
        figures = [_figures(evaluation, level, number, row) for number, row in enumerate(rows, 1)]
        low, high = rows[0].intervals[level]["nDCG@10"]
        parts.append(
            f"By {level.removesuffix('s')}, {asked}; nDCG@10 of row 1: 95 % interval {low:.3f} to {high:.3f}\n\n"
            f"{table(header, figures, right=','.join((_NUMBER, *_METRICS, _COUNTS)))}"
        )
    told = [_EXPLAINED, _DOCUMENTS, *([_CHUNKS] if "chunks" in evaluation.levels else [])]
    return "\n\n".join([*parts, "\n".join(line for text in told for line in wrapped(text, _WIDTH))])


def _what(number: int, row: Measurement) -> list[object]:
    models = row.label if row.query_model is None else f"{row.query_model} → {row.document_model}"
    vector = "" if row.form is None else f"{row.dimensions} {row.form}"
    return [
        number,
        row.query_model or row.label if row.query_model == row.document_model else models,
        "in context" if row.contextual else "plain",
        vector,
        "" if row.bytes_per_vector is None else row.bytes_per_vector,
        _ms(row.latency_ms),
    ]


def _figures(evaluation: Evaluation, level: Level, number: int, row: Measurement) -> list[object]:
    means = [f"{row.means[level][metric]:.3f}" for metric in _METRICS]
    return [number, *means, *_beside(evaluation, level, row)]


def _beside(evaluation: Evaluation, level: Level, row: Measurement) -> Iterator[str]:
    first = evaluation.measurements[0]
    if row is first:
        yield from ("", "")
        return
    found = evaluation.comparison(row.label, first.label, level=level)
    difference, low, high = (f"{round(each, 3) + 0.0:+.3f}" for each in (found.difference, found.low, found.high))
    yield f"{difference} ({low} to {high})"
    yield f"{found.won}/{found.lost}/{found.tied}"


def _ms(latency: float | None) -> str:
    return "" if latency is None else "<0.1" if latency < 0.1 else f"{latency:.1f}"
