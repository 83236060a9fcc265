"""index_documents: whole documents are replaced, unchanged ones cost nothing, and a killed run goes on where it was."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from uuid import uuid4

import pytest
from langchain_chroma import Chroma
from langchain_classic.indexes import SQLRecordManager
from langchain_community.vectorstores import FAISS
from langchain_core.document_loaders import BaseLoader
from langchain_core.documents import Document
from langchain_core.indexing import InMemoryRecordManager
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_qdrant import QdrantVectorStore
from qdrant_client import QdrantClient, models

from pplx_embed_integrations.errors import ContextWarning, InputError, InputTypeError, StoreError
from pplx_embed_integrations.langchain import (
    PplxEmbeddings,
    aadd_documents,
    add_documents,
    adelete_documents,
    aindex_documents,
    delete_documents,
    index_documents,
    split_documents,
)
from tests.langchain.conftest import FOUR, Opened


def corpus(count: int = 12, rows: int = 7) -> list[list[str]]:
    documents = [
        [f"document {n} says {row} things" for row in range(rows - 1)] + ["the same footer"] for n in range(count)
    ]
    documents[1][4] = documents[1][1]  # a chunk that occurs twice in its document
    return documents


def chunks_of(documents: list[list[str]], **metadata: object) -> list[Document]:
    return [
        Document(text, metadata={"source": f"doc-{n}", **metadata})
        for n, texts in enumerate(documents)
        for text in texts
    ]


@pytest.fixture
def records() -> InMemoryRecordManager:
    manager = InMemoryRecordManager("test")
    manager.create_schema()
    return manager


def check(opened, documents: list[list[str]]) -> None:
    """Everything is there once, with its vector."""
    opened.check({f"doc-{n}": texts for n, texts in enumerate(documents)}, by="source", place="pplx_chunk")


@pytest.mark.parametrize("cleanup", ["scoped_full", "incremental", "full", None])
@pytest.mark.parametrize("batch_size", [5, 100])
def test_an_unchanged_rerun_embeds_nothing(new_store, counting_fake, records, cleanup, batch_size):
    """Also where a batch ends in the middle of a document."""
    counted = counting_fake()
    opened = new_store(counted)
    store = opened.store
    chunks = chunks_of(corpus())
    first = index_documents(chunks, records, store, group_by="source", cleanup=cleanup, batch_size=batch_size)
    assert (first["num_added"], first["num_deleted"]) == (84, 0)
    assert len(counted.encoded) == 12
    again = index_documents(chunks, records, store, group_by="source", cleanup=cleanup, batch_size=batch_size)
    assert (again["num_added"], again["num_skipped"], again["num_deleted"]) == (0, 84, 0)
    assert len(counted.encoded) == 12
    check(opened, corpus())


@pytest.mark.parametrize("cleanup", ["scoped_full", "incremental", "full"])
async def test_async_is_the_same(new_store, counting_fake, records, cleanup):
    counted = counting_fake()
    opened = new_store(counted)
    store = opened.store
    await aindex_documents(chunks_of(corpus()), records, store, group_by="source", cleanup=cleanup, batch_size=5)
    again = await aindex_documents(
        chunks_of(corpus()), records, store, group_by="source", cleanup=cleanup, batch_size=5
    )
    assert again["num_skipped"] == 84
    assert len(counted.encoded) == 12
    check(opened, corpus())


@pytest.mark.parametrize("cleanup", ["scoped_full", "incremental", "full"])
@pytest.mark.parametrize("batch_size", [3, 100])
def test_an_edit_replaces_the_whole_document_and_embeds_no_other(
    new_store, counting_fake, records, cleanup, batch_size
):
    counted = counting_fake()
    opened = new_store(counted)
    store = opened.store
    documents = corpus()
    index_documents(chunks_of(documents), records, store, group_by="source", cleanup=cleanup, batch_size=batch_size)
    counted.encoded.clear()
    documents[5][2] = "an edited chunk"
    documents[8] = documents[8][:3]
    result = index_documents(
        chunks_of(documents), records, store, group_by="source", cleanup=cleanup, batch_size=batch_size
    )
    assert (result["num_added"], result["num_deleted"]) == (7 + 3, 7 + 7)
    assert counted.encoded == [tuple(documents[5]), tuple(documents[8])]
    check(opened, documents)


def test_only_full_cleanup_removes_documents_that_are_gone(opened, records):
    store = opened.store
    index_documents(chunks_of(corpus()), records, store, group_by="source")
    assert index_documents(chunks_of(corpus(4)), records, store, group_by="source")["num_deleted"] == 0
    assert (
        index_documents(chunks_of(corpus(4)), records, store, group_by="source", cleanup="full")["num_deleted"] == 8 * 7
    )
    check(opened, corpus(4))
    assert index_documents([], records, store, group_by="source", cleanup="full")["num_deleted"] == 4 * 7
    assert index_documents([], records, store, group_by="source", cleanup="incremental")["num_added"] == 0
    assert not opened.rows()


@pytest.mark.parametrize("options", [{"dimensions": 16}, {"normalize": False}, {"quantization": "binary"}], ids=str)
def test_a_changed_option_replaces_everything(opened, new_fake, records, options):
    index_documents(chunks_of(corpus()), records, opened.store, group_by="source")
    changed = opened.reopened(new_fake(**options))
    if "dimensions" in options and opened.name != "InMemory":  # a store of one width keeps what it has
        with pytest.raises(StoreError, match=r"did not take 'doc-0'.*the old version is still there"):
            index_documents(chunks_of(corpus()), records, changed.store, group_by="source")
        check(opened, corpus())
        return
    result = index_documents(chunks_of(corpus()), records, changed.store, group_by="source")
    assert (result["num_added"], result["num_deleted"]) == (84, 84)
    check(changed, corpus())


def test_metadata_that_changes_on_each_load_is_no_content(new_store, counting_fake, records):
    counted = counting_fake()
    opened = new_store(counted)
    store = opened.store

    def load(time: float) -> list[Document]:
        tags = {"tags": {f"tag {n}" for n in range(9)}}
        odd = {"InMemory": {**tags, "loader": object()}, "FAISS": {**tags, "loader": object()}, "Qdrant": tags}
        return chunks_of(corpus(), loaded_at=time, path=f"/tmp/{time}", **odd.get(opened.name, {}))

    index_documents(load(1.0), records, store, group_by="source")
    counted.encoded.clear()
    again = index_documents(load(2.0), records, store, group_by="source")
    assert (again["num_added"], again["num_skipped"], again["num_deleted"]) == (0, 84, 0)
    assert counted.encoded == []
    check(opened, corpus())


@pytest.mark.parametrize("value", [{"name": "Ann"}, {"a", "b"}], ids=["nested", "set"])
def test_a_document_that_the_store_refuses_keeps_no_other_out(opened, records, value):
    """Chroma takes plain metadata only."""
    chunks = chunks_of(corpus(3))
    chunks[9].metadata["author"] = value
    if opened.name == "Chroma":
        with pytest.raises(InputError, match=r"1 document was not indexed.*'doc-1': ValueError"):
            index_documents(chunks, records, opened.store, group_by="source")
        assert {row.metadata["source"] for row in opened.rows()} == {"doc-0", "doc-2"}
        del chunks[9].metadata["author"]
    index_documents(chunks, records, opened.store, group_by="source")
    check(opened, corpus(3))


def test_what_was_stored_before_a_failure_stays(opened, records, monkeypatch):
    """LangChain stores and records a batch in parts; the first part was there when the second one failed."""
    add, chunks = opened.store.add_documents, chunks_of(corpus(3))

    def add_documents(documents, **options):
        if any(document.page_content == "document 1 says 5 things" for document in documents):
            raise RuntimeError("not this one")
        return add(documents, **options)

    monkeypatch.setattr(opened.store, "add_documents", add_documents)
    with pytest.raises(InputError, match=r"1 document was not indexed.*'doc-1': RuntimeError: not this one"):
        index_documents(chunks, records, opened.store, group_by="source", batch_size=10)
    opened.check({f"doc-{n}": corpus(3)[n] for n in (0, 2)}, by="source", place="pplx_chunk")


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_record_manager_that_has_forgotten_doubles_nothing(opened, records, asynchronous):
    """As after a kill between storing and recording, or with the records' file lost."""

    def index(**options):
        if asynchronous:
            coroutine = aindex_documents(chunks_of(corpus()), records, opened.store, group_by="source", **options)
            return asyncio.run(coroutine)
        return index_documents(chunks_of(corpus()), records, opened.store, group_by="source", **options)

    index(batch_size=20)
    records.delete_keys(records.list_keys()[10:30])
    index()
    check(opened, corpus())
    records.delete_keys(records.list_keys())
    assert index()["num_added"] == 84
    check(opened, corpus())
    assert index(force_update=True)["num_updated"] == 84
    check(opened, corpus())
    assert index()["num_skipped"] == 84


