"""Questions with what two rows put first, side by side, the words they share, and what context lent.

Knows findings, words and shares; must not know figures, nor HTML.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from ..results import Found, Measurement, Passage, Question
from .findings import Findings
from .leaving_out import LeaveOneOut, Lent, check_scores
from .text import signed
from .words import Piece, frequent, marked

_LONGEST_QUOTE = 600
"""Characters of a passage that are shown."""
_LONGEST_QUESTION = 400
_EQUAL = 4
"""Questions shown of each kind that ended equal."""


def buckets(findings: Findings, *, explain: LeaveOneOut | None = None) -> list[dict[str, Any]]:
    """Return the questions by how they ended, with what both rows put first.

    Args:
        findings: What to read them from.
        explain: Says for the right passages what the others of their document lent.

    Raises:
        InputError: `explain` has other chunks or another embedder than the evaluation.
    """
    if findings.pair is None:
        return []
    right = f"{findings.right} among the first three"
    said = {
        "won": ("Where context helps", f"{right} in context only"),
        "lost": ("Where context hurts", f"{right} without context only"),
        "both": ("Equal: right both ways", f"{right} both ways"),
        "neither": ("Equal: wrong both ways", "nothing right among the first three either way"),
    }
    shown = {
        name: bucket.shown if name in ("won", "lost") else bucket.shown[:_EQUAL]
        for name, bucket in findings.buckets.items()
    }
    telling = _Telling(findings, *findings.pair, explain, [one for questions in shown.values() for one in questions])
    return [
        {
            "name": name,
            "title": said[name][0],
            "lead": f"{bucket.count:,} of {findings.asked:,} questions: {said[name][1]}. {bucket.note}".rstrip(),
            "count": bucket.count,
            "opened": name in ("won", "lost"),
            "questions": [telling.question(one) for one in shown[name]],
        }
        for name, bucket in findings.buckets.items()
    ]


class _Telling:
    """What is said of a question."""

    def __init__(
        self, findings: Findings, ours: Measurement, plain: Measurement, explain: LeaveOneOut | None,
        questions: Sequence[Question],
    ) -> None:  # fmt: skip
        self._ours, self._plain = ours.label, plain.label
        passages = {hit.passage for one in findings.evaluation.questions for hit in one.found.get(self._plain, ())}
        self._without = frequent(passage.text for passage in passages)
        self._lent = self._explained(explain, questions) if explain else {}

    def question(self, one: Question) -> dict[str, Any]:
        """Return what is shown of one."""
        sides = {"ours": one.found.get(self._ours, ()), "plain": one.found.get(self._plain, ())}
        seen = any(hit.right for hits in sides.values() for hit in hits)
        lent = self._lent.get(one.id)
        return {
            "text": one.text if len(one.text) <= _LONGEST_QUESTION else f"{one.text[:_LONGEST_QUESTION]}…",
            "answer": None if seen or not one.answers else self._quote(one.answers[0].text, one.text),
            "lent": lent and self._lending(lent, one.text),
            **{name: self._side(hits, one.text) for name, hits in sides.items()},
        }

    def _explained(self, explain: LeaveOneOut, questions: Sequence[Question]) -> dict[str, Lent]:
        """Explain the first right passage of each question, as the row in context has it, else the other."""
        asked: list[tuple[Question, Passage]] = []
        for one in questions:
            hits = (hit for label in (self._ours, self._plain) for hit in one.found.get(label, ()) if hit.right)
            asked += [(one, hit.passage) for hit in list(hits)[:1]]
        found: dict[str, Lent] = {}
        for (one, passage), lent in zip(asked, explain([(one.text, passage) for one, passage in asked]), strict=True):
            if lent is not None:
                ours, plain = (_hit(one.found.get(label, ()), passage) for label in (self._ours, self._plain))
                check_scores(lent, in_context=ours, alone=plain)
                found[one.id] = lent
        return found

    def _lending(self, lent: Lent, question: str) -> dict[str, Any]:
        most = max(max(lent.shares), 1e-9)
        from_it = None if lent.most is None else lent.passages[lent.most]
        return {
            "alone": f"{lent.alone:.3f}",
            "in_context": f"{lent.in_context:.3f}",
            "document": lent.passages[0].document,
            "place": lent.place + 1,
            "bars": [
                {"own": place == lent.place, "share": signed(share), "height": round(100 * max(0.0, share) / most)}
                for place, share in enumerate(lent.shares)
            ],
            "most": None if lent.most is None else lent.most + 1,
            "quote": from_it and self._quote(from_it.text, question),
        }

    def _side(self, found: Sequence[Found], question: str) -> dict[str, Any]:
        right = [str(place) for place, hit in enumerate(found, 1) if hit.right]
        return {
            "told": f"right at place {' and '.join(right)}" if right else "none of them right",
            "hits": [
                {
                    "document": hit.passage.document,
                    "right": hit.right,
                    "score": f"score {signed(hit.score).removeprefix('+')}",
                    "quote": self._quote(hit.passage.text, question),
                }
                for hit in found
            ],
        }

    def _quote(self, text: str, question: str) -> dict[str, Any]:
        shown = whole = re.sub(r"\s*\n\s*", "\n", text.strip())
        if len(shown) > _LONGEST_QUOTE:
            shown = shown[:_LONGEST_QUOTE].rsplit(None, 1)[0]
        pieces: list[Piece] = marked(shown, question=question, without=self._without)
        return {"pieces": pieces, "left_out": len(whole) - len(shown)}


def _hit(found: Iterable[Found], passage: Passage) -> Found | None:
    return next((hit for hit in found if hit.passage == passage), None)
