"""Clients that were written for Perplexity's or OpenAI's API, pointed at a server of this package."""

import base64
import os
from collections.abc import Iterator

import numpy as np
import openai
import perplexity
import pytest
from langchain_openai import OpenAIEmbeddings
from langchain_perplexity import PerplexityEmbeddings
from llama_index.embeddings.openai import OpenAIEmbedding

from pplx_embed_integrations import PplxEncoder
from pplx_embed_integrations.embedder import Embedder
from pplx_embed_integrations.langchain import PplxEmbeddings
from pplx_embed_integrations.llama_index import PplxEmbedding
from tests.remote.serving import Served, serving

KEY = "a-key-of-the-tests"
TEXTS = ["Marie Curie was born in Warsaw.", "Ψ, 川 and 🌊", "a \n line", " spaces "]
DOCUMENTS = [["Marie Curie was born in Warsaw.", "She moved to Paris in 1891."], ["One chunk."]]
# The vendor's SDK takes no other names; the miniature stands in for the weights.
V1, CONTEXT = "pplx-embed-v1-0.6b", "pplx-embed-context-v1-0.6b"


@pytest.fixture(scope="module")
def encoders() -> dict[str, Embedder]:
    return {V1: PplxEncoder("miniature-v1"), CONTEXT: PplxEncoder("miniature-context-v1")}


@pytest.fixture(scope="module")
def server(encoders: dict[str, Embedder]) -> Iterator[Served]:
    with serving(encoders, api_keys=[KEY]) as served:
        yield served


@pytest.fixture(autouse=True)
def no_keys_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("OPENAI", "PERPLEXITY", "PPLX")):
            monkeypatch.delenv(name)


@pytest.fixture
def sdk(server: Served) -> Iterator[perplexity.Perplexity]:
    with perplexity.Perplexity(base_url=server.url, api_key=KEY) as client:
        yield client


def codes(embedding: str | None) -> np.ndarray:
    """Return what the vendor's documentation says is in `base64_int8`."""
    return np.frombuffer(base64.b64decode(embedding or ""), dtype=np.int8)


def signs(embedding: str | None, dimensions: int) -> np.ndarray:
    """Return what it says is in `base64_binary`, as ±1."""
    packed = np.frombuffer(base64.b64decode(embedding or ""), dtype=np.uint8)
    return np.unpackbits(packed, bitorder="little", count=dimensions).astype(np.int8) * 2 - 1


def test_perplexitys_sdk(sdk: perplexity.Perplexity, encoders: dict[str, Embedder]) -> None:
    answer = sdk.embeddings.create(input=TEXTS, model=V1)
    assert [item.index for item in answer.data] == [0, 1, 2, 3]
    np.testing.assert_array_equal([codes(item.embedding) for item in answer.data], encoders[V1].encode(TEXTS))
    assert answer.model == V1
    assert answer.usage.total_tokens == sum(encoders[V1].count_tokens(TEXTS))
    bits = sdk.embeddings.create(input=TEXTS[0], model=V1, encoding_format="base64_binary", dimensions=100)
    expected = encoders[V1].encode(TEXTS[:1], quantization="binary", dimensions=100)
    np.testing.assert_array_equal([signs(item.embedding, 100) for item in bits.data], expected)


def test_perplexitys_sdk_in_context(sdk: perplexity.Perplexity, encoders: dict[str, Embedder]) -> None:
    answer = sdk.contextualized_embeddings.create(input=DOCUMENTS, model=CONTEXT)
    for document, expected in zip(answer.data, encoders[CONTEXT].encode_documents(DOCUMENTS), strict=True):
        np.testing.assert_array_equal([codes(item.embedding) for item in document.data], expected)


async def test_perplexitys_sdk_asynchronously(server: Served, encoders: dict[str, Embedder]) -> None:
    async with perplexity.AsyncPerplexity(base_url=server.url, api_key=KEY) as client:
        answer = await client.embeddings.create(input=TEXTS, model=V1)
        np.testing.assert_array_equal([codes(item.embedding) for item in answer.data], encoders[V1].encode(TEXTS))
        nested = await client.contextualized_embeddings.create(input=DOCUMENTS, model=CONTEXT)
        [first, _] = encoders[CONTEXT].encode_documents(DOCUMENTS)
        np.testing.assert_array_equal([codes(item.embedding) for item in nested.data[0].data], first)