@pytest.mark.parametrize("asynchronous", [False, True])
def test_what_the_store_has_lost_is_stored_again(new_store, records, asynchronous):
    """The record manager is in a file, the store was in memory; or somebody has emptied it."""

    def index(opened, documents, **options):
        if asynchronous:
            coroutine = aindex_documents(chunks_of(documents), records, opened.store, group_by="source", **options)
            return asyncio.run(coroutine)
        return index_documents(chunks_of(documents), records, opened.store, group_by="source", **options)

    index(new_store(), corpus())
    opened = new_store()
    with pytest.warns(ContextWarning, match="holds nothing: they are embedded and stored again") as caught:
        assert index(opened, corpus(11), batch_size=10)["num_added"] == 77
    assert len(caught) == 1
    check(opened, corpus(11))
    assert index(opened, corpus(10), cleanup="full")["num_skipped"] == 70
    check(opened, corpus(10))
    emptied = new_store()
    delete_documents("doc-3", records, emptied.store)
    assert records.list_keys(group_ids=["doc-3"]) == []


def test_metadata_named_as_content_replaces_the_document(new_store, counting_fake, records):
    counted = counting_fake()
    opened = new_store(counted)
    store = opened.store
    chunks = chunks_of(corpus(), author="Ann", tags=1 if opened.name == "Chroma" else {"b", "a"})

    def index():
        return index_documents(chunks, records, store, group_by="source", content_metadata=["author", "tags"])

    index()
    for chunk in chunks:
        chunk.metadata["tags"] = 1 if opened.name == "Chroma" else {"a", "b"}
    assert index()["num_skipped"] == 84
    chunks[0].metadata["author"] = "Bob"
    result = index()
    assert (result["num_added"], result["num_deleted"]) == (7, 7)
    chunks[0].metadata["author"] = object()
    with pytest.raises(InputTypeError, match=r"content_metadata.*'doc-0'.*object"):
        index()
    check(opened, corpus())


