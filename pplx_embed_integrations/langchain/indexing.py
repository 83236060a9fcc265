"""LangChain's indexing API with whole documents as its unit: read one by one, embedded, stored, and only then replaced.

Knows record managers, hashes and cleanup modes; must not know vectors or how a document is embedded.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Literal

from langchain_core.document_loaders import BaseLoader
from langchain_core.documents import Document
from langchain_core.indexing import IndexingResult, RecordManager, aindex, index
from langchain_core.vectorstores import VectorStore

from ..errors import StoreError
from ..flow import Flow, arun, either, in_worker, run
from .batch import Batch
from .contextual import OnMiss
from .deleting import clean_up
from .embeddings import PplxEmbeddings
from .grouping import GroupBy, check_documents
from .held import check_rows, clear, deletable, held_ids
from .run import Run

__all__ = ["aindex_documents", "index_documents"]

Cleanup = Literal["incremental", "full", "scoped_full"]


def index_documents(
    documents: BaseLoader | Iterable[Document],
    record_manager: RecordManager,
    store: VectorStore,
    *,
    splitter: Any = None,
    group_by: GroupBy | None = None,
    embeddings: PplxEmbeddings | None = None,
    on_miss: OnMiss = "warn",
    cleanup: Cleanup | None = "incremental",
    batch_size: int = 100,
    content_metadata: Sequence[str] = (),
    **options: Any,
) -> IndexingResult:
    """Bring a vector store up to date with documents, embedding only those that changed.

    Every chunk is embedded in the context of its document, and a document is replaced as a whole: its new chunks are
    embedded, stored and recorded, then the old ones are deleted. Documents are read one by one; what is done stays done
    when the loader breaks or the run is killed, and the next run goes on from there.

    A document is its key and the texts of its chunks. Its other metadata is stored with it but is no reason to embed it
    again, unless it is named in `content_metadata`.

    Args:
        documents: A loader, a list or an iterator of whole documents, with a splitter; or of chunks, with `group_by` or
            the stamp of `split_documents`. Parts of one document must follow each other, except in a list.
        record_manager: Remembers what is in the store. Its namespace is part of the ids: two of them may share a store.
        store: The vector store.
        splitter: Splits whole documents; see `split_documents`. Without `group_by` a document is named by its `id`.
        group_by: What makes several of them one document, and names it: a metadata key, a function of the document, or
            one key per document.
        embeddings: What the store embeds with, if the store does not tell.
        on_miss: What becomes of a text that the store makes up itself; see `PplxEmbeddings.documents`.
        cleanup: What is deleted: with `"incremental"` (or `"scoped_full"`, here the same) the old version of each
            document that is given; with `"full"` also, at the end, every document that is not; with None nothing.
        batch_size: Chunks that are embedded, stored and recorded together, in whole documents.
        content_metadata: Metadata keys whose values belong to the content: a change replaces the document.
        **options: Passed to LangChain's `index`: `force_update`, `upsert_kwargs`.

    Returns:
        How many chunks were added, updated, skipped and deleted.

    Raises:
        InputError: Which chunks belong together is not known, the store's embeddings are wrapped in a text cache, or
            some documents cannot be embedded: these are named, their old versions stay, and all others are done.
        InputTypeError: The store does not embed with PplxEmbeddings.
        NotContextualError: The document side was not trained for this.

    Example:
        >>> from langchain_core.indexing import InMemoryRecordManager
        >>> from langchain_core.vectorstores import InMemoryVectorStore
        >>> store, records = InMemoryVectorStore(PplxEmbeddings("miniature")), InMemoryRecordManager("notes")
        >>> records.create_schema()
        >>> ada = Document("Ada Lovelace wrote notes. She called it a science.", id="ada")
        >>> index_documents([ada], records, store, splitter=lambda text: text.split(". "))["num_added"]
        2
        >>> index_documents([ada], records, store, splitter=lambda text: text.split(". "))["num_skipped"]
        2
    """
    given = documents.lazy_load() if isinstance(documents, BaseLoader) else documents
    opened = partial(
        Run,
        _listed(given),
        record_manager,
        store,
        splitter,
        group_by,
        embeddings,
        cleanup,
        batch_size,
        content_metadata,
    )
    return run(_index(opened, record_manager, store, on_miss, options))


async def aindex_documents(
    documents: BaseLoader | Iterable[Document] | AsyncIterable[Document],
    record_manager: RecordManager,
    store: VectorStore,
    *,
    splitter: Any = None,
    group_by: GroupBy | None = None,
    embeddings: PplxEmbeddings | None = None,
    on_miss: OnMiss = "warn",
    cleanup: Cleanup | None = "incremental",
    batch_size: int = 100,
    content_metadata: Sequence[str] = (),
    **options: Any,
) -> IndexingResult:
    """`index_documents` without blocking the event loop, over `langchain_core.indexing.aindex`."""
    given = documents.alazy_load() if isinstance(documents, BaseLoader) else documents
    if isinstance(given, AsyncIterable):
        given = _pulled(given, asyncio.get_running_loop())
    opened = partial(
        Run,
        _listed(given),
        record_manager,
        store,
        splitter,
        group_by,
        embeddings,
        cleanup,
        batch_size,
        content_metadata,
    )
    return await arun(_index(opened, record_manager, store, on_miss, options))


def _index(
    opened: Callable[[], Run],
    records: RecordManager,
    store: VectorStore,
    on_miss: OnMiss,
    options: dict[str, Any],
) -> Flow[IndexingResult]:
    job: Run = yield in_worker(opened)
    started: float = yield either(records.get_time, records.aget_time)
    with job.progress():
        batches = job.batches()
        while (named := (yield in_worker(next, batches, None))) is not None:
            batch = Batch(named)
            for ids in batch.ids():
                known = yield either(records.exists, records.aexists, ids)
                batch.recorded |= {each for each, there in zip(ids, known, strict=True) if there}
            asked = batch.to_look_up()
            held = yield from held_ids(store, asked)
            if held is not None and (lost := job.forget(batch, set(asked) - held)):
                yield either(records.delete_keys, records.adelete_keys, lost)
            yield in_worker(partial(job.choose, batch, force=bool(options.get("force_update"))))
            if owned := job.owned(batch):
                old = yield either(records.list_keys, records.alist_keys, group_ids=owned, before=started)
                job.drop_foreign(batch, (yield from _stored(store, old)))
            check_rows(store)
            yield from _replace(job, batch, records, store, started, on_miss, options)
            check_rows(store)
            job.done(batch)
        job.finish()
        if job.cleanup == "full":
            job.deleted += yield from clean_up(records, store, before=started)
    return job.result()


def _replace(
    job: Run,
    batch: Batch,
    records: RecordManager,
    store: VectorStore,
    started: float,
    on_miss: OnMiss,
    options: dict[str, Any],
) -> Flow[None]:
    """Store and record a batch, then delete what it replaces; one that the store refuses, document by document."""
    if not batch.documents:
        return
    try:
        with job.block(batch, on_miss) as scope:
            if batch.new:  # all together, before the store asks for the first chunk
                quietly = partial(job.embeddings._together, show_progress=False)
                yield from scope.matrices(set(range(len(batch.new))), quietly)
            with job.storing(batch):
                yield from clear(store, batch.to_store())
                settings = job.settings(batch, options)
                job.results.append((yield either(index, aindex, batch.chunks(), records, store, **settings)))
    except StoreError as error:
        if len(batch.documents) == 1:
            with suppress(Exception):  # the store may be gone
                if ids := batch.unrecorded():
                    there = yield from deletable(store, ids)
                    yield either(store.delete, store.adelete, there)  # it may have taken a part
                    yield either(records.delete_keys, records.adelete_keys, ids)
            raise
        with job.retrying(batch, error) as attempt:
            for one in batch.singly():
                with attempt():
                    yield from _replace(job, one, records, store, started, on_miss, options)
        return
    if job.cleanup is not None:
        job.deleted += yield from clean_up(records, store, before=started, groups=batch.groups())


def _stored(store: VectorStore, ids: list[str]) -> Flow[list[Document]]:
    """Read chunks back, from a store that can do that."""
    try:
        found: list[Document] = (yield either(store.get_by_ids, store.aget_by_ids, ids)) if ids else []
    except NotImplementedError:
        return []
    return found


def _listed(documents: Any) -> Any:
    """Return a collection as a list, as it may be shuffled; any other iterable is read as it comes."""
    if isinstance(documents, (str, bytes, dict, Document)) or not isinstance(documents, Iterable):
        return check_documents(documents)
    return list(documents) if isinstance(documents, Collection) else documents


def _pulled(documents: AsyncIterable[Document], loop: asyncio.AbstractEventLoop) -> Iterator[Document]:
    """Read an asynchronous iterator from a thread, while its loop goes on."""
    iterator, end = aiter(documents), object()

    async def step() -> Any:
        try:
            return await anext(iterator)
        except StopAsyncIteration:
            return end

    while (document := asyncio.run_coroutine_threadsafe(step(), loop).result()) is not end:
        yield document