def test_what_perplexitys_sdk_makes_of_errors(server: Served, sdk: perplexity.Perplexity) -> None:
    with pytest.raises(perplexity.UnprocessableEntityError, match="text 1 is empty"):
        sdk.embeddings.create(input=["a", ""], model=V1)
    with pytest.raises(perplexity.NotFoundError, match=r"there are: pplx-embed-v1-0\.6b, pplx-embed-context-v1-0\.6b"):
        sdk.embeddings.create(input=["a"], model="pplx-embed-v1-4b")
    stranger = perplexity.Perplexity(base_url=server.url, api_key="another-key")
    with pytest.raises(perplexity.AuthenticationError, match="the API key is wrong"):
        stranger.embeddings.create(input=["a"], model=V1)


async def test_langchain_perplexity(
    server: Served, encoders: dict[str, Embedder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERPLEXITY_BASE_URL", server.url)
    embeddings = PerplexityEmbeddings(model=V1, pplx_api_key=KEY)
    expected = encoders[V1].encode(TEXTS)
    np.testing.assert_array_equal(embeddings.embed_documents(TEXTS), expected)
    np.testing.assert_array_equal(embeddings.embed_query(TEXTS[1]), expected[1])
    np.testing.assert_array_equal(await embeddings.aembed_documents(TEXTS), expected)


@pytest.mark.parametrize("form", [{}, {"encoding_format": "float"}, {"encoding_format": "base64"}])
def test_openais_sdk(server: Served, encoders: dict[str, Embedder], form: dict[str, str]) -> None:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY)
    answer = client.embeddings.create(input=TEXTS, model=V1, dimensions=100, user="somebody", **form)
    expected = encoders[V1].encode(TEXTS, dimensions=100, normalize=True)
    found = [item.embedding for item in answer.data]
    if form.get("encoding_format") == "base64":  # asked for, it is handed over as it is
        found = [np.frombuffer(base64.b64decode(each), dtype="<f4") for each in found]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert answer.usage.prompt_tokens == sum(encoders[V1].count_tokens(TEXTS))
    assert [model.id for model in client.models.list()] == [V1, CONTEXT]


async def test_openais_sdk_asynchronously_and_its_errors(server: Served, encoders: dict[str, Embedder]) -> None:
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=KEY) as client:
        answer = await client.embeddings.create(input=TEXTS, model=CONTEXT)
        expected = encoders[CONTEXT].encode(TEXTS, normalize=True)
        np.testing.assert_allclose([item.embedding for item in answer.data], expected, rtol=0, atol=1e-6)
        with pytest.raises(openai.UnprocessableEntityError, match="text 0 is empty") as refused:
            await client.embeddings.create(input="", model=V1)
        assert refused.value.param == "input"
        with pytest.raises(openai.NotFoundError) as unknown:
            await client.embeddings.create(input="a", model="text-embedding-3-small")
        assert unknown.value.code == "model_not_found"


def test_langchain_openai(server: Served) -> None:
    local = PplxEmbeddings("miniature-v1")
    # It would cut texts into the tokens of another model, and send those.
    embeddings = OpenAIEmbeddings(
        model=V1, base_url=f"{server.url}/v1", api_key=KEY, check_embedding_ctx_length=False, dimensions=384
    )
    np.testing.assert_allclose(embeddings.embed_documents(TEXTS), local.embed_documents(TEXTS), rtol=0, atol=1e-6)
    np.testing.assert_allclose(embeddings.embed_query("a"), local.embed_query("a"), rtol=0, atol=1e-6)
    with pytest.raises(openai.UnprocessableEntityError, match="check_embedding_ctx_length=False"):
        embeddings.client.create(model=V1, input=[[1, 2, 3]])


async def test_llama_index_openai(server: Served) -> None:
    local = PplxEmbedding("miniature-v1")
    embedding = OpenAIEmbedding(model_name=V1, api_base=f"{server.url}/v1", api_key=KEY)
    texts = [TEXTS[0], TEXTS[1], "a"]  # it turns line breaks into spaces
    expected = local.get_text_embedding_batch(texts)
    np.testing.assert_allclose(embedding.get_text_embedding_batch(texts), expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(await embedding.aget_text_embedding_batch(texts), expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(embedding.get_query_embedding("a"), local.get_query_embedding("a"), rtol=0, atol=1e-6)