def test_equal_documents_under_different_keys_are_both_kept(opened, records):
    store = opened.store
    chunks = [Document(text) for text in ["one", "two", "one", "two"]]
    assert index_documents(chunks, records, store, group_by=["a", "a", "b", "b"])["num_added"] == 4
    assert index_documents(chunks, records, store, group_by=["a", "a", "b", "b"])["num_skipped"] == 4
    opened.check({key: ["one", "two"] for key in "ab"}, by="pplx_document", place="pplx_chunk")


def test_loaders_and_async_iterators_are_read(embeddings, records):
    class Loader(BaseLoader):
        def lazy_load(self):
            yield from chunks_of(corpus(2))

    async def stream():
        for chunk in chunks_of(corpus(2)):
            yield chunk

    store = InMemoryVectorStore(embeddings)
    assert index_documents(Loader(), records, store, group_by="source")["num_added"] == 14
    assert asyncio.run(aindex_documents(Loader(), records, store, group_by="source"))["num_skipped"] == 14
    assert asyncio.run(aindex_documents(stream(), records, store, group_by="source"))["num_skipped"] == 14


def test_the_users_documents_are_left_as_they_are(embeddings, records):
    chunks = chunks_of(corpus(2))
    before = [(chunk.page_content, dict(chunk.metadata)) for chunk in chunks]
    index_documents(chunks, records, InMemoryVectorStore(embeddings), group_by="source")
    assert [(chunk.page_content, chunk.metadata) for chunk in chunks] == before


