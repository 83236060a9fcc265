"""LangChain's indexing API with whole documents as its unit: read one by one, embedded, stored, and only then replaced.

Knows record managers, hashes and cleanup modes; must not know vectors or how a document is embedded.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Literal

from langchain_core.document_loaders import BaseLoader
from langchain_core.documents import Document
from langchain_core.indexing import IndexingResult, RecordManager, aindex, index
from langchain_core.vectorstores import VectorStore

from ..documents import DOCUMENT_KEY
from ..errors import StoreError
from ..flow import Flow, arun, either, in_worker, run
from .contextual import OnMiss
from .deleting import clean_up, group_of, in_parts
from .embeddings import PplxEmbeddings
from .grouping import GroupBy
from .held import check_rows, clear, deletable, held_ids
from .run import NamedDocument, Plan, Run

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
    plan = Plan(splitter, group_by, embeddings, on_miss, cleanup, batch_size, content_metadata, options)
    return run(_index(given, record_manager, store, plan))


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
    plan = Plan(splitter, group_by, embeddings, on_miss, cleanup, batch_size, content_metadata, options)
    return await arun(_index(given, record_manager, store, plan))


def _index(documents: Any, records: RecordManager, store: VectorStore, plan: Plan) -> Flow[IndexingResult]:
    from tqdm.auto import tqdm

    job: Run = yield in_worker(Run, documents, records, store, plan)
    job.started = yield either(records.get_time, records.aget_time)
    done = 0
    with tqdm(desc="Indexing", unit=" documents", disable=not job.embeddings.show_progress) as bar:
        batches = job.batches()
        while (batch := (yield in_worker(next, batches, None))) is not None:
            yield from _look_up(job, batch)
            batch = yield in_worker(job.fitting, batch)
            if owned := job.owned(batch):
                old = yield either(records.list_keys, records.alist_keys, group_ids=owned, before=job.started)
                batch = job.without_foreign(batch, (yield from _stored(store, old)))
            check_rows(store)
            if batch:
                yield from _replace(job, batch)
            check_rows(store)
            done += sum(len(document.chunks) for document in batch)
            bar.total = job.total
            bar.set_postfix(chunks=done, refresh=False)
            bar.update(len(batch))
        kept = ', and cleanup="full" has removed nothing' if plan.cleanup == "full" else ""
        job.end(done=f"indexed, while all others are{kept}")
        if plan.cleanup == "full":
            job.counts["num_deleted"] += yield from clean_up(records, store, before=job.started)
    return job.result()


def _look_up(job: Run, batch: list[NamedDocument]) -> Flow[None]:
    """Find out which chunks are recorded; those of a document that the store has lost are so no longer."""
    records, recorded = job.records, set[str]()
    for part in in_parts([each for document in batch for each in document.ids]):
        known = yield either(records.exists, records.aexists, part)
        recorded |= {each for each, there in zip(part, known, strict=True) if there}
    for document in batch:
        document.unrecorded = [each for each in document.ids if each not in recorded]
    whole = {document.ids[0]: document for document in batch if not document.unrecorded}
    held = yield from held_ids(job.store, list(whole))
    if held is not None and (lost := [document for first, document in whole.items() if first not in held]):
        job.warn_of_loss()
        for document in lost:
            document.unrecorded = document.ids
        yield either(records.delete_keys, records.adelete_keys, [each for document in lost for each in document.ids])


def _replace(job: Run, batch: list[NamedDocument]) -> Flow[None]:
    """Store and record a batch, then delete what it replaces; one that the store refuses, document by document."""
    records, store, plan = job.records, job.store, job.plan
    new = [document for document in batch if document.to_store]
    # In the order of their keys, which is the same in every process: a database that is given the same rows in
    # different orders by two of them has to break a deadlock.
    chunks = [chunk for document in sorted(batch, key=lambda document: document.key) for chunk in document.chunks]
    settings = {
        "batch_size": plan.batch_size,
        "cleanup": None,  # of a document that is longer than a batch it would delete what it has just stored
        "source_id_key": lambda chunk: group_of(chunk.metadata[DOCUMENT_KEY]),
        "key_encoder": lambda chunk: chunk.id,
        **plan.options,
    }
    try:
        with job.block(new) as scope:
            # All together, before the store asks for the first chunk.
            yield from scope.matrices(set(range(len(new))), partial(job.embeddings._together, show_progress=False))
            with job.storing(batch):
                yield from clear(store, [each for document in new for each in document.to_store])
                job.counts.update((yield either(index, aindex, chunks, records, store, **settings)))
    except StoreError:
        # A part of the batch may be stored, and recorded, too.
        with suppress(Exception):  # the store may be gone
            if ids := [each for document in batch for each in document.unrecorded]:
                there = yield from deletable(store, ids)
                yield either(store.delete, store.adelete, there)
                yield either(records.delete_keys, records.adelete_keys, ids)
        if len(batch) == 1:
            raise
        refused = []
        for document in batch:
            try:
                yield from _replace(job, [document])
            except StoreError as error:
                refused.append(str(error))
        if len(refused) == len(batch):  # so the store is to blame
            raise
        for message in refused:
            job.refuse(message)
        return
    if plan.cleanup is not None:
        groups = [group_of(document.key) for document in batch]
        job.counts["num_deleted"] += yield from clean_up(records, store, before=job.started, groups=groups)


def _stored(store: VectorStore, ids: list[str]) -> Flow[list[Document]]:
    """Read chunks back, from a store that can do that."""
    try:
        found: list[Document] = (yield either(store.get_by_ids, store.aget_by_ids, ids)) if ids else []
    except NotImplementedError:
        return []
    return found


def _pulled(documents: AsyncIterable[Document], loop: asyncio.AbstractEventLoop) -> Iterator[Document]:
    """Read an asynchronous iterator from a thread, while its loop goes on."""
    iterator, end = aiter(documents), object()

    async def step() -> Any:
        return await anext(iterator, end)

    while (document := asyncio.run_coroutine_threadsafe(step(), loop).result()) is not end:
        yield document
