"""What an index holds of a document: looked up in its own structure and its vector store, and removed from there.

Knows index structures, docstores, vector stores and what these cannot do; must not know models or embedding.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any
from uuid import uuid4

from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.data_structs.data_structs import IndexDict
from llama_index.core.schema import BaseNode, NodeRelationship
from llama_index.core.utils import iter_batch
from llama_index.core.vector_stores import FilterOperator, MetadataFilter, MetadataFilters
from llama_index.core.vector_stores.types import BasePydanticVectorStore

from ..errors import InputError
from ..flow import Flow, either
from .nodes import linked_ids

_AT_ONCE = 100
"""Documents asked for in one query."""
_IDS = 1_000
"""Nodes asked for, or removed, by their ids in one call: Chroma takes at most some 32,000."""
_PAGE = 9_000
"""An answer of so many nodes may be cut off: Qdrant's adapter returns at most 9,999, and does not say so."""
_NOT_THERE = re.compile(r"(collection|table|relation|namespace).*(not found|n't exist|not exist|not initialized)", re.S)

#: What stores that lack a method raise in its place.
_LACKING = (NotImplementedError, AttributeError, TypeError)


class Held:
    """The nodes that one index holds, among all that its docstore and its vector store may know.

    A vector store that keeps no text (LlamaIndex's own, FAISS) leaves the nodes to the docstore; which of those are in
    the index, its structure says. Any other store is asked itself.

    Args:
        index: The index.
        insert_kwargs: Passed to the vector store when something is added.
        delete_kwargs: Passed to it when something is deleted.
        forgets: Whether what goes from the index goes from the docstore, too, as far as no other index has it.

    Attributes:
        by_node: Whether the store deletes single nodes; if not, it deletes documents.
        in_docstore: Whether the index keeps its nodes in the docstore.
        keeps_doubles: Whether a node that is added under an id the store has does not simply replace the one there.
        removable: Whether anything can be removed from the store.
        store_name: The name of its class.
    """

    def __init__(
        self,
        index: VectorStoreIndex,
        insert_kwargs: dict[str, Any] | None = None,
        delete_kwargs: dict[str, Any] | None = None,
        *,
        forgets: bool = True,
    ) -> None:
        self._index = index
        self._docstore = index.docstore
        self._store = index.vector_store
        self._structure = index.index_struct
        self._insert_kwargs, self._delete_kwargs = insert_kwargs or {}, delete_kwargs or {}
        self._forgets, self._tried = forgets, False
        self.by_node = type(self._store).delete_nodes is not BasePydanticVectorStore.delete_nodes
        self.in_docstore = index._store_nodes_override or not self._store.stores_text
        self.store_name = type(self._store).__name__
        self.keeps_doubles = self.store_name not in ("SimpleVectorStore", "QdrantVectorStore", "QuantizedVectorStore")
        self.removable = "FaissVectorStore" not in {base.__name__ for base in type(self._store).__mro__}

    # Asking

    def nodes_of(self, document_ids: Iterable[str]) -> Flow[list[BaseNode] | None]:
        """Find the nodes of documents; None where the store can neither be asked nor the docstore knows."""
        if self._store.stores_text:
            found = yield from self._asked_of(sorted(document_ids))
            if found is not None or not self.in_docstore:
                return found
        known: list[str] = []
        for document_id in document_ids:
            info = yield either(self._docstore.get_ref_doc_info, self._docstore.aget_ref_doc_info, document_id)
            known += info.node_ids if info else []
        return (yield from self._from_docstore(self._mine(known)))

    def nodes(self, node_ids: Sequence[str]) -> Flow[list[BaseNode]]:
        """Find those of the nodes that the index holds, as far as it can be asked."""
        if not self._store.stores_text:
            return (yield from self._from_docstore(self._mine(node_ids)))
        wanted, found = set(node_ids), []
        for ids in iter_batch(node_ids, _IDS):
            nodes = yield from self._ask(node_ids=ids)
            if nodes is None:
                return (yield from self._from_docstore(self._mine(node_ids)))
            found += [node for node in nodes if node.node_id in wanted]
        return found

    def before(self, nodes: Iterable[BaseNode], document_ids: Collection[str]) -> Flow[tuple[list[BaseNode], bool]]:
        """Find what the index holds of documents, and under the ids of nodes that come into them.

        Returns:
            The nodes; and whether these are all, as a store that can be asked knows.

        Raises:
            InputError: An id is that of a node of another document, whose other nodes have read it.
        """
        found = yield from self.nodes_of(document_ids)
        known = {node.node_id for node in found or []}
        homes = {node.node_id: node.ref_doc_id for node in nodes if node.node_id not in known}
        namesakes = yield from self.nodes(list(homes))
        for node in namesakes:
            if node.ref_doc_id not in (None, homes[node.node_id]):
                raise InputError(
                    f"the id {node.node_id!r} is that of a node of document {node.ref_doc_id!r} in the index, and a "
                    "store keeps one node for an id: give the new one its own (an id_func must put the document's id "
                    f"into it), or remove the old one first, index.delete_nodes([{node.node_id!r}])"
                )
        return [*(found or []), *namesakes], found is not None

    def _mine(self, node_ids: Iterable[str]) -> list[str]:
        mine = set(self._structure.nodes_dict.values())
        return [node_id for node_id in node_ids if node_id in mine]

    def _from_docstore(self, node_ids: list[str]) -> Flow[list[BaseNode]]:
        docstore = self._docstore
        nodes: list[BaseNode] = yield either(docstore.get_nodes, docstore.aget_nodes, node_ids, raise_error=False)
        return nodes

    def _asked_of(self, document_ids: list[str], at_once: int = _AT_ONCE) -> Flow[list[BaseNode] | None]:
        found: list[BaseNode] = []
        for ids in iter_batch(document_ids, at_once):
            nodes = yield from self._ask(filters=_any_of(ids, in_sql=_pastes_into_sql(self._store)))
            if nodes is not None and len(nodes) >= _PAGE:  # there may be more that the store kept to itself
                nodes = (yield from self._asked_of(ids, at_once=1)) if len(ids) > 1 else None
            if nodes is None:
                return None
            found += [node for node in nodes if node.ref_doc_id in ids]
        return found

    def _ask(self, **query: Any) -> Flow[list[BaseNode] | None]:
        try:
            nodes: list[BaseNode] = yield either(
                self._store.get_nodes, self._store.aget_nodes, **{"node_ids": None, **query}
            )
        except _LACKING:
            return None
        except Exception as error:  # stores have no common error
            if _says_it_is_not_there(error):
                return []
            raise
        for node in nodes:
            node.embedding = None
        return nodes

    # Changing

    def check_removable(self) -> None:
        """Refuse to remove anything from a store that cannot.

        Raises:
            InputError: It cannot.
        """
        if not self.removable:
            raise InputError(
                f"{self.store_name} cannot delete vectors, or gives the numbers of deleted ones out again, so a "
                "document in it can be neither deleted nor replaced. Build the index anew from all documents, "
                "contextual_index(documents, embed_model=embed_model), or use a store that deletes, such as Qdrant, "
                "Chroma or LlamaIndex's own"
            )

    def check_removing(self) -> Flow[None]:
        """Find out whether the store can delete, before something is added in place of what it could not.

        Raises:
            InputError: The store cannot delete.
            Exception: What the store raises.
        """
        self.check_removable()
        if self.by_node and not self._tried:
            yield from self.remove([str(uuid4())])
            self._tried = True

    def add(self, nodes: Sequence[BaseNode]) -> Flow[None]:
        """Store nodes that have a vector, as LlamaIndex does."""
        index = self._index
        yield either(
            index._add_nodes_to_index, index._async_add_nodes_to_index, self._structure, nodes, **self._insert_kwargs
        )

    def remove(self, node_ids: Collection[str]) -> Flow[None]:
        """Remove nodes from the vector store."""
        for ids in iter_batch(node_ids, _IDS):
            yield either(self._store.delete_nodes, self._store.adelete_nodes, ids, **self._delete_kwargs)

    def remove_documents(self, document_ids: Iterable[str]) -> Flow[None]:
        """Remove documents from a vector store that keeps text, whether or not it can be asked for nodes."""
        for document_id in document_ids:
            try:
                yield either(self._store.delete, self._store.adelete, document_id, **self._delete_kwargs)
            except Exception as error:  # stores have no common error
                if not _says_it_is_not_there(error):
                    raise

    def delete(self, document_id: str) -> Flow[None]:
        """Delete a document, and forget that it was indexed, so that a refresh will index it again.

        Raises:
            InputError: The store cannot delete.
        """
        self.check_removable()
        nodes = (yield from self.nodes_of([document_id])) or []
        ids = {node.node_id for node in nodes}
        if self._store.stores_text or not self.by_node:
            yield from self.remove_documents([document_id])
        else:
            yield from self.remove(ids)
        yield from self.forget(ids)
        if self._forgets:  # parents, too
            info = yield either(self._docstore.get_ref_doc_info, self._docstore.aget_ref_doc_info, document_id)
            yield from self._drop(info.node_ids if info else [])
        yield either(self._docstore.delete_document, self._docstore.adelete_document, document_id, raise_error=False)
        yield from self.write_structure()

    def forget(self, node_ids: Collection[str]) -> Flow[None]:
        """Forget nodes that were removed: in the structure, and in the docstore where no other index has them."""
        for text_id, node_id in list(self._structure.nodes_dict.items()):
            if node_id in node_ids:
                self._structure.delete(text_id)
        if self._forgets and self.in_docstore:
            yield from self._drop(node_ids)

    def forget_parents(self, nodes: Iterable[BaseNode]) -> Flow[None]:
        """Forget in the docstore what removed nodes were cut from, if it is there."""
        while nodes and self.in_docstore:
            parents = {linked for node in nodes for linked in linked_ids(node, NodeRelationship.PARENT)}
            nodes = yield from self._from_docstore(sorted(parents - self._held_by_others()))
            yield from self._drop([node.node_id for node in nodes])

    def write_structure(self) -> Flow[None]:
        """Write down what the index holds."""
        store = self._index.storage_context.index_store
        yield either(store.add_index_struct, store.async_add_index_struct, self._structure)

    def _drop(self, node_ids: Iterable[str]) -> Flow[None]:
        """Delete nodes from the docstore that no other index holds."""
        for node_id in set(node_ids) - self._held_by_others():
            yield either(self._docstore.delete_document, self._docstore.adelete_document, node_id, raise_error=False)

    def _held_by_others(self) -> set[str]:
        others = vector_structures(self._index.storage_context)
        mine = self._structure.index_id
        return {node_id for other in others if other.index_id != mine for node_id in other.nodes_dict.values()}


