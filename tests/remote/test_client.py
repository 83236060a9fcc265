"""RemoteEncoder against an API of the recorded shape: what is sent, what comes of it, and what is told to nobody."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import pickle
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pplx_embed_integrations import (
    CheckpointError,
    ContextWarning,
    FakeEmbedder,
    InputError,
    InputTypeError,
    NotContextualError,
    PplxBiEncoder,
    RemoteEncoder,
    ServerError,
)
from pplx_embed_integrations.embedder import checkpoint_of
from pplx_embed_integrations.langchain import PplxEmbeddings
from pplx_embed_integrations.llama_index import PplxEmbedding
from pplx_embed_integrations.options import check_base_url
from pplx_embed_integrations.remote.packing import Lengths, Part, document_parts, pack, text_parts
from pplx_embed_integrations.remote.protocol import CONTEXTUALIZED, EMBEDDINGS, Limits
from pplx_embed_integrations.vectors import quantize
from tests.remote.wire import Reply, Wire, listening, written

FAKE = FakeEmbedder(1024)
TEXTS = ["one", "two, and a little more", "drei: größer"]
DOCUMENTS = [["one", "two"], ["three"], ["four", "five", "six"]]
SECRET = "pplx-very-secret-1234"


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    with listening() as wire:
        monkeypatch.setenv("PERPLEXITY_BASE_URL", wire.url)
        monkeypatch.setenv("PERPLEXITY_API_KEY", SECRET)
        yield wire


def hosted(model: str = "v1-0.6b", **options: Any) -> RemoteEncoder:
    return RemoteEncoder(model, base_url="perplexity", **options)


@pytest.mark.parametrize("dimensions", [None, 200, 131])
@pytest.mark.parametrize(
    ("quantization", "normalize"),
    [("int8", False), ("int8", True), ("binary", False), ("binary", True), ("ubinary", False)],
)
def test_every_form_that_the_hosted_api_can_give(
    wire: Wire, quantization: Any, normalize: bool, dimensions: int | None
) -> None:
    form = {"quantization": quantization, "normalize": normalize, "dimensions": dimensions}
    found, wanted = hosted().encode(TEXTS, **form), FAKE.encode(TEXTS, **form)
    assert found.dtype == wanted.dtype
    np.testing.assert_array_equal(found, wanted)
    matrices = hosted("context-v1-0.6b").encode_documents(DOCUMENTS, **form)
    for one, other in zip(matrices, FAKE.encode_documents(DOCUMENTS, **form), strict=True):
        np.testing.assert_array_equal(one, other)
    assert all(body.get("dimensions") == dimensions for body in wire.bodies)


def test_floats_are_refused_before_anything_is_sent(wire: Wire) -> None:
    with pytest.raises(InputError, match='float32, which Perplexity\'s API does not give; use quantization="int8"'):
        hosted().encode(TEXTS, quantization=None)
    assert not wire.seen


def test_routes_and_names_are_the_vendors(wire: Wire) -> None:
    hosted("perplexity-ai/pplx-embed-v1-4b").encode(["text"], role="query")
    hosted("context-v1-4b").encode(["text"], role="query")  # as the vendor says: a document of one chunk
    [(first, text), (second, document)] = wire.seen
    assert (first, text["input"], text["model"]) == (EMBEDDINGS, ["text"], "pplx-embed-v1-4b")
    assert (second, document["input"], document["model"]) == (CONTEXTUALIZED, [["text"]], "pplx-embed-context-v1-4b")
    assert text.keys() == {"input", "model", "encoding_format"}  # nothing that the vendor does not know


@given(
    sizes=st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=6), max_size=30),
    limits=st.builds(Limits, texts=st.integers(1, 9), chunks=st.integers(6, 20), tokens=st.integers(40, 300)),
)
def test_packing_keeps_order_and_limits(sizes: list[list[int]], limits: Limits) -> None:
    documents = [["x" * size for size in chunks] for chunks in sizes]
    parts = document_parts(documents, Lengths(None), names=None, max_tokens=300, longest=300, enough=10**6)
    requests = list(pack(parts, limits))
    assert [part for request in requests for part in request] == parts
    assert [row for part in parts for row in part.rows] == list(range(sum(map(len, sizes))))
    for request in requests:
        assert len(request) <= limits.texts
        assert sum(len(part.chunks) for part in request) <= limits.chunks
        assert len(request) == 1 or sum(part.tokens for part in request) <= limits.tokens
    for one, other in pairwise(requests):  # no request that the next part would have fitted in
        together = [*one, other[0]]
        assert (
            len(together) > limits.texts
            or sum(len(part.chunks) for part in together) > limits.chunks
            or sum(part.tokens for part in together) > limits.tokens
        )


def test_requests_stay_within_the_published_limits(wire: Wire) -> None:
    vector = written(np.ones((1, 1024), dtype=np.int8), "base64_int8")[0]

    def items(texts: list[str]) -> list[dict[str, Any]]:
        return [{"index": number, "embedding": vector} for number in range(len(texts))]

    def embed(path: str, body: dict[str, Any]) -> Any:
        texts = body["input"]
        data = items(texts) if path == EMBEDDINGS else [{"index": n, "data": items(c)} for n, c in enumerate(texts)]
        return {"data": data}

    wire.embed = embed
    many = [f"{number}" for number in range(1100)]
    hosted().encode(many)
    assert sorted(len(body["input"]) for body in wire.bodies) == [76, 512, 512]
    wire.seen.clear()
    hosted("context-v1-0.6b").encode_documents([["a"] * 5000] * 7)
    assert sorted(len(body["input"]) for body in wire.bodies) == [1, 3, 3]


def test_tokens_are_counted_by_the_models_tokenizer_where_it_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The miniature's is; of the others it is where they have been downloaded, and a text's bytes are the bound."""
    from pplx_embed_integrations import PplxEncoder
    from pplx_embed_integrations.remote.served import known

    texts = ["Marie Curie was born in Warsaw."] * 3
    exact = PplxEncoder("miniature-v1").count_tokens(texts)
    assert Lengths(known("miniature-v1")).at_most(texts, 10) == exact
    assert Lengths(known("miniature-v1")).at_most(texts, 1000) == [31] * 3
    assert Lengths(known("v1-0.6b")).at_most(texts, 10) == [31] * 3
    assert all(part.tokens == 31 for part in text_parts(texts, Lengths(None), enough=10))


