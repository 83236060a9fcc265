"""The server by itself: forms of vectors, errors and their statuses, keys, readiness, metrics."""

import base64
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
import numpy as np
import pytest

from pplx_embed_integrations import FakeEmbedder, InputError, InputTypeError, PplxEncoder
from pplx_embed_integrations.embedder import Embedder
from pplx_embed_integrations.remote.encoding import FORMS, read_documents, read_vectors
from pplx_embed_integrations.remote.protocol import CONTEXTUALIZED, EMBEDDINGS, EncodingFormat
from pplx_embed_integrations.remote.server import ServerLimits, check_open, create_app
from tests.remote.serving import Served, serving

TEXTS = ["Marie Curie was born in Warsaw.", "Ψ and 川", "a"]
DOCUMENTS = [["Marie Curie was born in Warsaw.", "She moved to Paris in 1891."], ["One chunk."]]


@pytest.fixture(scope="module")
def encoders() -> dict[str, Embedder]:
    return {
        "miniature-v1": PplxEncoder("miniature-v1"),
        "miniature-context-v1": PplxEncoder("miniature-context-v1"),
        "pplx-embed-fake": FakeEmbedder(200, max_tokens=6),
    }


@pytest.fixture(scope="module")
def server(encoders: dict[str, Embedder]) -> Iterator[Served]:
    limits = ServerLimits(texts=70, chunks=80, tokens=300, body_bytes=40_000)
    with serving(encoders, limits=limits) as served:
        yield served


@pytest.fixture(scope="module")
def client(server: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url) as client:
        yield client


@pytest.mark.parametrize("encoding_format", FORMS)
@pytest.mark.parametrize("dimensions", [None, 99])
def test_texts_in_every_form(
    client: httpx.Client, encoders: dict[str, Embedder], encoding_format: EncodingFormat, dimensions: int | None
) -> None:
    asked = {"model": "miniature-v1", "input": TEXTS, "dimensions": dimensions, "encoding_format": encoding_format}
    answer = client.post(EMBEDDINGS, json=asked)
    assert answer.status_code == 200, answer.text
    quantization, normalize = FORMS[encoding_format]
    expected = encoders["miniature-v1"].encode(
        TEXTS, quantization=quantization, dimensions=dimensions, normalize=normalize
    )
    read = read_vectors(answer.json(), count=len(TEXTS), encoding_format=encoding_format, dimensions=dimensions or 384)
    assert read.dtype == expected.dtype
    np.testing.assert_allclose(read, expected, rtol=0, atol=1e-6 if read.dtype == np.float32 else 0)


@pytest.mark.parametrize("encoding_format", FORMS)
def test_documents_in_every_form(
    client: httpx.Client, encoders: dict[str, Embedder], encoding_format: EncodingFormat
) -> None:
    asked = {"model": "miniature-context-v1", "input": DOCUMENTS, "encoding_format": encoding_format}
    answer = client.post(CONTEXTUALIZED, json=asked)
    quantization, normalize = FORMS[encoding_format]
    expected = encoders["miniature-context-v1"].encode_documents(
        DOCUMENTS, quantization=quantization, normalize=normalize
    )
    read = read_documents(answer.json(), chunks=[2, 1], encoding_format=encoding_format, dimensions=384)
    for matrix, other in zip(read, expected, strict=True):
        np.testing.assert_allclose(matrix, other, rtol=0, atol=1e-6 if matrix.dtype == np.float32 else 0)


def test_the_default_form_is_perplexitys_and_one_text_needs_no_list(
    client: httpx.Client, encoders: dict[str, Embedder]
) -> None:
    answer = client.post(EMBEDDINGS, json={"model": "miniature-v1", "input": "a"}).json()
    assert answer["object"] == "list"
    assert answer["model"] == "miniature-v1"
    assert answer["usage"] == {"prompt_tokens": 1, "total_tokens": 1}
    [item] = answer["data"]
    assert {**item, "embedding": None} == {"object": "embedding", "index": 0, "embedding": None}
    codes = np.frombuffer(base64.b64decode(item["embedding"]), dtype=np.int8)
    np.testing.assert_array_equal([codes], encoders["miniature-v1"].encode(["a"]))


