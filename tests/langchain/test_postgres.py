"""Both stores of langchain-postgres on a real server: a document's whole life, tenants, writers at once, accidents."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from langchain_classic.indexes import SQLRecordManager
from langchain_core.documents import Document
from langchain_postgres import PGEngine, PGVector, PGVectorStore
from sqlalchemy.ext.asyncio import create_async_engine

from pplx_embed_integrations.langchain import (
    PplxEmbeddings,
    aadd_documents,
    add_documents,
    afrom_documents,
    aindex_documents,
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


async def aopen_store(kind: str, database: Database, embeddings: PplxEmbeddings) -> Any:
    """The same for one event loop, by each class's own asynchronous way."""
    if kind == "PGVector":
        return PGVector(embeddings, connection=database.url("psycopg"), collection_name="chunks", async_mode=True)
    engine = PGEngine.from_engine(create_async_engine(database.url("asyncpg")))
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
