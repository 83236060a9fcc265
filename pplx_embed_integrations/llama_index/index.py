"""A vector index whose chunks were embedded in the context of their document, however they came into it.

Knows indexes, storage contexts and docstores; must not know models or how nodes become documents.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.data_structs.data_structs import IndexDict
from llama_index.core.node_parser import NodeParser, SentenceSplitter
from llama_index.core.schema import BaseNode, Document
from llama_index.core.vector_stores.types import BasePydanticVectorStore

from ..errors import ContextWarning, InputError, InputTypeError, NotContextualError
from .embedding import PplxEmbedding

__all__ = ["ContextualVectorStoreIndex", "contextual_index"]


class ContextualVectorStoreIndex(VectorStoreIndex):
    """A `VectorStoreIndex` that embeds bare nodes as parts of their documents, too.

    `VectorStoreIndex` hands bare nodes to the embedding model as a flat list of texts. This one hands over the nodes;
    and where `insert_nodes` adds to a document that is already indexed, it fetches the document's other nodes from the
    docstore, embeds all of them together and replaces the old vectors, which had not read the new text.

    The docstore holds nodes where the vector store keeps no text (LlamaIndex's default store, FAISS), and elsewhere
    with `store_nodes_override=True`. Where it does not hold them, `insert_nodes` warns.

    Made by `contextual_index`; takes what `VectorStoreIndex` takes.
    """

    def build_index_from_nodes(self, nodes: Sequence[BaseNode], **insert_kwargs: Any) -> IndexDict:
        """Build the index, embedding bare nodes document by document; called by the constructor."""
        bare, ready = _copies_of_bare(nodes)
        self._embed_model(bare)
        return super().build_index_from_nodes(_embedded([*ready, *bare]), **insert_kwargs)

    def insert_nodes(self, nodes: Sequence[BaseNode], **insert_kwargs: Any) -> None:
        """Insert nodes; bare ones are embedded together with what is indexed of their documents.

        Args:
            nodes: Nodes; those that have an embedding keep it.
            **insert_kwargs: Passed to the vector store.

        Warns:
            ContextWarning: A document is already indexed, and its other nodes cannot be fetched or replaced.
        """
        bare, ready = _copies_of_bare(nodes)
        siblings = self._siblings(bare)
        self._embed_model([*siblings, *bare])
        super().insert_nodes(_embedded([*ready, *self._replaced(siblings, bare), *bare]), **insert_kwargs)

    async def ainsert_nodes(self, nodes: Sequence[BaseNode], **insert_kwargs: Any) -> None:
        """`insert_nodes` without blocking the event loop while it embeds."""
        bare, ready = _copies_of_bare(nodes)
        siblings = self._siblings(bare)
        await self._embed_model.acall([*siblings, *bare])
        await super().ainsert_nodes(_embedded([*ready, *self._replaced(siblings, bare), *bare]), **insert_kwargs)

    def _siblings(self, nodes: Sequence[BaseNode]) -> list[BaseNode]:
        given = {node.node_id for node in nodes}
        siblings: list[BaseNode] = []
        for document_id in dict.fromkeys(node.ref_doc_id for node in nodes if node.ref_doc_id):
            info = self.docstore.get_ref_doc_info(document_id)
            wanted = [node_id for node_id in info.node_ids if node_id not in given] if info else []
            found = self.docstore.get_nodes(wanted, raise_error=False)
            siblings += found
            known = info is not None or self.docstore.get_document_hash(document_id) is not None
            if known and (info is None or len(found) < len(wanted)):
                _warn_of_siblings(
                    f"document {document_id!r} is indexed already, and the docstore does not hold its other nodes: the "
                    "new ones are embedded without them. Insert the whole document with index.update_ref_doc(document),"
                    " or make the index with store_nodes_override=True"
                )
        return siblings

    def _replaced(self, siblings: list[BaseNode], nodes: list[BaseNode]) -> list[BaseNode]:
        # A store may keep what it has of an id (Chroma), or take a second (LanceDB): the old vectors go first.
        old = [node.node_id for node in siblings]
        old += [node.node_id for node in nodes if self.docstore.document_exists(node.node_id)]
        if old:
            try:
                self.delete_nodes(old)
            except NotImplementedError:
                _warn_of_siblings(
                    f"{type(self.vector_store).__name__} cannot replace vectors: the nodes indexed before keep vectors "
                    "that have not read the new ones. Use a store that can delete nodes, or build the index anew"
                )
                return []
        return siblings


def contextual_index(
    documents: Sequence[Document],
    *,
    embed_model: PplxEmbedding,
    vector_store: BasePydanticVectorStore | None = None,
    storage_context: StorageContext | None = None,
    splitter: NodeParser | None = None,
    show_progress: bool = False,
    **index_options: Any,
) -> ContextualVectorStoreIndex:
    """Split documents, embed the chunks of each together, and index them in any vector store.

    `insert`, `refresh_ref_docs`, `update_ref_doc` and their async twins on the index that comes back are contextual
    as well.

    Args:
        documents: What to index; none, to open a vector store that is filled already.
        embed_model: A model whose document side is contextual.
        vector_store: Where the vectors go; by default LlamaIndex's store in memory.
        storage_context: The stores together, in place of `vector_store`.
        splitter: Cuts documents into chunks; by default `SentenceSplitter(chunk_overlap=0)`. Chunks should not
            overlap: the model reads the neighbours anyway.
        show_progress: Show bars.
        **index_options: Passed to `VectorStoreIndex`, for example `store_nodes_override=True`.

    Returns:
        The index.

    Raises:
        InputError: Both a vector store and a storage context are given.
        InputTypeError: `documents` holds something else, or `embed_model` is no `PplxEmbedding`.
        NotContextualError: The document side was not trained for chunks in context.

    Example:
        >>> from llama_index.core import Document
        >>> text = "Ada Lovelace wrote the first program. She called her method poetical science."
        >>> index = contextual_index([Document(text=text)], embed_model=PplxEmbedding("miniature"))
        >>> [found.text[:12] for found in index.as_retriever(similarity_top_k=1).retrieve("poetical science")]
        ['Ada Lovelace']
    """
    _check(documents, embed_model)
    if vector_store is not None and storage_context is not None:
        raise InputError("give vector_store or storage_context, not both: a storage context has its own vector store")
    storage = storage_context or StorageContext.from_defaults(vector_store=vector_store)
    split = splitter or SentenceSplitter(chunk_overlap=0)
    nodes = embed_model(split(documents, show_progress=show_progress), show_progress=show_progress)
    index = ContextualVectorStoreIndex(
        nodes=nodes,
        embed_model=embed_model,
        storage_context=storage,
        transformations=[split, embed_model],
        show_progress=show_progress,
        **index_options,
    )
    # After the vectors are stored: a hash without them would let refresh_ref_docs believe they are.
    for document in documents:
        storage.docstore.set_document_hash(document.id_, document.hash)
    return index


def _check(documents: object, embed_model: object) -> None:
    if not isinstance(embed_model, PplxEmbedding):
        raise InputTypeError(f"embed_model must be a PplxEmbedding, not {type(embed_model).__name__}")
    if not embed_model.biencoder.contextual:
        raise NotContextualError(
            f"{embed_model.document_model} was not trained for chunks in context; use a contextual document_model such "
            'as "context-v1-0.6b", or VectorStoreIndex for chunks without context'
        )
    if not isinstance(documents, Sequence) or isinstance(documents, (str, bytes)):
        raise InputTypeError(f"documents must be a list of LlamaIndex documents, not {type(documents).__name__}")
    for position, document in enumerate(documents):
        if not isinstance(document, Document):
            raise InputTypeError(
                f"document {position} must be a LlamaIndex Document, not {type(document).__name__}; "
                "write Document(text=...)"
            )


def _copies_of_bare(nodes: Sequence[BaseNode]) -> tuple[list[BaseNode], list[BaseNode]]:
    # Copies: a vector left on the caller's node would outlive an edit of its text.
    bare = [node.model_copy() for node in nodes if node.embedding is None]
    return bare, [node for node in nodes if node.embedding is not None]


def _embedded(nodes: Sequence[BaseNode]) -> list[BaseNode]:
    # Nodes without text have no vector, and VectorStoreIndex would ask for one.
    return [node for node in nodes if node.embedding is not None]


def _warn_of_siblings(message: str) -> None:
    warnings.warn(message, ContextWarning, stacklevel=4)