def vector_structures(storage: StorageContext) -> list[IndexDict]:
    """Return what a storage context knows of its vector indexes."""
    return [one for one in storage.index_store.index_structs() if isinstance(one, IndexDict)]


def check_synchronous(store: BasePydanticVectorStore) -> None:
    """Refuse a blocking call to a store that was given an asynchronous client only.

    Raises:
        InputError: It has no other.
    """
    if type(store).__name__ == "QdrantVectorStore" and store.client is None:
        raise InputError(
            "QdrantVectorStore has only an asynchronous client: write await acontextual_index(...), "
            "await index.ainsert(document) and so on, or give it client=QdrantClient(...) as well"
        )


def _any_of(document_ids: list[str], *, in_sql: bool) -> MetadataFilters:
    if in_sql:  # IN also for one: elsewhere what looks like a number is compared as one
        document_ids = [each.replace("'", "''").replace(":", "\\:") for each in document_ids]
    elif len(document_ids) == 1:
        return MetadataFilters(filters=[MetadataFilter(key="doc_id", value=document_ids[0])])
    return MetadataFilters(filters=[MetadataFilter(key="doc_id", value=document_ids, operator=FilterOperator.IN)])


def _pastes_into_sql(store: BasePydanticVectorStore) -> bool:
    """Whether a filter's values become part of an SQL text as they are, in which a colon names a parameter."""
    if type(store).__name__ != "PGVectorStore":
        return False
    probe = MetadataFilter(key="doc_id", value=["it's"], operator=FilterOperator.IN)
    return "it's" in str(store._build_filter_clause(probe))  # type: ignore[attr-defined]


def _says_it_is_not_there(error: Exception) -> bool:
    # A collection or table that does not exist yet holds nothing.
    message = str(error).lower()
    return "column" not in message and _NOT_THERE.search(message) is not None
