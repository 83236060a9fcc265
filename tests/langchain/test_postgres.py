"""Both stores of langchain-postgres on a real server: a document's whole life, tenants, writers at once, accidents."""

from __future__ import annotations

import itertools
import os
import random
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from langchain_classic.indexes import SQLRecordManager
from langchain_core.documents import Document
from langchain_postgres import Column, PGEngine, PGVector, PGVectorStore
from sqlalchemy.ext.asyncio import create_async_engine

from pplx_embed_integrations.errors import InputError, StoreError
from pplx_embed_integrations.langchain import (
    PplxEmbeddings,
    aadd_documents,
    add_documents,
    afrom_documents,
    aindex_documents,
    delete_documents,
    from_documents,
    index_documents,
)
from tests.postgres import Database

KINDS = ["PGVector", "PGVectorStore"]
kinds = pytest.mark.parametrize("kind", KINDS)
DIMENSION = 32


def open_store(kind: str, database: Database, embeddings: PplxEmbeddings, *, name: str = "chunks") -> Any:
    """Open a collection or a table, making what is not there yet."""
    if kind == "PGVector":
        return PGVector(embeddings, connection=database.url("psycopg"), collection_name=name)
    engine = PGEngine.from_connection_string(database.url("psycopg"))
    if not database.execute(f"SELECT 1 FROM pg_tables WHERE tablename = '{name}'"):
        engine.init_vectorstore_table(name, DIMENSION)
    return PGVectorStore.create_sync(engine, embeddings, name)


async def aopen_store(kind: str, database: Database, embeddings: PplxEmbeddings, *, new: bool = True) -> Any:
    """The same for one event loop, by each class's own asynchronous way."""
    if kind == "PGVector":
        return PGVector(embeddings, connection=database.url("psycopg"), collection_name="chunks", async_mode=True)
    engine = PGEngine.from_engine(create_async_engine(database.url("asyncpg")))
    if new:
        await engine.ainit_vectorstore_table("chunks", DIMENSION)
    return await PGVectorStore.create(engine, embeddings, "chunks")


def rows(kind: str, database: Database, *, name: str = "chunks") -> list[tuple[dict[str, Any], Any]]:
    """Every row's metadata and vector, past the framework."""
    if kind == "PGVectorStore":
        return database.vectors(f'"{name}"', "langchain_metadata")
    tables = "langchain_pg_embedding AS chunk JOIN langchain_pg_collection AS collection ON collection_id = uuid"
    return database.vectors(f"{tables} WHERE name = '{name}'".replace("WHERE", "AND"), "chunk.cmetadata")


def records_of(database: Database, namespace: str = "chunks") -> SQLRecordManager:
    manager = SQLRecordManager(namespace, db_url=database.url("psycopg"))
    manager.create_schema()
    return manager


@pytest.fixture
def read(database):
    """Vectors by source and chunk; all of them, so that a double shows."""

    def read(kind: str, name: str = "chunks") -> dict[tuple[str, int], list[list[float]]]:
        found: dict[tuple[str, int], list[list[float]]] = {}
        for metadata, vector in rows(kind, database, name=name):
            found.setdefault((metadata["source"], metadata["chunk"]), []).append(vector.tolist())
        return found

    return read


# Every vector of the hard case


@kinds
def test_add(kind, database, embeddings, shuffled, expected, read, same):
    add_documents(open_store(kind, database, embeddings), shuffled, group_by="source")
    same(read(kind), expected)


@kinds
async def test_aadd(kind, database, embeddings, shuffled, expected, read, same):
    await aadd_documents(await aopen_store(kind, database, embeddings), shuffled, group_by="source")
    same(read(kind), expected)


@kinds
def test_from_documents(kind, database, embeddings, shuffled, expected, read, same):
    if kind == "PGVector":
        options = {"connection": database.url("psycopg"), "collection_name": "chunks"}
        store_class: Any = PGVector
    else:
        engine = PGEngine.from_connection_string(database.url("psycopg"))
        engine.init_vectorstore_table("chunks", DIMENSION)
        options, store_class = {"engine": engine, "table_name": "chunks"}, PGVectorStore
    from_documents(store_class, shuffled, embeddings, group_by="source", **options)
    same(read(kind), expected)


@kinds
async def test_afrom_documents(kind, database, embeddings, shuffled, expected, read, same):
    if kind == "PGVector":
        options = {"connection": database.url("psycopg"), "collection_name": "chunks"}
        store_class: Any = PGVector
    else:
        engine = PGEngine.from_engine(create_async_engine(database.url("asyncpg")))
        await engine.ainit_vectorstore_table("chunks", DIMENSION)
        options, store_class = {"engine": engine, "table_name": "chunks"}, PGVectorStore
    await afrom_documents(store_class, shuffled, embeddings, group_by="source", **options)
    same(read(kind), expected)


