"""What a call was given or left out, before there are chunks: documents, the model, and what documents go through.

Knows LlamaIndex documents, transformations and Settings; must not know indexes, stores or vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from llama_index.core import Settings
from llama_index.core.node_parser import NodeParser, SentenceSplitter
from llama_index.core.node_parser.text.sentence import SENTENCE_CHUNK_OVERLAP
from llama_index.core.schema import BaseNode, Document, MetadataMode, TransformComponent

from ..errors import InputError, InputTypeError, NotContextualError
from ..flow import Flow, either, in_worker
from .embedding import PplxEmbedding


def contextual_model(embed_model: object) -> PplxEmbedding:
    """Return the model given, else that of Settings, if it can embed chunks in context.

    Raises:
        InputTypeError: It is no `PplxEmbedding`, or there is none.
        NotContextualError: The document side was not trained for chunks in context.
    """
    # Settings.embed_model would make an OpenAI model where there is none.
    model = embed_model if embed_model is not None else Settings._embed_model
    if model is None:
        raise InputTypeError("embed_model is missing: give embed_model=PplxEmbedding(...), or set Settings.embed_model")
    if not isinstance(model, PplxEmbedding):
        raise InputTypeError(
            f"embed_model must be a PplxEmbedding, not {type(model).__name__}. A model around a PplxEmbedding, such as "
            "a query adapter, embeds texts one by one: index with the PplxEmbedding itself, and query with "
            "index.as_retriever(embed_model=adapter)"
        )
    if not model.biencoder.contextual:
        raise NotContextualError(
            f"{model.document_model} was not trained for chunks in context; use a contextual document_model such as "
            '"context-v1-0.6b", or VectorStoreIndex for chunks without context'
        )
    return model


def transformations_of(
    transformations: Sequence[TransformComponent] | None, splitter: NodeParser | None = None
) -> list[TransformComponent]:
    """Return what documents go through: what is given, else what Settings say, else a splitter without overlap.

    A splitter of Settings that has LlamaIndex's own overlap of 200 tokens, which nobody chose, is used without it.

    Raises:
        InputError: Both are given.
        InputTypeError: `transformations` is no list of transformations.
    """
    if splitter is not None:
        if transformations is not None:
            raise InputError("give splitter or transformations, not both: transformations=[splitter, ...]")
        return [_checked(splitter, "splitter")]
    if transformations is not None:
        if not isinstance(transformations, Sequence):
            raise InputTypeError(f"transformations must be a list, not {type(transformations).__name__}")
        return [_checked(one, f"transformation {at}") for at, one in enumerate(transformations)]
    # Private, as the properties make what is missing; a plain VectorStoreIndex puts the default splitter there.
    found = Settings._transformations
    if found is None:
        found = [Settings._node_parser or SentenceSplitter()]
    return [_without_default_overlap(each) for each in found]


def _without_default_overlap(component: TransformComponent) -> TransformComponent:
    chosen = getattr(component, "chunk_overlap", None) != SENTENCE_CHUNK_OVERLAP
    return component if chosen else component.model_copy(update={"chunk_overlap": 0})


def _checked(component: object, name: str) -> TransformComponent:
    if not isinstance(component, TransformComponent):
        raise InputTypeError(f"{name} must be a LlamaIndex transformation, not {type(component).__name__}")
    return component


def options_of(update_kwargs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a store is given at inserts and at deletes, of what LlamaIndex nests in one dictionary."""
    nested = update_kwargs.get("update_kwargs", {})
    insert, delete = (
        {**update_kwargs.get(key, {}), **nested.get(key, {})} for key in ("insert_kwargs", "delete_kwargs")
    )
    return insert, delete


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
        InputTypeError: It is no list of documents.
    """
    check_documents(documents)
    wanted: dict[str, Document] = {}
    for document in documents:
        first = wanted.setdefault(document.id_, document)
        if first is not document and hash_of(first) != hash_of(document):
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
        if first is not node and (first.ref_doc_id, _whole(first)) != (node.ref_doc_id, _whole(node)):
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


def transformed(
    documents: Sequence[Document], transformations: Sequence[TransformComponent], *, show_progress: bool
) -> Flow[list[BaseNode]]:
    """Put documents through transformations, up to the embedding that comes last."""
    steps = list(transformations)
    while steps and isinstance(steps[-1], PplxEmbedding):
        steps.pop()  # embedding comes after the check, document by document
    nodes: Sequence[BaseNode] = documents
    for step in steps:
        if _blocks(step):
            nodes = yield in_worker(partial(step, nodes, show_progress=show_progress))
        else:
            nodes = yield either(step, step.acall, nodes, show_progress=show_progress)
    return list(nodes)


def _blocks(step: TransformComponent) -> bool:
    """Whether a transformation's asynchronous call would keep the event loop busy."""
    parses = isinstance(step, NodeParser) and type(step)._aparse_nodes is NodeParser._aparse_nodes
    return parses or type(step).acall is TransformComponent.acall
