"""One collection, many ways to search it: rows, and every question with what each row answered.

Knows rankings, metrics and how rows are put together; must not know models, files or how a result is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError, MissingDependencyError
from .chunking import Chunked, Split, cut
from .collection import Collection
from .results import LEVELS, METRICS, Evaluation, Found, Level, Means, Measurement, Passage, Question, Values
from .searching import Searcher
from .statistics import CONFIDENCE, RESAMPLES, SEED, compare

DEPTH = 100
"""How much of a ranking is kept; the metrics look at ten."""
_SHOWN = 3
"""How many chunks of a ranking are kept with their texts."""
_QUERIES_AT_ONCE = 128

Ranking = list[tuple[int, float]]
"""Places in the list of chunks, the best first, each with its score."""


class Study:
    """Measures one way to search after another on the same questions and chunks.

    What is measured stays: `evaluation` may be asked for at any time, also after an interruption.

    Args:
        collection: The documents, queries and judgements.
        split: Cuts a text into chunks; None where the collection brings them.
        name: What a report calls the collection.
        settings: What the figures depend on besides, for a report.
        versions: Of what took part, for a report.

    Raises:
        InputError: No document has a chunk. One that has none is never found.
        MissingDependencyError: `ir_measures` is not installed.

    Example:
        >>> tides = Collection({"a": "Tides.", "b": "Ships."}, {"q": "tides"}, {"q": {"a": 1}})
        >>> study = Study(tides, split=lambda text: [(0, len(text))])
        >>> row = study.rank(Measurement("a store", "LangChain"), {"q": [(("b", 0, 6), 0.7), (("a", 0, 6), 0.6)]})
        >>> row.means["documents"]["hit@1"], row.means["documents"]["hit@3"]
        (0.0, 1.0)
    """

    def __init__(
        self,
        collection: Collection,
        *,
        split: Split | None = None,
        name: str = "collection",
        settings: Mapping[str, Any] | None = None,
        versions: Mapping[str, str] | None = None,
    ) -> None:
        self._metrics = _metrics()
        self.collection = collection
        self.chunked: Chunked = cut(collection, split)
        self._name = name
        self._settings = dict(settings or {})
        self._versions = dict(versions or {})
        self._owner = np.repeat(
            np.arange(len(self.chunked.documents)), np.diff([*self.chunked.starts, len(self.chunked.chunks)])
        )
        self._rows: list[Measurement] = []
        self._found: dict[str, dict[str, tuple[Found, ...]]] = {query: {} for query in collection.queries}

    @property
    def queries(self) -> list[str]:
        """What is asked, in the order of the collection."""
        return list(self.collection.queries.values())

    def measure(self, searchers: Iterable[Searcher]) -> Iterator[Measurement]:
        """Measure ways to search, one after the other.

        A document's score is that of its best chunk. Of equal scores the earlier chunk of the collection comes first.

        Yields:
            The row of each, without the intervals, which `evaluation` adds.

        Raises:
            InputError: A row has a label that was measured before.
        """
        for searcher in searchers:
            self._check_label(searcher.row.label)
            chunks, documents = [], []
            for start in range(0, len(self.queries), _QUERIES_AT_ONCE):
                scores = searcher.scores(slice(start, start + _QUERIES_AT_ONCE))
                best = np.maximum.reduceat(scores, self.chunked.starts, axis=1)
                chunks += [_ranked(row) for row in scores]
                documents += [[place for place, _ in _ranked(row)] for row in best]
            yield self._add(replace(searcher.row, latency_ms=searcher.latency_ms()), chunks, documents)

    def rank(
        self, row: Measurement, rankings: Mapping[str, Sequence[tuple[tuple[str, int, int] | Passage, float]]]
    ) -> Measurement:
        """Add a row from rankings that something else made, such as a framework's vector store.

        A document's place is that of its first chunk in the ranking.

        Args:
            row: What made them, without figures.
            rankings: For each query id the chunks, the best first, each with its score: a passage, or document id,
                start and end, exactly as in `chunked.chunks`. A query without a ranking found nothing.

        Returns:
            The row with its figures.

        Raises:
            InputError: A query is not in the collection, a passage is not one of its chunks or comes twice, or the
                label was used before.
        """
        self._check_label(row.label)
        places = {(each.document, each.start, each.end): place for place, each in enumerate(self.chunked.chunks)}
        if unknown := [query for query in rankings if query not in self.collection.queries]:
            raise InputError(f"{row.label}: query {unknown[0]!r} is not in the collection")
        chunks: list[Ranking] = []
        for query in self.collection.queries:
            ranking: Ranking = []
            for passage, score in rankings.get(query, ()):
                key = (passage.document, passage.start, passage.end) if isinstance(passage, Passage) else passage
                if key not in places:
                    raise InputError(f"{row.label}: {key!r}, found for query {query!r}, is no chunk of the collection")
                ranking.append((places[key], float(score)))
            if len(dict(ranking)) < len(ranking):
                raise InputError(f"{row.label}: a chunk was found twice for query {query!r}")
            chunks.append(ranking[:DEPTH])
        documents = [list(dict.fromkeys(int(self._owner[place]) for place, _ in ranking)) for ranking in chunks]
        return self._add(row, chunks, documents)

    def evaluation(self) -> Evaluation:
        """Return what was measured until now, every pair of rows compared."""
        rows, comparisons = list(self._rows), []
        for level in self._levels:
            table = {
                row.label: {name: list(values.values()) for name, values in row.values[level].items()} for row in rows
            }
            intervals, compared = compare(table, level=level)
            comparisons += compared
            if intervals:
                rows = [replace(row, intervals={**row.intervals, level: intervals[row.label]}) for row in rows]
        return Evaluation(
            collection=self._name,
            counts={
                "documents": len(self.collection.documents),
                "chunks": len(self.chunked.chunks),
                "questions": len(self.collection.queries),
                "questions with passages": len(self.collection.passages),
            },
            notes=(*self.collection.notes, *self.chunked.notes),
            settings={**self._settings, "resamples": RESAMPLES, "seed": SEED, "confidence": CONFIDENCE},
            versions=self._versions,
            measurements=tuple(rows),
            comparisons=tuple(comparisons),
            questions=tuple(self._questions()),
        )

    @property
    def _levels(self) -> tuple[Level, ...]:
        return LEVELS if self.collection.passages else LEVELS[:1]

    def _check_label(self, label: str) -> None:
        if any(label == row.label for row in self._rows):
            raise InputError(f"there is a row called {label!r} already; every row needs a name of its own")

    def _add(self, row: Measurement, chunks: list[Ranking], documents: list[list[int]]) -> Measurement:
        ids = list(self.collection.queries)
        by_document = {
            query: {self.chunked.documents[place]: -float(rank) for rank, place in enumerate(ranking)}
            for query, ranking in zip(ids, documents, strict=True)
        }
        by_chunk = {
            query: {str(place): -float(rank) for rank, (place, _) in enumerate(ranking)}
            for query, ranking in zip(ids, chunks, strict=True)
        }
        values: Values = {"documents": self._values(self.collection.judgements, by_document)}
        if self.collection.passages:
            judged = {
                query: {str(place): grade for place, grade in grades.items()}
                for query, grades in self.chunked.judgements.items()
            }
            values["chunks"] = self._values(judged, by_chunk)
        means: Means = {
            level: {name: float(np.mean(list(each.values()))) for name, each in metrics.items()}
            for level, metrics in values.items()
        }
        measured = replace(row, values=values, means=means)
        for query, ranking in zip(ids, chunks, strict=True):
            self._found[query][row.label] = tuple(self._shown(query, ranking[:_SHOWN]))
        self._rows.append(measured)
        return measured

    def _values(
        self, judgements: Mapping[str, Mapping[str, int]], run: Mapping[str, Mapping[str, float]]
    ) -> dict[str, dict[str, float]]:
        """Return each metric's value for every judged query; one that found nothing has 0."""
        values = {name: dict.fromkeys(judgements, 0.0) for name in METRICS}
        asked = {query: run[query] for query in judgements}
        names = {measure: name for name, measure in self._metrics.items()}
        calc = _library().iter_calc(list(self._metrics.values()), judgements, asked)
        for each in calc:
            values[names[each.measure]][each.query_id] = float(each.value)
        return values

    def _shown(self, query: str, ranking: Ranking) -> Iterator[Found]:
        for place, score in ranking:
            chunk = self.chunked.chunks[place]
            by_chunk = self.chunked.judgements.get(query)
            grade = (
                self.collection.judgements[query].get(chunk.document, 0) if by_chunk is None else by_chunk.get(place, 0)
            )
            yield Found(chunk, score, grade > 0)

    def _questions(self) -> Iterator[Question]:
        for query, text in self.collection.queries.items():
            documents = (each for each, grade in self.collection.judgements[query].items() if grade > 0)
            passages = (each for each, grade in self.collection.passages.get(query, {}).items() if grade > 0)
            yield Question(query, text, tuple(documents), tuple(passages), dict(self._found[query]))


def _ranked(scores: npt.NDArray[np.float32]) -> Ranking:
    last = np.partition(scores, -DEPTH)[-DEPTH] if len(scores) > DEPTH else -np.inf
    near = np.flatnonzero((scores >= last) & np.isfinite(scores))  # in the collection's order, which decides ties
    order = near[np.argsort(-scores[near], kind="stable")[:DEPTH]]
    return [(int(place), float(scores[place])) for place in order]


def _library() -> Any:
    try:
        import ir_measures
    except ImportError:
        raise MissingDependencyError("ir_measures", extra="evaluate") from None
    return ir_measures


def _metrics() -> dict[str, Any]:
    library = _library()
    measures = (library.nDCG @ 10, library.R @ 10, library.Success @ 1, library.Success @ 3)
    return dict(zip(METRICS, measures, strict=True))