def test_a_document_that_may_be_too_long_is_read_in_windows_and_told_of(wire: Wire) -> None:
    chunks = [f"{number:04d}" + " word" * 400 for number in range(30)]  # 60,000 bytes
    with pytest.warns(ContextWarning, match=r"long\.txt may be longer than 32768 tokens, .* hf download"):
        [matrix] = hosted("context-v1-0.6b").encode_documents([chunks], names=["long.txt"])
    assert matrix.shape == (30, 1024)
    windows = [window for body in wire.bodies for window in body["input"]]
    assert len(windows) > 1
    assert all(len("".join(window)) + len(window) - 1 <= 32_768 for window in windows)
    assert {chunk for window in windows for chunk in window} == set(chunks)
    # Every row is that of the window that has most of its neighbours.
    rows = {
        chunk: row
        for window in (windows[0], windows[-1])
        for chunk, row in zip(window, FAKE.encode_documents([window])[0], strict=True)
    }
    np.testing.assert_array_equal(matrix[[0, -1]], [rows[chunks[0]], rows[chunks[-1]]])


def test_usage_is_summed(wire: Wire) -> None:
    lc = PplxEmbeddings("0.6b", base_url="perplexity")
    lc.embed_query("query")
    lc.embed_document_chunks([["one", "two"]])
    assert lc.usage.total_tokens == 5 + 6
    assert lc.usage.total_cost == pytest.approx(11 * 0.004e-6)
    assert lc.usage.currency == "USD"
    assert PplxBiEncoder("miniature").usage.total_tokens == 0


def test_llama_index_counts_tokens(wire: Wire) -> None:
    from llama_index.core.callbacks import CallbackManager, TokenCountingHandler

    counter = TokenCountingHandler(tokenizer=str.split)
    li = PplxEmbedding("0.6b", base_url="perplexity", callback_manager=CallbackManager([counter]))
    li.get_query_embedding("three words here")
    assert counter.total_embedding_token_count == 3
    assert li.usage.total_tokens == len("three words here")


