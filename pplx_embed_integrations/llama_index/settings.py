"""Defaults for what a caller leaves out: LlamaIndex's Settings, and a splitter whose chunks do not overlap.

Knows Settings and its defaults; must not know indexes or stores.
"""

from __future__ import annotations

from collections.abc import Sequence

from llama_index.core import Settings
from llama_index.core.constants import DEFAULT_CHUNK_SIZE
from llama_index.core.node_parser import NodeParser, SentenceSplitter
from llama_index.core.node_parser.text.sentence import SENTENCE_CHUNK_OVERLAP
from llama_index.core.schema import TransformComponent

from ..errors import InputError, InputTypeError, NotContextualError
from .embedding import PplxEmbedding

__all__ = ["contextual_model", "transformations_of"]


def contextual_model(embed_model: object) -> PplxEmbedding:
    """Return the model given, else that of Settings, if it can embed chunks in context.

    Raises:
        InputTypeError: It is no `PplxEmbedding`, or there is none.
        NotContextualError: The document side was not trained for chunks in context.
    """
    # Settings.embed_model would make an OpenAI model where there is none.
    model: object = embed_model if embed_model is not None else Settings._embed_model
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
    checked: PplxEmbedding = model
    return checked


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
    # Private, as the properties make what is missing.
    if Settings._transformations is not None:  # a plain VectorStoreIndex puts the default splitter there
        return [_without_default_overlap(each) for each in Settings._transformations]
    if Settings._node_parser is not None:
        return [_without_default_overlap(Settings._node_parser)]
    return [SentenceSplitter(chunk_size=DEFAULT_CHUNK_SIZE, chunk_overlap=0)]


def _without_default_overlap(component: TransformComponent) -> TransformComponent:
    chosen = getattr(component, "chunk_overlap", None) != SENTENCE_CHUNK_OVERLAP
    return component if chosen else component.model_copy(update={"chunk_overlap": 0})


def _checked(component: object, name: str) -> TransformComponent:
    if not isinstance(component, TransformComponent):
        raise InputTypeError(f"{name} must be a LlamaIndex transformation, not {type(component).__name__}")
    return component
