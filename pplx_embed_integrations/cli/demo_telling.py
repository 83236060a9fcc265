"""What the demo found, in words, a table and rankings side by side.

Knows the sentences and their layout; must not know how anything is indexed or measured.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import zip_longest

from ..evaluation.results import Evaluation, Found, Question
from .demo_indexes import MODES, STORED, Mode, label
from .table import table
from .terminal import filled, shown, text_width, wrapped

_NARROWEST, _WIDEST = 80, 132
"""Columns that rankings side by side take."""
_METRIC, _PLACES = "hit@3", "nDCG@10"
_WON = 2
"""So many of the questions that only context answers are shown with their rankings."""
_CONTEXT, _PLAIN = (label("LangChain", mode) for mode in MODES)


def told(evaluation: Evaluation, may_be_shown: set[str]) -> str:
    """Return what is printed after the measurement.

    Args:
        evaluation: With the rows of `demo_indexes`.
        may_be_shown: Ids of the questions that may be shown; the others are only counted.
    """
    asked = [question for question in evaluation.questions if question.id in may_be_shown]
    may_be_shown = {question.id for question in asked}
    won = [question for question in asked if _gain(evaluation, question, _METRIC) > 0]
    worst = min(asked, key=lambda question: _gain(evaluation, question, _PLACES))
    parts = [*_headline(evaluation, may_be_shown)]
    if won:
        parts.append(filled("Answered only in context (✓ is the right passage):"))
        parts += [_side_by_side(question) for question in won[:_WON]]
    if _gain(evaluation, worst, _PLACES) < 0:
        parts += [filled("And where context hurts most: the right passage falls back."), _side_by_side(worst)]
    else:
        parts.append(
            filled(
                "Where context hurts: in none of the questions that may be shown does the right passage fall back; "
                "what context loses is among those that are only counted."
            )
        )
    return "\n\n".join([*parts, _stored(evaluation)])


def _headline(evaluation: Evaluation, may_be_shown: set[str]) -> Iterator[str]:
    one = evaluation.comparison(_CONTEXT, _PLAIN, metric=_METRIC, level="chunks")
    total = one.won + one.lost + one.tied
    low, high = (round(total * end) for end in (one.low, one.high))
    counted = {question.id for question in evaluation.questions} - may_be_shown
    halves = [
        f"{_hits(evaluation, _CONTEXT, half)} and {_hits(evaluation, _PLAIN, half)} of {len(half)} that {kind}"
        for half, kind in ((may_be_shown, "may be shown"), (counted, "are only counted"))
    ]
    [other] = [row.label for row in evaluation.measurements if row.label.endswith("on both sides, plain")]
    yield filled(
        f"The right passage is among the first three for {_hits(evaluation, _CONTEXT)} of {total} questions in "
        f"context, {_hits(evaluation, _PLAIN)} plain."
    )
    yield filled(
        f"Context wins {one.won} questions and loses {one.lost}: {one.won - one.lost:+d}, with a 95 % interval of "
        f"{low:+d} to {high:+d} (paired bootstrap). The same in halves, in context and plain: {', '.join(halves)}. "
        f"For comparison, {other}: {_hits(evaluation, other)}; BM25, which compares words: {_hits(evaluation, 'BM25')}."
    )
    yield filled(
        f"LangChain and LlamaIndex give the same three passages in {_alike(evaluation)} of {len(MODES) * total} "
        "rankings."
    )


def _alike(evaluation: Evaluation) -> int:
    return sum(
        [found.passage for found in question.found[label("LangChain", mode)]]
        == [found.passage for found in question.found[label("LlamaIndex", mode)]]
        for question in evaluation.questions
        for mode in MODES
    )


def _hits(evaluation: Evaluation, row: str, among: set[str] | None = None) -> int:
    values = evaluation.measurement(row).values["chunks"][_METRIC]
    return round(sum(value for query, value in values.items() if among is None or query in among))


def _gain(evaluation: Evaluation, question: Question, metric: str) -> float:
    context, plain = (evaluation.measurement(row).values["chunks"][metric] for row in (_CONTEXT, _PLAIN))
    return context[question.id] - plain[question.id]


def _stored(evaluation: Evaluation) -> str:
    rows = []
    for kind in ("LangChain", *STORED):
        context, plain = (evaluation.measurement(label(kind, mode)) for mode in MODES)
        counts = [_hits(evaluation, row.label) for row in (context, plain)]
        store, kept = ("QuantizedVectorStore", kind) if kind in STORED else ("InMemoryVectorStore", "float32")
        rows.append([kept, store, context.bytes_per_vector, *counts, f"{context.latency_ms:.1f}"])
    header = ["kept", "store", "bytes", "in context", "plain", "ms"]
    return "\n\n".join(
        [
            filled(
                "The same questions, and the bytes of a passage's vector in LangChain's store and in the quantised one:"
            ),
            table(header, rows, right=", ".join(header[2:])),
            filled("ms: of a question, the median of embedding it and searching in context, on this machine now."),
        ]
    )


def _side_by_side(question: Question) -> str:
    width = (min(max(shutil.get_terminal_size().columns, _NARROWEST), _WIDEST) - 4) // 2
    columns = [list(_column(mode, question.found[label("LangChain", mode)], width)) for mode in reversed(MODES)]
    lines = [f"  {a}{' ' * (width - text_width(a))}{b}".rstrip() for a, b in zip_longest(*columns, fillvalue="")]
    return "\n".join([question.text, "", *lines])


def _column(mode: Mode, found: tuple[Found, ...], width: int) -> Iterator[str]:
    yield mode
    for rank, each in enumerate(found, 1):
        text = each.passage.text.split("\n\n", 1)[-1]  # without the title, which the line above has
        lines = wrapped(shown(" ".join(text.split())), width - 8)
        yield f"{'✓' if each.right else ' '} {rank}. {each.passage.document}"
        yield from (f"     {line}" for line in [*lines[:1], f"{lines[1]} …" if lines[2:] else "".join(lines[1:])])
