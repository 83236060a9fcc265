"""Retrievers that hold a vector store: the children of one parent are embedded together."""

from __future__ import annotations

import asyncio
import uuid

import numpy as np
import pytest
from langchain_classic.retrievers import MultiVectorRetriever, ParentDocumentRetriever
from langchain_core.documents import Document
from langchain_core.stores import InMemoryStore
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


def check(opened, documents: list[tuple[Document, list[Document]]], key) -> None:
    """Every child of every document is there once, with the vector it has among its siblings."""
    embeddings, expected = opened.store.embeddings, {}
    for whole, children in documents:
        [matrix] = embeddings.embed_document_chunks([[child.page_content for child in children]])
        for child, vector in zip(children, matrix, strict=True):
            expected[whole.metadata["source"], child.page_content] = vector
    rows = {(row.metadata["source"], row.text): row.vector for row in opened.rows()}
    assert len(rows) == len(opened.rows())
    assert rows.keys() == expected.keys()
    for place, vector in expected.items():
        np.testing.assert_allclose(rows[place], vector, atol=1e-4)
    assert all(row.metadata.get(key) for row in opened.rows())


def split(books: list[Document]) -> list[tuple[Document, list[Document]]]:
    return [(book, splitter(60).split_documents([book])) for book in books]


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("parents", [False, True])
def test_parent_document_retriever(opened, books, asynchronous, parents):
    store = opened.store
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
    check(opened, split(retriever.parent_splitter.split_documents(books) if parents else books), "doc_id")
    assert len({row.metadata["doc_id"] for row in opened.rows()}) > (3 if parents else 2)
    assert retriever.invoke("boats")


def test_children_can_share_the_context_of_more_than_their_parent(opened, books):
    retriever = ParentDocumentRetriever(
        vectorstore=opened.store, docstore=InMemoryStore(), child_splitter=splitter(60), parent_splitter=splitter(600)
    )
    add_documents(retriever, books, group_by="source", on_miss="error")
    parents = [(book, retriever.parent_splitter.split_documents([book])) for book in books]
    check(opened, [(book, splitter(60).split_documents(parts)) for book, parts in parents], "doc_id")


def test_multi_vector_retriever(opened, books):
    retriever = MultiVectorRetriever(vectorstore=opened.store, docstore=InMemoryStore())
    ids = [str(uuid.uuid4()) for _ in books]
    children = []
    for key, book in zip(ids, books, strict=True):
        for child in splitter(60).split_documents([book]):
            child.metadata["doc_id"] = key
            children.append(child)
    add_documents(retriever.vectorstore, children, group_by="doc_id")
    retriever.docstore.mset(list(zip(ids, books, strict=True)))
    check(opened, split(books), "doc_id")
    assert retriever.invoke("boats")[0] in books
    with pytest.raises(InputTypeError, match=r"MultiVectorRetriever takes no documents itself; pass its \.vectorstore"):
        add_documents(retriever, children, group_by="doc_id")


def test_a_stores_own_retriever(opened, books):
    retriever = opened.store.as_retriever()
    add_documents(retriever, splitter(60).split_documents(books), group_by="source", on_miss="error")
    check(opened, split(books), "source")
