"""Situations in which a document was once guessed, lost or read wrongly, with this store in both frameworks.

Where a situation cannot be known, being refused or warned about is right, too: never silently wrong.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.indexing import InMemoryRecordManager
from llama_index.core import Document as Whole
from llama_index.core import StorageContext
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode

from pplx_embed_integrations import PplxBiEncoder, PplxEncoder, langchain, llama_index
from pplx_embed_integrations.errors import ContextWarning, PplxEmbedError
from pplx_embed_integrations.langchain import PplxEmbeddings, add_documents, index_documents
from pplx_embed_integrations.llama_index import (
    ContextualVectorStoreIndex,
    PplxEmbedding,
    contextual_index,
    load_contextual_index,
)
from pplx_embed_integrations.stores import ChunkTable
from tests.llama_index.cases import SPLITTER
from tests.remote.serving import serving

FIRMS = {
    name: [
        f"{name.title()} builds {thing}.",
        f"The company was founded in {year}.",
        f"Its first office was {office}.",
        "All rights reserved.",
    ]
    for name, thing, year, office in (
        ("northwind", "robots that pick apples", 2009, "a barn outside the town"),
        ("halcyon", "electric bicycles", 2014, "a cellar under a bakery"),
        ("bluewater", "sensors for rivers and lakes", 1998, "a container at the port"),
    )
}
Right = Callable[[ChunkTable], bool]


def told(action: Callable[[], Any]) -> bool:
    """Whether the package refused an action, or warned about it."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        try:
            action()
        except PplxEmbedError:
            return True
    return any(issubclass(warning.category, ContextWarning) for warning in seen)


