"""QuantizedVectorStore: LangChain's standard tests, whole documents in context, and every way of searching."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.indexing import InMemoryRecordManager
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore
from langchain_tests.integration_tests import VectorStoreIntegrationTests

from pplx_embed_integrations import ContextWarning, InputError, InputTypeError
from pplx_embed_integrations.langchain import (
    PplxEmbeddings,
    QuantizedVectorStore,
    aadd_documents,
    add_documents,
    afrom_documents,
    from_documents,
    index_documents,
    split_documents,
)

GOLDEN = Path(__file__).parents[1] / "golden"
Make = Callable[..., PplxEmbeddings]


class TestStandard(VectorStoreIntegrationTests):
    """LangChain's own tests, for each form that is kept."""

    @pytest.fixture(params=["both", "int8", "bits"])
    def vectorstore(self, request: pytest.FixtureRequest, tmp_path: Path, new_embeddings: Make) -> VectorStore:
        quantization = "binary" if request.param == "bits" else "int8"
        embeddings = new_embeddings(document_model=GOLDEN / "replica-v1", quantization=quantization)
        return QuantizedVectorStore(embeddings, tmp_path / "store", keep=request.param)


@pytest.fixture
def store(tmp_path: Path, embeddings: PplxEmbeddings) -> QuantizedVectorStore:
    return QuantizedVectorStore(embeddings, tmp_path / "store")


@pytest.fixture
def counted(tmp_path: Path, counting: Callable[..., Any]) -> QuantizedVectorStore:
    """A store whose embeddings count the documents that reach the model."""
    return QuantizedVectorStore(counting(), tmp_path / "store")


def whole(number: int, version: int = 0) -> Document:
    return Document(
        f"Document {number} of version {version}. It speaks of item {number * 7 % 5}. All rights reserved.",
        id=f"doc-{number}",
        metadata={"n": number, "lang": "en" if number % 2 else "de"},
    )


def sentences(text: str) -> list[str]:
    return text.split(". ")


def stored(store: QuantizedVectorStore) -> dict[tuple[str, int], np.ndarray]:
    return {(hit.metadata["source"], hit.metadata["chunk"]): hit.vector for hit in store.table.get(with_vectors=True)}


@pytest.mark.parametrize("way", ["method", "function", "amethod", "afunction", "block"])
async def test_the_hard_case_132_of_132(
    store: QuantizedVectorStore, shuffled: list[Document], corpus: list[list[str]], way: str
) -> None:
    ids = [f"id-{number}" for number in range(len(shuffled))]
    if way == "method":
        assert store.add_documents(shuffled, group_by="source", ids=ids) == ids
    elif way == "function":
        assert add_documents(store, shuffled, group_by="source", ids=ids) == ids
    elif way == "amethod":
        assert await store.aadd_documents(shuffled, group_by="source", ids=ids) == ids
    elif way == "afunction":
        assert await aadd_documents(store, shuffled, group_by="source", ids=ids) == ids
    else:
        with store.embeddings.documents(shuffled, group_by="source"):
            assert store.add_documents(shuffled, ids=ids) == ids
    expected = store.embeddings.encode_documents(corpus)
    found = stored(store)
    assert len(found) == 132
    for number, matrix in enumerate(expected):
        for row, codes in enumerate(matrix):
            # Another batch may move a code by one.
            assert np.abs(found[f"doc-{number}", row].astype(int) - codes).max() <= 1
    assert [document.metadata for document in store.get_by_ids(ids)] == [chunk.metadata for chunk in shuffled]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_indexing_whole_documents(counted: QuantizedVectorStore, asynchronous: bool) -> None:
    async def index(documents: Any, **options: Any) -> dict[str, int]:
        options = {"splitter": sentences, **options}
        return dict(await counted.aindex(documents, **options) if asynchronous else counted.index(documents, **options))

    encoded = counted.embeddings.encoded
    counts = {"num_added": 30, "num_updated": 0, "num_skipped": 0, "num_deleted": 0}
    assert await index([whole(n) for n in range(10)], batch_size=7) == counts
    assert len(encoded) == 10
    # Again: nothing reaches the model.
    assert await index(iter([whole(n) for n in range(10)])) == {**counts, "num_added": 0, "num_skipped": 30}
    assert len(encoded) == 10
    # One with another text, one with other metadata.
    changed = [whole(3, version=1), Document(whole(4).page_content, id="doc-4", metadata={"n": -4})]
    got = await index(changed)
    assert got == {"num_added": 3, "num_updated": 3, "num_skipped": 0, "num_deleted": 3}
    assert len(encoded) == 11
    assert [chunk.page_content for chunk in counted.get_documents("doc-3")] == sentences(changed[0].page_content)
    assert {chunk.metadata["n"] for chunk in counted.get_documents("doc-4")} == {-4}
    # These are all.
    got = await index([whole(n) for n in range(3)], full=True)
    assert (got["num_skipped"], got["num_deleted"]) == (9, 21)
    assert counted.table.count() == 9
    with pytest.raises(InputError, match="would delete everything"):
        await index([], full=True)
    assert counted.table.count() == 9


