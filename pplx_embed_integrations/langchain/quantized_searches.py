"""Searching a table of codes as LangChain has it: similarity, diversity, words and meaning together.

Knows LangChain's search calls and which search of the table each goes to; must not know LanceDB or writing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from langchain_core.documents import Document

from ..flow import in_thread
from ..stores import Hit, Where
from ..stores.codes import codes_of
from ..stores.scores import diversify, fuse
from .quantized_documents import QuantizedDocuments
from .quantized_intake import to_document

Codes = npt.NDArray[Any]

_POOL = 4
"""Each of the two rankings of a hybrid search is so many times as long as what is wanted, and 20 at least."""


class QuantizedSearches(QuantizedDocuments):
    """The searching half of `QuantizedVectorStore`."""

    def _codes(self, query: str) -> Codes:
        return self._embeddings.biencoder.encode_query(query, quantization="int8")

    async def _acodes(self, query: str) -> Codes:
        return await self._embeddings.biencoder.aencode_query(query, quantization="int8")

    def _hits(self, codes: Codes, k: int, filter: Where | None, **options: Any) -> list[Hit]:
        return self._table.search(codes, k=k, where=filter, **options)

    def similarity_search_with_score(
        self, query: str, k: int = 4, filter: Where | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Find the chunks nearest to a query.

        Args:
            query: The query.
            k: How many.
            filter: `{"year": {"$gt": 1840}, "lang": "en"}`, or SQL; see `stores.filters.condition`.
            **kwargs: `oversampling`, `by`, `probes`, `exact`; see `ChunkTable.search`.

        Returns:
            Chunks, best first, with their cosine in [-1, 1].
        """
        return _scored(self._hits(self._codes(query), k, filter, **kwargs))

    async def asimilarity_search_with_score(
        self, query: str, k: int = 4, filter: Where | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """`similarity_search_with_score` without blocking the event loop."""
        codes = await self._acodes(query)
        return _scored(await in_thread(lambda: self._hits(codes, k, filter, **kwargs)))

    def similarity_search(self, query: str, k: int = 4, filter: Where | None = None, **kwargs: Any) -> list[Document]:
        """Find the chunks nearest to a query; see `similarity_search_with_score`."""
        return [document for document, _ in self.similarity_search_with_score(query, k, filter, **kwargs)]

    async def asimilarity_search(
        self, query: str, k: int = 4, filter: Where | None = None, **kwargs: Any
    ) -> list[Document]:
        """`similarity_search` without blocking the event loop."""
        return [document for document, _ in await self.asimilarity_search_with_score(query, k, filter, **kwargs)]

    def similarity_search_by_vector(
        self, embedding: list[float], k: int = 4, filter: Where | None = None, **kwargs: Any
    ) -> list[Document]:
        """Find the chunks nearest to a vector: codes of `encode_query`, or what `embed_query` gives.

        Raises:
            InputError: The vector is no form of codes.
        """
        return [to_document(hit) for hit in self._hits(_query_codes(embedding), k, filter, **kwargs)]

    async def asimilarity_search_by_vector(
        self, embedding: list[float], k: int = 4, filter: Where | None = None, **kwargs: Any
    ) -> list[Document]:
        """`similarity_search_by_vector` without blocking the event loop."""
        return await in_thread(lambda: self.similarity_search_by_vector(embedding, k, filter, **kwargs))

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return lambda cosine: (1.0 + cosine) / 2.0

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Where | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Find chunks near a query and unlike each other.

        Args:
            query: The query.
            k: How many.
            fetch_k: How many nearest ones to choose among.
            lambda_mult: 1 for relevance alone, 0 for diversity alone.
            filter: A condition.
            **kwargs: As for `similarity_search_with_score`.
        """
        return self._diverse(self._codes(query), k, fetch_k, lambda_mult, filter, **kwargs)

    async def amax_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Where | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """`max_marginal_relevance_search` without blocking the event loop."""
        codes = await self._acodes(query)
        return await in_thread(lambda: self._diverse(codes, k, fetch_k, lambda_mult, filter, **kwargs))

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Where | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """`max_marginal_relevance_search` for a vector; see `similarity_search_by_vector`."""
        return self._diverse(_query_codes(embedding), k, fetch_k, lambda_mult, filter, **kwargs)

    async def amax_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Where | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """`max_marginal_relevance_search_by_vector` without blocking the event loop."""
        codes = _query_codes(embedding)
        return await in_thread(lambda: self._diverse(codes, k, fetch_k, lambda_mult, filter, **kwargs))

    def _diverse(
        self, codes: Codes, k: int, fetch_k: int, lambda_mult: float, filter: Where | None, **options: Any
    ) -> list[Document]:
        found = self._hits(codes, max(k, fetch_k), filter, **options)
        rows = np.stack([hit.vector for hit in found if hit.vector is not None]) if found else codes[None][:0]
        return [to_document(found[row]) for row in diversify(codes, rows, k=k, diversity=1.0 - lambda_mult)]

    def hybrid_search(
        self, query: str, k: int = 4, filter: Where | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Find chunks by meaning and by words, the two rankings fused by reciprocal ranks.

        Args:
            query: The query.
            k: How many.
            filter: A condition.
            **kwargs: As for `similarity_search_with_score`.

        Returns:
            Chunks, best first, with their fused score, which says nothing beyond the order.
        """
        return self._fused(query, self._codes(query), k, filter, **kwargs)

    async def ahybrid_search(
        self, query: str, k: int = 4, filter: Where | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """`hybrid_search` without blocking the event loop."""
        codes = await self._acodes(query)
        return await in_thread(lambda: self._fused(query, codes, k, filter, **kwargs))

    def _fused(
        self, query: str, codes: Codes, k: int, filter: Where | None, **options: Any
    ) -> list[tuple[Document, float]]:
        pool = max(_POOL * k, 20)
        rankings = [
            self._hits(codes, pool, filter, **options),
            self._table.search_text(query, k=pool, where=filter),
        ]
        found = {hit.id: hit for ranking in rankings for hit in ranking}
        fused = fuse([[hit.id for hit in ranking] for ranking in rankings])
        return [(to_document(found[each]), score) for each, score in list(fused.items())[:k]]

    def search(self, query: str, search_type: str, **kwargs: Any) -> list[Document]:
        """Search by `"similarity"`, `"similarity_score_threshold"`, `"mmr"` or `"hybrid"`."""
        if search_type == "hybrid":
            return [document for document, _ in self.hybrid_search(query, **kwargs)]
        return super().search(query, search_type, **kwargs)

    async def asearch(self, query: str, search_type: str, **kwargs: Any) -> list[Document]:
        """`search` without blocking the event loop."""
        if search_type == "hybrid":
            return [document for document, _ in await self.ahybrid_search(query, **kwargs)]
        return await super().asearch(query, search_type, **kwargs)


def _query_codes(embedding: Any) -> Codes:
    vector = np.asarray(embedding)
    return vector if vector.dtype in (np.int8, np.uint8) else codes_of(vector[None], what="the query's vector")[0]


def _scored(found: list[Hit]) -> list[tuple[Document, float]]:
    return [(to_document(hit), hit.score) for hit in found]
