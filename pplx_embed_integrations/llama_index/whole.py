"""Splitting and embedding in one step, for pipelines that hand nodes on in pieces: on a cluster, in processes.

Knows LlamaIndex's transformations; must not know models, nor what runs them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llama_index.core.schema import BaseNode, TransformComponent
from pydantic import PrivateAttr, SerializeAsAny

from ..errors import InputError
from .embedding import PplxEmbedding


class SplitAndEmbed(TransformComponent):
    """A transformation from whole documents to nodes with embeddings, each in the context of its document.

    `IngestionPipeline(num_workers=…)` and `RayIngestionPipeline` divide the nodes between two transformations as they
    like, and the chunks of a document with them. In one step they divide whole documents alone.

    Args:
        splitter: A node parser, or a function that makes one. A pickled `SentenceSplitter` has lost its tokenizer, so
            where the step goes to other processes, give a function.
        embed_model: A `PplxEmbedding`; pickles carry its options, no weights.

    Raises:
        InputError: When it is called: a node is a part of a document already, or cannot be embedded.

    Example:
        >>> from llama_index.core import Document
        >>> from llama_index.core.node_parser import SentenceSplitter
        >>> step = SplitAndEmbed(splitter=SentenceSplitter(chunk_overlap=0), embed_model=PplxEmbedding("miniature"))
        >>> [node] = step([Document(text="Ada Lovelace wrote the first program.", id_="ada")])
        >>> node.ref_doc_id, len(node.embedding)
        ('ada', 384)
    """

    splitter: SerializeAsAny[TransformComponent] | Callable[[], TransformComponent]
    embed_model: SerializeAsAny[PplxEmbedding]

    _parser: TransformComponent | None = PrivateAttr(default=None)

    def __init__(
        self, splitter: TransformComponent | Callable[[], TransformComponent], embed_model: PplxEmbedding, **fields: Any
    ) -> None:
        super().__init__(**{"splitter": splitter, "embed_model": embed_model, **fields})

    def _split(self) -> TransformComponent:
        if isinstance(self.splitter, TransformComponent):
            return self.splitter
        if self._parser is None:
            self._parser = self.splitter()
        return self._parser

    def __call__(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """Split and embed whole documents."""
        self._check(nodes)
        return self.embed_model(self._split()(nodes, **kwargs), **kwargs)

    async def acall(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """`__call__` without blocking the event loop."""
        self._check(nodes)
        return await self.embed_model.acall(await self._split().acall(nodes, **kwargs), **kwargs)

    def _check(self, nodes: Sequence[BaseNode]) -> None:
        part = next((node for node in nodes if node.ref_doc_id), None)
        if part is not None:
            raise InputError(
                f"node {part.node_id!r} is a part of document {part.ref_doc_id!r} already, and its other parts may be "
                "elsewhere; let SplitAndEmbed be the first transformation, and give it whole documents"
            )
