"""Whole documents and a splitter: every kind of splitter, stamps that survive a store, pages of one file."""

from __future__ import annotations

import asyncio
import random
import warnings

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.indexing import InMemoryRecordManager
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_text_splitters import (
    CharacterTextSplitter,
    MarkdownHeaderTextSplitter,
    RecursiveCharacterTextSplitter,
    RecursiveJsonSplitter,
)

from pplx_embed_integrations.errors import ContextWarning, InputError, InputTypeError
from pplx_embed_integrations.langchain import (
    aadd_documents,
    add_documents,
    aindex_documents,
    from_documents,
    index_documents,
    split_documents,
)

STORES = ["InMemory", "FAISS", "Chroma", "Qdrant"]
LINES = RecursiveCharacterTextSplitter(chunk_size=80, chunk_overlap=0, separators=["\n"], keep_separator=False)


@pytest.fixture
def whole(corpus) -> list[Document]:
    return [
        Document("\n".join(texts), id=f"doc-{n}", metadata={"source": f"doc-{n}"}) for n, texts in enumerate(corpus)
    ]


@pytest.fixture
def read(read_vectors, monkeypatch):
    """Reads stored vectors by document and position, as the stamp says."""

    def read(name, store):
        from tests.langchain.conftest import _rows

        found: dict[tuple[str, int], list[list[float]]] = {}
        for _, metadata, vector in _rows(name, store):
            row = np.asarray(vector, dtype=np.float32).tolist()
            found.setdefault((metadata["pplx_document"], int(metadata["pplx_chunk"])), []).append(row)
        return found

    return read


def records_of(namespace: str = "x") -> InMemoryRecordManager:
    records = InMemoryRecordManager(namespace)
    records.create_schema()
    return records


@pytest.mark.parametrize("name", STORES)
@pytest.mark.parametrize("way", ["add", "aadd", "index", "aindex"])
async def test_the_hard_case_as_whole_documents(name, way, open_store, embeddings, whole, expected, read, same):
    store = open_store(name, embeddings)
    random.Random(3).shuffle(whole)
    if way == "add":
        add_documents(store, whole, splitter=LINES, batch_size=50)
    elif way == "aadd":
        await aadd_documents(store, whole, splitter=LINES)
    elif way == "index":
        index_documents(whole, records_of(), store, splitter=LINES)
    else:
        await aindex_documents(iter(whole), records_of(), store, splitter=LINES)
    same(read(name, store), expected)


@pytest.mark.parametrize("name", STORES)
def test_stamped_chunks_are_read_back_shuffled_and_added_again(
    name, open_store, embeddings, whole, expected, read, same, tmp_path
):
    first = open_store(name, embeddings, tmp_path)
    add_documents(first, whole, splitter=LINES)
    back = first.similarity_search("paragraph", k=132)
    assert len(back) == 132
    random.Random(5).shuffle(back)
    for chunk in back:
        chunk.id = None
    again = InMemoryVectorStore(embeddings)
    add_documents(again, back)
    same(read("InMemory", again), expected)
    with pytest.warns(ContextWarning, match=r"10 of the 11 chunks of document 'doc-\d+'"):
        add_documents(InMemoryVectorStore(embeddings), [c for c in back if c.metadata["pplx_chunk"] != 10])


def test_an_incomplete_document_replaces_nothing(opened, whole):
    store, records = opened.store, records_of()
    index_documents(whole, records, store, splitter=LINES)
    some = [chunk for chunk in store.similarity_search("x", k=132) if chunk.metadata["pplx_chunk"] < 5]
    with (
        pytest.warns(ContextWarning, match="5 of the 11"),
        pytest.raises(InputError, match="5 of the 11 chunks of doc"),
    ):
        index_documents(some, records, store)
    assert len(opened.rows()) == 132
    complete = store.similarity_search("x", k=132)
    assert index_documents(complete, records, store)["num_skipped"] == 132