def test_langchains_own_options_pass_through(embeddings, records):
    store = InMemoryVectorStore(embeddings)
    index_documents(chunks_of(corpus(2)), records, store, group_by="source")
    result = index_documents(chunks_of(corpus(2)), records, store, group_by="source", force_update=True)
    assert result["num_updated"] == 14
    for wrong in ({"batch_size": 0}, {"cleanup": "all"}, {"key_encoder": "sha256"}, {"source_id_key": "source"}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            index_documents(chunks_of(corpus(2)), records, store, group_by="source", **wrong)
    with pytest.raises(InputTypeError, match="content_metadata"):
        index_documents(chunks_of(corpus(2)), records, store, group_by="source", content_metadata="title")


def test_a_file_whose_pages_may_be_missing_is_left_as_it_is(opened, records):
    pages = [Document(text, metadata={"source": "a"}) for text in corpus(2)[0]]

    def load():
        yield from pages[:3]
        raise OSError("the share went away")

    index_documents(pages, records, opened.store, group_by="source", splitter=lambda text: [text])
    with pytest.raises(OSError, match="share went away"):
        index_documents(load(), records, opened.store, group_by="source", splitter=lambda text: [text])
    opened.check({"a": corpus(2)[0]}, by="source", place="pplx_chunk")


@pytest.mark.parametrize("way", ["iterator", "loader", "async"])
def test_what_a_broken_loader_has_given_is_kept(opened, records, way, monkeypatch):
    """Also the documents of the last batch, which was not full."""
    read = []

    def load():
        for n in range(50):
            if n == 45:
                raise OSError("the share went away")
            read.append(n)
            yield Document(f"Note {n} is about {n}.", id=f"note {n}")

    class Loader(BaseLoader):
        def lazy_load(self):
            yield from load()

    async def stream():
        for document in load():
            yield document

    store, held = opened.store, []
    add, aadd = store.add_documents, store.aadd_documents

    def add_documents(documents, **options):
        held.append(len(read) - len(opened.rows()))
        return add(documents, **options)

    async def aadd_documents(documents, **options):
        held.append(len(read) - len(opened.rows()))
        return await aadd(documents, **options)

    monkeypatch.setattr(store, "add_documents", add_documents)
    if way == "async":
        monkeypatch.setattr(store, "add_documents", add)
        monkeypatch.setattr(store, "aadd_documents", aadd_documents)
    options = {"splitter": lambda text: [text], "batch_size": 10}
    ways = {
        "iterator": lambda: index_documents(load(), records, store, **options),
        "loader": lambda: index_documents(Loader(), records, store, **options),
        "async": lambda: asyncio.run(aindex_documents(stream(), records, store, **options)),
    }
    with pytest.raises(OSError, match="share went away"):
        ways[way]()
    notes = {f"note {n}": [f"Note {n} is about {n}."] for n in range(50)}
    opened.check(dict(list(notes.items())[:45]), by="pplx_document", place="pplx_chunk")
    assert max(held) <= 12  # no more than a batch, and the document whose end had to be seen
    again = index_documents(
        [Document(f"Note {n} is about {n}.", id=f"note {n}") for n in range(50)],
        records,
        store,
        splitter=lambda text: [text],
        cleanup="full",
    )
    assert (again["num_added"], again["num_skipped"], again["num_deleted"]) == (5, 45, 0)
    opened.check(notes, by="pplx_document", place="pplx_chunk")


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_document_that_cannot_be_embedded_is_named_and_keeps_its_old_version(
    new_store, new_fake, records, asynchronous
):
    opened = new_store(new_fake(max_tokens=64))
    store = opened.store

    def index(documents, **options):
        if asynchronous:
            return asyncio.run(aindex_documents(documents, records, store, splitter=str.splitlines, **options))
        return index_documents(documents, records, store, splitter=str.splitlines, **options)

    names = ["empty", "long", "foreign", "fine"]
    index([Document(f"{name} once\nhad two lines", id=name) for name in names])
    texts = ["", "4711;" * 200, "half of a pair: \ud800", "fine still\nhas two"]
    with pytest.raises(InputError, match=r"3 documents were not indexed.*removed nothing") as refused:
        index(
            [Document.model_construct(page_content=t, metadata={}, id=n) for t, n in zip(texts, names, strict=True)],
            cleanup="full",
        )
    for name in ("'empty' has no text", "'foreign'", "'long'"):
        assert f"document {name}" in str(refused.value)
    kept = {name: [f"{name} once", "had two lines"] for name in names[:3]} | {"fine": texts[3].splitlines()}
    opened.check(kept, by="pplx_document", place="pplx_chunk")


def test_a_document_comes_back_in_an_iterator(opened, records):
    store = opened.store
    a, b = chunks_of([["a one", "a two"], ["b one", "b two"]])[:2], chunks_of([["x"], ["b one", "b two"]])[1:]
    with pytest.warns(ContextWarning, match="'doc-0' comes more than once with the same texts"):
        result = index_documents(iter([*a, *b, *a]), records, store, group_by="source")
    assert (result["num_added"], result["num_skipped"]) == (4, 2)
    with pytest.raises(InputError, match="'doc-0' comes back after other documents"):
        index_documents(
            iter([*a, *b, Document("a three", metadata={"source": "doc-0"})]), records, store, group_by="source"
        )
    check(opened, [["a one", "a two"], ["b one", "b two"]])
    shuffled = [a[0], b[0], a[1], b[1]]
    assert index_documents(shuffled, records, store, group_by="source")["num_skipped"] == 4


def test_tenants_of_one_store_neither_share_nor_delete(opened):
    store = opened.store
    tenants = {}
    for name in ("a", "b"):
        tenants[name] = InMemoryRecordManager(name)
        tenants[name].create_schema()
        assert index_documents(chunks_of(corpus(2)), tenants[name], store, group_by="source")["num_added"] == 14
    assert len(opened.rows()) == 28
    assert index_documents([], tenants["b"], store, group_by="source", cleanup="full")["num_deleted"] == 14
    assert delete_documents("doc-0", tenants["b"], store) == 0
    check(opened, corpus(2))


@pytest.mark.parametrize("whose", ["user", "file_path", "folder", "repo", "project_id"])
def test_a_file_name_that_two_users_share(opened, records, whose):
    store = opened.store
    index_documents(chunks_of([["Ann writes.", "She ends."]], **{whose: "ann"}), records, store, group_by="source")
    theirs = chunks_of([["Bob writes.", "He ends."]], **{whose: "bob"})
    for index in (index_documents, lambda *a, **options: asyncio.run(aindex_documents(*a, **options))):
        with pytest.raises(InputError, match=rf"'doc-0' would replace one of another {whose} \('ann', not 'bob'\)"):
            index(theirs, records, store, group_by="source")
    check(opened, [["Ann writes.", "She ends."]])
    index_documents(theirs, records, store, group_by=lambda chunk: (chunk.metadata[whose], chunk.metadata["source"]))
    both = {"ann": ["Ann writes.", "She ends."], "bob": ["Bob writes.", "He ends."]}
    opened.check(both, by=whose, place="pplx_chunk")


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_document_is_deleted_by_its_key(opened, records, asynchronous):
    store = opened.store
    keys = ["a.md", 7, ("ann", "b.md")]
    chunks = [Document(f"{key} {n}", metadata={"source": str(key), "chunk": n}) for key in keys for n in range(3)]
    index_documents(chunks, records, store, group_by=[key for key in keys for _ in range(3)])

    def delete(given):
        if asynchronous:
            return asyncio.run(adelete_documents(given, records, store))
        return delete_documents(given, records, store)

    assert delete("7") == 0
    assert delete([]) == 0
    assert delete(("ann", "b.md")) == 3
    opened.check({key: [f"{key} {n}" for n in range(3)] for key in ("a.md", "7")}, by="source", place="chunk")
    stamp = next(row.metadata["pplx_document"] for row in opened.rows() if row.metadata["source"] == "7")
    assert delete(["a.md", stamp, "unknown"]) == 6
    assert not opened.rows()


@pytest.mark.parametrize("key", [None, "", float("nan")])
def test_what_names_no_document_deletes_nothing(embeddings, records, key):
    with pytest.raises(InputError, match="names no document"):
        delete_documents(["a", key], records, InMemoryVectorStore(embeddings))


def test_a_retriever_is_told_to_give_its_store(opened, records):
    chunks, retriever = chunks_of(corpus(2)), opened.store.as_retriever()
    with pytest.raises(InputTypeError, match=r"pass its \.vectorstore"):
        index_documents(chunks, records, retriever, group_by="source")
    assert not opened.rows()
    index_documents(chunks, records, retriever.vectorstore, group_by="source")
    check(opened, corpus(2))


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_store_with_a_limit_is_given_so_many_chunks_at_once(opened, asynchronous, monkeypatch):
    given, name = [], "aadd_documents" if asynchronous else "add_documents"
    add = getattr(opened.store, name)
    monkeypatch.setattr(opened.store, name, lambda part, **options: given.append(len(part)) or add(part, **options))
    texts = corpus(3)
    whole = [Document("\n".join(each), id=f"doc-{n}") for n, each in enumerate(texts)]
    chunks = split_documents(whole, str.splitlines)
    ids = [str(uuid4()) for _ in chunks]
    if asynchronous:
        assert asyncio.run(aadd_documents(opened.store, chunks, batch_size=5, ids=ids)) == ids
    else:
        assert add_documents(opened.store, chunks, batch_size=5, ids=ids) == ids
    assert given == [5, 5, 5, 5, 1]
    opened.check({f"doc-{n}": each for n, each in enumerate(texts)}, by="pplx_document", place="pplx_chunk")


def test_documents_named_by_their_text_are_warned_about(opened, records):
    store, texts = opened.store, [Document("one"), Document("two")]
    with pytest.warns(ContextWarning, match=r"Document\.id.*group_by=.*cleanup=\"full\""):
        index_documents(texts, records, store, splitter=str.splitlines)
    edited = [Document("one"), Document("two and more")]
    assert index_documents(edited, records, store, splitter=str.splitlines, cleanup="full")["num_deleted"] == 1
    assert sorted(row.text for row in opened.rows()) == ["one", "two and more"]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_one_bar_for_the_whole_run(new_embeddings, records, capsys, asynchronous):
    for show in (False, True):
        store = InMemoryVectorStore(new_embeddings(show_progress=show))
        if asynchronous:
            asyncio.run(aindex_documents(chunks_of(corpus()), records, store, group_by="source", batch_size=20))
        else:
            index_documents(chunks_of(corpus()), records, store, group_by="source", batch_size=20)
        drawn = capsys.readouterr().err
        assert ("Indexing" in drawn) == show
        assert "Embedding" not in drawn
        records.records.clear()
    assert "12/12" in drawn
    assert "chunks=84" in drawn


class Dying(Chroma):
    """Dies when it has stored a batch that is not recorded yet: the worst moment."""

    left = 5

    def add_documents(self, documents, **options):
        super().add_documents(documents, **options)
        Dying.left -= 1
        if Dying.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def _records_in(folder: Path) -> SQLRecordManager:
    records = SQLRecordManager("chunks", db_url=f"sqlite:///{folder}/records.db")
    records.create_schema()
    return records


NOTES = [[f"document {n} says {row}" for row in range(5)] for n in range(60)]


def _index_and_die(folder: Path, embeddings: PplxEmbeddings) -> None:
    store = Dying("chunks", embeddings, persist_directory=str(folder / "chroma"))
    index_documents(chunks_of(NOTES), _records_in(folder), store, group_by="source", batch_size=25)


def test_a_killed_run_goes_on_where_it_was(counting_fake, fake, processes, tmp_path):
    processes.run(_index_and_die, tmp_path, fake, exitcode=-signal.SIGKILL)
    counted = counting_fake()
    store = Chroma("chunks", counted, persist_directory=str(tmp_path / "chroma"))
    assert len(store.get()["ids"]) == 125
    result = index_documents(chunks_of(NOTES), _records_in(tmp_path), store, group_by="source")
    assert (result["num_added"], result["num_skipped"], result["num_deleted"]) == (200, 100, 0)
    assert counted.encoded == [tuple(texts) for texts in NOTES[20:]]
    check(Opened("Chroma", store), NOTES)


def _saved(opened: Opened, folder: Path) -> None:
    if opened.name == "InMemory":
        opened.store.dump(str(folder / "store.json"))
    elif opened.name == "FAISS":
        opened.store.save_local(str(folder))
    elif opened.name == "Qdrant":
        opened.store.client.close()


def _loaded(name: str, folder: Path, embeddings: PplxEmbeddings) -> Opened:
    if name == "InMemory":
        return Opened(name, InMemoryVectorStore.load(str(folder / "store.json"), embeddings))
    if name == "FAISS":
        return Opened(name, FAISS.load_local(str(folder), embeddings, allow_dangerous_deserialization=True))
    if name == "Chroma":
        return Opened(name, Chroma("chunks", embeddings, persist_directory=str(folder / "chroma")))
    client = QdrantClient(path=str(folder / "qdrant"))
    if not client.collection_exists("chunks"):
        client.create_collection("chunks", models.VectorParams(size=64, distance=models.Distance.COSINE))
    return Opened(name, QdrantVectorStore(client, "chunks", embedding=embeddings))


@pytest.mark.parametrize("name", FOUR)
def test_a_store_is_saved_and_opened_again(name, counting_fake, open_store, tmp_path):
    counted = counting_fake()
    first = (
        Opened(name, open_store(name, counted)) if name in ("InMemory", "FAISS") else _loaded(name, tmp_path, counted)
    )
    index_documents(chunks_of(corpus(5)), _records_in(tmp_path), first.store, group_by="source")
    counted.encoded.clear()
    _saved(first, tmp_path)
    again = _loaded(name, tmp_path, counted)
    edited = [corpus(5)[0], ["all new", "and short"], *corpus(5)[2:]]
    result = index_documents(chunks_of(edited), _records_in(tmp_path), again.store, group_by="source")
    assert (result["num_added"], result["num_skipped"], result["num_deleted"]) == (2, 28, 7)
    assert counted.encoded == [("all new", "and short")]
    check(again, edited)


def test_a_faiss_store_whose_rows_are_mixed_up_is_refused(fake, records, open_store):
    """LangChain's class adds the vectors before it looks at the ids."""
    store = open_store("FAISS", fake)
    index_documents(chunks_of(corpus(2)), records, store, group_by="source")
    taken = store.index_to_docstore_id[0]
    with (
        pytest.raises(ValueError, match="already exist"),
        fake.documents([Document("x", metadata={"s": 1})], group_by="s"),
    ):
        store.add_documents([Document("x")], ids=[taken])
    with pytest.raises(StoreError, match=r"15 vectors for 14 chunks.*Build it anew"):
        index_documents(chunks_of(corpus(3)), records, store, group_by="source")
    with pytest.raises(StoreError, match=r"15 vectors for 14 chunks.*Build it anew"):
        add_documents(store, chunks_of([["one", "two"]]), group_by="source")
