"""Whole documents before they are chunks: what a call was given, and what splitters and extractors make of it.

Knows LlamaIndex documents and transformations; must not know indexes, stores or vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.node_parser import NodeParser
from llama_index.core.schema import BaseNode, Document, MetadataMode, TransformComponent

from ..errors import InputError, InputTypeError
from ..flow import Flow, Step, in_worker
from .embedding import PplxEmbedding

__all__ = ["check_documents", "has_text", "hash_of", "options_of", "transformed", "unique", "unique_nodes"]


def check_documents(documents: object) -> None:
    """Refuse what is no list of documents.

    Raises:
        InputTypeError: It is something else, or holds something else.
    """
    if not isinstance(documents, Sequence) or isinstance(documents, (str, bytes)):
        raise InputTypeError(f"documents must be a list of LlamaIndex documents, not {type(documents).__name__}")
    for position, document in enumerate(documents):
        if not isinstance(document, Document):
            raise InputTypeError(
                f"document {position} must be a LlamaIndex Document, not {type(document).__name__}; "
                "write Document(text=...)"
            )


def unique(documents: Sequence[Document]) -> dict[str, Document]:
    """Return the documents by their ids, each once.

    Raises:
        InputError: Different documents have the same id.
    """
    wanted: dict[str, Document] = {}
    for document in documents:
        if hash_of(wanted.setdefault(document.id_, document)) != hash_of(document):
            raise InputError(
                f"two documents with different contents have the id {document.id_!r}: give each its own id_, or join "
                "them if they are parts of one document"
            )
    return wanted


def unique_nodes(nodes: Sequence[BaseNode]) -> list[BaseNode]:
    """Return the nodes, each once.

    Raises:
        InputError: Different nodes have the same id.
    """
    wanted: dict[str, BaseNode] = {}
    for node in nodes:
        first = wanted.setdefault(node.node_id, node)
        if (first.ref_doc_id, _whole(first)) != (node.ref_doc_id, _whole(node)):
            names = ", ".join(repr(each.ref_doc_id) for each in (first, node))
            raise InputError(
                f"two different nodes have the id {node.node_id!r} (of documents {names}), and a store keeps one node "
                "for an id: give each its own; an id_func must put the document's id into it"
            )
    return list(wanted.values())


def _whole(node: BaseNode) -> str:
    return node.get_content(metadata_mode=MetadataMode.ALL)


def hash_of(document: Document) -> str | None:
    """Return LlamaIndex's hash of a document, or None where it is not Unicode, which no splitter takes either."""
    try:
        return document.hash
    except UnicodeEncodeError:
        return None


def options_of(update_kwargs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a store is given at inserts and at deletes, of what LlamaIndex nests in one dictionary."""
    nested = update_kwargs.get("update_kwargs", {})
    insert, delete = (
        {**update_kwargs.get(key, {}), **nested.get(key, {})} for key in ("insert_kwargs", "delete_kwargs")
    )
    return insert, delete


def transformed(
    documents: Sequence[Document], transformations: Sequence[TransformComponent], *, show_progress: bool
) -> Flow[list[BaseNode]]:
    """Put documents through transformations, up to the embedding that comes last."""
    steps = list(transformations)
    while steps and isinstance(steps[-1], PplxEmbedding):
        steps.pop()  # embedding comes after the check, document by document
    nodes: Sequence[BaseNode] = documents
    for step in steps:
        nodes = yield _transforming(step, nodes, show=show_progress)
    return list(nodes)


def _transforming(step: TransformComponent, nodes: Sequence[BaseNode], *, show: bool) -> Step:
    def work() -> Sequence[BaseNode]:
        return step(nodes, show_progress=show)

    blocking = isinstance(step, NodeParser) and type(step)._aparse_nodes is NodeParser._aparse_nodes
    if blocking or type(step).acall is TransformComponent.acall:
        return in_worker(work)
    return Step(work, lambda: step.acall(nodes, show_progress=show))


def has_text(node: BaseNode) -> bool:
    """Whether a node has more than white space."""
    return node.get_content(metadata_mode=MetadataMode.NONE).strip() != ""
