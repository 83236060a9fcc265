"""PplxEmbedding: a bi-encoder as a LlamaIndex embedding model that reads a document's chunks together.

Knows LlamaIndex's embedding and transformation protocols and their events; must not know indexes, stores or LangChain.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any

from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent, EmbeddingStartEvent
from llama_index.core.schema import BaseNode, MetadataMode
from llama_index.core.utils import get_tqdm_iterable, iter_batch
from llama_index_instrumentation import get_dispatcher
from tqdm.auto import tqdm

from ..biencoder import NativeForms
from ..errors import warn
from ..flow import Flow, arun, either, in_worker, run
from ..inputs import check_text, check_texts
from ..schema import documented
from .findings import FLAT, findings
from .nodes import NodeDocument, batches, check_nodes, flat_texts, read_documents, set_embeddings
from .options import EmbeddingOptions, NodeOptions

logger = logging.getLogger(__name__)
dispatcher = get_dispatcher(__name__)

#: Whether a single text comes from the user, who asks for its vector, and not from another model around this one.
_asked: ContextVar[bool] = ContextVar("_asked", default=False)


@documented(NodeOptions)
class PplxEmbedding(EmbeddingOptions, NativeForms):  # type: ignore[misc]  # a name may be a path
    """pplx-embed as a LlamaIndex embedding model: queries through one checkpoint, documents through another.

    As a transformation, `transformations=[splitter, embed_model]`, it embeds the chunks of each document together
    and sets their vectors. Given bare texts, as `VectorStoreIndex` gives them where `embed_model` is no
    transformation, it embeds each text as a document of its own.

    Weights load at first use. Objects are safe to share between threads and tasks; pickles carry the settings, never
    the weights. Every option that changes a vector is part of `to_dict()`, hence of an ingestion cache's key.

    Args:
        **options: By name; every one is in the tables of options on the pages of both frameworks.
        callback_manager: LlamaIndex's callbacks.
        num_workers: Accepted for LlamaIndex's sake; the encoder gathers concurrent calls whatever it says.
        embeddings_cache: LlamaIndex's cache of vectors by text. It cannot tell a document's chunk from the same text
            elsewhere, nor a query from a text, so it is taken only where one non-contextual checkpoint embeds both.
        rate_limiter: LlamaIndex's rate limiter.

    Raises:
        CheckpointError: A name is unknown, or the two sides cannot be compared.
        InputError: An option is out of range, or options exclude each other.
        InputTypeError: There is no such option.

    Example:
        >>> embed_model = PplxEmbedding("miniature", dimensions=128)
        >>> len(embed_model.get_query_embedding("Who wrote the first program?"))
        128
    """

    @classmethod
    def class_name(cls) -> str:
        """Name of the class in LlamaIndex's dictionaries: `PplxEmbedding`."""
        return "PplxEmbedding"

    def __call__(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """Embed nodes, the chunks of each document together, and set their `embedding`.

        Nodes without any text keep no embedding, and a log line counts them.

        Args:
            nodes: In any order; grouped by `ref_doc_id`, else by their PREVIOUS, NEXT and PARENT links; ordered by
                `start_char_idx`, else by their links, else as given. A node without all of these is a document of its
                own.
            **kwargs: `show_progress`; whatever else LlamaIndex passes to transformations has no meaning here.

        Returns:
            The same nodes in the same order.

        Raises:
            InputError: Chunks are too long or not Unicode; the message names every document that has such chunks.
            InputTypeError: `nodes` is no list of nodes.

        Warns:
            ContextWarning: Text is read twice or in part, or nodes have no document; once a call for each kind.
        """
        return run(self._embed(nodes, show_progress=bool(kwargs.get("show_progress"))))

    async def acall(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """`__call__` without blocking the event loop."""
        return await arun(self._embed(nodes, show_progress=bool(kwargs.get("show_progress"))))

    def check(self, nodes: Sequence[BaseNode]) -> None:
        """Say of nodes whether they can be embedded, without embedding them.

        An `IngestionPipeline` deletes the old version of a document before it embeds the new one; what passes here will
        not fail there.

        Args:
            nodes: As for a call.

        Raises:
            InputError: Chunks are too long or not Unicode; the message names every document that has such chunks.
            InputTypeError: `nodes` is no list of nodes.

        Example:
            >>> from llama_index.core.schema import TextNode
            >>> PplxEmbedding("miniature").check([TextNode(text="short enough")])
        """
        self._check(self._documents(check_nodes(nodes)))

    def _embed(self, nodes: Sequence[BaseNode], *, show_progress: bool) -> Flow[Sequence[BaseNode]]:
        checked = check_nodes(nodes)
        if not self._biencoder.contextual:
            kept, texts = flat_texts(checked, MetadataMode(self.metadata_mode))
            _log_blank(len(nodes) - len(kept))
            vectors = yield either(
                self.get_text_embedding_batch, self.aget_text_embedding_batch, texts, show_progress=show_progress
            )
            set_embeddings(kept, vectors)
            return nodes
        documents = yield in_worker(self._read, checked)
        for batch in self._batches(documents, show_progress=show_progress):
            yield from self._embed_batch(batch)
        return nodes

    def _batches(self, documents: list[NodeDocument], *, show_progress: bool) -> Iterator[list[NodeDocument]]:
        """Give out documents batch by batch, with a bar that counts those that are done and their chunks."""
        total, done = sum(len(document.texts) for document in documents), 0
        with tqdm(total=len(documents), desc="Embedding documents", unit="document", disable=not show_progress) as bar:
            for batch in batches(documents, self.embed_batch_size):
                yield batch
                done += sum(len(document.texts) for document in batch)
                bar.set_postfix_str(f"{done} of {total} chunks", refresh=False)
                bar.update(len(batch))

    def _embed_batch(self, batch: list[NodeDocument]) -> Flow[None]:
        if self.rate_limiter is not None:
            yield either(self.rate_limiter.acquire, self.rate_limiter.async_acquire)
        pair, described = self._biencoder, self.to_payload()
        texts = [text for document in batch for text in document.texts]
        # The events that `BaseEmbedding` emits around a batch.
        dispatcher.event(EmbeddingStartEvent(model_dict=described))
        with self.callback_manager.event(CBEventType.EMBEDDING, payload={EventPayload.SERIALIZED: described}) as event:
            found = yield either(pair.embed_documents, pair.aembed_documents, [document.chunks for document in batch])
            vectors = [row for document, matrix in zip(batch, found, strict=True) for row in document.rows(matrix)]
            event.on_end(payload={EventPayload.CHUNKS: texts, EventPayload.EMBEDDINGS: vectors})
        dispatcher.event(EmbeddingEndEvent(chunks=texts, embeddings=vectors))
        set_embeddings([node for document in batch for node in document.nodes], vectors)

    def _read(self, nodes: list[BaseNode], refused: Sequence[BaseNode] = ()) -> list[NodeDocument]:
        documents = self._documents(nodes)
        _log_blank(len(nodes) - sum(len(document.nodes) for document in documents))
        self._check([*documents, *self._documents(list(refused))])
        warn(*findings(nodes, documents))
        return documents

    def _documents(self, nodes: list[BaseNode]) -> list[NodeDocument]:
        return read_documents(nodes, MetadataMode(self.metadata_mode), header_once=self.metadata_per_document)

    def _check(self, documents: list[NodeDocument]) -> None:
        if documents:
            names = [f"document {document.name!r}" for document in documents]
            self._biencoder.check_documents([document.chunks for document in documents], names=names)

    def get_text_embedding_batch(
        self, texts: list[str], show_progress: bool = False, **kwargs: Any
    ) -> list[list[float]]:
        """Embed texts, each as a document of its own.

        Args:
            texts: Non-empty strings.
            show_progress: Show a bar.
            **kwargs: Ignored, as LlamaIndex does.

        Raises:
            InputError: A text is empty, too long or not Unicode.
            InputTypeError: `texts` is no list of strings.
        """
        checked = check_texts(texts)
        self._warn_flat(checked)
        return super().get_text_embedding_batch(checked, show_progress=show_progress, **kwargs)

    async def aget_text_embedding_batch(
        self, texts: list[str], show_progress: bool = False, **kwargs: Any
    ) -> list[list[float]]:
        """`get_text_embedding_batch` without blocking the event loop: one batch after the other, never all at once."""
        checked = check_texts(texts)
        self._warn_flat(checked)
        runs = list(iter_batch(checked, self.embed_batch_size))
        results: list[list[float]] = []
        for batch in get_tqdm_iterable(runs, show_progress, "Generating embeddings"):
            results += await super().aget_text_embedding_batch(batch)
        return results

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._biencoder.embed_query(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await self._biencoder.aembed_query(query)

    def get_text_embedding(self, text: str) -> list[float]:
        """Embed a text as a document of its own.

        Raises:
            InputError: The text is empty, too long or not Unicode.
            InputTypeError: It is no string.
        """
        asked = _asked.set(True)
        try:
            return super().get_text_embedding(text)
        finally:
            _asked.reset(asked)

    async def aget_text_embedding(self, text: str) -> list[float]:
        """`get_text_embedding` without blocking the event loop."""
        asked = _asked.set(True)
        try:
            return await super().aget_text_embedding(text)
        finally:
            _asked.reset(asked)

    def _get_text_embedding(self, text: str) -> list[float]:
        self._warn_flat([text])
        return self._biencoder.embed_texts([check_text(text)])[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        self._warn_flat([text])
        return (await self._biencoder.aembed_texts([check_text(text)]))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._biencoder.embed_texts(texts)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await self._biencoder.aembed_texts(texts)

    def _warn_flat(self, texts: Sequence[str]) -> None:
        if texts and not _asked.get() and self._biencoder.contextual:
            warn(FLAT)


def _log_blank(count: int) -> None:
    if count:
        logger.warning("%d nodes have no text and get no embedding", count)
