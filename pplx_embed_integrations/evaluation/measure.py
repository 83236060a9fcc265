"""One collection, many ways to index it: each pairing, width and form of vector with its retrieval quality.

Knows exact search over a matrix and which comparisons are worth a row; must not know files, frameworks or stores.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from ..errors import InputError, MissingDependencyError
from ..vectors import Quantization, cosine_similarity, hamming_distance, quantize
from .collection import Collection

if TYPE_CHECKING:
    import numpy.typing as npt

    from ..biencoder import PplxBiEncoder
    from ..embedder import Embedder

__all__ = ["Measurement", "evaluate"]

DEPTH = 100
"""How many documents of a ranking are kept; the metrics look at ten."""
_BLOCK = 8192
"""Chunks compared at once: bounds the memory of a search."""


@dataclass(frozen=True)
class Measurement:
    """One way to index, and how well it retrieves.

    Attributes:
        query_model: Checkpoint of the queries.
        document_model: Checkpoint of the documents.
        contextual: Whether the chunks of a document were embedded together.
        dimensions: Width of the vectors.
        quantization: `"int8"`, `"ubinary"` or `None` (float32).
        bytes_per_vector: Size of one stored vector.
        ndcg_at_10: Mean nDCG@10 over the queries.
        recall_at_10: Mean recall@10 over the queries.
    """

    query_model: str
    document_model: str
    contextual: bool
    dimensions: int
    quantization: Quantization | None
    bytes_per_vector: int
    ndcg_at_10: float
    recall_at_10: float


@dataclass(frozen=True)
class _Side:
    """Pooled vectors of one side, float32: every width and form is derived from them."""

    model: str
    pooled: npt.NDArray[np.float32]
    contextual: bool = False


def evaluate(
    collection: Collection, *, embedder: PplxBiEncoder, split: Callable[[str], list[str]], show_progress: bool = False
) -> Iterator[Measurement]:
    """Measure plain and contextual indexing, the pairings of two models, widths and forms.

    Each text is embedded once per model and mode; widths and forms are cut from the same pooled vectors, as the
    published quantisers are applied after pooling and element by element. A document's score is that of its best
    chunk; the search is exact, by cosine, for packed bits by Hamming distance. The metrics are those of `ir_measures`.

    Args:
        collection: The documents, queries and judgements.
        embedder: The query model and the document model.
        split: Cuts a text into chunks in reading order, without overlap.
        show_progress: Show a bar for each pass.

    Yields:
        First the pairings at full width in int8, the embedder's own first; then its widths and forms.

    Raises:
        InputError: No document has a chunk. One that has none is never found.
        MissingDependencyError: `ir_measures` is not installed.
    """
    chunks = [split(text) for text in collection.documents.values()]
    score = _Scorer(collection, [len(pieces) for pieces in chunks])
    index = _Index(list(collection.queries.values()), chunks, show_progress)
    pairings = list(_pairings(embedder))
    for pairing in pairings:
        queries, documents = index.sides(*pairing)
        yield score(queries, documents, embedder.document.dimension, "int8")
    queries, documents = index.sides(*pairings[0])
    full, smallest = embedder.document.dimension, embedder.document.min_dimension
    for dimensions in (full, full // 2, full // 4):
        forms: Sequence[Quantization | None] = (None, "int8", "ubinary")
        for form in forms:
            if dimensions >= smallest and (dimensions, form) != (full, "int8"):
                yield score(queries, documents, dimensions, form)


def _pairings(embedder: PplxBiEncoder) -> Iterator[tuple[Embedder, Embedder, bool]]:
    """Query model, document model, in context: what was asked for, then what it should be compared with."""
    query, document = embedder.query, embedder.document
    if embedder.contextual:
        yield query, document, True
    yield query, document, False
    if query is not document:
        if embedder.contextual:
            yield document, document, True
        yield document, document, False
        yield query, query, False


class _Index:
    """Pooled vectors by model and mode, each computed once."""

    def __init__(self, queries: list[str], chunks: list[list[str]], show_progress: bool) -> None:
        self._queries, self._chunks, self._show_progress = queries, chunks, show_progress
        self._sides: dict[tuple[int, str], _Side] = {}

    def sides(self, query: Embedder, document: Embedder, contextual: bool) -> tuple[_Side, _Side]:
        return self._side(query, "queries"), self._side(document, "in context" if contextual else "alone")

    def _side(self, encoder: Embedder, mode: str) -> _Side:
        key = (id(encoder), mode)
        if key not in self._sides:
            self._sides[key] = _Side(_name(encoder), self._pool(encoder, mode), mode == "in context")
        return self._sides[key]

    def _pool(self, encoder: Embedder, mode: str) -> npt.NDArray[np.float32]:
        if self._show_progress:
            tqdm.write(f"{_name(encoder)}: {'queries' if mode == 'queries' else f'chunks {mode}'}", sys.stderr)
        form: Any = {"quantization": None, "show_progress": self._show_progress}
        if mode == "in context":
            return np.concatenate(encoder.encode_documents(self._chunks, **form))
        texts = self._queries if mode == "queries" else list(chain.from_iterable(self._chunks))
        return encoder.encode(texts, role="query" if mode == "queries" else "document", **form)


def _name(embedder: Embedder) -> str:
    checkpoint = getattr(embedder, "checkpoint", None)
    return repr(embedder) if checkpoint is None else str(checkpoint.name)


class _Scorer:
    """Ranks a collection's documents by exact search and measures the ranking."""

    def __init__(self, collection: Collection, chunk_counts: list[int]) -> None:
        try:
            import ir_measures
        except ImportError:
            raise MissingDependencyError("ir_measures", extra="evaluate") from None
        self._measures = ir_measures
        self._collection = collection
        # A document without chunks has no score and is never found; it must not take that of its neighbour's.
        found = [(key, count) for key, count in zip(collection.documents, chunk_counts, strict=True) if count]
        if not found:
            raise InputError("no document of the collection has a chunk; look at what split= returns")
        self._documents = [key for key, _ in found]
        self._starts = np.fromiter(accumulate((count for _, count in found[:-1]), initial=0), dtype=np.intp)

    def __call__(
        self, queries: _Side, documents: _Side, dimensions: int, quantization: Quantization | None
    ) -> Measurement:
        left, right = (
            quantize(side.pooled, dimensions=dimensions, quantization=quantization) for side in (queries, documents)
        )
        best = np.maximum.reduceat(_similarity(left, right), self._starts, axis=1)
        ndcg, recall = self._measure(best)
        return Measurement(
            query_model=queries.model,
            document_model=documents.model,
            contextual=documents.contextual,
            dimensions=dimensions,
            quantization=quantization,
            bytes_per_vector=right[0].nbytes,
            ndcg_at_10=ndcg,
            recall_at_10=recall,
        )

    def _measure(self, scores: npt.NDArray[np.float32]) -> tuple[float, float]:
        ranked = np.argsort(-scores, axis=1, kind="stable")[:, :DEPTH]
        run = {
            query: {self._documents[document]: float(row[document]) for document in order}
            for query, order, row in zip(self._collection.queries, ranked, scores, strict=True)
        }
        metrics = [self._measures.nDCG @ 10, self._measures.R @ 10]
        means = self._measures.calc_aggregate(metrics, self._collection.judgements, run)
        return float(means[metrics[0]]), float(means[metrics[1]])


def _similarity(queries: npt.NDArray[Any], chunks: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    scores = np.empty((len(queries), len(chunks)), dtype=np.float32)
    for start in range(0, len(chunks), _BLOCK):
        block = chunks[start : start + _BLOCK]
        closeness = -hamming_distance(queries, block) if block.dtype == np.uint8 else cosine_similarity(queries, block)
        scores[:, start : start + _BLOCK] = closeness
    return scores
