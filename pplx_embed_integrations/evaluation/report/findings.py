"""What an evaluation comes to: the two rows that show context, the sentence, and the questions on which they differ.

Knows results and how to say a difference fairly; must not know how a page looks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..results import Comparison, Evaluation, Found, Level, Measurement, Question
from .series import row_name
from .text import signed

EVERYDAY = "hit@3"
"""The metric of the sentence and of the questions: what a reader of three passages would see."""


def level_name(level: Level) -> str:
    """Return what is ranked on a level, in the singular.

    Example:
        >>> level_name("chunks")
        'passage'
    """
    return "passage" if level == "chunks" else "document"


@dataclass(frozen=True)
class Bucket:
    """Questions that ended alike.

    Attributes:
        name: `"won"`, `"lost"`, `"both"` (right in both rows) or `"neither"`.
        count: How many there are, those included of which the evaluation holds figures alone.
        shown: The first of those that it holds, the clearest first.
        note: What they have in common, counted; empty if there is nothing to say.
    """

    name: str
    count: int
    shown: tuple[Question, ...]
    note: str = ""


class Findings:
    """Reads an evaluation for what matters first.

    Args:
        evaluation: The results.
        most: How many questions to show of each kind.
    """

    def __init__(self, evaluation: Evaluation, *, most: int = 12) -> None:
        self.evaluation = evaluation
        self._most = most
        self.level: Level = evaluation.levels[-1] if evaluation.levels else "documents"
        self.rows = [row for row in evaluation.measurements if self.level in row.means]

    @cached_property
    def pair(self) -> tuple[Measurement, Measurement] | None:
        """The first row in context, and the row that differs from it in nothing else; None if there are no such two."""
        for row in self.rows:
            if row.contextual:
                for other in self.rows:
                    if not other.contextual and _but_context(row) == _but_context(other):
                        return row, other
        return None

    @cached_property
    def compared(self) -> Comparison | None:
        """The pair by the metric of the sentence; None if it was not compared."""
        return self.compare(*self.pair, metric=EVERYDAY) if self.pair else None

    def compare(self, left: Measurement, right: Measurement, *, metric: str) -> Comparison | None:
        """Return two rows compared, or None if they were not."""
        wanted = {left.label, right.label}
        if any((one.level, one.metric) == (self.level, metric) and {one.left, one.right} == wanted
               for one in self.evaluation.comparisons):  # fmt: skip
            return self.evaluation.comparison(left.label, right.label, metric=metric, level=self.level)
        return None

    @cached_property
    def strongest_plain(self) -> Measurement | None:
        """The best row without context of the same size, if it is better than the counterpart of the row in context."""
        if self.pair is None:
            return None
        ours, counterpart = self.pair
        fair = [row for row in self.rows if not row.contextual]
        best = max((row for row in fair if row.bytes_per_vector in (None, ours.bytes_per_vector)), key=self._quality)
        return best if self._quality(best) > self._quality(counterpart) else None

    def _quality(self, row: Measurement) -> float:
        return row.means[self.level].get("nDCG@10", 0.0)

    @property
    def asked(self) -> int:
        """How many questions are judged on the level."""
        return max((len(row.values.get(self.level, {}).get(EVERYDAY, {})) for row in self.rows), default=0)

    def hits(self, row: Measurement) -> int:
        """Return for how many questions something right is among a row's first three."""
        return round(sum(row.values.get(self.level, {}).get(EVERYDAY, {}).values()))

    @cached_property
    def right(self) -> str:
        """What is looked for: the right passage, or a right one where a question has several."""
        several = any(
            len(one.answers if self.level == "chunks" else one.documents) > 1 for one in self.evaluation.questions
        )
        return f"{'a' if several else 'the'} right {level_name(self.level)}"

    @cached_property
    def headline(self) -> tuple[str, str]:
        """The sentence in two parts: what was found, and how sure it is."""
        what = self.right
        if self.pair and self.compared:
            ours, plain = self.pair
            found = (
                f"In context, {what} is among the first three for {self.hits(ours):,} of {self.asked:,} "
                f"{_plural(self.asked, 'question')}; without context, for {self.hits(plain):,}"
            )
            return found, f"{_points(self.compared.difference)} (95 % interval {_range(self.compared)})"
        if self.rows and self.asked:
            best = max(self.rows, key=self._quality)
            low, high = best.intervals.get(self.level, {}).get(EVERYDAY, (0.0, 1.0))
            among = f"the best of {len(self.rows)} rows, " if len(self.rows) > 1 else ""
            found = (
                f"With {row_name(best)}, {among}{what} is among the first three for {self.hits(best):,} of "
                f"{self.asked:,} {_plural(self.asked, 'question')}"
            )
            return (
                found,
                f"{_percent(self.hits(best) / self.asked)} (95 % interval {_percent(low)} to {_percent(high)})",
            )
        return "No question was judged, so there is nothing to compare", ""

    @cached_property
    def verdict(self) -> str:
        """What the interval allows to be said."""
        if self.compared is None:
            return ""
        one = self.compared
        if one.low > 0:
            return "The whole interval is above zero: on this collection, context helps."
        if one.high < 0:
            return "The whole interval is below zero: on this collection, context hurts."
        asked = "one question" if self.asked == 1 else f"these {self.asked:,} questions"
        return f"The interval holds zero: {asked} cannot tell the two apart."

    @cached_property
    def buckets(self) -> dict[str, Bucket]:
        """The questions by how they ended: won, lost, both, neither."""
        if self.pair is None:
            return {}
        ours, plain = (row.values.get(self.level, {}) for row in self.pair)
        first, second = ours.get(EVERYDAY, {}), plain.get(EVERYDAY, {})
        ends = {key: _end(first[key], second[key]) for key in first if key in second}
        gain = _differences(ours.get("nDCG@10", {}), plain.get("nDCG@10", {}))
        order = {"won": lambda one: -gain(one), "lost": gain}
        found = {}
        for name in ("won", "lost", "both", "neither"):
            count = sum(end == name for end in ends.values())
            known = [one for one in self.evaluation.questions if ends.get(one.id) == name]
            found[name] = Bucket(name, count, self._first(known, order.get(name)), self._note(name, known, count))
        return found

    def _first(self, questions: Sequence[Question], order: Callable[[Question], float] | None) -> tuple[Question, ...]:
        return tuple((sorted(questions, key=order) if order else questions)[: self._most])

    def _note(self, name: str, questions: Sequence[Question], count: int) -> str:
        """Say whether the row that failed was in the wrong document, or only at the wrong passage of the right one."""
        if self.level != "chunks" or name not in ("won", "lost") or self.pair is None:
            return ""
        ours, plain = self.pair
        failed = plain if name == "won" else ours
        firsts = [(question, found[0]) for question in questions if (found := question.found.get(failed.label))]
        if not firsts:
            return ""
        near = sum(_in_right_document(question, first) for question, first in firsts)
        manner = "without context" if name == "won" else "in context"
        another, other = "another passage of the right document", "a passage of another document"
        which = "What came first" if len(firsts) == count else f"Of the {len(firsts)} that are here, what came first"
        if near in (0, len(firsts)):
            return f"{which} {manner} was {another if near else other} every time."
        return f"{which} {manner} was {another} for {near}, and {other} for {len(firsts) - near}."


def _but_context(row: Measurement) -> tuple[object, ...]:
    return row.system, row.query_model, row.document_model, row.dimensions, row.form, row.bytes_per_vector


def _end(ours: float, plain: float) -> str:
    if ours == plain:
        return "both" if ours else "neither"
    return "won" if ours > plain else "lost"


def _differences(ours: dict[str, float], plain: dict[str, float]) -> Callable[[Question], float]:
    return lambda question: ours.get(question.id, 0.0) - plain.get(question.id, 0.0)


def _in_right_document(question: Question, found: Found) -> bool:
    return found.passage.document in {*question.documents, *(answer.document for answer in question.answers)}


def _plural(count: int, one: str) -> str:
    return one if count == 1 else f"{one}s"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _points(difference: float) -> str:
    return f"{signed(100 * difference, 1)} points"


def _range(one: Comparison) -> str:
    return f"{signed(100 * one.low, 1)} to {signed(100 * one.high, 1)}"