def test_a_document_that_cannot_be_embedded_keeps_its_old_version(counted: QuantizedVectorStore) -> None:
    counted.index([whole(n) for n in range(4)], splitter=sentences)
    bad = Document("Fine. \ud800", id="doc-1")
    with pytest.raises(InputError, match=r"1 document was not stored, while all others are.*doc-1"):
        counted.index([bad, whole(2, version=1)], splitter=sentences, full=True)
    assert [chunk.page_content for chunk in counted.get_documents("doc-1")] == sentences(whole(1).page_content)
    assert "version 1" in counted.get_documents("doc-2")[0].page_content
    assert counted.table.count() == 12


def test_chunks_with_a_stamp_or_a_key(counted: QuantizedVectorStore) -> None:
    chunks = split_documents([whole(n) for n in range(3)], sentences)
    counted.add_documents(list(reversed(chunks)))
    assert [chunk.page_content for chunk in counted.get_documents("doc-1")] == sentences(whole(1).page_content)
    with (
        pytest.raises(InputError, match="2 of the 3 chunks of document 'doc-1'"),
        pytest.warns(ContextWarning, match="2 of the 3 chunks"),
    ):
        counted.add_documents([chunk for chunk in chunks if chunk.metadata["pplx_document"] == "doc-1"][:2])
    with pytest.raises(InputError, match="which chunks belong to one document is not known"):
        counted.index([Document("a"), Document("b")])
    assert counted.delete(documents="doc-1")
    assert counted.get_documents("doc-1") == []
    assert counted.table.count() == 6


def test_flat_texts_stand_for_themselves(tmp_path: Path, new_embeddings: Make) -> None:
    store = QuantizedVectorStore(new_embeddings(), tmp_path / "store")
    with pytest.warns(ContextWarning, match="each by itself"):
        ids = store.add_texts(["one text", "another text"], [{"n": 1}, {"n": 2}])
    expected = store.embeddings.encode_texts(["one text", "another text"])
    got = np.stack([hit.vector for hit in store.table.get(ids=ids, with_vectors=True)])
    assert np.abs(got.astype(int) - expected).max() <= 1
    with pytest.raises(InputError, match="1 metadatas for 2 texts"):
        store.add_texts(["a", "b"], [{}])
    with pytest.raises(InputTypeError, match="no option 'batch'"):
        store.add_texts(["a"], batch=3)
    with pytest.raises(InputTypeError, match="no option 'groupby'"):
        store.add_documents([Document("a")], groupby="source")


@pytest.fixture
def filled(store: QuantizedVectorStore) -> QuantizedVectorStore:
    store.index([whole(n) for n in range(12)], splitter=sentences)
    return store


