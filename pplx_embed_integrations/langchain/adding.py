"""Adding chunks in context in one line: to any LangChain vector store, or through a retriever that splits by itself.

Knows vector stores and retrievers; must not know vectors or how a document is embedded.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStore

from ..errors import ContextWarning, InputError, InputTypeError
from .contextual import OnMiss
from .embeddings import PplxEmbeddings
from .grouping import GroupBy, check_chunks
from .wrapping import is_text_cache, refuse

__all__ = ["aadd_documents", "add_documents", "afrom_documents", "from_documents", "resolve_embeddings"]

Store = TypeVar("Store", bound=VectorStore)


def add_documents(
    store: Any,
    documents: Iterable[Document],
    *,
    embeddings: PplxEmbeddings | None = None,
    group_by: GroupBy | None = None,
    on_miss: OnMiss = "warn",
    **options: Any,
) -> Any:
    """Add chunks to a vector store, each embedded in the context of its document.

    Args:
        store: Any LangChain vector store, or a retriever over one. To a retriever that splits by itself
            (ParentDocumentRetriever) give the whole documents; the children of one parent are embedded together.
        documents: The chunks; of one document in reading order, or with `start_index` in their metadata.
        embeddings: What the store embeds with, if the store does not tell.
        group_by: What makes chunks one document; see `PplxEmbeddings.documents`.
        on_miss: What becomes of a text that the store makes up itself; see `PplxEmbeddings.documents`.
        **options: Passed to the store's `add_documents`, for example `ids`.

    Returns:
        What the store's `add_documents` returns: the ids.

    Raises:
        InputError: The chunks cannot be grouped, or the store's embeddings are wrapped in a text cache.
        InputTypeError: The store does not embed with PplxEmbeddings.
        NotContextualError: The document side was not trained for this.

    Example:
        >>> from langchain_core.vectorstores import InMemoryVectorStore
        >>> store = InMemoryVectorStore(PplxEmbeddings("miniature"))
        >>> len(add_documents(store, [Document("She called it a science.", metadata={"source": "ada"})]))
        1
    """
    with _adding(store, documents, embeddings, group_by, on_miss) as checked:
        return store.add_documents(checked, **options)


async def aadd_documents(
    store: Any,
    documents: Iterable[Document],
    *,
    embeddings: PplxEmbeddings | None = None,
    group_by: GroupBy | None = None,
    on_miss: OnMiss = "warn",
    **options: Any,
) -> Any:
    """`add_documents` without blocking the event loop."""
    with _adding(store, documents, embeddings, group_by, on_miss) as checked:
        return await store.aadd_documents(checked, **options)


def from_documents(
    store_class: type[Store],
    documents: Iterable[Document],
    embeddings: PplxEmbeddings,
    *,
    group_by: GroupBy | None = None,
    on_miss: OnMiss = "warn",
    **options: Any,
) -> Store:
    """Make a vector store of chunks, each embedded in the context of its document.

    Args:
        store_class: A LangChain vector store class.
        documents: The chunks.
        embeddings: What the store shall embed with.
        group_by: What makes chunks one document; see `PplxEmbeddings.documents`.
        on_miss: What becomes of a text that the store makes up itself; see `PplxEmbeddings.documents`.
        **options: Passed to the class's `from_documents`.

    Returns:
        The store.

    Example:
        >>> from langchain_core.vectorstores import InMemoryVectorStore
        >>> chunks = [Document("She called it a science.", metadata={"source": "ada"})]
        >>> store = from_documents(InMemoryVectorStore, chunks, PplxEmbeddings("miniature"))
    """
    chunks = check_chunks(documents)
    with _contextual(embeddings).documents(chunks, group_by=group_by, on_miss=on_miss):
        return store_class.from_documents(chunks, embeddings, **options)


async def afrom_documents(
    store_class: type[Store],
    documents: Iterable[Document],
    embeddings: PplxEmbeddings,
    *,
    group_by: GroupBy | None = None,
    on_miss: OnMiss = "warn",
    **options: Any,
) -> Store:
    """`from_documents` without blocking the event loop."""
    chunks = check_chunks(documents)
    with _contextual(embeddings).documents(chunks, group_by=group_by, on_miss=on_miss):
        return await store_class.afrom_documents(chunks, embeddings, **options)


@contextmanager
def _adding(
    store: Any,
    documents: Iterable[Document],
    embeddings: PplxEmbeddings | None,
    group_by: GroupBy | None,
    on_miss: OnMiss,
) -> Iterator[list[Document]]:
    """Open the block for what the store is going to embed; give what to pass to it."""
    given = check_chunks(documents)
    chunks, owner = given, getattr(store, "vectorstore", store)
    if hasattr(store, "child_splitter"):
        chunks = _children(store, given)
        group_by = group_by if group_by is not None else store.id_key
    with resolve_embeddings(owner, embeddings)._scope(chunks, group_by, on_miss) as scope:
        yield given
        if chunks and not scope.asked:
            warnings.warn(
                f"{type(owner).__name__} embedded these documents with something else than the PplxEmbeddings "
                "given, so without context; build the store with this very object",
                ContextWarning,
                stacklevel=4,
            )


def _children(retriever: Any, documents: list[Document]) -> list[Document]:
    """Split as the retriever will: splitters are deterministic, so the texts and their order are the same."""
    parents = retriever.parent_splitter.split_documents(documents) if retriever.parent_splitter else documents
    children = []
    for number, parent in enumerate(parents):
        for child in retriever.child_splitter.split_documents([parent]):
            child.metadata[retriever.id_key] = number
            children.append(child)
    return children


def resolve_embeddings(store: Any, embeddings: PplxEmbeddings | None) -> PplxEmbeddings:
    """Find what a store embeds with.

    Args:
        store: A vector store.
        embeddings: What the caller says it is, needed only where the store does not tell.

    Returns:
        The embeddings object.

    Raises:
        InputError: They are wrapped in a text cache, or the store tells of another object.
        InputTypeError: They are no PplxEmbeddings.
    """
    own = getattr(store, "embeddings", None)
    if own is None:  # not every store implements the property, but all keep what they embed with
        held = getattr(store, "__dict__", {}).values()
        own = next((value for value in held if isinstance(value, PplxEmbeddings) or is_text_cache(value)), None)
    if is_text_cache(own):
        refuse()
    if isinstance(own, PplxEmbeddings) and embeddings is not None and own is not embeddings:
        raise InputError("the store embeds with another PplxEmbeddings object; leave embeddings= out, or pass that one")
    return _contextual(embeddings if embeddings is not None else own, store=store)


def _contextual(embeddings: Any, *, store: Any = None) -> PplxEmbeddings:
    if is_text_cache(embeddings):
        refuse()
    if not isinstance(embeddings, PplxEmbeddings):
        where = "embeddings" if store is None else f"{type(store).__name__}.embeddings"
        raise InputTypeError(
            f"{where} is {type(embeddings).__name__}, not PplxEmbeddings; build the store with PplxEmbeddings, "
            "or pass embeddings= if the store does not tell what it embeds with"
        )
    return embeddings
