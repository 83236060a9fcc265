"""QuantizedVectorStore: codes that arrive exactly, every filter and mode, and the life of a contextual index in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core import Document, StorageContext, VectorStoreIndex
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores import SimpleVectorStore, VectorStoreQuery
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQueryMode,
)

from pplx_embed_integrations import InputError, InputTypeError
from pplx_embed_integrations.llama_index import (
    PplxEmbedding,
    QuantizedVectorStore,
    acontextual_index,
    contextual_index,
    load_contextual_index,
)
from tests.llama_index.cases import SPLITTER, chunk_id, hard_documents, shuffled_nodes

Make = Callable[..., PplxEmbedding]


@pytest.fixture
def store(tmp_path: Path, embed_model: PplxEmbedding) -> QuantizedVectorStore:
    return QuantizedVectorStore(tmp_path / "store", embed_model=embed_model)


def codes_in(store: QuantizedVectorStore) -> dict[str, np.ndarray]:
    return {hit.id: hit.vector for hit in store.table.get(with_vectors=True)}


def expected_codes(embed_model: PplxEmbedding, documents: list[Document]) -> dict[str, np.ndarray]:
    found = {}
    for document in documents:
        [matrix] = embed_model.encode_documents([document.text.split("\n\n")])
        found.update({chunk_id(position, document): row for position, row in enumerate(matrix)})
    return found


def assert_same_codes(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys()
    for name, codes in wanted.items():
        # Another batch may move a code by one.
        assert np.abs(found[name].astype(int) - codes).max() <= 1, name


@pytest.mark.parametrize("way", ["index", "aindex", "nodes", "pipeline"])
async def test_the_hard_case_132_of_132(store: QuantizedVectorStore, embed_model: PplxEmbedding, way: str) -> None:
    documents = hard_documents()
    options: dict[str, Any] = {"embed_model": embed_model, "vector_store": store}
    if way == "index":
        contextual_index(documents, splitter=SPLITTER, **options)
    elif way == "aindex":
        await acontextual_index(documents, splitter=SPLITTER, **options)
    elif way == "nodes":
        contextual_index([], **options).insert_nodes(shuffled_nodes(documents))
    else:
        nodes = embed_model(shuffled_nodes(documents))
        VectorStoreIndex(
            nodes=nodes, embed_model=embed_model, storage_context=StorageContext.from_defaults(vector_store=store)
        )
    assert_same_codes(codes_in(store), expected_codes(embed_model, documents))
    assert store.table.documents() == {document.id_: 11 for document in documents}


def test_the_life_of_an_index(store: QuantizedVectorStore, embed_model: PplxEmbedding, tmp_path: Path) -> None:
    documents = hard_documents(4)
    index = contextual_index(documents, embed_model=embed_model, vector_store=store, splitter=SPLITTER)
    edited = Document(id_="report-1", text="A new beginning.\n\n" + documents[1].text.split("\n\n", 2)[2])
    assert index.refresh_ref_docs([documents[0], edited])[1]
    documents[1] = edited
    assert_same_codes(codes_in(store), expected_codes(embed_model, documents))
    index.delete_ref_doc("report-2")
    del documents[2]
    assert_same_codes(codes_in(store), expected_codes(embed_model, documents))
    # Opened again, in another object: it is found, and goes on.
    again = QuantizedVectorStore(tmp_path / "store", embed_model=embed_model)
    index = load_contextual_index(
        StorageContext.from_defaults(vector_store=again), embed_model=embed_model, splitter=SPLITTER
    )
    found = index.as_retriever(similarity_top_k=3).retrieve("A new beginning.")
    assert len(found) == 3
    index.insert(Document(id_="report-9", text="One more.\n\nAnd its end."))
    assert again.table.documents()["report-9"] == 2


def nodes() -> list[TextNode]:
    """Nodes with codes of their own, and metadata to filter by."""
    rng = np.random.default_rng(7)
    metadata: list[dict[str, Any]] = [
        {"year": 1843, "lang": "en", "tags": ["math", "ada"]},
        {"year": 1900, "lang": "de", "tags": []},
        {"year": 1950.5, "lang": "En"},
        {"lang": None, "title": "Notes on the engine"},
        {"year": 1843, "title": "", "tags": ["ada"]},
        {},
    ]
    made = []
    for number, each in enumerate(metadata):
        codes = rng.integers(-127, 128, 32)
        embedding = (codes.astype(np.float32) / np.sqrt(np.float32((codes.astype(np.float64) ** 2).sum()))).tolist()
        source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=f"doc-{number % 2}")}
        node = TextNode(
            id_=f"n{number}", text=f"Text of node {number}", metadata=each, embedding=embedding, relationships=source
        )
        made.append(node)
    return made


@pytest.fixture
def filled(store: QuantizedVectorStore) -> QuantizedVectorStore:
    assert store.add(nodes()) == [f"n{number}" for number in range(6)]
    return store


def test_nodes_come_back_as_they_were(filled: QuantizedVectorStore) -> None:
    for given, got in zip(nodes(), filled.get_nodes([f"n{number}" for number in range(6)]), strict=True):
        given.embedding = None
        assert got == given
        assert got.ref_doc_id == given.ref_doc_id


OP = FilterOperator
FILTERS = [
    *[MetadataFilter(key="year", operator=o, value=1843) for o in (OP.EQ, OP.NE, OP.GT, OP.GTE, OP.LT, OP.LTE)],
    MetadataFilter(key="lang", operator=OP.EQ, value="en"),
    MetadataFilter(key="lang", operator=OP.NE, value="en"),
    MetadataFilter(key="lang", operator=OP.IN, value=["en", "de"]),
    MetadataFilter(key="lang", operator=OP.NIN, value=["en", "de"]),
    MetadataFilter(key="year", operator=OP.IN, value=[1843, 1900]),
    MetadataFilter(key="tags", operator=OP.ANY, value=["math", "x"]),
    MetadataFilter(key="tags", operator=OP.ALL, value=["math", "ada"]),
    MetadataFilter(key="tags", operator=OP.CONTAINS, value="ada"),
    MetadataFilter(key="title", operator=OP.TEXT_MATCH, value="on the"),
    MetadataFilter(key="title", operator=OP.TEXT_MATCH_INSENSITIVE, value="NOTES"),
    MetadataFilter(key="tags", operator=OP.IS_EMPTY, value=None),
    MetadataFilter(key="title", operator=OP.IS_EMPTY, value=None),
]


@pytest.mark.parametrize("one", FILTERS, ids=lambda one: f"{one.key} {one.operator.value}")
def test_filters_find_what_those_of_the_store_in_memory_find(filled: QuantizedVectorStore, one: MetadataFilter) -> None:
    plain = SimpleVectorStore()
    plain.add(nodes())
    filters = MetadataFilters(filters=[one])
    query = VectorStoreQuery(query_embedding=nodes()[0].embedding, similarity_top_k=6, filters=filters)
    wanted = plain.query(query)
    assert set(filled.query(query).ids or []) == set(wanted.ids or [])
    assert {node.node_id for node in filled.get_nodes(filters=filters)} == set(wanted.ids or [])


def test_nested_filters(filled: QuantizedVectorStore) -> None:
    early = MetadataFilter(key="year", operator=OP.LT, value=1850)
    german = MetadataFilter(key="lang", value="de")
    titled = MetadataFilter(key="title", operator=OP.IS_EMPTY, value=None)

    def found(*filters: Any, condition: FilterCondition) -> set[str]:
        joined = MetadataFilters(filters=list(filters), condition=condition)
        return {node.node_id for node in filled.get_nodes(filters=joined)}

    either = MetadataFilters(filters=[early, german], condition=FilterCondition.OR)
    assert found(early, german, condition=FilterCondition.OR) == {"n0", "n1", "n4"}
    assert found(early, german, condition=FilterCondition.AND) == set()
    assert found(early, german, condition=FilterCondition.NOT) == {"n2", "n3", "n5"}
    assert found(either, titled, condition=FilterCondition.AND) == {"n0", "n1", "n4"}
    assert found(either, condition=FilterCondition.NOT) == {"n2", "n3", "n5"}
    assert len(filled.get_nodes(filters=MetadataFilters(filters=[]))) == 6


async def test_modes(filled: QuantizedVectorStore) -> None:
    vectors = np.array([node.embedding for node in nodes()])
    query = VectorStoreQuery(query_embedding=nodes()[2].embedding, query_str="node 4", similarity_top_k=3)
    cosines = vectors @ vectors[2]
    result = filled.query(query)
    assert result.ids == [f"n{row}" for row in np.argsort(-cosines)[:3]]
    np.testing.assert_allclose(result.similarities or [], np.sort(cosines)[::-1][:3], atol=1e-6)
    assert (await filled.aquery(query)).ids == result.ids
    query.mode = VectorStoreQueryMode.TEXT_SEARCH
    assert (filled.query(query).ids or [])[0] == "n4"
    query.mode = VectorStoreQueryMode.HYBRID
    assert {"n2", "n4"} <= set((await filled.aquery(query)).ids or [])
    query.alpha = 0.0
    assert (filled.query(query).ids or [])[0] == "n4"
    query.alpha = 1.0
    assert (filled.query(query).ids or [])[0] == "n2"
    query.mode, query.mmr_threshold = VectorStoreQueryMode.MMR, 1.0
    assert filled.query(query).ids == result.ids
    query.mmr_threshold = 0.0
    assert (filled.query(query).ids or [])[0] == "n2"
    assert len(set(filled.query(query, mmr_prefetch_k=6).ids or [])) == 3
    query.mode = VectorStoreQueryMode.SVM
    with pytest.raises(InputError, match="use default, mmr"):
        filled.query(query)


async def test_names_deletion_and_clearing(filled: QuantizedVectorStore) -> None:
    query = VectorStoreQuery(query_embedding=nodes()[2].embedding, similarity_top_k=6)
    query.node_ids = ["n1", "n5", "nowhere"]
    assert set(filled.query(query).ids or []) == {"n1", "n5"}
    query.node_ids, query.doc_ids = None, ["doc-0"]
    assert set(filled.query(query).ids or []) == {"n0", "n2", "n4"}
    await filled.adelete_nodes(["n0", "n1"], MetadataFilters(filters=[MetadataFilter(key="lang", value="en")]))
    assert [node.node_id for node in await filled.aget_nodes()] == ["n2", "n4", "n1", "n3", "n5"]
    await filled.adelete("doc-1")
    assert {node.node_id for node in filled.get_nodes()} == {"n2", "n4"}
    assert await filled.async_add(nodes()[:1]) == ["n0"]
    with pytest.raises(InputError, match="say which nodes to delete"):
        filled.delete_nodes()
    await filled.aclear()
    assert filled.get_nodes() == []


def test_floats_that_are_no_codes_and_other_models_are_refused(
    store: QuantizedVectorStore, make_model: Make, tmp_path: Path
) -> None:
    exact = make_model(quantization=None)
    with pytest.raises(InputError, match=r'no form of int8 codes.*quantization="int8"'):
        contextual_index([Document(text="one river", id_="a")], embed_model=exact, vector_store=store)
    assert store.get_nodes() == []
    with pytest.raises(InputError, match="has no embedding"):
        store.add([TextNode(text="bare", id_="bare")])
    with pytest.raises(InputError, match='want quantization="int8"'):
        QuantizedVectorStore(tmp_path / "store", embed_model=exact)
    with pytest.raises(InputError, match="keep: 'both' there"):
        QuantizedVectorStore(tmp_path / "store", embed_model=make_model(quantization="binary"))
    with pytest.raises(InputError, match="dimensions: 32 there, 16 given"):
        QuantizedVectorStore(tmp_path / "store", embed_model=make_model(dimensions=16))
    with pytest.raises(InputTypeError, match="must be a PplxEmbedding"):
        QuantizedVectorStore(tmp_path / "store", embed_model=object())
    assert QuantizedVectorStore(tmp_path / "store").table.record == store.table.record


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("quantization", ["int8", "binary"])
def test_each_form_arrives_exactly(tmp_path: Path, make_model: Make, quantization: Any, normalize: bool) -> None:
    embed_model = make_model(quantization=quantization, normalize=normalize)
    store = QuantizedVectorStore(tmp_path / "store", embed_model=embed_model)
    assert store.table.record.keep == ("both" if quantization == "int8" else "bits")
    documents = hard_documents(3)
    index = contextual_index(documents, embed_model=embed_model, vector_store=store, splitter=SPLITTER)
    assert_same_codes(codes_in(store), expected_codes(embed_model, documents))
    assert len(index.as_retriever(similarity_top_k=5).retrieve("river 2")) == 5
