"""What a way to search is, exact search over a matrix, and the ways a pair of models offers.

Knows which pairings, widths and forms are worth a row; must not know judgements, metrics, files or frameworks.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import median
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
from tqdm.auto import tqdm

from ..vectors import Quantization, hamming_distance, quantize
from .results import Measurement

if TYPE_CHECKING:
    from ..biencoder import PplxBiEncoder
    from ..embedder import Embedder

Scores = npt.NDArray[np.float32]

_TIMED = 20
"""Queries that are timed, one by one, after one that is not."""
_BLOCK = 8192
"""Chunks compared at once: bounds the memory of a search."""
_FORMS: dict[Quantization | None, str] = {"int8": "int8", "ubinary": "binary", None: "float32"}


class Searcher(Protocol):
    """One way to search a collection's chunks."""

    @property
    def row(self) -> Measurement:
        """What it is, without figures."""

    def scores(self, queries: slice) -> Scores:
        """Return how close each chunk is to each of these queries: `[queries, chunks]`; minus infinity: not found."""

    def latency_ms(self) -> float | None:
        """Return the median milliseconds of one query, embedding and search; None if that cannot be told."""


def median_ms(work: Callable[[str], object], queries: Sequence[str]) -> float:
    """Return the median milliseconds of some work on the first queries, one by one.

    Example:
        >>> median_ms(len, ["one", "two"]) < 1000
        True
    """
    asked = list(queries[:_TIMED])
    work(asked[0])
    times = []
    for query in asked:
        started = time.perf_counter()
        work(query)
        times.append((time.perf_counter() - started) * 1000)
    return median(times)


def similarity(queries: npt.NDArray[Any], chunks: npt.NDArray[Any]) -> Scores:
    """Return how close every query is to every chunk.

    Args:
        queries: `[queries, dimensions]` float32 of unit length, or packed bits.
        chunks: The same of chunks.

    Returns:
        `[queries, chunks]`: the cosine; for packed bits minus the Hamming distance.

    Example:
        >>> similarity(np.array([[1, 0]]), np.array([[1, 0], [0, 1]])).tolist()
        [[1.0, 0.0]]
    """
    scores = np.empty((len(queries), len(chunks)), dtype=np.float32)
    for start in range(0, len(chunks), _BLOCK):
        block = chunks[start : start + _BLOCK]
        bits = block.dtype == np.uint8
        scores[:, start : start + _BLOCK] = -hamming_distance(queries, block) if bits else queries @ block.T
    return scores


def search_ms(queries: npt.NDArray[Any], chunks: npt.NDArray[Any]) -> float:
    """Return the median milliseconds of an exact search for the first queries, one by one.

    Example:
        >>> search_ms(np.eye(2), np.eye(2)) < 1000
        True
    """
    times = []
    for place in range(min(_TIMED, len(queries))):
        started = time.perf_counter()
        similarity(queries[place : place + 1], chunks)
        times.append((time.perf_counter() - started) * 1000)
    return median(times)


@dataclass(frozen=True)
class PplxSearcher:
    """A pair of models in one width and form."""

    row: Measurement
    index: _Index
    query: Embedder
    queries: npt.NDArray[Any]
    chunks: npt.NDArray[Any]

    def scores(self, queries: slice) -> Scores:
        """Search exactly."""
        return similarity(self.queries[queries], self.chunks)

    def latency_ms(self) -> float:
        """Time embedding and search apart: the first is the same for every form."""
        return search_ms(self.queries, self.chunks) + self.index.embedding_ms(self.query)