async def test_searches_rank_as_float32_does(filled: QuantizedVectorStore) -> None:
    plain = InMemoryVectorStore(filled.embeddings)
    chunks = [chunk for n in range(12) for chunk in filled.get_documents(f"doc-{n}")]
    add_documents(plain, chunks)
    for question in ("item 3", "Which document speaks of item 1?", "rights"):
        wanted = plain.similarity_search_with_score(question, k=8)
        for got in (
            filled.similarity_search_with_score(question, k=8),
            await filled.asimilarity_search_with_score(question, k=8),
        ):
            np.testing.assert_allclose([score for _, score in got], [score for _, score in wanted], atol=0.005)
            assert all(-1 <= score <= 1 for _, score in got)
        scores = [score for _, score in filled.similarity_search_with_relevance_scores(question, k=8)]
        assert all(0 <= score <= 1 for score in scores)
        np.testing.assert_allclose(scores, [(1 + score) / 2 for _, score in got])


async def test_searching_by_vector_takes_codes_and_what_embed_query_gives(filled: QuantizedVectorStore) -> None:
    codes = filled.embeddings.encode_query("item 3")
    floats = filled.embeddings.embed_query("item 3")
    wanted = filled.similarity_search("item 3", k=5)
    assert filled.similarity_search_by_vector(codes, k=5) == wanted
    assert filled.similarity_search_by_vector(floats, k=5) == wanted
    assert await filled.asimilarity_search_by_vector(floats, k=5) == wanted
    with pytest.raises(InputError, match="no form of int8 codes"):
        filled.similarity_search_by_vector([value * 1.01 + 0.001 for value in floats])


async def test_filters_thresholds_and_retrievers(filled: QuantizedVectorStore) -> None:
    for condition in (
        {"lang": "en", "n": {"$lt": 6}},
        "json_get_string(metadata, 'lang') = 'en' AND document < 'doc-6'",
    ):
        found = filled.similarity_search("item 3", k=50, filter=condition)
        assert {chunk.metadata["n"] for chunk in found} >= {1, 3, 5}
        assert all(chunk.metadata["lang"] == "en" for chunk in found)
    retriever = filled.as_retriever(
        search_type="similarity_score_threshold", search_kwargs={"score_threshold": 0.6, "k": 40}
    )
    kept = retriever.invoke("item 3")
    scores = {document.id: score for document, score in filled.similarity_search_with_relevance_scores("item 3", k=40)}
    assert {document.id for document in kept} == {name for name, score in scores.items() if score >= 0.6}
    assert await filled.as_retriever(search_kwargs={"k": 3}).ainvoke("item 3") == filled.similarity_search(
        "item 3", k=3
    )
    with pytest.raises(ValueError, match="not allowed"):
        filled.as_retriever(search_type="nearest")


async def test_diversity_and_words(filled: QuantizedVectorStore) -> None:
    near = filled.max_marginal_relevance_search("item 3", k=4, lambda_mult=1.0)
    assert near == filled.similarity_search("item 3", k=4)
    apart = filled.max_marginal_relevance_search("item 3", k=4, fetch_k=36, lambda_mult=0.0)
    assert apart[0] == near[0]
    assert len({document.page_content for document in apart}) == 4
    assert await filled.amax_marginal_relevance_search("item 3", k=4, fetch_k=36, lambda_mult=0.0) == apart
    vector = filled.embeddings.embed_query("item 3")
    assert filled.max_marginal_relevance_search_by_vector(vector, k=4, fetch_k=36, lambda_mult=0.0) == apart
    assert await filled.amax_marginal_relevance_search_by_vector(vector, k=4, fetch_k=36, lambda_mult=0.0) == apart
    # Fused by the published formula: every ranking gives 1 / (60 + rank).
    question = "Document 11 of version 0"
    rankings = [
        [document.id for document in filled.similarity_search(question, k=20)],
        [hit.id for hit in filled.table.search_text(question, k=20)],
    ]
    assert filled.get_by_ids(rankings[1][:1])[0].page_content == question
    points = {each: sum(1 / (61 + r.index(each)) for r in rankings if each in r) for r in rankings for each in r}
    retriever = filled.as_retriever(search_type="hybrid", search_kwargs={"k": 3})
    found = retriever.invoke(question)
    assert [points[document.id] for document in found] == sorted(points.values(), reverse=True)[:3]
    assert await retriever.ainvoke("Document 11 of version 0") == found
    assert await filled.asearch("Document 11 of version 0", "hybrid", k=3) == found


