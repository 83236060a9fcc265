"""What is asked for, refused or warned about rather than guessed, and that sound input causes no word."""

from __future__ import annotations

import asyncio
import itertools
import pickle
import warnings
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from enum import Enum
from multiprocessing import get_context
from pathlib import Path
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
from langchain_classic.retrievers.document_compressors import EmbeddingsFilter
from langchain_community.document_transformers import EmbeddingsRedundantFilter
from langchain_core.documents import Document
from langchain_core.indexing import InMemoryRecordManager
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_text_splitters import MarkdownHeaderTextSplitter, RecursiveCharacterTextSplitter

from pplx_embed_integrations.errors import ContextWarning, InputError, InputTypeError
from pplx_embed_integrations.langchain import (
    aadd_documents,
    add_documents,
    delete_documents,
    from_documents,
    index_documents,
    split_documents,
)

TEXTS = {
    firm: [f"{firm} builds {what}.", f"It was founded in {year}.", f"Its office is {where}.", "All rights reserved."]
    for firm, what, year, where in [
        ("Northwind", "robots", 2009, "a barn"),
        ("Halcyon", "bicycles", 2014, "a cellar"),
        ("Bluewater", "sensors", 1998, "a container"),
    ]
}


def chunks_of(*firms: str, **metadata) -> list[Document]:
    """The firms' chunks; a function in the metadata is called with the firm and the number of the chunk."""
    return [
        Document(
            text,
            metadata={
                "firm": firm,
                "n": n,
                **{key: value(firm, n) if callable(value) else value for key, value in metadata.items()},
            },
        )
        for firm in firms or TEXTS
        for n, text in enumerate(TEXTS[firm])
    ]


def check(opened, documents: dict[str, list[str]] = TEXTS) -> None:
    """Every stored vector is that of its chunk in its document."""
    there = {row.metadata["firm"] for row in opened.rows()}
    opened.check({firm: texts for firm, texts in documents.items() if firm in there}, by="firm", place="n")


@pytest.fixture
def store(fake) -> InMemoryVectorStore:
    """A store for what is refused before any store is asked."""
    return InMemoryVectorStore(fake)


@pytest.fixture
def records() -> InMemoryRecordManager:
    records = InMemoryRecordManager("x")
    records.create_schema()
    return records


# Which chunks are one document


def test_without_a_key_the_error_says_what_there_is_and_what_to_type(opened):
    chunks = chunks_of(doc_id=lambda firm, n: f"{firm}-{n}", source=lambda firm, n: firm, empty="")
    with pytest.raises(InputError, match=r"splitter=.*group_by=.*'doc_id' \(12\), 'source' \(3\)$"):
        add_documents(opened.store, chunks)
    with pytest.raises(InputError, match="document 5"):
        add_documents(
            opened.store, chunks_of(source=lambda firm, n: "" if firm == "Halcyon" and n else firm), group_by="source"
        )
    assert not opened.rows()


class Colour(Enum):
    RED = 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, "1"),
        (True, 1),
        (True, "true"),
        (("a", "b"), "a b"),
        (("a", ("b", "c")), ("a", "b", "c")),
        (UUID(int=1), UUID(int=2)),
        (date(2026, 1, 1), date(2026, 1, 2)),
        (Path("a"), Path("b")),
        (Colour.RED, "RED"),
        (np.int64(3), np.int64(4)),
        ("key:1", 1),
    ],
    ids=str,
)
def test_keys_that_differ_are_two_documents(opened, records, one, other):
    chunks = chunks_of("Northwind", "Halcyon")
    # Few stores take such values as metadata.
    options = {"group_by": lambda chunk: one if chunk.metadata["firm"] == "Northwind" else other}
    add_documents(opened.store, chunks, **options)
    check(opened)
    assert index_documents(chunks, records, opened.store, **options)["num_added"] == 8
    assert delete_documents([one], records, opened.store) == 4
    left = [row.metadata["firm"] for row in opened.rows() if "pplx_chunk" in row.metadata]
    assert left == ["Halcyon"] * 4


