"""Retrievers that hold a vector store: the children of one parent are embedded together."""

from __future__ import annotations

import asyncio
import uuid

import numpy as np
import pytest
from langchain_classic.retrievers import MultiVectorRetriever, ParentDocumentRetriever
from langchain_core.documents import Document
from langchain_core.stores import InMemoryStore
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_text_splitters import RecursiveCharacterTextSplitter

from pplx_embed_integrations.errors import InputTypeError
from pplx_embed_integrations.langchain import aadd_documents, add_documents

FOOTER = "This sentence ends every single one of the documents."


@pytest.fixture
def books() -> list[Document]:
    return [
        Document(
            " ".join([*(f"Sentence {n} of the book about {name}." for n in range(30)), FOOTER]),
            metadata={"source": name},
        )
        for name in ("boats", "birds", "bread")
    ]


def splitter(size: int) -> RecursiveCharacterTextSplitter:
    return RecursiveCharacterTextSplitter(chunk_size=size, chunk_overlap=0, separators=[". "])


def stored(store: InMemoryVectorStore, key: str) -> list[tuple[list[str], list[list[float]]]]:
    """The children's texts and vectors by what `key` says in their metadata, in the order they were added."""
    groups: dict[str, tuple[list[str], list[list[float]]]] = {}
    for entry in store.store.values():
        texts, vectors = groups.setdefault(entry["metadata"][key], ([], []))
        texts.append(entry["text"])
        vectors.append(entry["vector"])
    return list(groups.values())


def check(embeddings, store, key, count):
    groups = stored(store, key)
    assert len(groups) == count
    for (texts, vectors), expected in zip(
        groups, embeddings.embed_document_chunks([t for t, _ in groups]), strict=True
    ):
        assert len(texts) > 1
        np.testing.assert_allclose(vectors, expected, atol=0.006)


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("parents", [False, True])
def test_parent_document_retriever(embeddings, books, asynchronous, parents):
    store = InMemoryVectorStore(embeddings)
    retriever = ParentDocumentRetriever(
        vectorstore=store,
        docstore=InMemoryStore(),
        child_splitter=splitter(60),
        parent_splitter=splitter(600) if parents else None,
    )
    if asynchronous:
        asyncio.run(aadd_documents(retriever, books, on_miss="error"))
    else:
        add_documents(retriever, books, on_miss="error")
    check(embeddings, store, "doc_id", len(retriever.parent_splitter.split_documents(books)) if parents else 3)
    assert retriever.invoke("boats")


def test_children_can_share_the_context_of_more_than_their_parent(embeddings, books):
    store = InMemoryVectorStore(embeddings)
    retriever = ParentDocumentRetriever(
        vectorstore=store, docstore=InMemoryStore(), child_splitter=splitter(60), parent_splitter=splitter(600)
    )
    add_documents(retriever, books, group_by="source", on_miss="error")
    check(embeddings, store, "source", 3)


def test_multi_vector_retriever(embeddings, books):
    retriever = MultiVectorRetriever(vectorstore=InMemoryVectorStore(embeddings), docstore=InMemoryStore())
    ids = [str(uuid.uuid4()) for _ in books]
    children = []
    for key, book in zip(ids, books, strict=True):
        for child in splitter(60).split_documents([book]):
            child.metadata["doc_id"] = key
            children.append(child)
    add_documents(retriever.vectorstore, children, group_by="doc_id")
    retriever.docstore.mset(list(zip(ids, books, strict=True)))
    check(embeddings, retriever.vectorstore, "doc_id", 3)
    assert retriever.invoke("boats")[0] in books
    with pytest.raises(InputTypeError, match=r"MultiVectorRetriever takes no documents itself; pass its \.vectorstore"):
        add_documents(retriever, children, group_by="doc_id")


def test_a_stores_own_retriever(embeddings, books):
    store = InMemoryVectorStore(embeddings)
    add_documents(store.as_retriever(), splitter(60).split_documents(books), group_by="source", on_miss="error")
    check(embeddings, store, "source", 3)