def pplx_searchers(
    embedder: PplxBiEncoder, *, queries: Sequence[str], documents: list[list[str]], show_progress: bool = False
) -> Iterator[PplxSearcher]:
    """Yield plain and contextual indexing, the pairings of two models, widths and forms.

    Each text is embedded once per model and mode; widths and forms are cut from the same pooled vectors, as the
    published quantisers are applied after pooling and element by element.

    Args:
        embedder: The query model and the document model.
        queries: What is asked.
        documents: The chunks of each document.
        show_progress: Show a bar for each pass.

    Yields:
        First the pairings at full width in int8, the embedder's own first; then its widths and forms.
    """
    index = _Index(embedder, list(queries), documents, show_progress)
    pairings = list(_pairings(embedder))
    full, smallest = embedder.document.dimension, embedder.document.min_dimension
    for pairing in pairings:
        yield index.searcher(*pairing, full, "int8")
    for dimensions in (full, full // 2, full // 4):
        forms: Sequence[Quantization | None] = (None, "int8", "ubinary")
        for form in forms:
            if dimensions >= smallest and (dimensions, form) != (full, "int8"):
                yield index.searcher(*pairings[0], dimensions, form)


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

    def __init__(
        self, embedder: PplxBiEncoder, queries: list[str], documents: list[list[str]], show_progress: bool
    ) -> None:
        self._names = names_of(embedder)
        self._queries, self._documents, self._show_progress = queries, documents, show_progress
        self._pooled: dict[tuple[int, str], npt.NDArray[np.float32]] = {}
        self._embedding_ms: dict[int, float] = {}

    def searcher(
        self, query: Embedder, document: Embedder, contextual: bool, dimensions: int, form: Quantization | None
    ) -> PplxSearcher:
        # Cosine is an inner product of unit rows: scaled once here, not in every search.
        how: Any = {"dimensions": dimensions, "quantization": form}
        sides = self._side(query, "queries"), self._side(document, "in context" if contextual else "plain")
        left, right = (quantize(side, normalize=form != "ubinary", **how) for side in sides)
        stored = quantize(sides[1][:1], **how)
        names = self._names[id(query)], self._names[id(document)]
        row = Measurement(
            label=f"{names[0]} → {names[1]}, {'in context' if contextual else 'plain'}, {dimensions} {_FORMS[form]}",
            system="pplx-embed",
            query_model=names[0],
            document_model=names[1],
            contextual=contextual,
            dimensions=dimensions,
            form=_FORMS[form],
            bytes_per_vector=stored.nbytes,
        )
        return PplxSearcher(row, self, query, left, right)

    def embedding_ms(self, query: Embedder) -> float:
        if id(query) not in self._embedding_ms:
            self._embedding_ms[id(query)] = median_ms(lambda text: query.encode([text], role="query"), self._queries)
        return self._embedding_ms[id(query)]

    def _side(self, embedder: Embedder, mode: str) -> npt.NDArray[np.float32]:
        key = (id(embedder), mode)
        if key not in self._pooled:
            self._pooled[key] = self._pool(embedder, mode)
        return self._pooled[key]

    def _pool(self, embedder: Embedder, mode: str) -> npt.NDArray[np.float32]:
        if self._show_progress:
            tqdm.write(
                f"{self._names[id(embedder)]}: {'queries' if mode == 'queries' else f'chunks {mode}'}", sys.stderr
            )
        form: Any = {"quantization": None, "show_progress": self._show_progress}
        if mode == "in context":
            return np.concatenate(embedder.encode_documents(self._documents, **form))
        texts = self._queries if mode == "queries" else list(chain.from_iterable(self._documents))
        return embedder.encode(texts, role="query" if mode == "queries" else "document", **form)


def names_of(pair: PplxBiEncoder) -> dict[int, str]:
    """Return what a table calls each side, by the side's `id`; two folders of one name are told apart.

    Example:
        >>> from pplx_embed_integrations import PplxBiEncoder
        >>> list(names_of(PplxBiEncoder("miniature")).values())
        ['miniature-v1', 'miniature-context-v1']
    """
    query, document = pair.query, pair.document
    one, other = _name(query), _name(document)
    if query is not document and one == other:
        return {id(query): f"{one} (queries)", id(document): f"{other} (documents)"}
    return {id(query): one, id(document): other}


def _name(embedder: Embedder) -> str:
    checkpoint = getattr(embedder, "checkpoint", None)
    return repr(embedder) if checkpoint is None else str(checkpoint.name)