def test_a_bar_counts_tokens(wire: Wire, capsys: pytest.CaptureFixture[str]) -> None:
    hosted().encode(TEXTS, show_progress=True)
    assert "100%" in capsys.readouterr().err


def test_requests_of_a_call_are_bounded(wire: Wire) -> None:
    hosted(concurrency=2).encode([str(number) for number in range(4000)])
    assert 1 <= wire.most_at_once <= 2


def test_async_calls_threads_and_loops_share_connections(wire: Wire) -> None:
    encoder = hosted()

    async def several() -> list[Any]:
        return await asyncio.gather(*(encoder.aencode([text]) for text in TEXTS))

    for _ in range(2):  # another event loop each
        np.testing.assert_array_equal(np.concatenate(asyncio.run(several())), FAKE.encode(TEXTS))
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        for text, row in zip(TEXTS * 20, pool.map(lambda text: encoder.encode([text]), TEXTS * 20), strict=True):
            np.testing.assert_array_equal(row, FAKE.encode([text]))
    encoder.close()
    np.testing.assert_array_equal(encoder.encode(TEXTS), FAKE.encode(TEXTS))


def test_nothing_is_asked_for_nothing(wire: Wire) -> None:
    assert hosted().encode([]).shape == (0, 1024)
    assert hosted("context-v1-0.6b").encode_documents([]) == []
    assert [matrix.shape for matrix in hosted("context-v1-0.6b").encode_documents([[]])] == [(0, 1024)]
    assert not wire.seen


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda e: e.encode(["a", ""]), InputError),
        (lambda e: e.encode("bare"), InputTypeError),
        (lambda e: e.encode(["a", None]), InputTypeError),
        (lambda e: e.encode(["\ud800"]), InputError),
        (lambda e: e.encode(["a"], dimensions=64), InputError),
        (lambda e: e.encode(["a"], quantization="int4"), InputError),
        (lambda e: e.encode(["a"], quantization="ubinary", normalize=True), InputError),
        (lambda e: e.encode(["a"], role="passage"), InputError),
        (lambda e: e.encode_documents([["a", ""]], names=["x.txt"]), InputError),
        (lambda e: e.encode_documents([["a"]], names=["x", "y"]), InputError),
        (lambda e: e.check_documents([["a"], ["b", ""]], names=["x.txt", "y.txt"]), InputError),
    ],
)
def test_mistakes_are_those_of_any_embedder(wire: Wire, call: Any, error: type[Exception]) -> None:
    said = []
    for embedder in (hosted("context-v1-0.6b"), FAKE):
        with pytest.raises(error) as caught:
            call(embedder)
        said.append(str(caught.value))
    assert said[0] == said[1]
    assert not wire.seen


def test_chunks_in_context_need_a_model_for_it(wire: Wire) -> None:
    with pytest.raises(NotContextualError, match=r"v1-0.6b was trained for single texts"):
        hosted().encode_documents([["a"]])
    with pytest.raises(CheckpointError, match=r"Perplexity's API has no model 'miniature-v1'; it has v1-0.6b, "):
        hosted("miniature-v1")
    with pytest.raises(CheckpointError, match="no model 'ours'"):
        hosted("ours")


