"""What an index holds of a document: looked up in its own structure and its vector store, and removed from there.

Knows index structures, docstores, vector stores and what these cannot do; must not know models or embedding.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any
from uuid import uuid4

from llama_index.core import StorageContext
from llama_index.core.data_structs.data_structs import IndexDict
from llama_index.core.schema import BaseNode, NodeRelationship
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)

from ..errors import InputError
from ..flow import Flow, either
from .nodes import linked_ids

__all__ = ["Held", "check_synchronous", "keeps_doubles", "rows"]

_AT_ONCE = 100
"""Documents asked for in one query."""
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
        storage: The stores.
        structure: The index structure, the very object that the index changes.
        in_docstore: Whether the index keeps its nodes in the docstore, too.
        delete_kwargs: Passed to the vector store when something is deleted.
    """

    def __init__(
        self,
        storage: StorageContext,
        structure: IndexDict,
        *,
        in_docstore: bool,
        delete_kwargs: dict[str, Any],
    ) -> None:
        self._docstore = storage.docstore
        self._store: BasePydanticVectorStore = storage.vector_store
        self._indices = storage.index_store
        self._structure = structure
        self._delete_kwargs = delete_kwargs
        self._tried = False
        self.store_name = type(self._store).__name__
        self.in_docstore = in_docstore or not self._store.stores_text
        #: Whether the store deletes single nodes; if not, it deletes documents.
        self.by_node = type(self._store).delete_nodes is not BasePydanticVectorStore.delete_nodes

    def nodes_of(self, document_ids: Collection[str]) -> Flow[list[BaseNode] | None]:
        """Find the nodes of documents; None where the store can neither be asked nor the docstore knows."""
        if self._store.stores_text:
            found = yield from self._asked_of(sorted(document_ids))
            if found is not None or not self.in_docstore:
                return found
        wanted: list[str] = []
        mine = set(self._structure.nodes_dict.values())
        for document_id in document_ids:
            info = yield either(self._docstore.get_ref_doc_info, self._docstore.aget_ref_doc_info, document_id)
            wanted += [node_id for node_id in info.node_ids if node_id in mine] if info else []
        return (yield from self._from_docstore(wanted))

    def nodes(self, node_ids: Sequence[str]) -> Flow[list[BaseNode]]:
        """Find those of the nodes that the index holds, as far as it can be asked."""
        if not node_ids:
            return []
        if self._store.stores_text:
            nodes = yield from self._ask(node_ids=list(node_ids))
            if nodes is not None:
                wanted = set(node_ids)
                return [node for node in _bare(nodes) if node.node_id in wanted]
        mine = set(self._structure.nodes_dict.values())
        return (yield from self._from_docstore([node_id for node_id in node_ids if node_id in mine]))

    def namesakes(self, nodes: Iterable[BaseNode]) -> Flow[list[BaseNode]]:
        """Find what the index holds under the ids of nodes.

        Raises:
            InputError: It belongs to another document, whose other nodes have read it.
        """
        homes = {node.node_id: node.ref_doc_id for node in nodes}
        there = yield from self.nodes(list(homes))
        for node in there:
            if node.ref_doc_id not in (None, homes[node.node_id]):
                raise InputError(
                    f"the id {node.node_id!r} is that of a node of document {node.ref_doc_id!r} in the index, and a "
                    "store keeps one node for an id: give the new one its own (an id_func must put the document's id "
                    f"into it), or remove the old one first, index.delete_nodes([{node.node_id!r}])"
                )
        return there

    def _from_docstore(self, node_ids: list[str]) -> Flow[list[BaseNode]]:
        if not node_ids:
            return []
        nodes: list[BaseNode] = yield either(
            self._docstore.get_nodes, self._docstore.aget_nodes, node_ids, raise_error=False
        )
        return nodes

    def _asked_of(self, document_ids: list[str]) -> Flow[list[BaseNode] | None]:
        found: list[BaseNode] = []
        for ids in (document_ids[at : at + _AT_ONCE] for at in range(0, len(document_ids), _AT_ONCE)):
            nodes = yield from self._ask(filters=_any_of(ids, in_sql=_pastes_into_sql(self._store)))
            if nodes is not None and len(nodes) >= _PAGE:  # there may be more that the store kept to itself
                nodes = None if len(ids) == 1 else []
                for one in ids if nodes is not None else []:
                    more = yield from self._asked_of([one])
                    nodes = None if nodes is None or more is None else nodes + more
            if nodes is None:
                return None
            found += nodes
        return _bare(found, document_ids)

    def _ask(self, **query: Any) -> Flow[list[BaseNode] | None]:
        query = {"node_ids": None, **query}
        try:
            nodes: list[BaseNode] = yield either(self._store.get_nodes, self._store.aget_nodes, **query)
        except _LACKING:
            return None
        except Exception as error:  # stores have no common error
            if _says_it_is_not_there(error):
                return []
            raise
        return nodes

    def remove(self, node_ids: Collection[str]) -> Flow[None]:
        """Remove nodes from the vector store."""
        if node_ids:
            yield either(self._store.delete_nodes, self._store.adelete_nodes, list(node_ids), **self._delete_kwargs)

    def check_removing(self) -> Flow[None]:
        """Find out whether the store can delete, before something is added in place of what it could not.

        Raises:
            InputError: The store cannot delete.
            Exception: What the store raises.
        """
        if not self.removable:
            raise InputError(self.cannot_remove)
        if self.by_node and not self._tried:
            yield from self.remove([str(uuid4())])
            self._tried = True

    def remove_document(self, document_id: str) -> Flow[None]:
        """Remove a document from a vector store that keeps text, whether or not it can be asked for nodes."""
        try:
            yield either(self._store.delete, self._store.adelete, document_id, **self._delete_kwargs)
        except Exception as error:  # stores have no common error
            if not _says_it_is_not_there(error):
                raise

    def forget(self, node_ids: Collection[str], *, in_docstore: bool = True) -> Flow[None]:
        """Forget nodes that were removed: in the structure, and in the docstore where no other index has them."""
        for text_id, node_id in list(self._structure.nodes_dict.items()):
            if node_id in node_ids:
                self._structure.delete(text_id)
        if in_docstore and self.in_docstore:
            others = self._held_by_others()
            for node_id in node_ids:
                if node_id not in others:
                    yield either(
                        self._docstore.delete_document, self._docstore.adelete_document, node_id, raise_error=False
                    )

    def forget_parents(self, nodes: Iterable[BaseNode]) -> Flow[None]:
        """Forget in the docstore what removed nodes were cut from, if it is there."""
        while nodes and self.in_docstore:
            parents = {linked for node in nodes for linked in linked_ids(node, NodeRelationship.PARENT)}
            nodes = yield from self._from_docstore(sorted(parents - self._held_by_others()))
            for node in nodes:
                yield either(
                    self._docstore.delete_document, self._docstore.adelete_document, node.node_id, raise_error=False
                )

    def forget_document(self, document_id: str) -> Flow[None]:
        """Forget in the docstore all that came from a document, parents included, and that no other index has."""
        info = yield either(self._docstore.get_ref_doc_info, self._docstore.aget_ref_doc_info, document_id)
        kept = self._held_by_others()
        node_ids = info.node_ids if info is not None else []
        for node_id in [node_id for node_id in node_ids if node_id not in kept]:
            yield either(self._docstore.delete_document, self._docstore.adelete_document, node_id, raise_error=False)
        if node_ids and kept.isdisjoint(node_ids):
            yield either(self._docstore.delete_ref_doc, self._docstore.adelete_ref_doc, document_id, raise_error=False)

    def forget_hash(self, document_id: str) -> Flow[None]:
        """Forget that a document was indexed, so that a refresh will index it again."""
        yield either(self._docstore.delete_document, self._docstore.adelete_document, document_id, raise_error=False)

    def _held_by_others(self) -> set[str]:
        structures = self._indices.index_structs()
        others = (one for one in structures if one.index_id != self._structure.index_id and isinstance(one, IndexDict))
        return {node_id for other in others for node_id in other.nodes_dict.values()}

    @property
    def removable(self) -> bool:
        """Whether nodes can be removed from the vector store."""
        names = {base.__name__ for base in type(self._store).__mro__}
        return "FaissVectorStore" not in names

    @property
    def cannot_remove(self) -> str:
        """What to tell somebody who wants to remove nodes from a store that cannot."""
        return (
            f"{self.store_name} cannot delete vectors"
            + ("" if self.removable else ", or gives the numbers of deleted ones out again")
            + ", so a document in it can be neither deleted nor replaced. Build the index anew from all documents, "
            "contextual_index(documents, embed_model=embed_model), or use a store that deletes, such as Qdrant, Chroma "
            "or LlamaIndex's own"
        )


