"""QuantizedVectorStore: a LangChain vector store that keeps codes as codes, and whole documents as documents.

Knows how it is opened, read and looked after; must not know LanceDB.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStoreRetriever
from typing_extensions import Self

from ..errors import InputError
from ..flow import in_thread
from ..stores import Keep, Where
from ..stores.adapter import TableStore, table_for
from .embeddings import PplxEmbeddings
from .quantized_documents import refuse
from .quantized_intake import keys_of, to_document
from .quantized_searches import QuantizedSearches
from .resolving import resolve_embeddings


class QuantizedVectorStore(TableStore, QuantizedSearches):
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
        pair = self._embeddings.biencoder
        self._table = table_for(
            uri,
            identity=pair.document.identity(),
            dimensions=pair.dimension,
            quantization=pair.quantization,
            model="PplxEmbeddings",
            name=name,
            keep=keep,
            storage_options=storage_options,
        )

    @property
    def embeddings(self) -> PplxEmbeddings:
        """What the store embeds with."""
        return self._embeddings

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