def test_an_answer_of_several_pieces_is_whole(client: httpx.Client) -> None:
    texts = [f"word {number}" for number in range(66)]
    answer = client.post(EMBEDDINGS, json={"model": "pplx-embed-fake", "input": texts, "encoding_format": "float"})
    assert "content-length" not in answer.headers
    floats = read_vectors(answer.json(), count=66, encoding_format="float")
    np.testing.assert_allclose(floats, FakeEmbedder(200, max_tokens=6).encode(texts, normalize=True), atol=1e-6)
    documents = [texts[:65], texts[65:]]
    answer = client.post(CONTEXTUALIZED, json={"model": "pplx-embed-fake", "input": documents})
    for matrix, expected in zip(
        read_documents(answer.json(), chunks=[65, 1]), FakeEmbedder(200).encode_documents(documents), strict=True
    ):
        np.testing.assert_array_equal(matrix, expected)


@pytest.mark.parametrize("name", ["miniature-v1", "Miniature-V1", "pplx-embed-miniature-v1", "fake", "PPLX-embed-fake"])
def test_names_of_models_in_every_spelling(client: httpx.Client, name: str) -> None:
    assert client.post(EMBEDDINGS, json={"model": name, "input": "a"}).status_code == 200


def test_models_say_what_they_can_do(client: httpx.Client, encoders: dict[str, Embedder]) -> None:
    cards = client.get("/v1/models").json()["data"]
    assert [card["id"] for card in cards] == list(encoders)
    for card, encoder in zip(cards, encoders.values(), strict=True):
        assert card["object"] == "model"
        assert card["identity"] == encoder.identity()
        assert card["contextual"] == encoder.contextual
        assert (card["dimension"], card["min_dimension"]) == (encoder.dimension, encoder.min_dimension)
        assert card["limits"] == {"texts": 70, "chunks": 80, "tokens": 300, "text_tokens": None}
    assert [card["max_tokens"] for card in cards] == [8192, 8192, 6]


