"""QuantizedVectorStore: a LangChain vector store that keeps codes as codes, and whole documents as documents.

Knows LangChain's `VectorStore` and which of its calls goes to which search; must not know LanceDB.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStoreRetriever
from typing_extensions import Self

from ..errors import InputError
from ..stores import ChunkTable, Hit, Keep, Stats, Where
from ..stores.codes import codes_of
from ..stores.scores import diversify, fuse
from ..threads import in_thread
from .adding import resolve_embeddings
from .embeddings import PplxEmbeddings
from .intake import keys_of, to_document
from .quantized_documents import QuantizedDocuments, refuse

__all__ = ["QuantizedRetriever", "QuantizedVectorStore"]

Codes = npt.NDArray[Any]

_POOL = 4
"""Each of the two rankings of a hybrid search is so many times as long as what is wanted, and 20 at least."""


class QuantizedVectorStore(QuantizedDocuments):
    """A vector store in one LanceDB table that keeps int8 codes and packed bits, a tenth to a quarter of float32.

    Whole documents go in with `index(documents, splitter=…)` or `add_documents(documents, splitter=…)`, each chunk
    embedded in the context of its document. `index` skips documents that are there unchanged and replaces the others as
    a whole; no record manager is needed. Texts that go in without a splitter or a key stand for themselves.

    Args:
        embeddings: What embeds; with `quantization="int8"`, or `"binary"` for `keep="bits"`.
        uri: A folder, or `s3://…`, `gs://…`, `az://…`.
        name: The table's name; a folder may hold several.
        keep: `"both"` (bits to find candidates, codes to rank them), `"int8"` or `"bits"`; by default what the table
            has, and in a new one what the embeddings give.
        storage_options: LanceDB's options of the object storage.

    Raises:
        InputError: The table was made with another model or width, or the embeddings give neither codes nor bits.
        InputTypeError: The embeddings are no PplxEmbeddings.
        MissingDependencyError: LanceDB is not installed.
        StoreError: The table cannot be opened.

    Example:
        >>> import tempfile
        >>> store = QuantizedVectorStore(PplxEmbeddings("miniature"), tempfile.mkdtemp())
        >>> ada = Document("Ada Lovelace wrote notes. She called it a science.", id="ada")
        >>> store.index([ada], splitter=lambda text: text.split(". "))["num_added"]
        2
        >>> store.index([ada], splitter=lambda text: text.split(". "))["num_skipped"]
        2
        >>> store.similarity_search("Who wrote notes?", k=1)[0].page_content
        'Ada Lovelace wrote notes'
    """

    def __init__(
        self,
        embeddings: PplxEmbeddings,
        uri: str | Path,
        *,
        name: str = "chunks",
        keep: Keep | None = None,
        storage_options: Mapping[str, str] | None = None,
    ) -> None:
        self._embeddings = resolve_embeddings(self, embeddings)
        forms = {"int8": ("both", "int8"), "binary": ("bits",)}.get(str(self._embeddings.quantization), ())
        if not forms or (keep is not None and keep not in forms):
            raise InputError(
                f"keep={keep!r} does not go with PplxEmbeddings(quantization={self._embeddings.quantization!r}): "
                'codes, keep="both" or "int8", want quantization="int8", and keep="bits" wants quantization="binary"'
            )
        self._table = ChunkTable(
            uri,
            name=name,
            made_by=_made_by(self._embeddings),
            dimensions=self._embeddings.biencoder.dimension,
            keep=keep or (None if "both" in forms else "bits"),
            storage_options=storage_options,
        )
        if self._table.record.keep not in forms:
            raise InputError(
                f"{self._table!r} does not go with PplxEmbeddings(quantization={self._embeddings.quantization!r})"
            )

    @property
    def embeddings(self) -> PplxEmbeddings:
        """What the store embeds with."""
        return self._embeddings

    @property
    def table(self) -> ChunkTable:
        """The table itself: searches by codes, versions, LanceDB's own table."""
        return self._table

    def delete(
        self, ids: list[str] | None = None, *, documents: Any = None, filter: Where | None = None, **kwargs: Any
    ) -> bool:
        """Delete chunks.

        Args:
            ids: Their ids.
            documents: Names of whole documents in place of ids, as `group_by` or `Document.id` gave them.
            filter: A condition in place of them, or besides.
            **kwargs: Refused.

        Returns:
            True. Without any argument everything is deleted, as LangChain has it.
        """
        refuse(kwargs)
        if ids is None and documents is None and filter is None:
            self._table.delete(where="true")
        else:
            keys = None if documents is None else keys_of(documents)
            self._table.delete(ids=ids, documents=keys, where=filter)
        return True

    async def adelete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        """`delete` without blocking the event loop."""
        return await in_thread(lambda: self.delete(ids, **kwargs))

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Read chunks, in the order of their ids; those that are not there are left out."""
        return [to_document(hit) for hit in self._table.get(ids=ids)]

    async def aget_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """`get_by_ids` without blocking the event loop."""
        return await in_thread(self.get_by_ids, ids)

    def get_documents(self, documents: Any = None, *, filter: Where | None = None) -> list[Document]:
        """Read chunks in reading order, document by document.

        Args:
            documents: Names of documents; all of them by default.
            filter: A condition.
        """
        keys = None if documents is None else keys_of(documents)
        return [to_document(hit) for hit in self._table.get(documents=keys, where=filter)]

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

    def as_retriever(self, **kwargs: Any) -> QuantizedRetriever:
        """Return a retriever; `search_type` may be `"hybrid"` as well as LangChain's own."""
        tags = kwargs.pop("tags", None) or [*self._get_retriever_tags()]
        return QuantizedRetriever(vectorstore=self, tags=tags, **kwargs)

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Open a store and add texts, each a document of its own.

        Args:
            texts: The texts.
            embedding: PplxEmbeddings.
            metadatas: One dictionary for each.
            ids: One id for each.
            **kwargs: `uri`, and what else the class takes.
        """
        store = cls._opened(embedding, kwargs)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    @classmethod
    async def afrom_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> Self:
        """`from_texts` without blocking the event loop."""
        store = await in_thread(cls._opened, embedding, kwargs)
        await store.aadd_texts(texts, metadatas, ids=ids)
        return store

    @classmethod
    def _opened(cls, embedding: Any, options: dict[str, Any]) -> Self:
        if "uri" not in options:
            raise InputError('say where the table is to lie: uri="./index", or "s3://bucket/index"')
        return cls(embedding, **options)

    def build_index(self, *, partitions: int | None = None) -> None:
        """Make an index over the bits, for millions of chunks; see `ChunkTable.index`."""
        self._table.index(partitions=partitions)

    def compact(self, **options: Any) -> None:
        """Put small files together and remove old versions; see `ChunkTable.compact`."""
        self._table.compact(**options)

    def stats(self, *, recall_sample: int = 0) -> Stats:
        """Measure the store; see `ChunkTable.stats`."""
        return self._table.stats(recall_sample=recall_sample)


class QuantizedRetriever(VectorStoreRetriever):
    """LangChain's retriever with `search_type="hybrid"` besides."""

    allowed_search_types: ClassVar[Collection[str]] = (*VectorStoreRetriever.allowed_search_types, "hybrid")

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        if self.search_type == "hybrid":
            return self.vectorstore.search(query, "hybrid", **{**self.search_kwargs, **kwargs})
        return super()._get_relevant_documents(query, run_manager=run_manager, **kwargs)

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        if self.search_type == "hybrid":
            return await self.vectorstore.asearch(query, "hybrid", **{**self.search_kwargs, **kwargs})
        return await super()._aget_relevant_documents(query, run_manager=run_manager, **kwargs)


def _made_by(embeddings: PplxEmbeddings) -> dict[str, Any]:
    return dict(json.loads(embeddings.biencoder.document.identity()))


def _query_codes(embedding: Any) -> Codes:
    vector = np.asarray(embedding)
    return vector if vector.dtype in (np.int8, np.uint8) else codes_of(vector[None], what="the query's vector")[0]


def _scored(found: list[Hit]) -> list[tuple[Document, float]]:
    return [(to_document(hit), hit.score) for hit in found]
