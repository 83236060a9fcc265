"""Adding documents in context in one line: to any LangChain vector store, or through a retriever that splits by itself.

Knows vector stores and retrievers; must not know vectors or how a document is embedded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStore

from ..errors import InputError, InputTypeError, warn
from ..flow import Flow, Step, arun, either, in_worker, run
from ..inputs import check_positive
from .contextual import OnMiss
from .embeddings import PplxEmbeddings
from .grouping import GroupBy, Key, Keys, check_documents
from .held import check_ids
from .reading import Doubts
from .resolving import check_embeddings, resolve_embeddings
from .splitting import ChunkedDocument, chunk_documents

__all__ = ["aadd_documents", "add_documents", "afrom_documents", "from_documents"]

Store = TypeVar("Store", bound=VectorStore)


def add_documents(
    store: Any,
    documents: Iterable[Document],
    *,
    splitter: Any = None,
    group_by: GroupBy | None = None,
    embeddings: PplxEmbeddings | None = None,
    on_miss: OnMiss = "warn",
    batch_size: int | None = None,
    **options: Any,
) -> Any:
    """Add documents to a vector store, each chunk embedded in the context of its document.

    Args:
        store: Any LangChain vector store, or a retriever over one. To a retriever that splits by itself
            (ParentDocumentRetriever) give the whole documents; the children of one parent are embedded together.
        documents: Whole documents, with a splitter; or chunks, with `group_by` or the stamp of `split_documents`.
        splitter: Splits whole documents; see `split_documents`.
        group_by: What makes several of them one document: a metadata key, a function of the document, or one key per
            document.
        embeddings: What the store embeds with, if the store does not tell.
        on_miss: What becomes of a text that the store makes up itself; see `PplxEmbeddings.documents`.
        batch_size: Chunks that the store is given at once, by default all: for stores that take only so many.
        **options: Passed to the store's `add_documents`, for example `ids`.

    Returns:
        What the store's `add_documents` returns: the ids.

    Raises:
        InputError: Which chunks belong together is not known, a document cannot be embedded, or the store's embeddings
            are wrapped in a text cache. Nothing has been added then.
        InputTypeError: The store does not embed with PplxEmbeddings.
        NotContextualError: The document side was not trained for this.

    Example:
        >>> from langchain_core.vectorstores import InMemoryVectorStore
        >>> store = InMemoryVectorStore(PplxEmbeddings("miniature"))
        >>> ada = Document("Ada Lovelace wrote notes. She called it a science.", id="ada")
        >>> len(add_documents(store, [ada], splitter=lambda text: text.split(". ")))
        2
    """
    return run(_add(store, documents, splitter, group_by, embeddings, on_miss, batch_size, options))


async def aadd_documents(
    store: Any,
    documents: Iterable[Document],
    *,
    splitter: Any = None,
    group_by: GroupBy | None = None,
    embeddings: PplxEmbeddings | None = None,
    on_miss: OnMiss = "warn",
    batch_size: int | None = None,
    **options: Any,
) -> Any:
    """`add_documents` without blocking the event loop."""
    return await arun(_add(store, documents, splitter, group_by, embeddings, on_miss, batch_size, options))


def _add(
    store: Any,
    documents: Iterable[Document],
    splitter: Any,
    group_by: GroupBy | None,
    embeddings: PplxEmbeddings | None,
    on_miss: OnMiss,
    batch_size: int | None,
    options: dict[str, Any],
) -> Flow[Any]:
    if hasattr(store, "add_whole_documents"):  # it groups and embeds by itself
        resolve_embeddings(store, embeddings)
        options = {**options, "splitter": splitter, "group_by": group_by}
        return (yield either(store.add_whole_documents, store.aadd_whole_documents, documents, **options))
    job = yield in_worker(_Job.of, store, documents, splitter, group_by, embeddings, batch_size, options)
    results = []
    with job.block(on_miss):
        for part, more in job.parts():
            results.append((yield _adding(store, part, more)))
    return _joined(results)


def _adding(store: Any, documents: list[Document], options: dict[str, Any]) -> Step:
    # Looked up when it is called: a retriever need not have both.
    return Step(lambda: store.add_documents(documents, **options), lambda: store.aadd_documents(documents, **options))


def from_documents(
    store_class: type[Store],
    documents: Iterable[Document],
    embeddings: PplxEmbeddings,
    *,
    splitter: Any = None,
    group_by: GroupBy | None = None,
    on_miss: OnMiss = "warn",
    batch_size: int | None = None,
    **options: Any,
) -> Store:
    """Make a vector store of documents, each chunk embedded in the context of its document.

    Args:
        store_class: A LangChain vector store class.
        documents: Whole documents or chunks; see `add_documents`.
        embeddings: What the store shall embed with.
        splitter: Splits whole documents; see `split_documents`.
        group_by: What makes several of them one document; see `add_documents`.
        on_miss: What becomes of a text that the store makes up itself; see `PplxEmbeddings.documents`.
        batch_size: Chunks that the store is given at once, by default all.
        **options: Passed to the class's `from_documents`.

    Returns:
        The store.

    Example:
        >>> from langchain_core.vectorstores import InMemoryVectorStore
        >>> chunks = [Document("She called it a science.", metadata={"source": "ada"})]
        >>> store = from_documents(InMemoryVectorStore, chunks, PplxEmbeddings("miniature"), group_by="source")
    """
    flow = _from(store_class, documents, embeddings, splitter, group_by, on_miss, batch_size, options)
    return cast("Store", run(flow))


async def afrom_documents(
    store_class: type[Store],
    documents: Iterable[Document],
    embeddings: PplxEmbeddings,
    *,
    splitter: Any = None,
    group_by: GroupBy | None = None,
    on_miss: OnMiss = "warn",
    batch_size: int | None = None,
    **options: Any,
) -> Store:
    """`from_documents` without blocking the event loop."""
    flow = _from(store_class, documents, embeddings, splitter, group_by, on_miss, batch_size, options)
    return cast("Store", await arun(flow))


def _from(
    store_class: Any,
    documents: Iterable[Document],
    embeddings: PplxEmbeddings,
    splitter: Any,
    group_by: GroupBy | None,
    on_miss: OnMiss,
    batch_size: int | None,
    options: dict[str, Any],
) -> Flow[Any]:
    check_embeddings(embeddings)
    if hasattr(store_class, "add_whole_documents"):
        how = {"splitter": splitter, "group_by": group_by, "ids": options.pop("ids", None)}
        store = yield either(store_class.from_texts, store_class.afrom_texts, [], embeddings, **options)
        yield either(store.add_whole_documents, store.aadd_whole_documents, documents, **how)
        return store
    job = yield in_worker(_Job.of, None, documents, splitter, group_by, embeddings, batch_size, options)
    with job.block(on_miss, what=store_class.__name__):
        (first, more), *others = list(job.parts()) or [([], options)]
        store = yield either(store_class.from_documents, store_class.afrom_documents, first, embeddings, **more)
        for part, more in others:
            yield _adding(store, part, {name: more[name] for name in ("ids",) if name in more})
    return store


@dataclass(frozen=True)
class _Job:
    """What goes into a store, and the documents of chunks that it will ask to embed."""

    store: Any  # or a retriever; None before there is one
    given: list[Document]  # chunks, or whole documents for a retriever that splits
    documents: list[ChunkedDocument]
    embeddings: PplxEmbeddings
    batch_size: int | None
    options: dict[str, Any]
    in_turn: bool = False  # whether equal chunks will be asked for in order

    @classmethod
    def of(
        cls,
        store: Any,
        documents: Iterable[Document],
        splitter: Any,
        group_by: GroupBy | None,
        embeddings: PplxEmbeddings | None,
        batch_size: int | None,
        options: dict[str, Any],
    ) -> _Job:
        """Group, order, split and check, all before anything is embedded or added."""
        vectors = getattr(store, "vectorstore", store)
        owner = check_embeddings(embeddings) if store is None else resolve_embeddings(vectors, embeddings)
        owner._check_contextual()
        if batch_size is not None:
            check_positive("batch_size", batch_size)
        if hasattr(store, "vectorstore") and not hasattr(store, "add_documents"):
            raise InputTypeError(f"{type(store).__name__} takes no documents itself; pass its .vectorstore")
        given = check_documents(documents)
        splits_itself = hasattr(store, "child_splitter")
        if splits_itself:
            if splitter is not None:
                raise InputError(f"{type(store).__name__} splits by itself; leave splitter= out")
            chunked = _children(store, given, group_by)
        else:
            if splitter is not None and options.get("ids") is not None:
                raise InputError("ids= names chunks, which are not there before the splitter has run; leave it out")
            ids = options.get("ids")
            if isinstance(ids, list) and len(ids) != len(given):
                raise InputError(f"ids has {len(ids)} entries for {len(given)} chunks; give one per chunk")
            if splitter is None:
                check_ids(getattr(store, "vectorstore", store), given, ids)
            chunked = chunk_documents(given, splitter=splitter, group_by=group_by)
        if splitter is not None:
            given = [chunk for document in chunked for chunk in document.chunks]
        if chunked:
            names = [f"document {document.key.shown}" for document in chunked]
            owner.biencoder.check_documents([document.texts for document in chunked], names=names)
        return cls(store, given, chunked, owner, batch_size, options, in_turn=splits_itself)

    def parts(self) -> Iterator[tuple[list[Document], dict[str, Any]]]:
        """Cut what goes into the store into calls, each with its options."""
        size = self.batch_size if self.batch_size is not None else len(self.given)
        if size >= len(self.given):
            yield self.given, self.options
            return
        ids = self.options.get("ids")
        ids = ids if ids is None else list(ids)
        for start in range(0, len(self.given), size):
            own = {} if ids is None else {"ids": ids[start : start + size]}
            yield self.given[start : start + size], {**self.options, **own}

    @contextmanager
    def block(self, on_miss: OnMiss, *, what: str | None = None) -> Iterator[None]:
        """Open the block for what the store is going to embed, and see whether it did."""
        with self.embeddings._scope(self.documents, on_miss=on_miss, in_turn=self.in_turn) as scope:
            yield
            if not scope.unasked:
                return
            store = what or type(getattr(self.store, "vectorstore", self.store)).__name__
            if scope.asked:
                message = (
                    f"{scope.unasked} of {scope.asked + scope.unasked} chunks got their vectors from elsewhere, "
                    f"perhaps a cache between {store} and the model that finds them by text: these may lack their "
                    "context. Use PplxEmbeddings(..., cache=byte_store)"
                )
            else:
                message = (
                    f"{store} embedded these documents with something else than the PplxEmbeddings given, so without "
                    "context; build the store with this very object"
                )
            warn(message)


def _joined(results: list[Any]) -> Any:
    """Put the ids of several calls together."""
    if len(results) == 1:
        return results[0]
    return [each for result in results for each in result] if all(isinstance(r, list) for r in results) else None


def _children(retriever: Any, documents: list[Document], group_by: GroupBy | None) -> list[ChunkedDocument]:
    """Split as the retriever will: splitters are deterministic, so the texts and their order are the same."""
    parents = retriever.parent_splitter.split_documents(documents) if retriever.parent_splitter else documents
    keys = None if group_by is None else Keys(group_by, parents)
    gathered: dict[Key, ChunkedDocument] = {}
    place = 0
    for number, parent in enumerate(parents):
        key = Key(str(number)) if keys is None else keys.of(parent, number)
        children = gathered.setdefault(key, ChunkedDocument(key, []))
        for child in retriever.child_splitter.split_documents([parent]):
            children.chunks.append(child)
            children.places.append(place)
            place += 1
    found = [document for document in gathered.values() if document.chunks]
    doubts = Doubts()
    for document in found:
        doubts.look(document.key, document.chunks)
    return found