@kinds
def test_index(kind, database, embeddings, shuffled, expected, read, same):
    store = open_store(kind, database, embeddings)
    result = index_documents(shuffled, records_of(database), store, group_by="source", batch_size=25)
    assert (result["num_added"], result["num_deleted"]) == (132, 0)
    same(read(kind), expected)
    [found] = store.similarity_search("Document 3, paragraph 4", k=1)
    assert (found.metadata["source"], found.metadata["chunk"]) in expected


@kinds
async def test_aindex(kind, database, embeddings, shuffled, expected, read, same):
    records = SQLRecordManager("chunks", db_url=database.url("asyncpg"), async_mode=True)
    await records.acreate_schema()
    store = await aopen_store(kind, database, embeddings)
    result = await aindex_documents(shuffled, records, store, group_by="source")
    assert result["num_added"] == 132
    assert (await aindex_documents(shuffled, records, store, group_by="source"))["num_skipped"] == 132
    same(read(kind), expected)
    await records.engine.dispose()


# The life of a document


def texts_of(number: int, *, edited: bool = False) -> list[str]:
    texts = [f"document {number} says {row} things" for row in range(5)] + ["the same footer"]
    if edited:
        texts[2] = f"document {number} was edited"
    return texts


def chunks_of(numbers: Any, *, edited: Any = (), **metadata: Any) -> list[Document]:
    return [
        Document(text, metadata={"source": f"doc-{number}", "chunk": row, **metadata})
        for number in numbers
        for row, text in enumerate(texts_of(number, edited=number in edited))
    ]


@pytest.fixture
def vectors_of(embeddings):
    """What the chunks of those documents must be stored as."""

    def vectors_of(numbers: Any, *, edited: Any = (), times: int = 1) -> dict[tuple[str, int], list[list[float]]]:
        numbers = list(numbers)
        rows = embeddings.encode_documents([texts_of(n, edited=n in edited) for n in numbers], normalize=True)
        return {
            (f"doc-{number}", position): [vector.tolist()] * times
            for number, matrix in zip(numbers, rows, strict=True)
            for position, vector in enumerate(matrix)
        }

    return vectors_of


@kinds
def test_a_rerun_embeds_nothing_and_an_edit_one_document(kind, database, counting, vectors_of, read, same):
    store, records = open_store(kind, database, counting()), records_of(database)
    counted = store.embeddings

    def run(numbers: Any, **options: Any) -> tuple[int, int, int]:
        counted.encoded.clear()
        cleanup = options.pop("cleanup", "scoped_full")
        chunks = chunks_of(numbers, **options)
        result = index_documents(chunks, records, store, group_by="source", cleanup=cleanup, batch_size=7)
        return result["num_added"], result["num_skipped"], result["num_deleted"]

    assert run(range(4)) == (24, 0, 0)
    assert run(range(4)) == (0, 24, 0)
    assert counted.encoded == []
    assert run(range(4), edited=[1]) == (6, 18, 6)
    assert counted.encoded == [tuple(texts_of(1, edited=True))]
    same(read(kind), vectors_of(range(4), edited=[1]))
    assert run([0, 1], edited=[1], cleanup="full") == (0, 12, 12)
    same(read(kind), vectors_of([0, 1], edited=[1]))


@kinds
def test_it_goes_on_after_the_server_was_restarted(
    kind, postgres_server, database, counting, embeddings, vectors_of, read, same
):
    index_documents(
        chunks_of(range(3)), records_of(database), open_store(kind, database, embeddings), group_by="source"
    )
    postgres_server.stop()  # at once, as after a power cut
    postgres_server.start()
    counted = counting()
    store, records = open_store(kind, database, counted), records_of(database)
    result = index_documents(chunks_of(range(4), edited=[2]), records, store, group_by="source")
    assert (result["num_added"], result["num_skipped"], result["num_deleted"]) == (12, 12, 6)
    assert counted.encoded == [tuple(texts_of(2, edited=True)), tuple(texts_of(3))]
    same(read(kind), vectors_of(range(4), edited=[2]))


