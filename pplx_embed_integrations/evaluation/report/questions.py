"""Questions with what two rows put first, side by side, and the words that a question and a passage share.

Knows findings and words; must not know figures, nor HTML.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..results import Found, Measurement, Question
from .findings import Bucket, Findings, level_name
from .text import signed
from .words import Piece, frequent, marked

__all__ = ["buckets"]

_LONGEST_QUOTE = 600
"""Characters of a passage that are shown."""
_EQUAL = 4
"""Questions shown of each kind that ended equal."""


def buckets(findings: Findings) -> list[dict[str, Any]]:
    """Return the questions by how they ended, with what both rows put first."""
    right = f"a right {level_name(findings.level)} among the first three"
    said = {
        "won": ("Where context helps", f"{right} in context only"),
        "lost": ("Where context hurts", f"{right} without context only"),
        "both": ("Equal: right both ways", f"{right} both ways"),
        "neither": ("Equal: wrong both ways", "nothing right among the first three either way"),
    }
    if findings.pair is None:
        return []
    ours, plain = findings.pair
    passages = {hit.passage for one in findings.evaluation.questions for hit in one.found.get(plain.label, ())}
    without = frequent(passage.text for passage in passages)
    found = []
    for name, bucket in findings.buckets.items():
        title, what = said[name]
        found.append(
            {
                "name": name,
                "title": title,
                "lead": f"{bucket.count:,} of {findings.asked:,} questions: {what}. {bucket.note}".rstrip(),
                "count": bucket.count,
                "opened": name in ("won", "lost"),
                "questions": [_question(one, ours, plain, without) for one in _few(bucket)],
            }
        )
    return found


def _few(bucket: Bucket) -> Sequence[Question]:
    return bucket.shown if bucket.name in ("won", "lost") else bucket.shown[:_EQUAL]


def _question(one: Question, ours: Measurement, plain: Measurement, without: frozenset[str]) -> dict[str, Any]:
    sides = {name: one.found.get(row.label, ()) for name, row in (("ours", ours), ("plain", plain))}
    seen = any(hit.right for hits in sides.values() for hit in hits)
    answer = None if seen or not one.answers else _quote(one.answers[0].text, one.text, without)
    return {
        "text": one.text,
        "answer": answer,
        **{name: _side(hits, one.text, without) for name, hits in sides.items()},
    }


def _side(found: Sequence[Found], question: str, without: frozenset[str]) -> dict[str, Any]:
    right = [str(place) for place, hit in enumerate(found, 1) if hit.right]
    return {
        "told": f"right at place {' and '.join(right)}" if right else "none of them right",
        "hits": [
            {
                "document": hit.passage.document,
                "right": hit.right,
                "score": f"score {signed(hit.score).removeprefix('+')}",
                "quote": _quote(hit.passage.text, question, without),
            }
            for hit in found
        ],
    }


def _quote(text: str, question: str, without: frozenset[str]) -> dict[str, Any]:
    shown = text.strip()
    if len(shown) > _LONGEST_QUOTE:
        shown = shown[:_LONGEST_QUOTE].rsplit(None, 1)[0]
    pieces: list[Piece] = marked(shown, question=question, without=without)
    return {"pieces": pieces, "left_out": len(text.strip()) - len(shown)}
