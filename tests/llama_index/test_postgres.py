"""LlamaIndex's PGVectorStore on a real server: a document's whole life, tenants, writers at once, accidents."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core import Document, StorageContext

from pplx_embed_integrations.llama_index import (
    PplxEmbedding,
    acontextual_index,
    contextual_index,
    load_contextual_index,
)
from tests.llama_index.cases import (
    SPLITTER,
    Encodes,
    expected_vectors,
    hard_documents,
    shuffled_nodes,
)
from tests.postgres import Database

pytest.importorskip("llama_index.vector_stores.postgres", reason="make test installs it, without its dependencies")

from llama_index.vector_stores.postgres import PGVectorStore

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "hybrid": {"hybrid_search": True},
    "jsonb": {"use_jsonb": True},
    "halfvec": {"use_halfvec": True},
    "hnsw": {"hnsw_kwargs": {"hnsw_m": 16, "hnsw_ef_construction": 64, "hnsw_ef_search": 40}},
    "schema": {"schema_name": "tenant"},
}


def open_store(database: Database, *, table: str = "chunks", **options: Any) -> PGVectorStore:
    return PGVectorStore(
        connection_string=database.url("psycopg2"),
        async_connection_string=database.url("asyncpg"),
        table_name=table,
        embed_dim=32,
        initialization_fail_on_error=True,
        **options,
    )


def vectors(database: Database, *, table: str = "chunks", schema: str = "public") -> dict[str, Any]:
    """Every stored vector by node id, past the framework; a node that is there twice is an error."""
    rows = database.vectors(f"{schema}.data_{table}", "node_id")
    found = dict(rows)
    assert len(found) == len(rows), "some nodes are stored more than once"
    return found


def check(found: dict[str, Any], expected: dict[str, Any], *, atol: float = 1e-5) -> None:
    assert found.keys() == expected.keys()
    for node_id, vector in expected.items():
        np.testing.assert_allclose(found[node_id], vector, atol=atol, err_msg=node_id)


def edited(document: Document) -> Document:
    """The same document with its third chunk changed."""
    chunks = document.text.split("\n\n")
    return Document(id_=document.id_, text="\n\n".join([*chunks[:2], "A chunk that was edited.", *chunks[3:]]))


def new_index(model: PplxEmbedding, database: Database, documents: list[Document], **options: Any) -> Any:
    return contextual_index(
        documents, embed_model=model, vector_store=open_store(database, **options), transformations=[SPLITTER]
    )


# Every vector of the hard case


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("options", OPTIONS)
async def test_every_vector(options, asynchronous, database, exact_model):
    documents = hard_documents()
    store = open_store(database, **OPTIONS[options])
    if asynchronous:
        index = await acontextual_index(
            documents, embed_model=exact_model, vector_store=store, transformations=[SPLITTER]
        )
        nodes = await index.as_retriever(similarity_top_k=3).aretrieve("river 3")
    else:
        index = contextual_index(documents, embed_model=exact_model, vector_store=store, transformations=[SPLITTER])
        nodes = index.as_retriever(similarity_top_k=3).retrieve("river 3")
    assert len(nodes) == 3
    found = vectors(database, schema=OPTIONS[options].get("schema_name", "public"))
    assert len(found) == 132
    check(found, expected_vectors(exact_model, documents), atol=5e-4 if options == "halfvec" else 1e-5)
    await store.close()


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_bare_nodes_in_any_order_into_tables_made_before(asynchronous, database, exact_model):
    documents = hard_documents()
    await new_index(exact_model, database, []).vector_store.aclear()
    index = new_index(exact_model, database, [], perform_setup=False)
    nodes = shuffled_nodes(documents)
    if asynchronous:
        await index.ainsert_nodes(nodes)
    else:
        index.insert_nodes(nodes)
    check(vectors(database), expected_vectors(exact_model, documents))


# The life of a document


def test_edit_rerun_delete(database, exact_model):
    documents = hard_documents(4)
    index = new_index(exact_model, database, documents)
    with Encodes() as encodes:
        assert index.refresh_ref_docs(documents) == [False] * 4
        assert encodes.texts == []
        documents[1] = edited(documents[1])
        assert index.refresh_ref_docs(documents) == [False, True, False, False]
        assert encodes.texts == documents[1].text.split("\n\n")
    check(vectors(database), expected_vectors(exact_model, documents))
    index.update_ref_doc(edited(documents[2]))
    index.delete_ref_doc(documents[3].id_)
    check(vectors(database), expected_vectors(exact_model, [*documents[:2], edited(documents[2])]))


async def test_edit_rerun_delete_on_the_event_loop(database, exact_model):
    documents = hard_documents(4)
    index = new_index(exact_model, database, documents)
    documents[1] = edited(documents[1])
    assert await index.arefresh_ref_docs(documents) == [False, True, False, False]
    await index.aupdate_ref_doc(edited(documents[2]))
    await index.adelete_ref_doc(documents[3].id_)
    check(vectors(database), expected_vectors(exact_model, [*documents[:2], edited(documents[2])]))


ODD_KEYS = ["Ada's notes.pdf", "'); DROP TABLE data_chunks; --", "17", "1e3", "nan", "s3://bucket/a :b", "50% \\: off"]


def test_any_name_of_a_document(database, exact_model):
    """The store's filters paste names into SQL, and take what looks like a number for one."""
    documents = [Document(id_=key, text=f"About {key}.\n\nMore of it.") for key in [*ODD_KEYS, "x" * 5000]]
    index = new_index(exact_model, database, documents)
    assert index.refresh_ref_docs(documents) == [False] * len(documents)
    changed = [Document(id_=document.id_, text=f"Now {document.text}") for document in documents]
    assert index.refresh_ref_docs(changed) == [True] * len(documents)
    check(vectors(database), expected_vectors(exact_model, changed))
    for document in changed[1:]:
        index.delete_ref_doc(document.id_)
    check(vectors(database), expected_vectors(exact_model, changed[:1]))


