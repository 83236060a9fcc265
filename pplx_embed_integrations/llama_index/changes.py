"""How an index changes: documents and nodes enter, replace one another and leave, the new ones before the old ones go.

Knows the order of embedding, storing and removing; must not know how nodes become documents, nor what stores lack.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from typing import Any, TypeVar

from llama_index.core import VectorStoreIndex
from llama_index.core.schema import BaseNode, Document

from ..errors import InputError, warn
from ..flow import Flow, either, in_worker
from .embedding import PplxEmbedding
from .held import Held
from .intake import hash_of, options_of, transformed, unique, unique_nodes
from .nodes import check_nodes, drop_links, give_sources, keep_order, linked_elsewhere, source_ids
from .turns import Turns

T = TypeVar("T")

logger = logging.getLogger(__name__)

_SAMPLE = 32
"""Unchanged documents that a refresh looks for in the store; if one of them is gone, it looks for all."""


class Changes(VectorStoreIndex):
    """The changes of a `ContextualVectorStoreIndex`, each written once as a flow."""

    _embed_model: PplxEmbedding
    _turns: Turns

    def _alone(self, flow: Flow[T]) -> Flow[T]:
        """Run a flow while no other one runs: structures, docstores and some stores are no more than dictionaries."""
        with (yield from self._turns.take([self])):
            return (yield from flow)

    # Nodes

    def _insert_nodes(self, nodes: Sequence[BaseNode], insert_kwargs: dict[str, Any]) -> Flow[None]:
        # Copies: a vector left on the caller's node would outlive an edit of its text.
        given = [node.model_copy() for node in unique_nodes(check_nodes(nodes))]
        held = Held(self, insert_kwargs)
        give_sources(given, (yield from self._alone(held.nodes(linked_elsewhere(given)))))
        documents = source_ids(given)
        with (yield from self._turns.take(documents)):
            old, complete = yield from self._alone(held.before(given, documents))
            if not complete:
                yield from self._warn_of_unknown(documents)
            yield from self._join(given, old, held)

    def _join(self, given: list[BaseNode], old: list[BaseNode], held: Held) -> Flow[None]:
        new_ids = {node.node_id for node in given}
        grown = source_ids(node for node in given if node.embedding is None)
        left = [node for node in old if node.node_id not in new_ids]
        siblings = [node for node in left if node.ref_doc_id in grown]
        others = [node for node in left if node.ref_doc_id not in grown]
        if others:
            warn(
                f"document {others[0].ref_doc_id!r} is indexed already, and the nodes given came with vectors that "
                "have not read its other nodes, nor these them. Insert bare nodes, or the whole document with "
                "index.update_ref_doc(document)"
            )
        # Nodes that keep their own vector are read with the others all the same.
        read = [
            node if node.embedding is None else node.model_copy(update={"embedding": None})
            for node in given
            if node.embedding is None or node.ref_doc_id in grown
        ]
        yield from self._embed_together([*siblings, *read])
        if siblings and not held.removable:
            warn(
                f"{held.store_name} cannot replace vectors: the nodes indexed before keep vectors that have not read "
                "the new ones. Use a store that can delete nodes, or build the index anew"
            )
            siblings, old = [], []
        yield from self._alone(self._exchange([*siblings, *given], old, grown, held))

    def _embed_together(self, nodes: list[BaseNode]) -> Flow[None]:
        if nodes:
            yield from self._embed_model._embed(nodes, show_progress=self._show_progress)
            keep_order(nodes)

    def _warn_of_unknown(self, document_ids: Iterable[str]) -> Flow[None]:
        docstore = self.docstore
        for document_id in document_ids:
            if (yield either(docstore.get_document_hash, docstore.aget_document_hash, document_id)) is not None:
                warn(
                    f"document {document_id!r} is indexed already, and {type(self.vector_store).__name__} cannot be "
                    "asked for its other nodes: the new ones are embedded without them. Insert the whole document with "
                    "index.update_ref_doc(document), or make the index with store_nodes_override=True"
                )

    def _delete_nodes(self, node_ids: list[str], delete_kwargs: dict[str, Any], *, in_docstore: bool) -> Flow[None]:
        held = Held(self, delete_kwargs=delete_kwargs, forgets=in_docstore)
        gone = set(node_ids)
        documents = source_ids((yield from self._alone(held.nodes(node_ids))))
        with (yield from self._turns.take(documents)):
            yield from self._alone(held.check_removing())
            if not held.by_node and not documents:
                raise InputError(
                    f"{held.store_name} deletes whole documents only, and which one these nodes are of is not known: "
                    "delete it by its id, index.delete_ref_doc(document_id)"
                )
            old = (yield from self._alone(held.nodes_of(documents))) or []
            left = [node for node in old if node.node_id not in gone]
            for node in left:
                drop_links(node, gone)
            yield from self._embed_together(left)
            yield from self._alone(self._exchange(left, old, documents, held, gone))

    def _exchange(
        self, new: list[BaseNode], old: list[BaseNode], documents: Collection[str], held: Held, gone: Iterable[str] = ()
    ) -> Flow[None]:
        """Store new nodes, then remove old ones: whatever fails, what could not be replaced is still there.

        Args:
            new: Nodes with a vector; those without one are not stored.
            old: What the index holds of their documents, whether it is replaced or not.
            documents: The documents of which all old nodes are replaced or go.
            held: What the index holds.
            gone: The ids of nodes that go, unless they are among the new ones.
        """
        old_ids = {node.node_id for node in old}
        empty = {node.node_id for node in new if node.embedding is None}
        new = [node for node in new if node.embedding is not None]
        again = old_ids & {node.node_id for node in new}
        gone = {*gone, *(empty & old_ids)} - again
        lost: list[BaseNode] = []  # what has to make room before the new nodes come
        if again or gone:
            yield from held.check_removing()
            if not held.by_node:
                lost = [node for node in old if node.ref_doc_id in documents]
                yield from held.remove_documents(documents)
            elif held.keeps_doubles:
                lost = [node for node in old if node.node_id in again]
                yield from held.remove(again)
        self._validate_serializable(new)
        try:
            yield from held.add(new)
        except Exception:
            yield from self._restore(lost, old, held)
            raise
        if held.by_node:
            yield from held.remove(gone)
        yield from held.forget(gone)
        yield from held.write_structure()

    def _restore(self, lost: list[BaseNode], old: list[BaseNode], held: Held) -> Flow[None]:
        """Put back what had to make room for nodes that the store then refused."""
        if lost:
            nodes = {node.node_id: node.model_copy(update={"embedding": None}) for node in old}
            try:
                yield from self._embed_model._embed(list(nodes.values()), show_progress=False)
                yield from held.add([nodes[node.node_id] for node in lost])
            except Exception:
                logger.exception("%d nodes could not be put back after an insert that failed", len(lost))

    # Whole documents

    def _replace(
        self, documents: Sequence[Document], insert_kwargs: dict[str, Any], delete_kwargs: dict[str, Any]
    ) -> Flow[None]:
        wanted = unique(documents)
        hashes = {key: hash_of(document) for key, document in wanted.items()}  # before an extractor changes them
        unreadable = [wanted[key] for key, value in hashes.items() if value is None]
        readable = [wanted[key] for key, value in hashes.items() if value is not None]
        show = self._show_progress
        nodes = unique_nodes((yield from transformed(readable, self._transformations, show_progress=show)))
        held = Held(self, insert_kwargs, delete_kwargs)
        if not held.removable and (yield from self._alone(held.nodes_of(wanted))):
            held.check_removable()
        read = yield in_worker(self._embed_model._read, nodes, unreadable)
        for batch in self._embed_model._batches(read, show_progress=show):
            chunks = [node for document in batch for node in document.nodes]
            with (yield from self._turns.take(source_ids(chunks))):
                if any(node.embedding is None for node in chunks):
                    yield from self._embed_model._embed_batch(batch)
                ids = {key: hashes[key] for key in source_ids(chunks) if key in hashes}
                yield from self._alone(self._swap(chunks, ids, held))
        filled = source_ids(node for document in read for node in document.nodes)
        for key in [key for key in wanted if key not in filled]:
            with (yield from self._turns.take([key])):
                yield from self._alone(self._swap([], {key: hashes[key]}, held))

    def _swap(self, chunks: list[BaseNode], hashes: dict[str, str | None], held: Held) -> Flow[None]:
        old, complete = yield from held.before(chunks, hashes)
        if not complete:
            yield from held.remove_documents(hashes)
        if old and not chunks:
            warn(f"document {old[0].ref_doc_id!r} has no text any more: its chunks are deleted")
        for node in chunks:
            source = node.source_node
            if source is not None and source.node_id in hashes:
                source.hash = hashes[source.node_id]
        yield from self._exchange(chunks, old, hashes, held, [node.node_id for node in old])
        yield from held.forget_parents(old)
        docstore = self.docstore
        for key, value in hashes.items():
            # After the vectors are stored: a hash without them would let a refresh believe that they are.
            yield either(docstore.set_document_hash, docstore.aset_document_hash, key, value)

    def _refresh(self, documents: Sequence[Document], update_kwargs: dict[str, Any]) -> Flow[list[bool]]:
        changed = unique(documents)
        same: dict[str, Document] = {}
        for key, document in list(changed.items()):
            known = yield either(self.docstore.get_document_hash, self.docstore.aget_document_hash, key)
            if known is not None and known == hash_of(document):
                same[key] = changed.pop(key)
        for key in (yield from self._lost({key: each for key, each in same.items() if each.text.strip()})):
            changed[key] = same[key]
        yield from self._replace(list(changed.values()), *options_of(update_kwargs))
        return [changed.pop(document.id_, None) is not None for document in documents]

    def _lost(self, documents: dict[str, Document]) -> Flow[set[str]]:
        """Find documents that the docstore remembers and the index does not hold, or holds in another version."""
        document_ids = list(documents)
        sample = document_ids[:: max(1, len(document_ids) // _SAMPLE)]
        held = Held(self)
        for ids in (sample, document_ids):
            found = yield from self._alone(held.nodes_of(ids))
            if found is None:
                return set()
            lost = set(ids) - source_ids(found)
            for source in (node.source_node for node in found):
                if source is not None and source.hash not in (None, documents[source.node_id].hash):
                    lost.add(source.node_id)
            if not lost:
                return set()
        return lost

    def _delete(self, document_id: str, delete_kwargs: dict[str, Any], *, in_docstore: bool) -> Flow[None]:
        held = Held(self, delete_kwargs=delete_kwargs, forgets=in_docstore)
        with (yield from self._turns.take([document_id])):
            yield from self._alone(held.delete(document_id))