FAKE = {"model": "pplx-embed-fake"}
WRONG_TEXTS = {
    "no object": ([1], "must be a JSON object, not a list", []),
    "no input": (FAKE, "'input' is missing", ["input"]),
    "no model": ({"input": "a"}, "'model' is missing", ["model"]),
    "a misspelt field": (FAKE | {"input": "a", "dimension": 8}, "did you mean 'dimensions'", ["dimension"]),
    "a model that is no string": ({"input": "a", "model": 3}, "model must be a string, not a number", ["model"]),
    "nothing": (FAKE | {"input": []}, "the input is empty", ["input"]),
    "null": (FAKE | {"input": None}, "a text or a list of texts, not null", ["input"]),
    "an object": (FAKE | {"input": {"text": "a"}}, "not an object", ["input"]),
    "an empty text": (FAKE | {"input": ["a", ""]}, "text 1 is empty", ["input", 1]),
    "a number": (FAKE | {"input": ["a", 3]}, "text 1 must be a string, not a number", ["input", 1]),
    "token ids": (FAKE | {"input": [1, 2]}, "check_embedding_ctx_length=False", ["input"]),
    "lists of token ids": (FAKE | {"input": [[1, 2], [3]]}, "check_embedding_ctx_length=False", ["input"]),
    "documents": (FAKE | {"input": [["a"]]}, "/v1/contextualizedembeddings", ["input"]),
    "too many": (FAKE | {"input": ["a"] * 71}, "71 texts and the limit is 70", ["input"]),
    "too many tokens": (
        {"model": "miniature-v1", "input": ["a " * 200] * 2},
        "the input has .* tokens and the limit is 300",
        ["input"],
    ),
    "a long text": (FAKE | {"input": ["a", "b " * 7]}, "text 1 has .* tokens and the limit is 6", ["input", 1]),
    "a small width": (FAKE | {"input": "a", "dimensions": 24}, "dimensions=24 .* gives 25 to 200", ["dimensions"]),
    "a large width": (FAKE | {"input": "a", "dimensions": 201}, "gives 25 to 200", ["dimensions"]),
    "half a dimension": (FAKE | {"input": "a", "dimensions": 99.5}, "an integer, not a number", ["dimensions"]),
    "a width that is true": (FAKE | {"input": "a", "dimensions": True}, "not a truth value", ["dimensions"]),
    "a form": (FAKE | {"input": "a", "encoding_format": "int8"}, "one of: base64_int8", ["encoding_format"]),
    "a role": (FAKE | {"input": "a", "input_type": "search"}, "one of: query, document", ["input_type"]),
}
WRONG_DOCUMENTS = {
    "a text": ("a", "must be a list of documents", ["input"]),
    "texts": (["a"], "document 0 must be a list of chunks, not a string", ["input", 0]),
    "no document": ([], "the input is empty", ["input"]),
    "a document without chunks": ([["a"], []], "document 1 is empty", ["input", 1]),
    "an empty chunk": ([["a"], ["b", ""]], "chunk 1 of document 1 is empty", ["input", 1, 1]),
    "a chunk that is a list": ([["a", ["b"]]], "chunk 1 of document 0 must be a string", ["input", 0, 1]),
    "many documents": ([["a"]] * 71, "71 documents and the limit is 70", ["input"]),
    "many chunks": ([["a"] * 81], "81 chunks and the limit is 80", ["input"]),
    "a long chunk": ([["a"], ["b", "b " * 7]], "chunk 1 of document 1 has .* limit is 6", ["input", 1, 1]),
}


def check_422(answer: httpx.Response, said: str, where: list[object]) -> None:
    assert answer.status_code == 422, answer.text
    error, [detail] = answer.json()["error"], answer.json()["detail"]
    assert error["message"] == detail["msg"]
    assert error["type"] == "invalid_request_error"
    assert detail["loc"] == ["body", *where]
    assert re.search(said, error["message"])


@pytest.mark.parametrize("case", WRONG_TEXTS)
def test_what_is_wrong_with_texts_is_told_with_its_place(client: httpx.Client, case: str) -> None:
    asked, said, where = WRONG_TEXTS[case]
    check_422(client.post(EMBEDDINGS, json=asked), said, where)


@pytest.mark.parametrize("case", WRONG_DOCUMENTS)
def test_what_is_wrong_with_documents_is_told_with_its_place(client: httpx.Client, case: str) -> None:
    given, said, where = WRONG_DOCUMENTS[case]
    check_422(client.post(CONTEXTUALIZED, json=FAKE | {"input": given}), said, where)


def test_a_model_of_single_texts_takes_no_documents(client: httpx.Client) -> None:
    answer = client.post(CONTEXTUALIZED, json={"model": "miniature-v1", "input": [["a"]]})
    check_422(
        answer, "miniature-v1 was trained for single texts.*use miniature-context-v1 or pplx-embed-fake", ["model"]
    )


def test_a_query_is_no_document(client: httpx.Client) -> None:
    asked = FAKE | {"input": [["a"]], "input_type": "query"}
    check_422(client.post(CONTEXTUALIZED, json=asked), "send queries to /v1/embeddings", ["input_type"])
    assert client.post(EMBEDDINGS, json=FAKE | {"input": "a", "input_type": "query", "user": "u"}).status_code == 200


@dataclass(frozen=True)
class Odd(FakeEmbedder):
    """An embedder that refuses a text and fails with another."""

    def encode(self, texts, **options):
        if "needs a role" in texts:
            raise InputError('some model reads queries and documents differently; use role="query" or "document"')
        if "secret 1234" in texts:
            raise ZeroDivisionError(f"no room for {texts}")
        return super().encode(texts, **options)