@pytest.mark.parametrize("gap", ["", "  ", None, float("nan"), pd.NA, pd.NaT, ("a", None), ()], ids=repr)
@pytest.mark.parametrize("way", ["name", "function", "list"])
def test_a_missing_key_is_named_by_its_position(store, gap, way):
    chunks = chunks_of("Halcyon", source=lambda firm, n: gap if n == 2 else "h")
    keys = [chunk.metadata["source"] for chunk in chunks]
    group_by = {"name": "source", "function": lambda chunk: chunk.metadata["source"], "list": keys}[way]
    with pytest.raises(InputError, match="document 2"):
        add_documents(store, chunks, group_by=group_by)


@pytest.mark.parametrize("value", [object(), lambda: 0, ["a", object()]], ids=["object", "function", "nested"])
def test_a_key_without_a_stable_form_is_refused(store, value):
    with pytest.raises(InputTypeError, match=r"document 0.*no form that is the same in every run"):
        add_documents(store, chunks_of("Halcyon"), group_by=lambda chunk: value)


@pytest.mark.parametrize(
    ("metadata", "match"),
    [
        ({"source": "news", "title": lambda firm, n: firm}, r"differ in 'title'.*chunk.metadata\['source'\]"),
        ({"source": "news", "url": lambda firm, n: f"https://x/{firm}"}, "differ in 'url'"),
        ({"source": "report.pdf", "user": lambda firm, n: firm}, "differ in 'user'"),
        ({"source": "report.pdf", "folder": lambda firm, n: f"/home/{firm}"}, "differ in 'folder'"),
        ({"source": "README.md", "repo": lambda firm, n: f"{firm}/site"}, "differ in 'repo'"),
        ({"source": "table.csv", "row": lambda firm, n: f"{firm}{n}"}, "differ in 'row'"),
        ({"source": "news", "doc_id": lambda firm, n: firm}, "differ in 'doc_id'"),
        ({"source": lambda firm, n: f"{firm}-{n}"}, "one chunk only"),
        ({"source": lambda firm, n: f"{firm}-{n}", "file_path": lambda firm, n: firm}, "share their 'file_path'"),
    ],
    ids=["title", "url", "user", "folder", "repo", "row", "doc_id", "single", "single-in-file"],
)
@pytest.mark.parametrize("way", ["add", "aadd", "index"])
def test_a_key_that_is_plainly_no_document_is_warned_about(opened, records, metadata, match, way):
    chunks = chunks_of(**metadata)
    ways = {
        "add": lambda: add_documents(opened.store, chunks, group_by="source"),
        "aadd": lambda: asyncio.run(aadd_documents(opened.store, chunks, group_by="source")),
        "index": lambda: index_documents(chunks, records, opened.store, group_by="source"),
    }
    with pytest.warns(ContextWarning, match=match):
        ways[way]()
    # What was warned about is there all the same, grouped as it was told.
    documents: dict[object, list[str]] = {}
    for chunk in chunks:
        documents.setdefault(chunk.metadata["source"], []).append(chunk.page_content)
    [vectors] = opened.store.embeddings.embed_document_chunks([documents["news"]]) if "news" in documents else [[]]
    for row in opened.rows() if vectors else []:
        place = [c.page_content for c in chunks].index(row.text)
        if row.text != "All rights reserved.":
            np.testing.assert_allclose(row.vector, vectors[place], atol=0.006)
    assert len(opened.rows()) == 12


def test_sound_input_causes_no_warning(new_store, records):
    added, indexed, noted = new_store(), new_store(), new_store()
    own = itertools.count()
    chunks = chunks_of(
        source=lambda firm, n: f"{firm}.md",
        id=lambda firm, n: next(own),
        doc_id=lambda firm, n: f"{firm}-{n}",
        url=lambda firm, n: f"https://x/{firm}#part-{n}",
        page=lambda firm, n: n // 2,
        title=lambda firm, n: firm,
        section=lambda firm, n: f"section {n}",
    )
    add_documents(added.store, chunks, group_by="source")
    index_documents(chunks, records, indexed.store, group_by="source")
    notes = [Document(f"Note {n}.", metadata={"source": f"{n}.md", "n": 0}) for n in range(5)]
    add_documents(noted.store, notes, group_by="source")
    check(added)
    check(indexed)
    noted.check({f"{n}.md": [f"Note {n}."] for n in range(5)}, by="source", place="n")


