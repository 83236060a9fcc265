"""BM25 as a way to search: what people have before they have vectors.

Knows bm25s and its tokens; must not know judgements, metrics or models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import MissingDependencyError
from .results import Measurement
from .searching import Scores, median_ms


class BM25Searcher:
    """BM25 over the chunks, by `bm25s` with its defaults: k1 1.5, b 0.75, lower case, English stop words, no stemming.

    A chunk that shares no word with the query is not found.

    Args:
        queries: What is asked.
        chunks: Their texts.

    Raises:
        MissingDependencyError: `bm25s` is not installed.

    Example:
        >>> BM25Searcher(["the moon"], ["Tides follow the moon.", "Ships sail."]).scores(slice(None)) > 0
        array([[ True, False]])
    """

    row = Measurement("BM25", "BM25")

    def __init__(self, queries: Sequence[str], chunks: Sequence[str]) -> None:
        self._library = self.library()
        self._queries = queries
        self._chunks = len(chunks)
        self._index: Any = self._library.BM25()
        tokens = self._library.tokenize(list(chunks), stopwords="en", show_progress=False)
        self._index.index(tokens, show_progress=False)

    @staticmethod
    def library() -> Any:
        """Return `bm25s`, or say that it is missing; worth a call before hours of work.

        Raises:
            MissingDependencyError: It is not installed.
        """
        try:
            import bm25s
        except ImportError:
            raise MissingDependencyError("bm25s", extra="evaluate") from None
        return bm25s

    def scores(self, queries: slice) -> Scores:
        """Score every chunk; see `Searcher.scores`."""
        return np.stack([self._ask(query) for query in self._queries[queries]])

    def latency_ms(self) -> float:
        """Time queries one by one."""
        return median_ms(self._ask, self._queries)

    def _ask(self, query: str) -> Scores:
        [tokens] = self._library.tokenize([query], stopwords="en", return_ids=False, show_progress=False)
        scores = self._index.get_scores(tokens) if tokens else np.zeros(self._chunks)
        return np.where(scores > 0, scores, -np.inf).astype(np.float32)