def test_what_the_embedder_refuses_and_how_it_fails(caplog: pytest.LogCaptureFixture) -> None:
    with serving({"odd": Odd()}) as served, httpx.Client(base_url=served.url) as client:
        answer = client.post(EMBEDDINGS, json={"model": "odd", "input": "needs a role"})
        check_422(answer, 'use input_type="query" or "document"', ["input"])
        failed = client.post(EMBEDDINGS, json={"model": "odd", "input": ["secret 1234"]})
        assert failed.status_code == 500
        assert failed.json()["error"]["type"] == "server_error"
        assert "ZeroDivisionError" in caplog.text
        assert "in encode" in caplog.text
        assert "secret" not in caplog.text + failed.text
        assert client.post(EMBEDDINGS, json={"model": "odd", "input": "a"}).status_code == 200


STATUSES = {
    "no such model": (404, "POST", EMBEDDINGS, {"json": {"model": "nope", "input": "a"}}),
    "no such path": (404, "GET", "/v1/chat/completions", {}),
    "another method": (405, "GET", EMBEDDINGS, {}),
    "no json": (400, "POST", EMBEDDINGS, {"content": b"{", "headers": {"Content-Type": "application/json"}}),
    "nothing": (400, "POST", EMBEDDINGS, {"headers": {"Content-Type": "application/json"}}),
    "a form": (415, "POST", EMBEDDINGS, {"data": {"model": "fake", "input": "a"}}),
    "no type": (415, "POST", EMBEDDINGS, {"content": b'{"model": "fake", "input": "a"}'}),
}


@pytest.mark.parametrize("case", STATUSES)
def test_statuses(client: httpx.Client, case: str) -> None:
    status, method, path, options = STATUSES[case]
    answer = client.request(method, path, **options)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


def test_an_unknown_model_is_told_with_the_nearest(client: httpx.Client) -> None:
    error = client.post(EMBEDDINGS, json={"model": "miniature-v2", "input": "a"}).json()["error"]
    assert error["code"] == "model_not_found"
    assert error["message"] == (
        "there is no model 'miniature-v2' here (did you mean 'miniature-v1'?); there are: miniature-v1, "
        "miniature-context-v1, pplx-embed-fake"
    )


def test_keys_open_everything_and_health_needs_none() -> None:
    keys = ["an-old-key", "a-new-key"]
    with serving({"fake": FakeEmbedder()}, api_keys=keys) as served, httpx.Client(base_url=served.url) as client:
        asked = {"model": "fake", "input": "a"}
        for authorization in (None, "Bearer", "Bearer a-new-ke", "Basic a-new-key", "a-new-key"):
            headers = {"Authorization": authorization} if authorization else {}
            for method, path in (("POST", EMBEDDINGS), ("GET", "/v1/models"), ("GET", "/metrics"), ("GET", "/nothing")):
                answer = client.request(method, path, json=asked, headers=headers)
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"] == "Bearer"
                assert answer.json()["error"]["type"] == "authentication_error"
                assert "a-new-ke" not in answer.text
        assert client.get("/health").json() == {"status": "ok"}
        for key in keys:
            headers = {"Authorization": f"bearer {key}"}
            assert client.post(EMBEDDINGS, json=asked, headers=headers).status_code == 200
            assert client.get("/nothing", headers=headers).status_code == 404


