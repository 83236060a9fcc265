"""LangChain's indexing API with whole documents as its unit: a changed chunk replaces all of its document.

Knows record managers, hashes and cleanup modes; must not know vectors or how a document is embedded.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import AsyncIterable, Callable, Hashable, Iterable, Iterator
from typing import Any, Literal

from langchain_core.document_loaders import BaseLoader
from langchain_core.documents import Document
from langchain_core.indexing import IndexingResult, RecordManager, aindex, index
from langchain_core.vectorstores import VectorStore

from ..documents import content_hash, group
from ..inputs import check_positive
from ..threads import in_thread
from .adding import resolve_embeddings
from .contextual import OnMiss
from .embeddings import PplxEmbeddings
from .grouping import GroupBy, check_chunks, document_groups, document_keys

__all__ = ["CHUNK_KEY", "DOCUMENT_KEY", "aindex_documents", "index_documents"]

Cleanup = Literal["incremental", "full", "scoped_full"]
SourceId = str | Callable[[Document], str]

DOCUMENT_KEY = "pplx_document"
"""Metadata key under which every chunk carries the hash of its whole document."""
CHUNK_KEY = "pplx_chunk"
"""Metadata key under which every chunk carries its position in its document."""


def index_documents(
    documents: BaseLoader | Iterable[Document],
    record_manager: RecordManager,
    store: VectorStore,
    *,
    embeddings: PplxEmbeddings | None = None,
    group_by: GroupBy | None = None,
    on_miss: OnMiss = "warn",
    cleanup: Cleanup | None = "scoped_full",
    source_id_key: SourceId | None = None,
    batch_size: int = 100,
    **options: Any,
) -> IndexingResult:
    """Bring a vector store up to date with documents, embedding only documents that changed.

    `langchain_core.indexing.index` with two additions: every chunk is embedded in the context of its document, and
    carries a hash of the whole document and of the options in its metadata, so that a changed chunk, model or option
    replaces all of the document, and an unchanged document is skipped.

    Args:
        documents: The chunks, or a loader that gives them. All of a document's chunks must come in one call.
        record_manager: Remembers what is in the store.
        store: The vector store.
        embeddings: What the store embeds with, if the store does not tell.
        group_by: What makes chunks one document; see `PplxEmbeddings.documents`.
        on_miss: What becomes of a text that the store makes up itself; see `PplxEmbeddings.documents`.
        cleanup: What is deleted: with `"scoped_full"` old versions of the given documents, at the end; with
            `"incremental"` the same, batch by batch; with `"full"` everything else too; with None nothing.
        source_id_key: What the record manager takes for the source of a chunk; by default its document.
        batch_size: Chunks that are stored and recorded together; an interrupted run goes on from there.
        **options: Passed to LangChain's `index`, for example `force_update`.

    Returns:
        How many chunks were added, updated, skipped and deleted.

    Raises:
        InputError: The chunks cannot be grouped, or the store's embeddings are wrapped in a text cache.
        InputTypeError: The store does not embed with PplxEmbeddings.
        NotContextualError: The document side was not trained for this.

    Example:
        >>> from langchain_core.indexing import InMemoryRecordManager
        >>> from langchain_core.vectorstores import InMemoryVectorStore
        >>> store, records = InMemoryVectorStore(PplxEmbeddings("miniature")), InMemoryRecordManager("notes")
        >>> records.create_schema()
        >>> chunks = [Document("Ada wrote notes.", metadata={"source": "ada"}),
        ...           Document("She called it a science.", metadata={"source": "ada"})]
        >>> index_documents(chunks, records, store)["num_added"]
        2
        >>> index_documents(chunks, records, store)["num_skipped"]
        2
    """
    given = documents.lazy_load() if isinstance(documents, BaseLoader) else documents
    plan = _Plan(check_chunks(given), resolve_embeddings(store, embeddings), group_by, cleanup, source_id_key)
    results = []
    with plan.embeddings.documents(plan.chunks, group_by=plan.keys, on_miss=on_miss):
        for chunks, size in plan.slices(batch_size):
            results.append(index(chunks, record_manager, store, batch_size=size, **{**plan.settings, **options}))
    return _total(results)


async def aindex_documents(
    documents: BaseLoader | Iterable[Document] | AsyncIterable[Document],
    record_manager: RecordManager,
    store: VectorStore,
    *,
    embeddings: PplxEmbeddings | None = None,
    group_by: GroupBy | None = None,
    on_miss: OnMiss = "warn",
    cleanup: Cleanup | None = "scoped_full",
    source_id_key: SourceId | None = None,
    batch_size: int = 100,
    **options: Any,
) -> IndexingResult:
    """`index_documents` without blocking the event loop, over `langchain_core.indexing.aindex`."""
    given = documents.alazy_load() if isinstance(documents, BaseLoader) else documents
    chunks = [chunk async for chunk in given] if isinstance(given, AsyncIterable) else given
    embedder = resolve_embeddings(store, embeddings)
    await in_thread(embedder.vector_identity)  # may read the weights of a local checkpoint
    plan = _Plan(check_chunks(chunks), embedder, group_by, cleanup, source_id_key)
    results = []
    with plan.embeddings.documents(plan.chunks, group_by=plan.keys, on_miss=on_miss):
        for part, size in plan.slices(batch_size):
            results.append(await aindex(part, record_manager, store, batch_size=size, **{**plan.settings, **options}))
    return _total(results)


class _Plan:
    """Chunks with their documents' hashes, document after document, and how `index` is to be called on them."""

    def __init__(
        self,
        chunks: list[Document],
        embeddings: PplxEmbeddings,
        group_by: GroupBy | None,
        cleanup: Cleanup | None,
        source_id_key: SourceId | None,
    ) -> None:
        self.embeddings = embeddings
        self.chunks: list[Document] = []
        self.keys: list[Hashable] = []
        self._sources: dict[str, str] = {}
        keys = document_keys(chunks, group_by)
        for indices in document_groups(chunks, keys):
            self._stamp([chunks[position] for position in indices], keys[indices[0]])
        source = source_id_key if source_id_key is not None else self._document_of
        self._source = (lambda chunk: chunk.metadata[source]) if isinstance(source, str) else source
        self._whole = cleanup == "incremental"
        self.settings: dict[str, Any] = {"cleanup": cleanup, "source_id_key": source, "key_encoder": _chunk_id}

    def _stamp(self, chunks: list[Document], key: Hashable) -> None:
        identity = f"{self.embeddings.vector_identity()}\n{self.embeddings.normalize}\n{key!r}\n"
        content = content_hash([chunk.page_content for chunk in chunks])
        stamp = hashlib.sha256((identity + content).encode("utf-8", "surrogatepass")).hexdigest()
        self._sources[stamp] = str(key)
        for position, chunk in enumerate(chunks):
            metadata = {**chunk.metadata, DOCUMENT_KEY: stamp, CHUNK_KEY: position}
            self.chunks.append(Document(page_content=chunk.page_content, metadata=metadata))
            self.keys.append(key)

    def _document_of(self, chunk: Document) -> str:
        return self._sources[chunk.metadata[DOCUMENT_KEY]]

    def slices(self, batch_size: int) -> Iterator[tuple[list[Document], int]]:
        """Cut the chunks into calls of `index`, each with its batch size.

        With incremental cleanup `index` deletes, after every batch, what it has not yet seen of the batch's sources,
        so that a batch that ends inside a source would delete and re-embed the rest: there, batches hold whole sources.
        """
        check_positive("batch_size", batch_size)
        if not self._whole:
            yield self.chunks, batch_size
            return
        part: list[Document] = []
        for indices in group([self._source(chunk) for chunk in self.chunks]):
            if part and len(part) + len(indices) > batch_size:
                yield part, len(part)
                part = []
            part = part + [self.chunks[position] for position in indices]
        if part:
            yield part, len(part)


def _chunk_id(chunk: Document) -> str:
    """Name a chunk by its text and metadata: half of a SHA-256 as a UUID, which every store takes for an id."""
    metadata = json.dumps(chunk.metadata, sort_keys=True, default=str)
    digest = content_hash([chunk.page_content, metadata])
    return str(uuid.UUID(hex=digest[:32]))


def _total(results: list[IndexingResult]) -> IndexingResult:
    return IndexingResult(
        num_added=sum(result["num_added"] for result in results),
        num_updated=sum(result["num_updated"] for result in results),
        num_skipped=sum(result["num_skipped"] for result in results),
        num_deleted=sum(result["num_deleted"] for result in results),
    )