def by_document(chunks: list[Document]) -> list[list[str]]:
    found: dict[str, list[str]] = {}
    for chunk in chunks:
        found.setdefault(chunk.metadata["pplx_document"], []).append(chunk.page_content)
    return list(found.values())


class SemanticChunker:
    """Makes the calls of LangChain's class of that name: the sentences of a text in one list, to the same model."""

    def __init__(self, embeddings):
        self.embeddings = embeddings

    def split_text(self, text):
        sentences = text.split(". ")
        vectors = self.embeddings.embed_documents(sentences)
        chunks = [[sentences[0]]]
        for before, after, sentence in zip(vectors, vectors[1:], sentences[1:], strict=False):
            if np.dot(before, after) < 0.5:
                chunks.append([])
            chunks[-1].append(sentence)
        return [". ".join(chunk) for chunk in chunks]

    def split_documents(self, documents):
        return [Document(text, metadata=d.metadata) for d in documents for text in self.split_text(d.page_content)]


@pytest.mark.parametrize(
    ("splitter", "text", "pieces"),
    [
        (CharacterTextSplitter("\n", chunk_size=10, chunk_overlap=0), "one two\nthree four", 2),
        (MarkdownHeaderTextSplitter([("#", "h1")]), "# One\nfirst\n# Two\nsecond", 2),
        (RecursiveJsonSplitter(max_chunk_size=25, min_chunk_size=1), '{"ä": "first text", "b": "second text"}', 2),
        (lambda text: text.split("|"), "one||two", 2),
    ],
    ids=["character", "markdown", "json", "function"],
)
def test_any_splitter(embeddings, splitter, text, pieces):
    chunks = split_documents([Document(text, id="a", metadata={"lang": "en"})], splitter)
    assert len(chunks) == pieces
    assert {chunk.metadata["lang"] for chunk in chunks} == {"en"}
    assert [chunk.metadata["pplx_chunk"] for chunk in chunks] == list(range(pieces))
    assert {(chunk.metadata["pplx_document"], chunk.metadata["pplx_chunks"]) for chunk in chunks} == {("a", pieces)}
    store = from_documents(InMemoryVectorStore, [Document(text, id="a")], embeddings, splitter=splitter)
    [expected] = embeddings.embed_document_chunks(by_document(chunks))
    np.testing.assert_allclose([row["vector"] for row in store.store.values()], expected, atol=0.006)


def test_a_splitter_that_embeds_with_the_same_object_needs_no_warning(new_store, new_fake):
    embeddings = new_fake()
    opened = new_store(embeddings)
    text = ". ".join(f"Sentence {n} about {what}" for n, what in enumerate(["boats", "boats", "bread", "birds"]))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ContextWarning)
        add_documents(opened.store, [Document(text, id="a")], splitter=SemanticChunker(embeddings))
    rows = sorted(opened.rows(), key=lambda row: row.metadata["pplx_chunk"])
    assert len(rows) > 1
    opened.check({"a": [row.text for row in rows]}, by="pplx_document", place="pplx_chunk")
    with pytest.warns(ContextWarning, match="each by itself"):
        SemanticChunker(embeddings).split_text(text)


@pytest.mark.parametrize("splitter", [3, "lines", RecursiveCharacterTextSplitter, lambda text: text, lambda text: [1]])
def test_what_cannot_split_is_refused(splitter):
    with pytest.raises(InputTypeError, match="split"):
        split_documents([Document("one two")], splitter)


def test_a_document_that_the_splitter_cannot_split_keeps_no_other_out(opened):
    def split(text):
        if "odd" in text:
            raise KeyError("unknown mark")
        return text.split("|")

    documents = [Document(f"{name} one|{name} two", id=name) for name in ("a", "odd", "b")]
    with pytest.raises(InputError, match=r"1 document was not indexed.*cannot split document 'odd': KeyError"):
        index_documents(documents, records_of(), opened.store, splitter=split)
    opened.check({name: [f"{name} one", f"{name} two"] for name in "ab"}, by="pplx_document", place="pplx_chunk")
    with pytest.raises(InputError, match=r"cannot split document 'odd'"):
        add_documents(opened.store, documents, splitter=split)
    assert len(opened.rows()) == 4