@kinds
def test_whole_documents(kind, database, counting, embeddings, read):
    """Split, indexed, edited and deleted by their ids."""

    def stored() -> dict[tuple[str, int], Any]:
        return {(row["pplx_document"], row["pplx_chunk"]): vector for row, vector in rows(kind, database)}

    counted = counting()
    store, records = open_store(kind, database, counted), records_of(database)
    texts = {name: [f"{name} says {row}" for row in range(4)] for name in ("a.md", "b.md", "c.md")}

    def run() -> dict[str, int]:
        counted.encoded.clear()
        documents = [Document("\n".join(lines), id=name) for name, lines in texts.items()]
        return index_documents(documents, records, store, splitter=str.splitlines)

    assert run()["num_added"] == 12
    assert run()["num_skipped"] == 12
    assert counted.encoded == []
    texts["b.md"][1] = "b.md says something else"
    assert (run()["num_added"], counted.encoded) == (4, [tuple(texts["b.md"])])
    assert delete_documents("c.md", records, store) == 4
    del texts["c.md"]
    vectors = embeddings.encode_documents(list(texts.values()), normalize=True)
    found = stored()
    assert found.keys() == {(name, row) for name in texts for row in range(4)}
    for name, matrix in zip(texts, vectors, strict=True):
        np.testing.assert_allclose([found[name, row] for row in range(4)], matrix, atol=0.006)


def test_a_table_in_a_schema_with_columns_of_its_own(database, embeddings, shuffled, expected, same):
    engine = PGEngine.from_connection_string(database.url("psycopg"))
    database.execute('CREATE SCHEMA "Team A"')
    where = {"table_name": "Chunks", "schema_name": "Team A"}
    columns = [Column("source", "TEXT"), Column("chunk", "INTEGER")]
    engine.init_vectorstore_table(vector_size=DIMENSION, metadata_columns=columns, **where)
    store = PGVectorStore.create_sync(engine, embeddings, metadata_columns=["source", "chunk"], **where)
    index_documents(shuffled, records_of(database), store, group_by="source")
    found = {}
    for source, chunk, vector in database.vectors('"Team A"."Chunks"', "source", "chunk"):
        found.setdefault((source, chunk), []).append(vector.tolist())
    same(found, expected)


# Two tenants


@pytest.mark.parametrize(("kind", "names"), [("PGVector", "ab"), ("PGVector", "aa"), ("PGVectorStore", "aa")])
def test_two_tenants_share_a_table_and_nothing_else(kind, names, database, embeddings, vectors_of, read, same):
    """Equal texts and keys; in two collections of one table, and in one collection or table."""

    def everything() -> dict[tuple[str, int], list[list[float]]]:
        found: dict[tuple[str, int], list[list[float]]] = {}
        for name in sorted(set(names)):
            for key, vectors in read(kind, name).items():
                found.setdefault(key, []).extend(vectors)
        return found

    tenants = [
        (open_store(kind, database, embeddings, name=name), records_of(database, f"tenant {number}"))
        for number, name in enumerate(names)
    ]
    for store, records in tenants:
        assert index_documents(chunks_of(range(3)), records, store, group_by="source")["num_added"] == 18
    same(everything(), vectors_of(range(3), times=2))
    (store, records), (other, others) = tenants
    index_documents(chunks_of([1], edited=[1]), records, store, group_by="source")
    assert index_documents(chunks_of(range(3)), others, other, group_by="source")["num_skipped"] == 18
    assert sum(map(len, everything().values())) == 36
    assert delete_documents("doc-2", records, store) == 6
    assert sum(map(len, everything().values())) == 30
    assert index_documents([], records, store, group_by="source", cleanup="full")["num_deleted"] == 12
    same(everything(), vectors_of(range(3)))


# Writers at once


def own_and_shared(writer: int) -> list[int]:
    """Two documents of the writer's own, and three that all of them write, each in another order."""
    shared = [100, 101, 102]
    return [10 * writer, *shared[writer % 3 :], *shared[: writer % 3], 10 * writer + 1]


ALL_OF_THEM = sorted({number for writer in range(4) for number in own_and_shared(writer)})


@kinds
def test_four_threads(kind, database, embeddings, vectors_of, read, same):
    store, records = open_store(kind, database, embeddings), records_of(database)
    together = threading.Barrier(4)

    def write(writer: int) -> None:
        together.wait()
        for _ in range(2):
            index_documents(chunks_of(own_and_shared(writer)), records, store, group_by="source", batch_size=7)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    same(read(kind), vectors_of(ALL_OF_THEM))


def _write(kind: str, database: Database, embeddings: PplxEmbeddings, writer: int) -> None:
    store, records = open_store(kind, database, embeddings), records_of(database)
    index_documents(chunks_of(own_and_shared(writer)), records, store, group_by="source", batch_size=7)