def test_the_key_is_asked_for_and_told_to_nobody(
    wire: Wire, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("PERPLEXITY_API_KEY")
    with pytest.raises(InputError, match="pass api_key=, or set PERPLEXITY_API_KEY or PPLX_API_KEY in the environment"):
        PplxEmbeddings("0.6b", base_url="perplexity")
    caplog.set_level(logging.DEBUG)
    wire.fault = lambda reply, number: (
        Reply(429, {"error": {"message": f"{SECRET} asks too often"}}, headers={"Retry-After": "0"})
        if number == 1
        else Reply(401, {"error": {"message": f"Bearer {SECRET} is wrong"}})
    )
    made: list[Any] = [
        hosted(api_key=SECRET),
        PplxBiEncoder("0.6b", base_url="perplexity", api_key=SECRET),
        PplxEmbeddings("0.6b", base_url="perplexity", api_key=SECRET),
        PplxEmbedding("0.6b", base_url="perplexity", api_key=SECRET),
    ]
    with pytest.raises(ServerError, match="pass api_key=") as caught:
        made[0].encode(TEXTS)
    told = [*map(repr, made), *map(str, made), caplog.text, repr(caught.value), str(vars(caught.value))]
    told += [str(made[3].to_payload()), str(made[3].model_dump()), made[3].model_dump_json(), str(made[2].model_dump())]
    told += [pickle.dumps(each).decode("latin-1") for each in [*made, caught.value]]
    assert caught.value.__cause__ is None
    assert wire.keys == [f"Bearer {SECRET}"] * 2
    for text in told:
        assert SECRET not in text
    assert "asks too often" in caplog.text


def test_a_copy_has_the_key_and_a_pickle_takes_that_of_its_environment(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PERPLEXITY_API_KEY")
    made: list[Any] = [
        hosted(api_key="mine"),
        PplxEmbeddings("0.6b", base_url="perplexity", api_key="mine"),
        PplxEmbedding("0.6b", base_url="perplexity", api_key="mine"),
        PplxBiEncoder("0.6b", base_url="perplexity", api_key="mine"),
    ]

    def ask(embedder: Any) -> str | None:
        wire.keys.clear()
        ask = getattr(embedder, "embed_query", None) or getattr(embedder, "get_query_embedding", None)
        ask("query") if ask else embedder.encode(["query"])
        return wire.keys[-1]

    for each in made:
        for copied in (each, copy.copy(each), copy.deepcopy(each)):
            assert ask(copied) == "Bearer mine"
        elsewhere = pickle.loads(pickle.dumps(each))
        assert ask(elsewhere) is None
        with monkeypatch.context() as patched:
            patched.setenv("PPLX_API_KEY", "theirs")
            assert ask(elsewhere) == "Bearer theirs"


def test_perplexitys_key_goes_nowhere_else(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = RemoteEncoder("v1-0.6b", base_url=wire.url)
    wire.embed = lambda path, body: Reply(401, {})
    with pytest.raises(ServerError, match="pass api_key=, or set PPLX_EMBED_API_KEY in the environment"):
        encoder.encode(TEXTS)
    assert wire.keys == [None]
    monkeypatch.setenv("PPLX_EMBED_API_KEY", "own")
    with pytest.raises(ServerError, match="pass api_key="):
        encoder.encode(TEXTS)
    assert wire.keys == [None, "Bearer own"]


def test_of_hosted_models_the_name_is_known(wire: Wire) -> None:
    identity = hosted("context-v1-0.6b").identity()
    assert checkpoint_of(identity) == "pplx-embed-context-v1-0.6b@api.perplexity.ai"
    assert identity != hosted("context-v1-4b").identity()
    assert not wire.seen


def test_equal_encoders_are_equal(wire: Wire) -> None:
    one, other = hosted(), hosted()
    assert one == other
    assert hash(one) == hash(other)
    assert one != hosted("v1-4b")
    assert PplxEmbeddings("0.6b", base_url="perplexity") == PplxEmbeddings("0.6b", base_url="perplexity")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"base_url": "gpu:8080"}, "is no address"),
        ({"base_url": "ftp://gpu"}, "is no address"),
        ({"base_url": "http://"}, "is no address"),
        ({"base_url": "http://gpu:port"}, "is no address"),
        ({"base_url": "http://gpu/?key=1"}, "is no address"),
        ({"base_url": "https://me:secret@gpu"}, "neither a user's name nor a password"),
        ({"base_url": "http://gpu", "device": "cpu"}, "there is no use for device; the models run at http://gpu"),
        ({"base_url": "http://gpu", "truncate": True}, "no use for truncate"),
        ({"base_url": "http://gpu", "query_revision": "main"}, "for a checkpoint in this process"),
        ({"base_url": "http://gpu", "query_model": FAKE, "document_model": FAKE}, "there is no use for base_url"),
        ({"api_key": "key"}, "api_key is for a server; give its address, too"),
    ],
)
@pytest.mark.parametrize("kind", [PplxBiEncoder, PplxEmbeddings, PplxEmbedding])
def test_options_of_a_server_are_checked(kind: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        kind(**options)
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "options", [{"timeout": 0}, {"max_retries": -1}, {"concurrency": 0}, {"timeout": float("nan")}], ids=str
)
def test_options_of_an_encoder_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="out of range"):
        RemoteEncoder("v1-0.6b", base_url="http://gpu", **options)
    for wrong in ({"timeout": "1"}, {"api_key": 3}, {"model": None}, {"retries": 3}):
        with pytest.raises(InputTypeError):
            RemoteEncoder(**{"model": "v1-0.6b", "base_url": "http://gpu", **wrong})