def test_pages_are_joined_in_the_order_given(embeddings):
    pages = [Document(f"Page {n} begins.\nPage {n} ends.", metadata={"file": "a.pdf", "page": n}) for n in (0, 1, 2)]
    pages.insert(1, Document("", metadata={"file": "a.pdf", "page": 99}))  # an empty page has no chunk
    chunks = split_documents(pages, RecursiveCharacterTextSplitter(chunk_size=20, chunk_overlap=0), group_by="file")
    assert [c.page_content for c in chunks] == [f"Page {n} {w}." for n in range(3) for w in ("begins", "ends")]
    assert {(c.metadata["pplx_document"], c.metadata["pplx_chunks"]) for c in chunks} == {("a.pdf", 6)}
    with pytest.raises(InputError, match=r"document .b\.pdf. has no text"):
        split_documents([*pages, Document("", metadata={"file": "b.pdf"})], LINES, group_by="file")


@pytest.mark.parametrize("way", ["add", "aadd", "index"])
def test_pages_of_a_file_are_one_document_in_a_store(opened, way):
    pages = [
        Document(f"{name}, page {n} begins.\n{name}, page {n} ends.", metadata={"file": name, "page": n})
        for name in ("a.pdf", "b.pdf")
        for n in range(3)
    ]
    mixed = [pages[n] for n in (0, 3, 1, 4, 2, 5)]
    splitter = RecursiveCharacterTextSplitter(chunk_size=30, chunk_overlap=0, separators=["\n"], keep_separator=False)
    if way == "add":
        add_documents(opened.store, mixed, splitter=splitter, group_by="file")
    elif way == "aadd":
        asyncio.run(aadd_documents(opened.store, mixed, splitter=splitter, group_by="file"))
    else:
        index_documents(mixed, records_of(), opened.store, splitter=splitter, group_by="file")
    texts: dict[str, list[str]] = {}
    for page in pages:
        texts.setdefault(page.metadata["file"], []).extend(page.page_content.splitlines())
    opened.check(texts, by="file", place="pplx_chunk")


def test_whole_documents_of_one_text(embeddings):
    one, two = Document("the same", metadata={"source": "a"}), Document("the same", metadata={"source": "b"})
    assert len({c.metadata["pplx_document"] for c in split_documents([one, two], LINES)}) == 2
    with pytest.warns(ContextWarning, match="2 times with the same texts, and is taken once"):
        assert len(split_documents([one, one], LINES)) == 1
    with pytest.warns(ContextWarning, match="no source, id or title tells them apart"):
        kept = split_documents([Document("I agree.", metadata={"author": author}) for author in ("ann", "bob")], LINES)
    assert len(kept) == 2


def test_two_versions_of_one_id(opened):
    versions = [Document("the old text", id="a"), Document("the new text", id="a"), Document("another", id="b")]
    with pytest.warns(ContextWarning, match="'a' comes 2 times with different texts"):
        chunks = split_documents(versions, LINES)
    assert len({(c.metadata["pplx_document"], c.metadata["pplx_version"]) for c in chunks}) == 3
    with pytest.raises(InputError, match="document 'a' comes 2 times with different texts"):
        index_documents(versions, records_of(), opened.store, splitter=LINES)
    assert [row.text for row in opened.rows()] == ["another"]


def test_ids_of_chunks_cannot_be_given_before_there_are_any(embeddings):
    with pytest.raises(InputError, match="ids="):
        add_documents(InMemoryVectorStore(embeddings), [Document("a", id="a")], splitter=LINES, ids=["1"])
