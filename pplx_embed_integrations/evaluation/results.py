"""What an evaluation found: rows, their differences, and every question with what each row answered.

Knows the shape of the results and their JSON; must not know how anything is measured or shown.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from ..errors import InputError

Level = Literal["documents", "chunks"]
"""What is ranked and judged: documents, each by its best chunk, or the chunks themselves."""
LEVELS: tuple[Level, ...] = ("documents", "chunks")
METRICS = ("nDCG@10", "recall@10", "hit@1", "hit@3")
"""Names of the metrics: `hit@k` is 1 where something right is among the first k, else 0."""

_FORMAT = "pplx-embed-evaluation-1"

Means = dict[Level, dict[str, float]]
Intervals = dict[Level, dict[str, tuple[float, float]]]
Values = dict[Level, dict[str, dict[str, float]]]


@dataclass(frozen=True)
class Passage:
    """A part of a document.

    Attributes:
        document: The document's id.
        start: Where the part begins in the document's text as the collection holds it, in characters.
        end: Where it ends, exclusive.
        text: The characters between the two.

    Example:
        >>> Passage("tides", 4, 8, "moon").text
        'moon'
    """

    document: str
    start: int
    end: int
    text: str


@dataclass(frozen=True)
class Found:
    """A chunk that a row ranked, at its place.

    Attributes:
        passage: The chunk.
        score: The row's own measure of closeness: cosine, minus the Hamming distance, or BM25's sum.
        right: Whether it answers the question; where only documents are judged, whether its document does.
    """

    passage: Passage
    score: float
    right: bool


@dataclass(frozen=True)
class Measurement:
    """One way to search, and how well it retrieves.

    Attributes:
        label: Name of the row, the only one of that name in an evaluation.
        system: What searched: `"pplx-embed"`, `"BM25"`, `"LangChain"`, or a name that the caller gave.
        query_model: What embeds queries; None if nothing does.
        document_model: What embeds documents; None if nothing does.
        contextual: Whether the chunks of a document were embedded together.
        dimensions: Width of the vectors; None without vectors.
        form: `"float32"`, `"int8"` or `"binary"` (packed bits); None without vectors.
        bytes_per_vector: Size of one stored vector; None without vectors.
        latency_ms: Median milliseconds of one query, embedding and exact search; None if it was not measured.
        means: For each level the mean of each metric over the questions that are judged there.
        intervals: The same with the 95 % bootstrap interval of each mean.
        values: The same for every question, by its id.
    """

    label: str
    system: str
    query_model: str | None = None
    document_model: str | None = None
    contextual: bool = False
    dimensions: int | None = None
    form: str | None = None
    bytes_per_vector: int | None = None
    latency_ms: float | None = None
    means: Means = field(default_factory=dict)
    intervals: Intervals = field(default_factory=dict)
    values: Values = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """Two rows on the same questions.

    Attributes:
        left: Label of one row.
        right: Label of the other.
        level: What was ranked.
        metric: What was compared.
        difference: Mean of the left row less that of the right.
        low: Lower end of the 95 % paired bootstrap interval of the difference.
        high: Upper end.
        won: Questions on which the left row is better.
        lost: Questions on which the right row is better.
        tied: Questions on which both are equal.
    """

    left: str
    right: str
    level: Level
    metric: str
    difference: float
    low: float
    high: float
    won: int
    lost: int
    tied: int


@dataclass(frozen=True)
class Question:
    """A judged question, and what each row put first.

    Attributes:
        id: Its id in the collection.
        text: The question.
        documents: Ids of the documents that answer it.
        answers: The passages that answer it, as they were judged; empty where only documents are.
        found: By label, the row's best chunks in order, three at most.
    """

    id: str
    text: str
    documents: tuple[str, ...] = ()
    answers: tuple[Passage, ...] = ()
    found: dict[str, tuple[Found, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """Everything that was measured on a collection.

    Attributes:
        collection: Name of the collection.
        counts: Its size: `"documents"`, `"chunks"`, `"questions"`, `"questions with passages"`.
        notes: What a reader should know of the collection, in sentences.
        settings: What the figures depend on besides models: longest chunk, split, resamples, seed and so on.
        versions: Of this package, Python and the libraries, and the processor.
        measurements: The rows, in the order of the table.
        comparisons: Every pair of rows for every level and metric.
        questions: The questions in the order of the collection.

    Example:
        >>> evaluation = Evaluation("tides", measurements=(Measurement("BM25", "BM25"),))
        >>> Evaluation.from_json(evaluation.to_json()) == evaluation
        True
    """

    collection: str
    counts: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    measurements: tuple[Measurement, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    questions: tuple[Question, ...] = ()

    @property
    def levels(self) -> tuple[Level, ...]:
        """The levels that were judged."""
        return tuple(level for level in LEVELS if any(level in row.means for row in self.measurements))

    def measurement(self, label: str) -> Measurement:
        """Return the row of that label.

        Raises:
            InputError: There is none.
        """
        for row in self.measurements:
            if row.label == label:
                return row
        raise InputError(f"no row is called {label!r}; there are: {'; '.join(row.label for row in self.measurements)}")

    def comparison(self, left: str, right: str, *, metric: str = "nDCG@10", level: Level | None = None) -> Comparison:
        """Return two rows compared, in either order; by chunk where chunks are judged, unless `level` says otherwise.

        Raises:
            InputError: They were not compared.
        """
        wanted = level or (self.levels[-1] if self.levels else "documents")
        for each in self.comparisons:
            if (each.level, each.metric) == (wanted, metric) and {each.left, each.right} == {left, right}:
                return each if each.left == left else _turned(each)
        raise InputError(f"{left!r} and {right!r} were not compared by {metric} of {wanted}")

    def to_json(self) -> str:
        """Return everything as JSON; a passage that several rows found is written once, and pointed at."""
        places: dict[Passage, int] = {}
        questions = [
            {
                "id": question.id,
                "text": question.text,
                "documents": list(question.documents),
                "answers": [places.setdefault(passage, len(places)) for passage in question.answers],
                "found": {
                    label: [
                        {
                            "passage": places.setdefault(each.passage, len(places)),
                            "score": each.score,
                            "right": each.right,
                        }
                        for each in found
                    ]
                    for label, found in question.found.items()
                },
            }
            for question in self.questions
        ]
        content = {
            "format": _FORMAT,
            "collection": self.collection,
            "counts": self.counts,
            "notes": list(self.notes),
            "settings": self.settings,
            "versions": self.versions,
            "measurements": [asdict(row) for row in self.measurements],
            "comparisons": [asdict(each) for each in self.comparisons],
            "questions": questions,
            "passages": [asdict(passage) for passage in places],
        }
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Evaluation:
        """Read what `to_json` wrote.

        Raises:
            InputError: It is something else.
        """
        try:
            content = json.loads(text)
        except ValueError as error:
            raise InputError(f"this is no JSON: {error}") from error
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise InputError(f'this is no evaluation of this version: its "format" is not {_FORMAT!r}')
        passages = [Passage(**entry) for entry in content["passages"]]
        return cls(
            collection=content["collection"],
            counts=content["counts"],
            notes=tuple(content["notes"]),
            settings=content["settings"],
            versions=content["versions"],
            measurements=tuple(_measurement(entry) for entry in content["measurements"]),
            comparisons=tuple(Comparison(**entry) for entry in content["comparisons"]),
            questions=tuple(_questions(content["questions"], passages)),
        )


def _turned(one: Comparison) -> Comparison:
    return replace(
        one,
        left=one.right,
        right=one.left,
        difference=-one.difference,
        low=-one.high,
        high=-one.low,
        won=one.lost,
        lost=one.won,
    )


def _measurement(entry: dict[str, Any]) -> Measurement:
    intervals = {
        level: {metric: (low, high) for metric, (low, high) in metrics.items()}
        for level, metrics in entry["intervals"].items()
    }
    return Measurement(**{**entry, "intervals": intervals})


def _questions(entries: list[dict[str, Any]], passages: list[Passage]) -> Iterator[Question]:
    for entry in entries:
        found = {
            label: tuple(Found(passages[each["passage"]], each["score"], each["right"]) for each in row)
            for label, row in entry["found"].items()
        }
        answers = tuple(passages[place] for place in entry["answers"])
        yield Question(entry["id"], entry["text"], tuple(entry["documents"]), answers, found)