def test_addresses() -> None:
    for given_url, kept in {
        "perplexity": "perplexity",
        "https://api.perplexity.ai/v1": "perplexity",
        "http://gpu:8080/v1/": "http://gpu:8080",
        " https://example.com/embed/v1 ": "https://example.com/embed",
        "http://[::1]:8080": "http://[::1]:8080",
    }.items():
        assert check_base_url(given_url) == kept


def test_each_side_may_be_elsewhere(wire: Wire) -> None:
    pair = PplxBiEncoder(query_model=FAKE, document_model=hosted("context-v1-0.6b"))
    pair.embed_query("here")
    assert not wire.seen
    pair.embed_documents([["there"]])
    assert len(wire.seen) == 1
    same = PplxBiEncoder("context-v1-0.6b", base_url="perplexity")
    assert same.query is same.document
    assert same.symmetric
    assert not pair.symmetric


# Servers that speak OpenAI's API alone.


def openai(vectors: Any, *, model: str = "perplexity-ai/pplx-embed-v1-0.6b") -> Any:
    def embed(path: str, body: dict[str, Any]) -> Any:
        assert path == EMBEDDINGS
        assert body["encoding_format"] == "float"
        assert "dimensions" not in body
        rows = vectors(body["input"]).tolist()
        data = [{"object": "embedding", "index": n, "embedding": row} for n, row in enumerate(rows)]
        return {"object": "list", "model": model, "data": data, "usage": {"prompt_tokens": 1, "total_tokens": 1}}

    return embed


def pooled(texts: list[str]) -> np.ndarray:
    return FAKE.encode(texts, quantization=None)


def tei(texts: list[str]) -> np.ndarray:
    """Codes as text-embeddings-inference gives them: divided by their length, summed in another order."""
    codes = FAKE.encode(texts).astype(np.float32)
    return codes * np.float32(1 / np.sqrt(np.sum(codes[:, ::-1] ** 2, axis=1, keepdims=True)))


@pytest.mark.parametrize("vectors", [pooled, tei, lambda texts: FAKE.encode(texts)], ids=["vLLM", "TEI", "codes"])
@pytest.mark.parametrize("dimensions", [None, 200])
def test_floats_become_codes_here(wire: Wire, vectors: Any, dimensions: int | None) -> None:
    wire.embed = openai(vectors)
    encoder = RemoteEncoder("v1-0.6b", base_url=wire.url + "/v1")
    texts = [f"{text} {number}" for text in TEXTS for number in range(30)]
    for form in ({}, {"normalize": True}):
        found = encoder.encode(texts, dimensions=dimensions, **form)
        np.testing.assert_array_equal(found, FAKE.encode(texts, dimensions=dimensions, **form))
    assert max(len(body["input"]) for body in wire.bodies) == 32  # what TEI takes at most, unless told otherwise


def test_floats_in_their_other_forms(wire: Wire) -> None:
    wire.embed = openai(pooled)
    encoder = RemoteEncoder("v1-0.6b", base_url=wire.url)
    for form in ({"quantization": None}, {"quantization": "binary"}, {"quantization": "ubinary", "dimensions": 131}):
        np.testing.assert_array_equal(encoder.encode(TEXTS, **form), FAKE.encode(TEXTS, **form))


def test_what_cannot_be_made_of_floats_is_refused(wire: Wire) -> None:
    encoder = RemoteEncoder("v1-0.6b", base_url=wire.url)
    wire.embed = openai(lambda texts: quantize(pooled(texts), quantization=None, normalize=True))
    with pytest.raises(InputError, match=r"pooled floats divided by their length, .* --pooler-config"):
        encoder.encode(TEXTS)
    with pytest.raises(InputError, match="normalize=True as well"):
        encoder.encode(TEXTS, quantization=None)
    np.testing.assert_array_equal(
        encoder.encode(TEXTS, quantization="binary"), FAKE.encode(TEXTS, quantization="binary")
    )
    np.testing.assert_allclose(
        encoder.encode(TEXTS, quantization=None, normalize=True),
        FAKE.encode(TEXTS, quantization=None, normalize=True),
        atol=1e-6,
    )
    wire.embed = openai(tei)
    for quantization in ("binary", "ubinary", None):
        with pytest.raises(InputError, match=r'which is int8 codes: .* use quantization="int8"'):
            encoder.encode(TEXTS, quantization=quantization)