def check_synchronous(store: BasePydanticVectorStore, *, instead: str) -> None:
    """Refuse a blocking call to a store that was given an asynchronous client only.

    Raises:
        InputError: It has no other.
    """
    if type(store).__name__ == "QdrantVectorStore" and store.client is None:
        raise InputError(
            f"QdrantVectorStore has only an asynchronous client: write {instead}, or give it client=QdrantClient(...) "
            "as well"
        )


def keeps_doubles(store: BasePydanticVectorStore) -> bool:
    """Whether a node that is added under an id the store has does not simply replace the one there."""
    return type(store).__name__ not in ("SimpleVectorStore", "QdrantVectorStore", "QuantizedVectorStore")


def rows(store: BasePydanticVectorStore) -> int | None:
    """Return how many vectors are in a store that keeps no text; None where that cannot be known."""
    client = store.client
    if hasattr(client, "ntotal"):
        return int(client.ntotal)
    vectors = getattr(getattr(store, "data", None), "embedding_dict", None)
    return None if vectors is None else len(vectors)


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


def _bare(nodes: Iterable[BaseNode], document_ids: Collection[str] | None = None) -> list[BaseNode]:
    kept = [node for node in nodes if document_ids is None or node.ref_doc_id in document_ids]
    for node in kept:
        node.embedding = None
    return kept


def _says_it_is_not_there(error: Exception) -> bool:
    # A collection or table that does not exist yet holds nothing.
    message = str(error).lower()
    return "column" not in message and _NOT_THERE.search(message) is not None
