"""A vector index whose chunks are embedded in the context of their document, for the whole life of the document.

Knows LlamaIndex's methods for indexes, which it offers in both forms; must not know how a change is made.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, TypeVar

from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.callbacks import CallbackManager
from llama_index.core.data_structs.data_structs import IndexDict
from llama_index.core.schema import BaseNode, Document, TransformComponent

from ..flow import Flow, arun, run, run_elsewhere
from ..schema import refuse_unknown
from .changes import Changes
from .embedding import PplxEmbedding
from .held import check_synchronous
from .intake import check_documents, contextual_model, options_of, transformations_of
from .turns import Turns

T = TypeVar("T")

_OPTIONS = [*inspect.signature(VectorStoreIndex.__init__).parameters][1:-1]
"""What a `VectorStoreIndex` takes: it ignores everything else without a word."""


class ContextualVectorStoreIndex(Changes):
    """A `VectorStoreIndex` in which every chunk was read together with the rest of its document.

    A document is replaced as a whole, and its new version is embedded before anything of the old one is deleted: what
    cannot be embedded leaves the index as it was. Nodes that are added to a document, or taken from it, move the
    vectors of the others, which are embedded anew. What belongs to a document the index and its vector store are asked,
    never a docstore, which may remember more.

    Calls for the same document run one after the other, in threads and on event loops alike.

    Made by `contextual_index` and `load_contextual_index`; takes what `VectorStoreIndex` takes.

    Args:
        nodes: What to index.
        embed_model: A model whose document side is contextual; by default that of Settings.
        transformations: What documents go through when they are inserted; the embedding model need not be among them.
        callback_manager: LlamaIndex's callbacks.
        **options: As for `VectorStoreIndex`.

    Raises:
        InputTypeError: `embed_model` is no `PplxEmbedding`.
        NotContextualError: The document side was not trained for chunks in context.
    """

    def __init__(
        self,
        nodes: Sequence[BaseNode] | None = None,
        *,
        embed_model: PplxEmbedding | None = None,
        transformations: list[TransformComponent] | None = None,
        callback_manager: CallbackManager | None = None,
        **options: Any,
    ) -> None:
        refuse_unknown(options, _OPTIONS)
        self._turns = Turns()
        super().__init__(
            nodes=nodes,
            embed_model=contextual_model(embed_model),
            transformations=transformations_of(transformations),
            callback_manager=callback_manager,
            **options,
        )

    @classmethod
    def from_documents(
        cls,
        documents: Sequence[Document],
        storage_context: StorageContext | None = None,
        show_progress: bool = False,
        callback_manager: CallbackManager | None = None,
        transformations: list[TransformComponent] | None = None,
        **options: Any,
    ) -> ContextualVectorStoreIndex:
        """Split documents, embed the chunks of each together, and index them; see `contextual_index`."""
        check_documents(documents)
        index = cls(
            **{"index_struct": IndexDict(), **options},
            storage_context=storage_context,
            show_progress=show_progress,
            callback_manager=callback_manager,
            transformations=transformations,
        )
        index._do("index_construction", index._replace(documents, {}, {}))
        return index

    @classmethod
    async def afrom_documents(
        cls, documents: Sequence[Document], *, show_progress: bool = False, **options: Any
    ) -> ContextualVectorStoreIndex:
        """`from_documents` without blocking the event loop while it splits and embeds."""
        check_documents(documents)
        index = cls(**{"index_struct": IndexDict(), **options}, show_progress=show_progress)
        await index._ado("index_construction", index._replace(documents, {}, {}))
        return index

    def build_index_from_nodes(self, nodes: Sequence[BaseNode], **insert_kwargs: Any) -> IndexDict:
        """Build the index, embedding bare nodes document by document; called by the constructor."""
        self._index_struct = self.index_struct_cls()
        self._do("index_construction", self._insert_nodes(nodes, insert_kwargs))
        return self._index_struct

    def insert_nodes(self, nodes: Sequence[BaseNode], **insert_kwargs: Any) -> None:
        """Insert nodes; bare ones are embedded together with what is indexed of their documents.

        Args:
            nodes: Nodes; those that have an embedding keep it. One whose id is indexed replaces the one there.
            **insert_kwargs: Passed to the vector store.

        Raises:
            InputError: A document cannot be embedded; the index is as it was.

        Warns:
            ContextWarning: A document is indexed already, and its other nodes cannot be read or replaced.
        """
        self._do("insert_nodes", self._insert_nodes(nodes, insert_kwargs))

    async def ainsert_nodes(self, nodes: Sequence[BaseNode], **insert_kwargs: Any) -> None:
        """`insert_nodes` without blocking the event loop while it embeds."""
        await self._ado("insert_nodes", self._insert_nodes(nodes, insert_kwargs))

    def insert(self, document: Document, **insert_kwargs: Any) -> None:
        """Insert a document, in place of what is indexed under its id; see `refresh_ref_docs`."""
        self._do("insert", self._replace([document], insert_kwargs, {}))

    async def ainsert(self, document: Document, **insert_kwargs: Any) -> None:
        """`insert` without blocking the event loop while it embeds."""
        await self._ado("insert", self._replace([document], insert_kwargs, {}))

    def update_ref_doc(self, document: Document, **update_kwargs: Any) -> None:
        """Replace a document as a whole; see `refresh_ref_docs`."""
        self._do("update_ref_doc", self._replace([document], *options_of(update_kwargs)))

    async def aupdate_ref_doc(self, document: Document, **update_kwargs: Any) -> None:
        """`update_ref_doc` without blocking the event loop while it embeds."""
        await self._ado("update_ref_doc", self._replace([document], *options_of(update_kwargs)))

    def refresh_ref_docs(self, documents: Sequence[Document], **update_kwargs: Any) -> list[bool]:
        """Index the documents that are new or have changed, each in place of its old version.

        All of them are checked before any is embedded, and each is embedded before its old version is deleted.

        Args:
            documents: All documents that may have changed.
            **update_kwargs: `insert_kwargs` and `delete_kwargs` for the vector store.

        Returns:
            For each document whether it was indexed.

        Raises:
            InputError: Documents cannot be embedded: the message names all of them, and the index is as it was. Or the
                vector store cannot delete what has changed.
        """
        return self._do("refresh_ref_docs", self._refresh(documents, update_kwargs))

    async def arefresh_ref_docs(self, documents: Sequence[Document], **update_kwargs: Any) -> list[bool]:
        """`refresh_ref_docs` without blocking the event loop while it embeds."""
        return await self._ado("refresh_ref_docs", self._refresh(documents, update_kwargs))

    def delete_ref_doc(self, ref_doc_id: str, delete_from_docstore: bool = False, **delete_kwargs: Any) -> None:
        """Delete a document; a later refresh with it indexes it again.

        Args:
            ref_doc_id: The document's id.
            delete_from_docstore: Whether its nodes go from the docstore, too, as far as no other index has them.
            **delete_kwargs: Passed to the vector store.

        Raises:
            InputError: The vector store cannot delete.
        """
        self._do("delete_ref_doc", self._delete(ref_doc_id, delete_kwargs, in_docstore=delete_from_docstore))

    async def adelete_ref_doc(self, ref_doc_id: str, delete_from_docstore: bool = False, **delete_kwargs: Any) -> None:
        """`delete_ref_doc` without blocking the event loop."""
        await self._ado("delete_ref_doc", self._delete(ref_doc_id, delete_kwargs, in_docstore=delete_from_docstore))

    def delete_nodes(self, node_ids: list[str], delete_from_docstore: bool = False, **delete_kwargs: Any) -> None:
        """Delete nodes; the others of their documents, which had read them, are embedded anew.

        Args:
            node_ids: The nodes' ids.
            delete_from_docstore: Whether they go from the docstore, too.
            **delete_kwargs: Passed to the vector store.

        Raises:
            InputError: The vector store cannot delete.
        """
        self._do("delete_nodes", self._delete_nodes(node_ids, delete_kwargs, in_docstore=delete_from_docstore))

    async def adelete_nodes(
        self, node_ids: list[str], delete_from_docstore: bool = False, **delete_kwargs: Any
    ) -> None:
        """`delete_nodes` without blocking the event loop while it embeds."""
        await self._ado("delete_nodes", self._delete_nodes(node_ids, delete_kwargs, in_docstore=delete_from_docstore))

    def _do(self, trace: str, flow: Flow[T]) -> T:
        with self._callback_manager.as_trace(trace):
            if self._use_async:
                return run_elsewhere(flow)
            check_synchronous(self.vector_store)
            return run(flow)

    async def _ado(self, trace: str, flow: Flow[T]) -> T:
        with self._callback_manager.as_trace(trace):
            return await arun(flow)
