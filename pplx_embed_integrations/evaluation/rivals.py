"""Any LangChain `Embeddings` as a way to search: what people have now, on their own questions.

Knows the two methods of that interface; must not know judgements or metrics, nor import the framework.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm.auto import tqdm

from ..errors import EncodingError, InputError
from ..vectors import quantize
from .results import Measurement
from .searching import Scores, search_ms, similarity

_TEXTS_AT_ONCE = 256


class LangChainSearcher:
    """A LangChain `Embeddings` over the chunks, each embedded by itself, searched exactly by cosine.

    Args:
        embeddings: Anything with `embed_documents` and `embed_query`.
        queries: What is asked.
        chunks: Their texts.
        label: What a table calls it; by default its class and, where it tells, its model.
        show_progress: Show a bar while chunks are embedded.

    Raises:
        EncodingError: It gives vectors of several widths, too few, with NaN, or all zeros.
        InputError: It raises an error of its own.

    Example:
        >>> from langchain_core.embeddings import DeterministicFakeEmbedding
        >>> fake = LangChainSearcher(DeterministicFakeEmbedding(size=8), ["one"], ["one", "two"])
        >>> fake.row.label, fake.row.dimensions, fake.row.bytes_per_vector
        ('DeterministicFakeEmbedding', 8, 32)
    """

    def __init__(
        self,
        embeddings: Any,
        queries: Sequence[str],
        chunks: Sequence[str],
        *,
        label: str | None = None,
        show_progress: bool = False,
    ) -> None:
        self._embeddings = embeddings
        self._name = label or label_of(embeddings)
        starts = range(0, len(chunks), _TEXTS_AT_ONCE)
        bar = tqdm(starts, desc=self._name, file=sys.stderr, disable=not show_progress)
        parts = [self._embedded(list(chunks[start : start + _TEXTS_AT_ONCE])) for start in bar]
        self._chunks = self._matrix([row for part in parts for row in part])
        self._times: list[float] = []
        self._queries = self._matrix([self._asked(query) for query in queries])
        if self._queries.shape[1] != self._chunks.shape[1]:
            widths = f"{self._queries.shape[1]} numbers for a query and {self._chunks.shape[1]} for a chunk"
            raise EncodingError(f"{self._name} gives {widths}; they cannot be compared")
        self.row = Measurement(
            label=self._name,
            system="LangChain",
            query_model=self._name,
            document_model=self._name,
            dimensions=self._chunks.shape[1],
            form="float32",
            bytes_per_vector=self._chunks[0].nbytes,
        )

    def scores(self, queries: slice) -> Scores:
        """Search exactly."""
        return similarity(self._queries[queries], self._chunks)

    def latency_ms(self) -> float:
        """Return the median time of embedding a query, as measured when they were, and of searching."""
        embedding = median(self._times[1:] or self._times)  # the first one may load a model
        return search_ms(self._queries, self._chunks) + embedding

    def _embedded(self, texts: list[str]) -> list[list[float]]:
        try:
            rows: list[list[float]] = self._embeddings.embed_documents(texts)
        except Exception as error:
            raise InputError(f"{self._name} failed on chunks: {_told(error)}") from error
        if len(rows) != len(texts):
            raise EncodingError(f"{self._name} gave {len(rows)} vectors for {len(texts)} texts")
        return rows

    def _asked(self, query: str) -> list[float]:
        started = time.perf_counter()
        try:
            vector: list[float] = self._embeddings.embed_query(query)
        except Exception as error:
            raise InputError(f"{self._name} failed on a query: {_told(error)}") from error
        self._times.append((time.perf_counter() - started) * 1000)
        return vector

    def _matrix(self, rows: list[list[float]]) -> npt.NDArray[np.float32]:
        widths = sorted({len(row) for row in rows})
        if len(widths) != 1 or not widths[0]:
            raise EncodingError(f"{self._name} gives vectors of several widths, or none: {widths}")
        matrix = np.array(rows, dtype=np.float32)
        if not np.isfinite(matrix).all() or not matrix.any(axis=1).all():
            raise EncodingError(f"{self._name} gives a vector with NaN or infinite values, or of zeros alone")
        return quantize(matrix, quantization=None, normalize=True)


def label_of(embeddings: Any) -> str:
    """Return the class of an `Embeddings` and, where it tells, its model."""
    name = type(embeddings).__name__
    models = (getattr(embeddings, each, None) for each in ("model_name", "model", "model_id", "repo_id"))
    model = next((each for each in models if isinstance(each, str) and each), None)
    return f"{name} {model.rstrip('/').rsplit('/', 1)[-1]}" if model else name


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