def test_one_id_for_several_chunks_is_refused(new_store, new_fake):
    """An id names a row, and a store keeps the last chunk of it."""
    opened = new_store()
    own = str(UUID(int=1))
    chunks = [Document(chunk.page_content, id=own, metadata=chunk.metadata) for chunk in chunks_of("Halcyon")]
    for way in (
        lambda: add_documents(opened.store, chunks, group_by=lambda chunk: chunk.id),
        lambda: asyncio.run(aadd_documents(opened.store, chunks, group_by="firm")),
        lambda: add_documents(opened.store.as_retriever(), chunks_of("Halcyon"), group_by="firm", ids=[own] * 4),
        lambda: from_documents(type(opened.store), chunks, new_fake(), group_by="firm"),
    ):
        with pytest.raises(InputError, match=f"chunks 0 and 1 have the same id '{own}'.*named by group_by="):
            way()
    assert not opened.rows()


def test_an_id_that_is_there_already_is_overwritten_or_refused(opened):
    ids = [str(UUID(int=n)) for n in range(4)]
    add_documents(opened.store, chunks_of("Halcyon"), group_by="firm", ids=ids)
    if opened.name == "FAISS":  # which mixes up its rows where it is given an id twice
        with pytest.raises(InputError, match=rf"FAISS holds '{ids[0]}' already.*store\.delete\(ids\)"):
            add_documents(opened.store, chunks_of("Northwind"), group_by="firm", ids=ids)
        check(opened)
        opened.store.delete(ids)
    add_documents(opened.store, chunks_of("Northwind"), group_by="firm", ids=ids)
    add_documents(opened.store, chunks_of("Bluewater"), group_by="firm")
    assert len(opened.rows()) == 8
    check(opened)


# Reading order


def order(opened, texts: list[str], chunks: list[Document]) -> None:
    """The chunks are read in the order of the texts, whatever the order they come in."""
    add_documents(opened.store, chunks, group_by="source")
    [vectors] = opened.store.embeddings.embed_document_chunks([texts])
    expected = dict(zip(texts, vectors, strict=True))
    assert sorted(row.text for row in opened.rows()) == sorted(texts)
    for row in opened.rows():
        np.testing.assert_allclose(row.vector, expected[row.text], atol=1e-4, err_msg=row.text)


