"""QuantizedVectorStore: a LlamaIndex vector store that keeps codes as codes.

Knows LlamaIndex's vector stores, its queries and how a node is written as metadata; must not know LanceDB.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import BaseNode, MetadataMode, NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)
from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict

from ..documents import CHUNK_KEY, CHUNKS_KEY, DOCUMENT_KEY, VERSION_KEY
from ..errors import InputError, InputTypeError
from ..flow import in_thread
from ..stores import Chunk, ChunkTable, Hit, Keep
from ..stores.adapter import TableStore, table_for
from ..stores.codes import codes_of
from ..stores.filters import condition, one_of
from ..stores.scores import diversify, fuse
from .embedding import PplxEmbedding
from .quantized_filters import condition_of

_WORDS = (VectorStoreQueryMode.TEXT_SEARCH, VectorStoreQueryMode.SPARSE)
_FUSED = (VectorStoreQueryMode.HYBRID, VectorStoreQueryMode.SEMANTIC_HYBRID)
_MODES = (VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.MMR, *_WORDS, *_FUSED)
_PREFETCH = 4


class QuantizedVectorStore(TableStore, BasePydanticVectorStore):
    """A vector store in one LanceDB table that keeps int8 codes and packed bits, a tenth to a quarter of float32.

    LlamaIndex hands vectors over as floats. Those of a `PplxEmbedding` with `quantization="int8"` (or `"binary"`) are
    codes divided by their length, and are turned back into exactly these codes; floats that are no codes are refused.

    Args:
        uri: A folder, or `s3://…`, `gs://…`, `az://…`.
        embed_model: What the vectors are made by; a new table remembers it, an old one is compared with it. May be left
            out to open a table that is there.
        name: The table's name; a folder may hold several.
        keep: `"both"` (bits to find candidates, codes to rank them), `"int8"` or `"bits"`; by default what the table
            has, and in a new one what the model gives.
        storage_options: LanceDB's options of the object storage.

    Raises:
        InputError: The table was made with another model or width, or the model gives neither codes nor bits.
        InputTypeError: `embed_model` is no `PplxEmbedding`.
        MissingDependencyError: LanceDB is not installed.
        StoreError: The table cannot be opened.

    Example:
        >>> import tempfile
        >>> from llama_index.core import Document
        >>> from pplx_embed_integrations.llama_index import contextual_index
        >>> embed_model = PplxEmbedding("miniature")
        >>> store = QuantizedVectorStore(tempfile.mkdtemp(), embed_model=embed_model)
        >>> ada = Document(text="Ada Lovelace wrote the first program.", id_="ada")
        >>> index = contextual_index([ada], embed_model=embed_model, vector_store=store)
        >>> [found.text for found in index.as_retriever().retrieve("Who wrote a program?")]
        ['Ada Lovelace wrote the first program.']
    """

    stores_text: bool = True
    flat_metadata: bool = False
    uri: str
    name: str = "chunks"
    keep: Keep | None = None
    storage_options: dict[str, str] | None = None

    _table: ChunkTable = PrivateAttr()

    def __init__(
        self,
        uri: str | Path,
        *,
        embed_model: PplxEmbedding | None = None,
        name: str = "chunks",
        keep: Keep | None = None,
        storage_options: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> None:
        options = dict(storage_options) if storage_options else None
        super().__init__(**{"uri": str(uri), "name": name, "keep": keep, "storage_options": options, **fields})
        if embed_model is None:
            self._table = ChunkTable(uri, name=name, keep=keep, storage_options=storage_options)
            return
        if not isinstance(embed_model, PplxEmbedding):
            raise InputTypeError(f"embed_model must be a PplxEmbedding, not {type(embed_model).__name__}")
        pair = embed_model.biencoder
        self._table = table_for(
            uri,
            identity=pair.document.identity(),
            dimensions=pair.dimension,
            quantization=pair.quantization,
            model="PplxEmbedding",
            name=name,
            keep=keep,
            storage_options=storage_options,
        )

    @classmethod
    def class_name(cls) -> str:
        """Name of the class in LlamaIndex's dictionaries."""
        return "QuantizedVectorStore"

    @property
    def client(self) -> Any:
        """LanceDB's own table."""
        return self._table.lance

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Store nodes with their embeddings, in place of nodes of the same ids.

        Args:
            nodes: Nodes that have an embedding.
            **kwargs: Have no meaning here.

        Returns:
            Their ids.

        Raises:
            InputError: A node has no embedding, or one that is no form of int8 codes.
        """
        if not nodes:
            return []
        bare = [node.node_id for node in nodes if node.embedding is None]
        if bare:
            raise InputError(f"node {bare[0]!r} has no embedding; index it with embed_model, which sets one")
        codes = codes_of(np.array([node.embedding for node in nodes]), what="the nodes' embeddings")
        self._table.upsert(
            [_chunk(node) for node in nodes],
            codes,
            documents=[node.ref_doc_id or node.node_id for node in nodes],
            positions=[int(getattr(node, "start_char_idx", None) or 0) for node in nodes],
        )
        return [node.node_id for node in nodes]

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """`add` without blocking the event loop."""
        return await in_thread(self.add, nodes)

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Delete a document's nodes."""
        self._table.delete(documents=[ref_doc_id])

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """`delete` without blocking the event loop."""
        await in_thread(self.delete, ref_doc_id)

    def delete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """Delete nodes by id, by filters, or those of the ids that match the filters.

        Raises:
            InputError: Neither is given.
        """
        where = condition_of(filters)
        if node_ids is None and where is None:
            raise InputError("say which nodes to delete: node_ids= or filters=; all of them: clear()")
        self._table.delete(ids=node_ids, where=where)

    async def adelete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """`delete_nodes` without blocking the event loop."""
        await in_thread(self.delete_nodes, node_ids, filters)

    def clear(self) -> None:
        """Delete all nodes."""
        self._table.delete(where="true")

    async def aclear(self) -> None:
        """`clear` without blocking the event loop."""
        await in_thread(self.clear)

    def get_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """Read nodes, without embeddings: by id in the order of the ids, else document by document in reading order."""
        return [_node(hit) for hit in self._table.get(ids=node_ids, where=condition_of(filters))]

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """`get_nodes` without blocking the event loop."""
        return await in_thread(self.get_nodes, node_ids, filters)

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Search.

        Args:
            query: Modes `default`, `mmr`, `hybrid` (`alpha` is the weight of the vectors, 0.5 by default) and
                `text_search`; with `filters`, `node_ids` and `doc_ids`.
            **kwargs: `oversampling`, `by`, `probes` and `exact` as for `ChunkTable.search`; `mmr_prefetch_k`.

        Returns:
            Nodes, best first, with their cosine; in `hybrid` mode with a fused score, in `text_search` with BM25's.

        Raises:
            InputError: The mode is unknown, or the query has no embedding, or one that is no form of codes.
        """
        prefetch = kwargs.pop("mmr_prefetch_k", None)
        where = self._where(query)
        k = query.similarity_top_k
        if query.mode not in _MODES:
            known = ", ".join(mode.value for mode in _MODES)
            raise InputError(f"the query mode {query.mode!r} is not there; use {known}")
        if query.mode in _WORDS:
            return _result(self._table.search_text(_words(query), k=query.sparse_top_k or k, where=where))
        codes = self._codes(query)
        if query.mode == VectorStoreQueryMode.MMR:
            found = self._table.search(codes, k=max(k, prefetch or _PREFETCH * k), where=where, **kwargs)
            balance = 0.5 if query.mmr_threshold is None else query.mmr_threshold
            rows = np.stack([hit.vector for hit in found if hit.vector is not None]) if found else codes[None][:0]
            return _result([found[row] for row in diversify(codes, rows, k=k, diversity=1.0 - balance)])
        if query.mode in _FUSED:
            return self._fused(query, codes, where, kwargs)
        return _result(self._table.search(codes, k=k, where=where, **kwargs))

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """`query` without blocking the event loop."""
        return await in_thread(lambda: self.query(query, **kwargs))

    def _fused(
        self, query: VectorStoreQuery, codes: Any, where: str | None, options: dict[str, Any]
    ) -> VectorStoreQueryResult:
        k = query.similarity_top_k
        rankings = [
            self._table.search(codes, k=k, where=where, **options),
            self._table.search_text(_words(query), k=query.sparse_top_k or k, where=where),
        ]
        alpha = 0.5 if query.alpha is None else query.alpha
        found = {hit.id: hit for ranking in rankings for hit in ranking}
        fused = fuse([[hit.id for hit in ranking] for ranking in rankings], [alpha, 1.0 - alpha])
        best = list(fused.items())[: query.hybrid_top_k or k]
        return _result([found[each] for each, _ in best], scores=[score for _, score in best])

    def _codes(self, query: VectorStoreQuery) -> Any:
        if query.query_embedding is None:
            raise InputError(f"a query in mode {query.mode.value!r} needs query_embedding")
        given = np.asarray(query.query_embedding)
        if given.dtype in (np.int8, np.uint8):
            return given
        return codes_of(given[None], what="the query's embedding")[0]

    def _where(self, query: VectorStoreQuery) -> str | None:
        parts = [condition(condition_of(query.filters))]
        parts += [one_of("id", query.node_ids)] if query.node_ids else []  # empty where an index keeps no list
        parts += [one_of("document", query.doc_ids)] if query.doc_ids else []
        return " AND ".join(part for part in parts if part) or None


def _words(query: VectorStoreQuery) -> str:
    if not query.query_str:
        raise InputError(f"a query in mode {query.mode.value!r} needs query_str, the words to look for")
    return query.query_str


def _chunk(node: BaseNode) -> Chunk:
    metadata = node_to_metadata_dict(node, remove_text=True)
    return Chunk(node.node_id, node.get_content(metadata_mode=MetadataMode.NONE), metadata)


def _node(hit: Hit) -> BaseNode:
    if "_node_content" in hit.metadata:
        return metadata_dict_to_node(hit.metadata, text=hit.text)
    # A chunk that LangChain or a cluster stored: its stamp is nothing that a language model should read.
    stamp = [key for key in hit.metadata if key in (DOCUMENT_KEY, VERSION_KEY, CHUNK_KEY, CHUNKS_KEY)]
    return TextNode(
        id_=hit.id,
        text=hit.text,
        metadata=hit.metadata,
        excluded_embed_metadata_keys=stamp,
        excluded_llm_metadata_keys=stamp,
        relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=hit.document)},
    )


def _result(found: list[Hit], *, scores: list[float] | None = None) -> VectorStoreQueryResult:
    return VectorStoreQueryResult(
        nodes=[_node(hit) for hit in found],
        similarities=scores if scores is not None else [hit.score for hit in found],
        ids=[hit.id for hit in found],
    )