def _die(kind: str, database: Database, embeddings: PplxEmbeddings, table: str, statement: int) -> None:
    """Index four documents and be gone in the middle of a statement on that table."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    count = itertools.count(1)

    @event.listens_for(Engine, "after_cursor_execute")
    def die(connection: Any, cursor: Any, sql: str, *rest: Any) -> None:
        if sql.startswith("INSERT") and table in sql and next(count) == statement:
            os.kill(os.getpid(), signal.SIGKILL)

    store = open_store(kind, database, embeddings)
    index_documents(chunks_of(range(4)), records_of(database), store, group_by="source", batch_size=7)


@kinds
def test_four_processes(kind, database, new_embeddings, processes, vectors_of, read, same):
    open_store(kind, database, new_embeddings())  # makes the table
    records_of(database)
    processes.run_at_once(_write, [(kind, database, new_embeddings(), writer) for writer in range(4)])
    same(read(kind), vectors_of(ALL_OF_THEM))


@pytest.mark.parametrize(
    ("kind", "table", "statement"),
    [
        ("PGVector", "langchain_pg_embedding", 2),
        ("PGVector", "upsertion_record", 2),
        ("PGVectorStore", "chunks", 10),  # one statement per row: in the middle of a document
        ("PGVectorStore", "upsertion_record", 2),
    ],
)
def test_a_killed_process(
    kind, table, statement, database, new_embeddings, processes, counting, vectors_of, read, same
):
    """The next run stores what is missing, deletes nothing that is right, and leaves nothing twice."""
    processes.run(_die, kind, database, new_embeddings(), table, statement, exitcode=-signal.SIGKILL)
    counted = counting()
    store = open_store(kind, database, counted)
    result = index_documents(chunks_of(range(4)), records_of(database), store, group_by="source", batch_size=7)
    assert result["num_added"] + result["num_skipped"] == 24
    assert result["num_skipped"] > 0
    assert len(counted.encoded) < 4
    same(read(kind), vectors_of(range(4)))


@kinds
def test_two_versions_written_at_once(kind, database, embeddings, vectors_of, read, same):
    """Both may be there for a while, each with right vectors; the next run leaves one."""
    store, records = open_store(kind, database, embeddings), records_of(database)
    together = threading.Barrier(2)

    def write(edited: list[int]) -> None:
        together.wait()
        index_documents(chunks_of([1], edited=edited), records, store, group_by="source")

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, [[], [1]]))
    index_documents(chunks_of([1], edited=[1]), records, store, group_by="source")
    same(read(kind), vectors_of([1], edited=[1]))


# What PostgreSQL does not take


REFUSED = {
    "a NUL in a text": lambda chunk: setattr(chunk, "page_content", "with a \0 in it"),
    "a set": lambda chunk: chunk.metadata.update(tags={"a", "b"}),
    "NaN": lambda chunk: chunk.metadata.update(score=float("nan")),
}


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("what", REFUSED)
@kinds
async def test_what_is_refused_is_named_and_stays_as_it_was(
    kind, what, asynchronous, database, embeddings, vectors_of, read, same
):
    store, records = open_store(kind, database, embeddings), records_of(database)
    index_documents(chunks_of(range(3)), records, store, group_by="source")
    chunks = chunks_of(range(4), edited=range(3))
    REFUSED[what](chunks[8])  # of document 1
    if asynchronous:
        records = SQLRecordManager("chunks", db_url=database.url("asyncpg"), async_mode=True)
        store = await aopen_store(kind, database, embeddings, new=False)

    async def run(chunks: list[Document]) -> None:
        if asynchronous:
            await aindex_documents(chunks, records, store, group_by="source")
        else:
            index_documents(chunks, records, store, group_by="source")

    with pytest.raises(InputError, match=r"did not take 'doc-1'.* old version is still there"):
        await run(chunks)
    same(read(kind), vectors_of(range(4), edited=[0, 2]))
    with pytest.raises(StoreError, match="did not take 'doc-1'") as caught:
        await run([chunk for chunk in chunks if chunk.metadata["source"] == "doc-1"])
    assert caught.value.__cause__ is not None
    same(read(kind), vectors_of(range(4), edited=[0, 2]))


@kinds
def test_keys_that_no_index_of_the_database_could_hold(kind, database, embeddings):
    store, records = open_store(kind, database, embeddings), records_of(database)
    key = random.Random(7).randbytes(20_000).hex()
    chunks = [Document(text, metadata={"source": key}) for text in texts_of(1)]
    assert index_documents(chunks, records, store, group_by="source")["num_added"] == 6
    assert index_documents(chunks, records, store, group_by="source")["num_skipped"] == 6
    assert delete_documents(key, records, store) == 6
    assert rows(kind, database) == []