@pytest.mark.parametrize(
    "page",
    [lambda p: p, str, float, lambda p: f"p. {p}", lambda p: ["iii", "iv"][p], lambda p: None],
    ids=["number", "numeric string", "float", "label", "roman", "none"],
)
@pytest.mark.parametrize("starts", [[[2, 60], [0, 40]], [[0, 60], [0, 60]]], ids=["odd", "equal"])
def test_pages_in_order_stay_in_order(opened, page, starts):
    texts = TEXTS["Northwind"]
    chunks = [
        Document(text, metadata={"source": "r", "page": page(n // 2), "start_index": starts[n // 2][n % 2]})
        for n, text in enumerate(texts)
    ]
    order(opened, texts, chunks)


@pytest.mark.parametrize("page", [lambda p: p, str, float], ids=["int", "str", "float"])
def test_numbered_pages_are_put_in_order(opened, page):
    texts = TEXTS["Northwind"]
    chunks = [
        Document(text, metadata={"source": "r", "page": page(9 + n // 2), "start_index": 60.0 * (n % 2)})
        for n, text in enumerate(texts)
    ]
    order(opened, texts, [chunks[n] for n in (3, 0, 2, 1)])


@pytest.mark.parametrize("start", [-1, None, float("nan"), True, "x"], ids=repr)
def test_what_is_no_offset_leaves_the_input_order(opened, start):
    texts = TEXTS["Northwind"]
    starts = [200, start, 100, 0]
    order(
        opened,
        texts,
        [Document(t, metadata={"source": "r", "start_index": s}) for t, s in zip(texts, starts, strict=True)],
    )


def test_pages_and_their_labels_of_a_file_that_is_shuffled(opened):
    """As PyPDFLoader names pages: numbers from 0 on, and labels beside them."""
    pages = [TEXTS[firm] for firm in TEXTS]
    chunks = [
        Document(
            f"{number}: {text}",
            metadata={
                "source": "r",
                "page": number,
                "page_label": ["i", "ii", "1"][number],
                "total_pages": 3,
                "start_index": 40 * place,
            },
        )
        for number, page in enumerate(pages)
        for place, text in enumerate(page)
    ]
    texts = [chunk.page_content for chunk in chunks]
    order(opened, texts, [chunks[n] for n in (5, 11, 3, 0, 8, 7, 1, 10, 2, 6, 4, 9)])


def test_sections_stay_in_order(opened):
    text = "# One\n" + "\n".join(f"Of boats, line {n}." for n in range(4)) + "\n# Two\n" + "Of bread.\nOf birds.\n" * 1
    sections = MarkdownHeaderTextSplitter([("#", "Header 1")]).split_text(text)
    splitter = RecursiveCharacterTextSplitter(chunk_size=20, chunk_overlap=0, add_start_index=True)
    chunks = splitter.split_documents(sections)
    for chunk in chunks:
        chunk.metadata["source"] = "r"
    assert len(chunks) > 4
    order(opened, [chunk.page_content for chunk in chunks], chunks)


def test_offsets_of_a_splitter_with_overlap_count(opened):
    text = " ".join(f"Sentence {n} speaks of item {n * n}." for n in range(20))
    splitter = RecursiveCharacterTextSplitter(chunk_size=120, chunk_overlap=40, add_start_index=True)
    chunks = splitter.split_documents([Document(text, metadata={"source": "r"})])
    texts = [chunk.page_content for chunk in chunks]
    with pytest.warns(ContextWarning, match="share"):
        order(opened, texts, chunks[::-1])


# A document that comes twice


def check_each(opened, documents: dict[str, list[str]], times: int) -> None:
    """Every document is there so many times, each time with its own vectors."""
    rows = opened.rows()
    assert len(rows) == times * sum(map(len, documents.values()))
    vectors = dict(zip(documents, opened.store.embeddings.embed_document_chunks(list(documents.values())), strict=True))
    for row in rows:
        expected = vectors[row.metadata["firm"]][row.metadata["n"]]
        np.testing.assert_allclose(row.vector, expected, atol=1e-4)


def test_copies_never_mix(new_store, records):
    chunks = chunks_of("Halcyon", "Halcyon", source="h")
    added, indexed = new_store(), new_store()
    with pytest.warns(ContextWarning, match="'h' comes 2 times with the same texts, and each is read by itself"):
        add_documents(added.store, chunks, group_by="source")
    check_each(added, {"Halcyon": TEXTS["Halcyon"]}, 2)
    with pytest.warns(ContextWarning, match="'h' comes 2 times with the same texts, and is taken once"):
        assert index_documents(chunks, records, indexed.store, group_by="source")["num_added"] == 4
    check_each(indexed, {"Halcyon": TEXTS["Halcyon"]}, 1)


@pytest.mark.parametrize(("rows", "offsets"), [(2, True), (3, True), (9, True), (3, False), (9, False)])
@pytest.mark.parametrize("edited", [0, 1, -1])
def test_versions_of_any_length_are_noticed(store, rows, edited, offsets):
    old = [f"Line {n} is about item {n}." for n in range(rows)]
    new = list(old)
    new[edited] = "An edited line, short."
    chunks = [
        Document(text, metadata={"source": "h", **({"start_index": 40 * n} if offsets else {})})
        for texts in (old, new)
        for n, text in enumerate(texts)
    ]
    with pytest.warns(ContextWarning, match="'h' comes 2 times with different texts"):
        add_documents(store, chunks, group_by="source")


def test_repeated_lines_at_their_own_offsets_are_one_document(opened):
    """A log of equal lines has not come several times."""
    chunks = [Document("All is well.", metadata={"source": "log", "start_index": n, "n": n}) for n in range(0, 78, 13)]
    for chunk in chunks:
        chunk.metadata["n"] //= 13
    add_documents(opened.store, chunks[::-1], group_by="source")
    opened.check({"log": ["All is well."] * 6}, by="source", place="n")


def test_one_object_twice_is_no_riddle(opened):
    chunks = chunks_of("Halcyon", source="h")
    with pytest.warns(ContextWarning, match="'h' comes 2 times") as caught:
        add_documents(opened.store, chunks + chunks, group_by="source")
    assert len(caught) == 1
    check_each(opened, {"Halcyon": TEXTS["Halcyon"]}, 2)


def test_versions_never_mix(new_store, records):
    opened, indexed = new_store(), new_store()
    new = [*TEXTS["Halcyon"][:2], "It has moved to a tower.", TEXTS["Halcyon"][3]]
    chunks = chunks_of("Halcyon", source="h")
    chunks += [Document(text, metadata={"firm": "new", "n": n, "source": "h"}) for n, text in enumerate(new)]
    with pytest.warns(ContextWarning, match="'h' comes 2 times with different texts"):
        add_documents(opened.store, chunks, group_by="source")
    opened.check({"Halcyon": TEXTS["Halcyon"], "new": new}, by="firm", place="n")
    index_documents(chunks_of("Halcyon", source="h"), records, indexed.store, group_by="source")
    with pytest.raises(InputError, match=r"1 document was not indexed.*'h' comes 2 times with different texts"):
        index_documents(chunks, records, indexed.store, group_by="source")
    indexed.check({"Halcyon": TEXTS["Halcyon"]}, by="firm", place="n")


@pytest.mark.parametrize("way", ["stamp", "key"])
def test_stamped_chunks_of_two_versions_are_noticed(new_store, records, way):
    opened, indexed = new_store(), new_store()
    versions = [TEXTS["Halcyon"], [*TEXTS["Halcyon"][:2], "It has moved to a tower."]]
    splits = [split_documents([Document("\n".join(each), id="h")], str.splitlines) for each in versions]
    shuffled = [splits[0][2], splits[1][0], *splits[0][:2], *splits[1][1:], splits[0][3]]
    group_by = {"stamp": None, "key": "pplx_document"}[way]
    with pytest.warns(ContextWarning, match="'h' comes 2 times with different texts") as caught:
        add_documents(opened.store, shuffled, group_by=group_by)
    assert len(caught) == 1
    assert len(opened.rows()) == 7
    with pytest.raises(InputError, match=r"1 document was not indexed.*'h' comes 2 times with different texts"):
        index_documents(shuffled, records, indexed.store, group_by=group_by)
    assert not indexed.rows()
    if way == "stamp":
        opened.check({len(each): each for each in versions}, by="pplx_chunks", place="pplx_chunk")


# Texts that come without their document


def test_a_flat_list_is_warned_about_once_for_each_line(new_embeddings):
    embeddings = new_embeddings()
    ways = [
        lambda: embeddings.embed_documents(["one", "two"]),
        lambda: InMemoryVectorStore(embeddings).add_texts(["one", "two"]),
        lambda: asyncio.run(embeddings.aembed_documents(["one", "two"])),
    ]
    for way in ways:
        with pytest.warns(ContextWarning, match="2 texts are embedded each by itself") as caught:
            way()
        assert len(caught) == 1
        with warnings.catch_warnings():
            warnings.simplefilter("error", ContextWarning)
            way()
            embeddings.embed_documents(["one text is a document"])


def test_a_model_for_single_texts_takes_flat_lists(new_embeddings, replica_v1):
    new_embeddings(document_model=replica_v1).embed_documents(["one", "two"])


@pytest.mark.parametrize("kind", ["filter", "redundant"])
def test_filters_that_embed_anew_say_so(new_store, new_fake, kind):
    embeddings = new_fake()
    store = new_store(embeddings).store
    add_documents(store, chunks_of(source=lambda firm, n: firm), group_by="source")
    found = store.similarity_search("bicycles", k=4)
    ways = {
        "filter": lambda: EmbeddingsFilter(embeddings=embeddings, k=2).compress_documents(found, "bicycles"),
        "redundant": lambda: EmbeddingsRedundantFilter(embeddings=embeddings).transform_documents(found),
    }
    with pytest.warns(ContextWarning, match="EmbeddingsFilter, have no context"):
        ways[kind]()


def test_chunks_that_nobody_asks_for_are_counted(opened, fake):
    chunks = chunks_of("Halcyon", source="h")
    with (
        pytest.warns(ContextWarning, match="1 of the 4 chunks given"),
        fake.documents(chunks, group_by="source"),
    ):
        opened.store.add_documents(chunks[:3])
    [expected] = fake.embed_document_chunks([TEXTS["Halcyon"]])
    assert len(opened.rows()) == 3
    for row in opened.rows():
        np.testing.assert_allclose(row.vector, expected[row.metadata["n"]], atol=1e-4)


def test_pickling_inside_a_block_warns(embeddings):
    chunks = chunks_of("Halcyon", source="h")
    with embeddings.documents(chunks, group_by="source"):
        with pytest.warns(ContextWarning, match="does not know the documents"):
            pickle.dumps(embeddings)
        embeddings.embed_documents([chunk.page_content for chunk in chunks])
    pickle.dumps(embeddings)


def test_an_update_is_right_inside_a_block(opened, fake):
    """Chroma's own method for it; elsewhere the same ids given again, except where a store cannot replace."""
    ids = [str(UUID(int=n)) for n in range(4)]
    add_documents(opened.store, chunks_of("Halcyon", source="h"), group_by="source", ids=ids)
    new = chunks_of("Northwind", source="h")
    with fake.documents(new, group_by="source"):
        if opened.name == "Chroma":
            opened.store.update_document(ids[0], new[0])
            opened.store.update_documents(ids[1:], new[1:])
        else:
            if opened.name == "FAISS":
                opened.store.delete(ids)
            opened.store.add_documents(new, ids=ids)
    opened.check({"Northwind": TEXTS["Northwind"]}, by="firm", place="n")


def embed_elsewhere(texts):
    return FORKED.embed_documents(texts)


@pytest.mark.filterwarnings("ignore:.*were not embedded inside the block")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_is_right_or_refuses(embeddings, new_embeddings):
    """A child has the block, but strings of its own."""
    global FORKED
    [expected] = embeddings.embed_document_chunks([TEXTS["Halcyon"]])
    FORKED = new_embeddings()  # a model that is loaded before the fork is refused in the child, whatever the texts
    one = chunks_of("Halcyon", source="h")
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool, FORKED.documents(one, group_by="source"):
        found = pool.submit(embed_elsewhere, TEXTS["Halcyon"]).result(120)
        np.testing.assert_allclose(found, expected, atol=0.006)
    two = chunks_of("Halcyon", "Northwind", source=lambda firm, n: firm)
    with (
        ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool,
        FORKED.documents(two, group_by="source"),
        pytest.raises(InputError, match=r"same text.*process that opened"),
    ):
        pool.submit(embed_elsewhere, [chunk.page_content for chunk in two]).result(120)


def test_a_function_that_fails_is_told_with_the_document(store):
    with pytest.raises(
        InputError, match=r"group_by cannot name document 0: KeyError: 'path'; its metadata has firm, n"
    ):
        add_documents(store, chunks_of(), group_by=lambda chunk: chunk.metadata["path"])


@pytest.mark.parametrize("kind", [list, tuple, iter])
def test_ids_are_counted(store, kind):
    with pytest.raises(InputError, match="ids has 1 entries for 12 chunks"):
        add_documents(store, chunks_of(), group_by="firm", ids=kind(["one"]))
    assert add_documents(store, chunks_of("Halcyon"), group_by="firm", ids=kind("abcd")) == list("abcd")