@pytest.fixture(scope="module", params=["here", "on a server"])
def place(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """Where the models run, as options."""
    if request.param == "here":
        yield {}
        return
    names = ("miniature-v1", "miniature-context-v1")
    with serving({name: PplxEncoder(name) for name in names}) as served:
        yield {"base_url": served.url}


@pytest.fixture(scope="module")
def embeddings(place: dict[str, Any]) -> PplxEmbeddings:
    return PplxEmbeddings("miniature", **place)


@pytest.fixture(scope="module")
def model(place: dict[str, Any]) -> PplxEmbedding:
    return PplxEmbedding("miniature", **place)


@pytest.fixture(scope="module")
def right() -> Right:
    """Whether every chunk has the codes that it has in its own document, by its text and its firm."""
    matrices = PplxBiEncoder("miniature").encode_documents(list(FIRMS.values()))
    own = {
        (firm, text): row
        for (firm, texts), matrix in zip(FIRMS.items(), matrices, strict=True)
        for text, row in zip(texts, matrix, strict=True)
    }

    def check(table: ChunkTable) -> bool:
        hits = table.get(with_vectors=True)
        found = [(hit.metadata.get("firm", hit.document), hit.text, hit.vector) for hit in hits]
        return all(np.abs(codes.astype(int) - own[firm, text]).max() <= 1 for firm, text, codes in found)

    return check


@pytest.fixture
def store(embeddings: PplxEmbeddings, tmp_path: Path) -> langchain.QuantizedVectorStore:
    return langchain.QuantizedVectorStore(embeddings, tmp_path / "store")


@pytest.fixture
def nodes_store(model: PplxEmbedding, tmp_path: Path) -> llama_index.QuantizedVectorStore:
    return llama_index.QuantizedVectorStore(tmp_path / "nodes", embed_model=model)


@pytest.fixture
def records() -> InMemoryRecordManager:
    manager = InMemoryRecordManager("a")
    manager.create_schema()
    return manager


def chunks(*names: str, **metadata: Any) -> list[Document]:
    """The firms' chunks; a value of metadata may depend on the firm and the number of the chunk."""
    return [
        Document(
            text,
            metadata={"firm": firm, **{k: v(firm, n) if callable(v) else v for k, v in metadata.items()}},
        )
        for firm in names or FIRMS
        for n, text in enumerate(FIRMS[firm])
    ]


def test_an_id_of_the_chunk_or_a_kind_is_no_document(store: langchain.QuantizedVectorStore, right: Right) -> None:
    ids = chunks(doc_id=lambda firm, n: f"{firm}-{n}", source=lambda firm, n: f"{firm}.md")
    assert told(lambda: add_documents(store, ids)) or right(store.table)
    store.delete()
    assert told(lambda: add_documents(store, chunks(source="news"))) or right(store.table)


@pytest.mark.parametrize("way", ["index_documents", "index"])
def test_two_files_of_one_name(way: str, store: langchain.QuantizedVectorStore, records: InMemoryRecordManager) -> None:
    def index(firm: str) -> Any:
        given = chunks(firm, source="report.pdf", user=firm)
        return store.index(given) if way == "index" else index_documents(given, records, store)

    said = told(lambda: [index(firm) for firm in ("halcyon", "northwind")])
    assert said or {chunk.metadata["firm"] for chunk in store.get_documents()} == {"halcyon", "northwind"}


@pytest.mark.parametrize("page", [str, lambda number: f"p. {number}"])
def test_pages_keep_their_order(
    page: Callable[[int], str], store: langchain.QuantizedVectorStore, right: Right
) -> None:
    texts, starts = FIRMS["northwind"], [2, 60, 0, 40]
    given = [
        Document(text, metadata={"firm": "northwind", "source": "r", "page": page(n // 2), "start_index": starts[n]})
        for n, text in enumerate(texts)
    ]
    assert told(lambda: store.index(given, group_by="source")) or right(store.table)


def test_a_file_that_arrives_twice(store: langchain.QuantizedVectorStore, right: Right) -> None:
    twice = chunks("halcyon", source="h") * 2
    assert told(lambda: store.index(twice, group_by="source")) or right(store.table)


def test_a_loader_that_breaks_keeps_what_was_done(store: langchain.QuantizedVectorStore) -> None:
    def loader() -> Iterator[Document]:
        for number in range(60):
            if number == 50:
                raise OSError("the share went away")
            yield Document(f"Note {number} is about the number {number}.", metadata={"source": f"{number}.md"})

    with pytest.raises(OSError, match="the share went away"):
        store.index(loader(), group_by="source", batch_size=10)
    assert len(store.table.documents()) >= 40


def test_whole_documents_and_a_splitter(store: langchain.QuantizedVectorStore, right: Right) -> None:
    wholes = [Document("\n".join(texts), id=firm, metadata={"firm": firm}) for firm, texts in FIRMS.items()]
    assert store.index(wholes, splitter=str.splitlines)["num_added"] == 12
    assert store.index(wholes, splitter=str.splitlines)["num_skipped"] == 12
    assert right(store.table)
    assert store.table.count() == 12


def test_tenants_share_a_store(store: langchain.QuantizedVectorStore) -> None:
    for tenant in ("a", "b"):
        records = InMemoryRecordManager(tenant)
        records.create_schema()
        index_documents(chunks("halcyon", source="h"), records, store, group_by="source")
    index_documents([], records, store, group_by="source", cleanup="full")  # b removes all of its documents
    assert store.table.count() == 4


def wholes(*names: str) -> list[Whole]:
    return [Whole(id_=firm, text="\n\n".join(FIRMS[firm])) for firm in names or FIRMS]


def node(text: str, of: str) -> TextNode:
    return TextNode(text=text, relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=of)})


def codes_of(table: ChunkTable, name: str) -> np.ndarray:
    [hit] = table.get(ids=[name], with_vectors=True)
    assert hit.vector is not None
    return hit.vector.astype(int)


def test_deleted_text_stays_deleted(nodes_store: llama_index.QuantizedVectorStore, model: PplxEmbedding) -> None:
    index = contextual_index(wholes("halcyon"), embed_model=model, splitter=SPLITTER, vector_store=nodes_store)
    index.delete_ref_doc("halcyon")
    index.insert_nodes([node("It costs 900 pounds.", "halcyon")])
    assert [hit.text for hit in nodes_store.table.get()] == ["It costs 900 pounds."]


def test_an_index_is_opened_again_and_stays_contextual(
    nodes_store: llama_index.QuantizedVectorStore, model: PplxEmbedding, right: Right
) -> None:
    contextual_index(wholes(), embed_model=model, splitter=SPLITTER, vector_store=nodes_store)
    assert right(nodes_store.table)
    before = nodes_store.table.count()
    opened = llama_index.QuantizedVectorStore(nodes_store.uri, embed_model=model)
    context = StorageContext.from_defaults(vector_store=opened)
    index = load_contextual_index(context, embed_model=model, splitter=SPLITTER)
    assert index.as_retriever().retrieve("bicycles")
    index.refresh_ref_docs(wholes())
    assert opened.table.count() == before  # a restart doubles nothing
    new = node("It costs 900 pounds.", "halcyon")
    if not told(lambda: index.insert_nodes([new])):
        alone = model.encode_documents([[new.text]])[0][0].astype(int)
        assert np.abs(codes_of(opened.table, new.node_id) - alone).max() > 5


def test_a_failed_update_keeps_the_old_version_and_is_named(
    nodes_store: llama_index.QuantizedVectorStore, model: PplxEmbedding
) -> None:
    splitter = SentenceSplitter(chunk_size=20_000, chunk_overlap=0)
    index = contextual_index(wholes(), embed_model=model, splitter=splitter, vector_store=nodes_store)
    update = [Whole(id_="halcyon", text="4711;" * 9000), Whole(id_="northwind", text="Northwind was sold.")]
    with pytest.raises(PplxEmbedError, match="halcyon"):
        index.refresh_ref_docs(update)
    held = " ".join(hit.text for hit in nodes_store.table.get())
    assert "electric bicycles" in held
    assert "was sold" in held or "apples" in held


def test_linked_nodes_without_a_source(
    nodes_store: llama_index.QuantizedVectorStore, model: PplxEmbedding, embeddings: PplxEmbeddings
) -> None:
    nodes = [TextNode(text=text) for text in FIRMS["halcyon"]]
    for one, next_one in pairwise(nodes):
        one.relationships[NodeRelationship.NEXT] = RelatedNodeInfo(node_id=next_one.node_id)
        next_one.relationships[NodeRelationship.PREVIOUS] = RelatedNodeInfo(node_id=one.node_id)
    context = StorageContext.from_defaults(vector_store=nodes_store)
    said = told(lambda: ContextualVectorStoreIndex(nodes=nodes, embed_model=model, storage_context=context))
    [own] = embeddings.biencoder.encode_documents([FIRMS["halcyon"]])
    for each, row in zip(nodes, own, strict=True):
        assert said or np.abs(codes_of(nodes_store.table, each.node_id) - row).max() <= 1


def test_parts_that_arrive_at_the_same_time(model: PplxEmbedding, tmp_path: Path) -> None:
    async def run(together: bool) -> list[np.ndarray]:
        store = llama_index.QuantizedVectorStore(tmp_path / str(together), embed_model=model)
        index = contextual_index(wholes("northwind"), embed_model=model, splitter=SPLITTER, vector_store=store)
        parts = [node(text, "halcyon") for text in FIRMS["halcyon"]]
        if together:
            await asyncio.gather(*(index.ainsert_nodes([part]) for part in parts))
        else:
            for part in parts:
                await index.ainsert_nodes([part])
        return [codes_of(store.table, part.node_id) for part in parts]

    found: list[list[np.ndarray]] = []
    said = told(lambda: found.extend(asyncio.run(run(together)) for together in (True, False)))
    assert said or all(np.abs(one - other).max() <= 1 for one, other in zip(*found, strict=True))