# Closing and opening


def reopened(model: PplxEmbedding, database: Database, folder: Path) -> Any:
    storage = StorageContext.from_defaults(persist_dir=str(folder), vector_store=open_store(database))
    return load_contextual_index(storage, embed_model=model, transformations=[SPLITTER])


def _refresh_elsewhere(model: PplxEmbedding, database: Database, folder: Path, documents: list[Document]) -> None:
    index = reopened(model, database, folder)
    assert index.refresh_ref_docs(documents) == [False, True, False, True]
    index.storage_context.persist(str(folder))


def test_a_new_process_after_the_server_was_restarted(postgres_server, database, exact_model, processes, tmp_path):
    documents = hard_documents(3)
    new_index(exact_model, database, documents).storage_context.persist(str(tmp_path))
    postgres_server.stop()  # at once, as after a power cut
    postgres_server.start()
    documents = [documents[0], edited(documents[1]), documents[2], hard_documents(4)[3]]
    processes.run(_refresh_elsewhere, exact_model, database, tmp_path, documents)
    check(vectors(database), expected_vectors(exact_model, documents))
    index = reopened(exact_model, database, tmp_path)
    assert index.refresh_ref_docs(documents) == [False] * 4


def test_an_empty_docstore_over_a_full_store_doubles_nothing(database, exact_model):
    documents = hard_documents(3)
    new_index(exact_model, database, documents)
    documents[0] = edited(documents[0])
    new_index(exact_model, database, []).refresh_ref_docs(documents)
    check(vectors(database), expected_vectors(exact_model, documents))


# Two tenants


@pytest.mark.parametrize("place", ["table", "schema"])
def test_two_tenants_in_one_database(place, database, exact_model):
    """The same documents, each tenant in a table or a schema of its own."""
    documents = hard_documents(3)
    mine, theirs = (
        {place if place == "table" else "schema_name": "mine"},
        {place if place == "table" else "schema_name": "theirs"},
    )

    def read(where: dict[str, str]) -> dict[str, Any]:
        return vectors(database, table=where.get("table", "chunks"), schema=where.get("schema_name", "public"))

    index = new_index(exact_model, database, documents, **mine)
    new_index(exact_model, database, documents, **theirs)
    index.update_ref_doc(edited(documents[0]))
    index.delete_ref_doc(documents[1].id_)
    check(read(mine), expected_vectors(exact_model, [edited(documents[0]), documents[2]]))
    check(read(theirs), expected_vectors(exact_model, documents))


# Writers at once


def own_and_shared(writer: int) -> list[Document]:
    documents = hard_documents(10)
    return [documents[writer], *documents[8:], documents[4 + writer]]


def test_four_threads(database, exact_model):
    """They share an index: documents of their own, and two that all of them write."""
    index = new_index(exact_model, database, [])
    index.vector_store.add([])  # makes the table, which only one can

    def write(writer: int) -> None:
        for document in own_and_shared(writer):
            index.update_ref_doc(document)
        index.refresh_ref_docs([edited(document) for document in own_and_shared(writer)])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    check(vectors(database), expected_vectors(exact_model, [edited(document) for document in hard_documents(10)]))


def _write(model: PplxEmbedding, database: Database, writer: int) -> None:
    index = new_index(model, database, [])
    documents = hard_documents(8)[2 * writer : 2 * writer + 2]
    for document in documents:
        index.insert(document)
    index.refresh_ref_docs([edited(document) for document in documents])


def test_four_processes(database, exact_model, processes):
    """Each has an index of its own over the same table."""
    open_store(database).add([])  # makes the table, which only one can
    processes.run_at_once(_write, [(exact_model, database, writer) for writer in range(4)])
    check(vectors(database), expected_vectors(exact_model, [edited(document) for document in hard_documents(8)]))


# Accidents


def _die(model: PplxEmbedding, database: Database, folder: Path) -> None:
    """Index a third document, edit the second, and be gone after the new vectors were sent."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    index = reopened(model, database, folder)

    @event.listens_for(Engine, "after_cursor_execute")
    def die(connection: Any, cursor: Any, sql: str, *rest: Any) -> None:
        if sql.startswith("DELETE"):
            os.kill(os.getpid(), signal.SIGKILL)

    index.refresh_ref_docs([edited(document) for document in hard_documents(2)])


def test_a_killed_process(database, exact_model, processes, tmp_path):
    """The old version or the new one is there, and the next run leaves exactly one."""
    new_index(exact_model, database, hard_documents(2)).storage_context.persist(str(tmp_path))
    processes.run(_die, exact_model, database, tmp_path, exitcode=-signal.SIGKILL)
    keys = {row[0] for row in database.execute("SELECT metadata_->>'ref_doc_id' FROM data_chunks")}
    assert keys == {"report-0", "report-1"}
    documents = [edited(document) for document in hard_documents(2)]
    reopened(exact_model, database, tmp_path).refresh_ref_docs(documents)
    check(vectors(database), expected_vectors(exact_model, documents))


def test_what_is_refused_leaves_the_old_version(database, exact_model):
    """Node ids come back in the new version here, so the old rows must go before the new ones are sent."""
    documents = hard_documents(2)
    index = new_index(exact_model, database, documents)
    with pytest.raises(ValueError, match="NUL"):
        index.update_ref_doc(Document(id_=documents[1].id_, text="with a \0 in it\n\nand more"))
    check(vectors(database), expected_vectors(exact_model, documents))
