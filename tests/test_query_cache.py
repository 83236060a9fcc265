"""Query vectors that are kept: what a hit saves, what is dropped, and that nobody can spoil them for others."""

import asyncio
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pplx_embed_integrations import PplxBiEncoder
from pplx_embed_integrations.errors import InputError, InputTypeError, PplxEmbedError
from pplx_embed_integrations.query_cache import QueryCache


@given(st.integers(0, 4), st.lists(st.integers(0, 6), max_size=40))
def test_it_keeps_what_the_standard_library_keeps(size: int, queries: list[int]) -> None:
    cache = QueryCache(size)

    @lru_cache(maxsize=size)
    def standard(query: int) -> list[float]:
        return [float(query)]

    for query in queries:
        before = standard.cache_info().hits
        expected = standard(query)
        found = cache.get(str(query))
        assert (found is not None) == (standard.cache_info().hits > before)
        assert found is None or found == expected
        if found is None:
            cache.put(str(query), expected)


@pytest.fixture
def make(replica_v1: Path, replica_context_v1: Path) -> Callable[..., PplxBiEncoder]:
    return lambda **options: PplxBiEncoder(
        query_model=replica_v1, document_model=replica_context_v1, dtype="float32", **options
    )


def ask(pair: PplxBiEncoder, query: str, asynchronous: bool) -> list[float]:
    return asyncio.run(pair.aembed_query(query)) if asynchronous else pair.embed_query(query)


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every text that reaches a model."""
    from pplx_embed_integrations.backbone.tokenizer import TextTokenizer

    seen: list[str] = []
    slices = TextTokenizer.text_slices

    def note(tokenizer: TextTokenizer, limits: Any, *, texts: list[str], **role: Any) -> Any:
        seen.extend(texts)
        return slices(tokenizer, limits, texts=texts, **role)

    monkeypatch.setattr(TextTokenizer, "text_slices", note)
    return seen


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_query_that_comes_again_does_not_reach_the_model(
    asynchronous: bool, make: Callable[..., PplxBiEncoder], biencoder: PplxBiEncoder, noted: list[str]
) -> None:
    expected = {query: biencoder.embed_query(query) for query in "abc"}
    noted.clear()
    pair = make(query_cache=2)
    for query in "abacab":
        assert ask(pair, query, asynchronous) == expected[query]
    assert noted == ["a", "b", "c", "b"]  # c took the place of b, a having been asked for again
    pair.embed_texts(["a"])  # the other side
    assert pair.embed_queries(["a"]) == [expected["a"]]
    assert noted == ["a", "b", "c", "b", "a", "a"]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_by_default_nothing_is_kept(asynchronous: bool, make: Callable[..., PplxBiEncoder], noted: list[str]) -> None:
    pair = make()
    for _ in range(2):
        ask(pair, "a", asynchronous)
    assert noted == ["a", "a"]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_what_a_caller_does_to_its_vector_is_its_own_affair(
    asynchronous: bool, make: Callable[..., PplxBiEncoder]
) -> None:
    pair = make(query_cache=1)
    expected = make().embed_query("a")
    for _ in range(3):
        vector = ask(pair, "a", asynchronous)
        assert vector == expected
        vector[0] = 7.0
        vector.clear()


def test_close_lets_go_of_the_vectors(make: Callable[..., PplxBiEncoder], noted: list[str]) -> None:
    pair = make(query_cache=5)
    pair.embed_query("a")
    pair.close()
    pair.embed_query("a")
    assert noted == ["a", "a"]


def test_pickles_carry_the_size_and_no_vector(make: Callable[..., PplxBiEncoder], noted: list[str]) -> None:
    pair = make(query_cache=5)
    expected = pair.embed_query("a question to be forgotten")
    assert b"forgotten" not in pickle.dumps(pair)
    other = pickle.loads(pickle.dumps(pair))
    assert other._query_cache.size == 5
    for _ in range(2):
        assert other.embed_query("a question to be forgotten") == expected
    assert len(noted) == 2


def test_it_is_no_option_that_changes_a_vector(make: Callable[..., PplxBiEncoder]) -> None:
    assert make(query_cache=5).options == make().options


def test_an_error_is_not_kept(make: Callable[..., PplxBiEncoder]) -> None:
    pair = make(query_cache=5, max_tokens=4)
    for _ in range(2):
        with pytest.raises(InputError, match="the limit is 4"):
            pair.embed_query("word " * 10)
        with pytest.raises(InputError, match="the query is empty"):
            pair.embed_query("")
        with pytest.raises(InputTypeError, match="the query must be a str, not list"):
            pair.embed_query(["a"])  # type: ignore[arg-type]


async def test_threads_and_tasks_share_it(make: Callable[..., PplxBiEncoder], biencoder: PplxBiEncoder) -> None:
    pair = make(query_cache=3)
    queries = [f"query {number % 7}" for number in range(200)]
    expected = {query: biencoder.embed_query(query) for query in set(queries)}
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(8) as threads:
        threaded = [loop.run_in_executor(threads, pair.embed_query, query) for query in queries]
        found = await asyncio.gather(*threaded, *map(pair.aembed_query, queries))
    for query, vector in zip(queries * 2, found, strict=True):
        assert vector == pytest.approx(expected[query], abs=0.02)
    assert len(pair._query_cache._vectors) == 3


@pytest.mark.parametrize(
    ("size", "error", "message"),
    [
        (-1, InputError, "query_cache=-1 is out of range; it must be at least 0"),
        ("many", InputTypeError, "query_cache must be an integer, not str"),
        (True, InputTypeError, "query_cache must be an integer, not bool"),
        (None, InputTypeError, "query_cache must be an integer, not NoneType"),
    ],
)
def test_what_is_no_size(
    size: Any, error: type[PplxEmbedError], message: str, make: Callable[..., PplxBiEncoder]
) -> None:
    with pytest.raises(error, match=message):
        make(query_cache=size)


def test_langchain_keeps_query_vectors(replica_v1: Path, replica_context_v1: Path, noted: list[str]) -> None:
    langchain = pytest.importorskip("pplx_embed_integrations.langchain")
    make = partial(langchain.PplxEmbeddings, query_model=replica_v1, document_model=replica_context_v1)
    embeddings = make(query_cache=4)
    assert embeddings.vector_identity() == make().vector_identity()
    for each in (embeddings, pickle.loads(pickle.dumps(embeddings)), embeddings.model_copy(update={"dimensions": 16})):
        noted.clear()
        assert each.embed_query("a") == asyncio.run(each.aembed_query("a")) == each.embed_query("a")
        assert noted == ["a"]
    with pytest.raises(InputError, match="query_cache=-1 is out of range"):
        make(query_cache=-1)


def test_llama_index_keeps_query_vectors(replica_v1: Path, replica_context_v1: Path, noted: list[str]) -> None:
    llama_index = pytest.importorskip("pplx_embed_integrations.llama_index")
    make = partial(llama_index.PplxEmbedding, query_model=replica_v1, document_model=replica_context_v1)
    embed_model = make(query_cache=4)
    assert embed_model.to_dict() == make().to_dict()  # the key of an ingestion cache
    for each in (
        embed_model,
        pickle.loads(pickle.dumps(embed_model)),
        embed_model.model_copy(update={"truncate": True}),
    ):
        noted.clear()
        found = [each.get_query_embedding("a"), asyncio.run(each.aget_query_embedding("a"))]
        assert found[0] == found[1] == each.get_query_embedding("a")
        assert noted == ["a"]
    with pytest.raises(InputError, match="query_cache=-1 is out of range"):
        make(query_cache=-1)
