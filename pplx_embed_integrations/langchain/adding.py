"""Adding documents in context in one line: to any LangChain vector store, or through a retriever that splits by itself.

Knows vector stores and retrievers; must not know vectors or how a document is embedded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeVar, cast

from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStore

from ..errors import InputError, InputTypeError, warn
from ..flow import Flow, Step, arun, either, in_worker, run
from ..inputs import check_positive
from .contextual import OnMiss
from .embeddings import PplxEmbeddings
from .grouping import GroupBy, Keys, check_documents, shown
from .held import check_ids
from .reading import Doubts
from .resolving import resolve_embeddings
from .splitting import ChunkedDocument, chunk_documents

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
    call = _Call(documents, splitter, group_by, embeddings, on_miss, batch_size, options)
    return run(_add(store, call))


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
    call = _Call(documents, splitter, group_by, embeddings, on_miss, batch_size, options)
    return await arun(_add(store, call))


def _add(store: Any, call: _Call) -> Flow[Any]:
    if hasattr(store, "add_whole_documents"):  # it groups and embeds by itself
        resolve_embeddings(store, call.embeddings)
        options = {**call.options, "splitter": call.splitter, "group_by": call.group_by}
        return (yield either(store.add_whole_documents, store.aadd_whole_documents, call.documents, **options))
    job: _Job = yield in_worker(_Job, store, call)
    results = []
    with job.block(type(job.vectors).__name__):
        for part, options in job.parts():
            results.append((yield _adding(store, part, options)))
    if len(results) == 1:
        return results[0]
    return [each for ids in results for each in ids] if all(isinstance(ids, list) for ids in results) else None


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
    call = _Call(documents, splitter, group_by, embeddings, on_miss, batch_size, options)
    return cast("Store", run(_from(store_class, call)))


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
    call = _Call(documents, splitter, group_by, embeddings, on_miss, batch_size, options)
    return cast("Store", await arun(_from(store_class, call)))


def _from(store_class: Any, call: _Call) -> Flow[Any]:
    if hasattr(store_class, "add_whole_documents"):
        how = {"splitter": call.splitter, "group_by": call.group_by, "ids": call.options.pop("ids", None)}
        store = yield either(store_class.from_texts, store_class.afrom_texts, [], call.embeddings, **call.options)
        yield either(store.add_whole_documents, store.aadd_whole_documents, call.documents, **how)
        return store
    job: _Job = yield in_worker(_Job, None, call)
    with job.block(store_class.__name__):
        (first, options), *others = list(job.parts())
        store = yield either(store_class.from_documents, store_class.afrom_documents, first, call.embeddings, **options)
        for part, options in others:
            yield _adding(store, part, {name: options[name] for name in ("ids",) if name in options})
    return store


@dataclass(frozen=True)
class _Call:
    """The arguments of `add_documents` and its siblings."""

    documents: Iterable[Document]
    splitter: Any
    group_by: GroupBy | None
    embeddings: PplxEmbeddings | None
    on_miss: OnMiss
    batch_size: int | None
    options: dict[str, Any]


class _Job:
    """What goes into a store, and the documents of chunks that it will ask to embed.

    All is grouped, ordered, split and checked before anything is embedded or added.

    Args:
        store: The store, or a retriever; None before there is one.
        call: What is to be added.
    """

    def __init__(self, store: Any, call: _Call) -> None:
        self.vectors = getattr(store, "vectorstore", store)
        self._call = call
        self._embeddings = resolve_embeddings(self.vectors, call.embeddings)
        self._embeddings._check_contextual()
        if call.batch_size is not None:
            check_positive("batch_size", call.batch_size)
        if hasattr(store, "vectorstore") and not hasattr(store, "add_documents"):
            raise InputTypeError(f"{type(store).__name__} takes no documents itself; pass its .vectorstore")
        self._ids = None if call.options.get("ids") is None else list(call.options["ids"])
        self._given = check_documents(call.documents)  # chunks, or whole documents for a retriever that splits
        self._splits_itself = hasattr(store, "child_splitter")
        if self._splits_itself:
            if call.splitter is not None:
                raise InputError(f"{type(store).__name__} splits by itself; leave splitter= out")
            self._documents = _children(store, self._given, call.group_by)
        else:
            if call.splitter is None:
                check_ids(self.vectors, self._given, self._ids)
            elif self._ids is not None:
                raise InputError("ids= names chunks, which are not there before the splitter has run; leave it out")
            self._documents = chunk_documents(self._given, splitter=call.splitter, group_by=call.group_by)
        if call.splitter is not None:
            self._given = [chunk for document in self._documents for chunk in document.chunks]
        if self._documents:
            names = [f"document {shown(document.key)}" for document in self._documents]
            self._embeddings.biencoder.check_documents([document.texts for document in self._documents], names=names)

    def parts(self) -> Iterator[tuple[list[Document], dict[str, Any]]]:
        """Cut what goes into the store into calls, each with its options."""
        count = max(len(self._given), 1)  # a store is made of no documents, too
        size = self._call.batch_size or count
        for start in range(0, count, size):
            own = {} if self._ids is None else {"ids": self._ids[start : start + size]}
            yield self._given[start : start + size], {**self._call.options, **own}

    @contextmanager
    def block(self, store: str) -> Iterator[None]:
        """Open the block for what the store is going to embed, and see whether it did."""
        opened = self._embeddings._scope(self._documents, on_miss=self._call.on_miss, in_turn=self._splits_itself)
        with opened as scope:
            yield
            if not scope.unasked:
                return
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


def _children(retriever: Any, documents: list[Document], group_by: GroupBy | None) -> list[ChunkedDocument]:
    """Split as the retriever will: splitters are deterministic, so the texts and their order are the same."""
    parents = retriever.parent_splitter.split_documents(documents) if retriever.parent_splitter else documents
    keys = None if group_by is None else Keys(group_by, parents)
    gathered: dict[str, ChunkedDocument] = {}
    places = count()
    for number, parent in enumerate(parents):
        key = str(number) if keys is None else keys.of(parent, number)
        for child in retriever.child_splitter.split_documents([parent]):
            gathered.setdefault(key, ChunkedDocument(key, [])).add(child, next(places))
    doubts = Doubts()
    for document in gathered.values():
        doubts.look(document.key, document.chunks)
    return list(gathered.values())