def test_another_model_is_refused(wire: Wire) -> None:
    wire.embed = openai(pooled, model="BAAI/bge-large-en")
    with pytest.raises(CheckpointError, match=r"has the model 'BAAI/bge-large-en', and 'v1-0.6b' is asked for"):
        RemoteEncoder("v1-0.6b", base_url=wire.url).encode(TEXTS)
    wire.embed = openai(pooled, model="/data/model")
    np.testing.assert_array_equal(RemoteEncoder("v1-0.6b", base_url=wire.url).encode(TEXTS), FAKE.encode(TEXTS))


def test_documents_are_refused_there(wire: Wire) -> None:
    encoder = RemoteEncoder("context-v1-0.6b", base_url=wire.url)
    for call in (encoder.encode_documents, encoder.check_documents):
        with pytest.raises(NotContextualError, match=r"has no documents of chunks: run pplx-embed serve there"):
            call([["one", "two"]])
    assert not wire.seen


def test_models_are_asked_for_by_the_name_that_they_have_there(wire: Wire) -> None:
    wire.models = Reply(
        body={"object": "list", "data": [{"id": "perplexity-ai/pplx-embed-v1-0.6b", "object": "model"}]}
    )
    wire.embed = openai(pooled)
    RemoteEncoder("v1-0.6b", base_url=wire.url).encode(TEXTS)
    assert wire.bodies[0]["model"] == "perplexity-ai/pplx-embed-v1-0.6b"


def test_the_width_of_a_model_that_nobody_knows_is_asked_for(wire: Wire) -> None:
    wire.embed = openai(pooled, model="ours")
    encoder = RemoteEncoder("ours", base_url=wire.url)
    assert (encoder.dimension, encoder.min_dimension, encoder.contextual) == (1024, 128, False)
    np.testing.assert_array_equal(encoder.encode(TEXTS), FAKE.encode(TEXTS))


def test_nan_and_infinity_among_floats(wire: Wire) -> None:
    from pplx_embed_integrations import EncodingError

    for value in (float("nan"), float("inf"), 1e39):
        wire.embed = openai(lambda texts, value=value: np.full((len(texts), 1024), value))
        with pytest.raises(EncodingError, match="NaN or infinite"):
            RemoteEncoder("v1-0.6b", base_url=wire.url).encode(TEXTS)


def test_what_a_server_says_of_its_models_must_make_sense(wire: Wire) -> None:
    card: dict[str, Any] = {
        "id": "v1-0.6b", "dimension": 1024, "min_dimension": 128, "max_tokens": 32768, "contextual": False,
        "identity": json.dumps({"checkpoint": "x"}), "limits": {"texts": 9, "chunks": 9, "tokens": 99},
    }  # fmt: skip
    wrong: list[dict[str, Any]] = [{"dimension": None}, {"limits": {}}, {"limits": None}, {"identity": "x"}]
    for change in wrong:
        wire.models = Reply(body={"data": [{**card, **change}]})
        with pytest.raises(ServerError, match="in a way that is not understood"):
            RemoteEncoder("v1-0.6b", base_url=wire.url).identity()
    wire.models = Reply(body={"data": [{**card, "dimension": 384}]})
    with pytest.raises(CheckpointError, match="gives 384 dimensions, not 1024"):
        RemoteEncoder("v1-0.6b", base_url=wire.url).identity()
    wire.models = Reply(body={"data": [card]})
    assert checkpoint_of(RemoteEncoder("v1-0.6b", base_url=wire.url).identity()) == "x"
    with pytest.raises(CheckpointError, match=r"has no model 'v1-4b'; it has v1-0\.6b"):
        RemoteEncoder("v1-4b", base_url=wire.url).encode(TEXTS)


def test_parts_say_what_a_user_calls_them() -> None:
    assert Part(["a"], 1, [0], [0], "text 4").called() == "text 4"
    assert Part(["a", "b"], 1, [0], [0], "x.txt", 7).called(1) == "chunk 8 of x.txt"
