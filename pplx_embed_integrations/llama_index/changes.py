"""How an index changes: documents and nodes enter, replace one another and leave, the new ones before the old ones go.

Knows the order of embedding, storing and removing; must not know how nodes become documents, nor what stores lack.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from typing import Any, TypeVar

from llama_index.core import VectorStoreIndex
from llama_index.core.schema import BaseNode, Document

from ..documents import group
from ..errors import InputError, warn
from ..flow import Flow, either, in_worker
from .embedding import PplxEmbedding, progress_bar
from .held import Held, keeps_doubles
from .intake import check_documents, has_text, hash_of, options_of, transformed, unique, unique_nodes
from .nodes import (
    NodeDocument,
    batches,
    check_nodes,
    document_keys,
    drop_links,
    give_sources,
    in_reading_order,
    keep_order,
    linked_elsewhere,
    source_ids,
)
from .turns import Turns

__all__ = ["Changes"]

T = TypeVar("T")

logger = logging.getLogger(__name__)

_SAMPLE = 32
"""Unchanged documents that a refresh looks for in the store; if one of them is gone, it looks for all."""


class Changes(VectorStoreIndex):
    """The changes of a `ContextualVectorStoreIndex`, each written once as a flow."""

    _turns: Turns

    def _held(self, delete_kwargs: dict[str, Any] | None = None) -> Held:
        return Held(
            self._storage_context,
            self._index_struct,
            in_docstore=self._store_nodes_override,
            delete_kwargs=delete_kwargs or {},
        )

    # Nodes

    def _insert_nodes(self, nodes: Sequence[BaseNode], insert_kwargs: dict[str, Any]) -> Flow[None]:
        # Copies: a vector left on the caller's node would outlive an edit of its text.
        given = [node.model_copy() for node in unique_nodes(check_nodes(nodes))]
        held = self._held()
        give_sources(given, (yield from self._alone(held.nodes(linked_elsewhere(given)))))
        yield from self._turns.during(source_ids(given), self._insert_in_turn(given, held, insert_kwargs))

    def _insert_in_turn(self, given: list[BaseNode], held: Held, insert_kwargs: dict[str, Any]) -> Flow[None]:
        old = yield from self._alone(held.nodes_of(source_ids(given)))
        known = {node.node_id for node in old or []}
        lone = yield from self._alone(held.namesakes(node for node in given if node.node_id not in known))
        if old is None:
            yield from self._warn_of_unknown(source_ids(given))
        yield from self._join(given, [*(old or []), *lone], held, insert_kwargs)

    def _join(
        self, given: list[BaseNode], old: list[BaseNode], held: Held, insert_kwargs: dict[str, Any]
    ) -> Flow[None]:
        new_ids = {node.node_id for node in given}
        bare = [node for node in given if node.embedding is None]
        grown = source_ids(bare)
        siblings = [node for node in old if node.node_id not in new_ids and node.ref_doc_id in grown]
        others = [node for node in old if node.node_id not in new_ids and node.ref_doc_id not in grown]
        if others:
            warn(
                f"document {others[0].ref_doc_id!r} is indexed already, and the nodes given came with vectors that "
                "have not read its other nodes, nor these them. Insert bare nodes, or the whole document with "
                "index.update_ref_doc(document)"
            )
        # Nodes that keep their own vector are read with the others all the same.
        ready = [node.model_copy() for node in given if node.embedding is not None and node.ref_doc_id in grown]
        for node in ready:
            node.embedding = None
        yield from self._embed_together([*siblings, *bare, *ready])
        if siblings and not held.removable:
            warn(
                f"{held.store_name} cannot replace vectors: the nodes indexed before keep vectors that have not read "
                "the new ones. Use a store that can delete nodes, or build the index anew"
            )
            siblings, old = [], []
        old_ids = {node.node_id for node in [*siblings, *old] if node.node_id in new_ids or node in siblings}
        yield from self._alone(self._exchange([*siblings, *given], old_ids, grown, held, insert_kwargs, old=old))

    def _alone(self, flow: Flow[T]) -> Flow[T]:
        """Run a flow while no other one runs: structures, docstores and some stores are no more than dictionaries."""
        return (yield from self._turns.during([self], flow))

    def _embed_together(self, nodes: list[BaseNode]) -> Flow[None]:
        if nodes:
            yield from self._model._embed(nodes, show_progress=self._show_progress)
            for indices in group(document_keys(nodes)):
                keep_order(in_reading_order([nodes[index] for index in indices]))

    def _warn_of_unknown(self, document_ids: Iterable[str]) -> Flow[None]:
        docstore = self.docstore
        for document_id in document_ids:
            if (yield either(docstore.get_document_hash, docstore.aget_document_hash, document_id)) is not None:
                warn(
                    f"document {document_id!r} is indexed already, and {type(self.vector_store).__name__} cannot be "
                    "asked for its other nodes: the new ones are embedded without them. Insert the whole document with "
                    "index.update_ref_doc(document), or make the index with store_nodes_override=True"
                )

    def _exchange(
        self,
        new: list[BaseNode],
        old_ids: Collection[str],
        document_ids: Collection[str],
        held: Held,
        insert_kwargs: dict[str, Any],
        *,
        old: Sequence[BaseNode] = (),
        in_docstore: bool = True,
    ) -> Flow[None]:
        """Store new nodes, then remove the old ones: whatever fails, what could not be replaced is still there."""
        new = [node for node in new if node.embedding is not None]
        again = {node.node_id for node in new} & set(old_ids)
        gone = set(old_ids) - again
        if old_ids:
            yield from held.check_removing()
            if not held.by_node:
                for document_id in document_ids:
                    yield from held.remove_document(document_id)
            elif keeps_doubles(self.vector_store):
                yield from held.remove(again)
        self._validate_serializable(new)
        try:
            yield from self._add(new, insert_kwargs)
        except Exception:
            yield from self._restore([node for node in old if node.node_id in again], old, insert_kwargs)
            raise
        if held.by_node:
            yield from held.remove(gone)
        yield from held.forget(gone, in_docstore=in_docstore)
        yield from self._write_structure()

    def _add(self, nodes: list[BaseNode], insert_kwargs: dict[str, Any]) -> Flow[None]:
        structure = self._index_struct
        yield either(self._add_nodes_to_index, self._async_add_nodes_to_index, structure, nodes, **insert_kwargs)

    def _restore(self, lost: list[BaseNode], old: Sequence[BaseNode], insert_kwargs: dict[str, Any]) -> Flow[None]:
        """Put back what had to make room for nodes that the store then refused."""
        if lost and keeps_doubles(self.vector_store):
            nodes = {node.node_id: node.model_copy(update={"embedding": None}) for node in old}
            try:
                yield from self._model._embed(list(nodes.values()), show_progress=False)
                yield from self._add([nodes[node.node_id] for node in lost], insert_kwargs)
            except Exception:
                logger.exception("%d nodes could not be put back after an insert that failed", len(lost))

    def _write_structure(self) -> Flow[None]:
        store = self._storage_context.index_store
        yield either(store.add_index_struct, store.async_add_index_struct, self._index_struct)

    def _delete_nodes(self, node_ids: list[str], delete_kwargs: dict[str, Any], *, in_docstore: bool) -> Flow[None]:
        held = self._held(delete_kwargs)
        documents = source_ids((yield from self._alone(held.nodes(node_ids))))
        yield from self._turns.during(documents, self._delete_in_turn(node_ids, documents, held, in_docstore))

    def _delete_in_turn(self, node_ids: list[str], documents: set[str], held: Held, in_docstore: bool) -> Flow[None]:
        yield from self._alone(held.check_removing())
        siblings = (yield from self._alone(held.nodes_of(documents))) or []
        left = [node for node in siblings if node.node_id not in node_ids]
        for node in left:
            drop_links(node, node_ids)
        yield from self._embed_together(left)
        ids = {*node_ids, *(node.node_id for node in left)}
        yield from self._alone(self._exchange(left, ids, documents, held, {}, old=siblings, in_docstore=in_docstore))

    # Whole documents

    def _replace(
        self,
        documents: Sequence[Document],
        insert_kwargs: dict[str, Any] | None = None,
        delete_kwargs: dict[str, Any] | None = None,
        *,
        show_progress: bool | None = None,
    ) -> Flow[None]:
        check_documents(documents)
        wanted = unique(documents)
        show = self._show_progress if show_progress is None else show_progress
        hashes = {key: hash_of(document) for key, document in wanted.items()}  # before an extractor changes them
        unreadable = [wanted[key] for key, value in hashes.items() if value is None]
        readable = [wanted[key] for key, value in hashes.items() if value is not None]
        nodes = unique_nodes((yield from transformed(readable, self._transformations, show_progress=show)))
        held = self._held(delete_kwargs)
        if not held.removable and (yield from self._alone(held.nodes_of(wanted.keys()))):
            raise InputError(held.cannot_remove)
        read = yield in_worker(self._model._read, nodes, unreadable)
        with progress_bar(read, show=show) as advance:
            for batch in batches(read, self._model.embed_batch_size):
                chunks = [node for document in batch for node in document.nodes]
                ids = {key: hashes[key] for key in source_ids(chunks) if key in hashes}
                swap = self._embed_and_swap(batch, chunks, ids, held, insert_kwargs or {})
                yield from self._turns.during(source_ids(chunks), swap)
                advance(batch)
        filled = source_ids(node for document in read for node in document.nodes)
        for key in [key for key in wanted if key not in filled]:
            yield from self._alone(self._swap([], {key: hashes[key]}, held, {}))

    def _embed_and_swap(
        self,
        batch: list[NodeDocument],
        chunks: list[BaseNode],
        hashes: dict[str, str | None],
        held: Held,
        insert_kwargs: dict[str, Any],
    ) -> Flow[None]:
        if any(node.embedding is None for node in chunks):
            yield from self._model._embed_batch(batch)
        yield from self._alone(self._swap(chunks, hashes, held, insert_kwargs))

    def _swap(
        self, chunks: list[BaseNode], hashes: dict[str, str | None], held: Held, insert_kwargs: dict[str, Any]
    ) -> Flow[None]:
        old = yield from held.nodes_of(hashes.keys())
        old_ids = {node.node_id for node in old or []}
        yield from held.namesakes(node for node in chunks if node.node_id not in old_ids)
        if old is None:
            for key in hashes:
                yield from held.remove_document(key)
        if old and not chunks:
            warn(f"document {old[0].ref_doc_id!r} has no text any more: its chunks are deleted")
        for node in chunks:
            source = node.source_node
            if source is not None and source.node_id in hashes:
                source.hash = hashes[source.node_id]
        yield from self._exchange(chunks, old_ids, hashes.keys(), held, insert_kwargs, old=old or [])
        docstore = self.docstore
        yield from held.forget_parents(old or [])
        for key, value in hashes.items():
            # After the vectors are stored: a hash without them would let a refresh believe that they are.
            yield either(docstore.set_document_hash, docstore.aset_document_hash, key, value)

    def _refresh(self, documents: Sequence[Document], update_kwargs: dict[str, Any]) -> Flow[list[bool]]:
        check_documents(documents)
        wanted = unique(documents)
        changed: dict[str, Document] = {}
        same: dict[str, Document] = {}
        for key, document in wanted.items():
            known = yield either(self.docstore.get_document_hash, self.docstore.aget_document_hash, key)
            (same if known is not None and known == hash_of(document) else changed)[key] = document
        for key in (yield from self._lost({key: document for key, document in same.items() if has_text(document)})):
            changed[key] = same[key]
        yield from self._replace(list(changed.values()), *options_of(update_kwargs))
        return [changed.pop(document.id_, None) is not None for document in documents]

    def _lost(self, documents: dict[str, Document]) -> Flow[set[str]]:
        """Find documents that the docstore remembers and the index does not hold, or holds in another version."""
        document_ids = list(documents)
        sample = document_ids[:: max(1, len(document_ids) // _SAMPLE)]
        held = self._held()
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
        removing = self._remove(document_id, self._held(delete_kwargs), in_docstore=in_docstore)
        yield from self._turns.during([document_id], self._alone(removing))

    def _remove(self, document_id: str, held: Held, *, in_docstore: bool) -> Flow[None]:
        if not held.removable:
            raise InputError(held.cannot_remove)
        nodes = (yield from held.nodes_of([document_id])) or []
        ids = {node.node_id for node in nodes}
        if self.vector_store.stores_text or not held.by_node:
            yield from held.remove_document(document_id)
        else:
            yield from held.remove(ids)
        yield from held.forget(ids, in_docstore=False)
        if in_docstore:
            yield from held.forget_document(document_id)
        yield from held.forget_hash(document_id)
        yield from self._write_structure()

    @property
    def _model(self) -> PplxEmbedding:
        model: PplxEmbedding = self._embed_model  # type: ignore[assignment]
        return model