@pytest.mark.parametrize(
    ("keys", "error", "said"),
    [
        ("a-bare-string", InputTypeError, "not a bare str"),
        ([3], InputTypeError, "API key 0 must be a str"),
        (["long-enough", "short"], InputError, "API key 1 has 5 characters; use 8 or more"),
        ([""], InputError, "API key 0 has 0 characters"),
        (["with a space"], InputError, "characters that a header cannot hold"),
        (["ключ-ключ"], InputError, "characters that a header cannot hold"),
    ],
)
def test_keys_that_cannot_be(keys: list[str], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        create_app({"fake": FakeEmbedder()}, api_keys=keys)


def test_models_that_cannot_be() -> None:
    with pytest.raises(InputError, match="a server needs a model"):
        create_app({})
    with pytest.raises(InputTypeError, match="must be an embedder such as PplxEncoder, not 'miniature-v1'"):
        create_app({"fake": "miniature-v1"})  # type: ignore[dict-item]
    with pytest.raises(InputError, match="two are the same but for case and prefix"):
        create_app({"fake": FakeEmbedder(), "pplx-embed-Fake": FakeEmbedder()})
    with pytest.raises(InputError, match="texts=0 is out of range"):
        ServerLimits(texts=0)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "example.org"])
def test_other_machines_only_with_a_key(host: str) -> None:
    with pytest.raises(InputError, match="give an API key"):
        check_open(host, [], allow_no_key=False)
    check_open(host, ["a-long-key"], allow_no_key=False)
    check_open(host, [], allow_no_key=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_this_machine_without_one(host: str) -> None:
    check_open(host, [], allow_no_key=False)


@dataclass(frozen=True)
class Slow(FakeEmbedder):
    """An embedder that loads when it is told, and perhaps cannot."""

    go: threading.Event = field(default_factory=threading.Event)
    error: Exception | None = None

    def load(self) -> None:
        self.go.wait()
        if self.error:
            raise self.error


def test_ready_only_when_loaded() -> None:
    slow = Slow(go=threading.Event())
    with serving({"fake": slow}, wait=False) as served, httpx.Client(base_url=served.url) as client:
        asked = {"model": "fake", "input": "a"}
        for answer in (client.get("/health"), client.get("/v1/models"), client.post(EMBEDDINGS, json=asked)):
            assert answer.status_code == 503
            assert answer.json()["error"]["message"] == "the models are being loaded"
            assert int(answer.headers["retry-after"]) > 0
        slow.go.set()
        while client.get("/health").status_code != 200:
            pass
        assert client.post(EMBEDDINGS, json=asked).status_code == 200


def test_a_model_that_cannot_be_loaded_is_told() -> None:
    slow = Slow(go=threading.Event(), error=InputError("this machine has no such device"))
    with serving({"fake": slow}, wait=False) as served, httpx.Client(base_url=served.url) as client:
        slow.go.set()
        while "retry-after" in (answer := client.get("/health")).headers:
            pass
        assert answer.status_code == 503
        assert answer.json()["error"]["message"].endswith("could not be loaded: this machine has no such device")


def test_metrics_count(encoders: dict[str, Embedder]) -> None:
    with serving(encoders) as served, httpx.Client(base_url=served.url) as client:
        before = served.metric("pplx_embed_batch_sequences_sum", model="miniature-v1")
        for _ in range(3):
            client.post(EMBEDDINGS, json={"model": "miniature-v1", "input": ["a", "a b"]})
        client.post(EMBEDDINGS, json={"model": "miniature-v1", "input": 3})
        client.post(EMBEDDINGS, json={"model": "../../etc/passwd", "input": "a"})
        labels = {"route": EMBEDDINGS, "model": "miniature-v1"}
        assert served.metric("pplx_embed_requests_total", status="200", **labels) == 3
        assert served.metric("pplx_embed_request_seconds_count", **labels) == 3
        assert served.metric("pplx_embed_requests_total", status="422") == 1
        assert served.metric("pplx_embed_requests_total", status="404", model="") == 1
        assert served.metric("pplx_embed_texts_total", model="miniature-v1") == 6
        assert served.metric("pplx_embed_tokens_total", model="miniature-v1") == 9
        assert served.metric("pplx_embed_batch_sequences_sum", model="miniature-v1") - before == 6
        assert served.metric("pplx_embed_queue_requests") == 0
        assert served.metric("pplx_embed_queue_bytes") == 0