def test_a_second_opening_another_model_and_another_form(
    filled: QuantizedVectorStore, tmp_path: Path, embeddings: PplxEmbeddings, new_embeddings: Make
) -> None:
    again = QuantizedVectorStore(embeddings, tmp_path / "store")
    assert again.similarity_search("item 3", k=3) == filled.similarity_search("item 3", k=3)
    assert again.index([whole(n) for n in range(12)], splitter=sentences)["num_skipped"] == 36
    with pytest.raises(InputError, match="checkpoint: 'sha256:"):
        QuantizedVectorStore(new_embeddings(document_model=GOLDEN / "replica-v1"), tmp_path / "store")
    with pytest.raises(InputError, match="dimensions: 32 there, 16 given"):
        QuantizedVectorStore(new_embeddings(dimensions=16), tmp_path / "store")
    with pytest.raises(InputError, match="keep: 'both' there"):
        QuantizedVectorStore(new_embeddings(quantization="binary"), tmp_path / "store")
    with pytest.raises(InputError, match='want quantization="int8"'):
        QuantizedVectorStore(new_embeddings(quantization=None), tmp_path / "store")
    with pytest.raises(InputTypeError, match="not PplxEmbeddings"):
        QuantizedVectorStore(object(), tmp_path / "store")
    # The same checkpoint with other arithmetic may search, and not write.
    reader = QuantizedVectorStore(new_embeddings(dtype="bfloat16"), tmp_path / "store")
    assert len(reader.similarity_search("item 3", k=3)) == 3
    with pytest.raises(InputError, match="dtype: 'float32' there, 'bfloat16' given"):
        reader.index([whole(1)], splitter=sentences)


async def test_from_documents_and_the_record_manager(tmp_path: Path, embeddings: PplxEmbeddings) -> None:
    documents = [whole(n) for n in range(3)]
    for make in (from_documents, afrom_documents):
        made = make(QuantizedVectorStore, documents, embeddings, splitter=sentences, uri=tmp_path / make.__name__)
        store = await made if make is afrom_documents else made
        assert store.table.documents() == {"doc-0": 3, "doc-1": 3, "doc-2": 3}
        assert store.index(documents, splitter=sentences)["num_skipped"] == 9
    # LangChain's indexing API works on it as on any store, chunk by chunk.
    store = QuantizedVectorStore(embeddings, tmp_path / "records")
    records = InMemoryRecordManager("tests")
    records.create_schema()
    assert index_documents(documents, records, store, splitter=sentences, batch_size=4)["num_added"] == 9
    documents[1] = whole(1, version=1)
    result = index_documents(documents, records, store, splitter=sentences, batch_size=4)
    assert (result["num_added"], result["num_skipped"], result["num_deleted"]) == (3, 6, 3)
    expected = embeddings.encode_documents([sentences(document.page_content) for document in documents])
    hits = store.table.get(with_vectors=True)
    found = {(hit.metadata["pplx_document"], hit.metadata["pplx_chunk"]): hit.vector for hit in hits}
    assert len(found) == len(hits) == 9
    for document, matrix in zip(documents, expected, strict=True):
        for row, codes in enumerate(matrix):
            assert np.abs(found[document.id, row].astype(int) - codes).max() <= 1


async def test_asynchronous_documents(counted: QuantizedVectorStore) -> None:
    async def arriving() -> Any:
        for number in range(3):
            yield whole(number)

    assert (await counted.aindex(arriving(), splitter=sentences))["num_added"] == 9


async def test_from_texts(tmp_path: Path, embeddings: PplxEmbeddings) -> None:
    store = QuantizedVectorStore.from_texts(["one text"], embeddings, uri=tmp_path / "a", ids=["x"])
    assert [document.id for document in store.similarity_search("text")] == ["x"]
    store = await QuantizedVectorStore.afrom_texts(["one text"], embeddings, [{"n": 1}], uri=tmp_path / "b")
    assert [document.metadata for document in store.similarity_search("text")] == [{"n": 1}]
    with pytest.raises(InputError, match="say where"):
        QuantizedVectorStore.from_texts(["one text"], embeddings)
