"""PplxEmbedding as LlamaIndex's embedding model: vectors, options, events, asynchrony, pickles, refusals."""

import asyncio
import json
import pickle
import shutil
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import get_args

import numpy as np
import pytest
from llama_index.core import MockEmbedding, Settings
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import Field
from llama_index.core.callbacks import (
    CallbackManager,
    CBEventType,
    EventPayload,
    LlamaDebugHandler,
    TokenCountingHandler,
)
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.schema import Document, MetadataMode, TextNode
from llama_index.core.storage.kvstore import SimpleKVStore

from pplx_embed_integrations import CheckpointError, ContextWarning, InputError, InputTypeError, PplxBiEncoder
from pplx_embed_integrations.llama_index import PplxEmbedding
from pplx_embed_integrations.llama_index.options import EmbeddingOptions
from pplx_embed_integrations.vectors import Quantization

TEXTS = [f"Text {number} about a river." for number in range(25)]


@pytest.fixture
def flat_model(make_model, replica_v1):
    """A model whose document side is not contextual: bare texts are all it knows."""
    return make_model(document_model=replica_v1)


class Events(BaseEventHandler):
    seen: list = Field(default_factory=list)

    @classmethod
    def class_name(cls) -> str:
        return "Events"

    def handle(self, event, **kwargs) -> None:
        if event.class_name().startswith("Embedding"):
            self.seen.append(event)


@pytest.fixture
def events():
    handler = Events()
    get_dispatcher().add_event_handler(handler)
    yield handler.seen
    get_dispatcher().event_handlers.remove(handler)


def test_queries_and_texts_go_through_their_own_checkpoints(embed_model, encoder_v1, encoder_context_v1):
    query = embed_model.get_query_embedding("a river")
    text = embed_model.get_text_embedding("a river")
    np.testing.assert_allclose(query, encoder_v1.encode(["a river"], normalize=True)[0], atol=1e-6)
    np.testing.assert_allclose(text, encoder_context_v1.encode(["a river"], normalize=True)[0], atol=1e-6)
    assert {type(value) for value in query + text} == {float}
    assert np.linalg.norm(query) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("options", [{}, {"quantization": "binary"}, {"quantization": None}, {"dimensions": 8}])
async def test_all_six_methods_agree(options, make_model, replica_context_v1):
    embed_model = make_model(query_model=replica_context_v1, **options)
    expected = embed_model.get_text_embedding("a river")
    with pytest.warns(ContextWarning):
        batch = embed_model.get_text_embedding_batch(["a river", "a lake"])
    with pytest.warns(ContextWarning):
        abatch = await embed_model.aget_text_embedding_batch(["a river", "a lake"])
    for found in (
        embed_model.get_query_embedding("a river"),
        await embed_model.aget_query_embedding("a river"),
        await embed_model.aget_text_embedding("a river"),
        batch[0],
        abatch[0],
    ):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert len(expected) == options.get("dimensions", 32)


@pytest.mark.parametrize("size", [1, 7, 25, 2048])
async def test_batches_keep_the_order_at_any_size(size, make_model, replica_v1):
    embed_model = make_model(document_model=replica_v1, embed_batch_size=size, quantization=None)
    expected = [embed_model.get_text_embedding(text) for text in TEXTS]
    np.testing.assert_allclose(embed_model.get_text_embedding_batch(TEXTS, show_progress=True), expected, atol=1e-5)
    np.testing.assert_allclose(
        await embed_model.aget_text_embedding_batch(TEXTS, show_progress=True), expected, atol=1e-5
    )


async def test_an_asynchronous_batch_is_one_call(flat_model, monkeypatch):
    running, most, calls = 0, 0, 0
    embed = PplxBiEncoder.aembed_texts

    async def counted(self, texts):
        nonlocal running, most, calls
        running, calls = running + 1, calls + 1
        most = max(most, running)
        try:
            return await embed(self, texts)
        finally:
            running -= 1

    monkeypatch.setattr(PplxBiEncoder, "aembed_texts", counted)
    await flat_model.aget_text_embedding_batch(TEXTS)
    assert (calls, most) == (1, 1)
    flat_model.embed_batch_size = 5
    await flat_model.aget_text_embedding_batch(TEXTS)
    assert (calls, most) == (6, 1)


def test_native_arrays_are_one_method_away(embed_model):
    assert embed_model.encode_query("a river").dtype == np.int8
    assert embed_model.encode_queries(["a", "b"], dimensions=8).shape == (2, 8)
    assert embed_model.encode_texts(["a", "b"], quantization="ubinary").shape == (2, 4)
    [matrix] = embed_model.encode_documents([["a", "b", "c"]], quantization=None)
    assert matrix.shape == (3, 32)
    assert matrix.dtype == np.float32


def test_one_name_means_a_pair_or_both_sides(replica_v1):
    default = PplxEmbedding()
    assert (default.query_model, default.document_model) == ("v1-0.6b", "context-v1-0.6b")
    assert default.model_name == "v1-0.6b + context-v1-0.6b"
    assert default.query_revision.startswith("2c4d510d")
    large = PplxEmbedding("4b", query_model="context-v1-4b")
    assert (large.query_model, large.model_name) == ("context-v1-4b", "context-v1-4b")
    assert PplxEmbedding(model_name=str(replica_v1)).document_model == str(replica_v1)
    assert PplxEmbedding("Perplexity-AI/PPLX-embed-v1-4B").to_dict() == PplxEmbedding("v1-4b").to_dict()


def test_a_folder_means_the_same_after_a_change_of_directory(replica_v1, monkeypatch):
    monkeypatch.chdir(replica_v1.parent)
    embed_model = PplxEmbedding(replica_v1.name)
    assert embed_model.query_model == str(replica_v1)


def test_settings_takes_it_and_the_class_has_its_name(embed_model):
    Settings.embed_model = embed_model
    try:
        assert Settings.embed_model is embed_model
    finally:
        Settings.embed_model = MockEmbedding(embed_dim=1)
    assert embed_model.class_name() == "PplxEmbedding"
    assert embed_model.to_payload()["class_name"] == "PplxEmbedding"


def test_the_dictionary_holds_what_decides_a_vector_and_a_dump_every_option(make_model):
    embed_model = make_model(token="hf_secret", dimensions=16, quantization="binary", max_tokens=64, truncate=True)
    own = set(EmbeddingOptions.model_fields) - set(BaseEmbedding.model_fields)
    assert own - set(embed_model.model_dump()) == {"token", "api_key"}
    changes_nothing = {"device", "devices", "batch_tokens", "attention", "query_cache"}
    places = {"cache_folder", "local_files_only", "token", "base_url", "api_key"}
    assert own - set(embed_model.to_dict()) == changes_nothing | places
    for shown in (
        str(embed_model.to_dict()),
        str(embed_model.model_dump()),
        embed_model.to_json(),
        repr(embed_model),
        str(embed_model.to_payload()),
    ):
        assert "secret" not in shown


def test_a_dump_loses_no_option(make_model):
    embed_model = make_model(device="cpu", batch_tokens=512, query_cache=3, attention="sdpa", metadata_mode="none")
    for again in (
        PplxEmbedding.model_validate(embed_model.model_dump()),
        PplxEmbedding.model_validate_json(embed_model.model_dump_json()),
    ):
        assert again.model_dump() == embed_model.model_dump()
        assert again.device == "cpu"


def test_the_dictionary_makes_the_same_model_again(make_model):
    embed_model = make_model(dimensions=16, quantization="binary", metadata_mode="none", embed_batch_size=7)
    again = PplxEmbedding.from_dict(embed_model.to_dict())
    assert again.to_dict() == embed_model.to_dict()
    assert again.get_query_embedding("a river") == embed_model.get_query_embedding("a river")
    assert PplxEmbedding.from_json(embed_model.to_json()).to_dict() == embed_model.to_dict()
    assert PplxEmbedding.from_dict(PplxEmbedding("4b").to_dict()).to_dict() == PplxEmbedding("4b").to_dict()


def test_pickles_carry_settings_and_no_weights(make_model):
    embed_model = make_model(dimensions=16, token="hf_secret")
    expected = embed_model.get_query_embedding("a river")
    pickled = pickle.dumps(embed_model)
    assert len(pickled) < 10_000
    again = pickle.loads(pickled)
    assert again.get_query_embedding("a river") == expected
    assert again.to_dict() == embed_model.to_dict()
    assert again.token == "hf_secret"


def test_a_pickle_whose_folder_is_gone_says_so(replica_v1, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(replica_v1, folder)
    pickled = pickle.dumps(PplxEmbedding(folder))
    shutil.rmtree(folder)
    with pytest.raises(CheckpointError, match=f"there is no checkpoint or folder '{folder}'"):
        pickle.loads(pickled)


def test_what_cannot_be_pickled_stays_on_the_object(make_model):
    handler = TokenCountingHandler(tokenizer=lambda text: text.split())
    embed_model = make_model(callback_manager=CallbackManager([handler]))
    again = pickle.loads(pickle.dumps(embed_model))
    assert again.get_text_embedding("a river") == embed_model.get_text_embedding("a river")
    assert handler.total_embedding_token_count == 2


def test_what_decides_the_vectors_stays_as_it_was_made(embed_model, replica_context_v1):
    for name in ("dimensions", "quantization", "document_model", "normalize"):
        with pytest.raises(InputError, match=f"{name} cannot be changed"):
            setattr(embed_model, name, getattr(embed_model, name))
    embed_model.embed_batch_size = 12
    smaller = embed_model.model_copy(update={"dimensions": 8})
    assert (smaller.embed_batch_size, len(smaller.get_query_embedding("a"))) == (12, 8)
    assert len(embed_model.get_query_embedding("a")) == 32
    assert embed_model.model_copy().get_query_embedding("a") == embed_model.get_query_embedding("a")
    with pytest.raises(InputError, match="dimensions=99"):
        embed_model.model_copy(update={"dimensions": 99})
    default = PplxEmbedding()
    assert default.model_copy(update={"model_name": "4b"}).to_dict() == PplxEmbedding("4b").to_dict()
    same = default.model_copy(update={"query_model": "context-v1-0.6b"})
    assert same.query_revision == same.document_revision


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"dimension": 8}, InputTypeError, r"'dimension' \(did you mean 'dimensions'\?\)"),
        ({"model": "0.6b"}, InputTypeError, "did you mean 'model_name'"),
        ({"dimensions": 0}, InputError, "dimensions=0"),
        ({"dimensions": 33}, InputError, "dimensions=33"),
        ({"dimensions": "8"}, TypeError, "dimensions"),
        ({"quantization": "int4"}, InputError, "int4"),
        ({"quantization": "ubinary"}, InputError, 'use "binary"'),
        ({"metadata_mode": "all of it"}, InputError, "'embed'"),
        ({"dtype": "float16"}, ValueError, "float16"),
        ({"max_tokens": 0}, InputError, "max_tokens"),
        ({"query_model": "v1-06b"}, CheckpointError, "did you mean 'v1-0.6b'"),
        ({"query_model": "v1-4b"}, CheckpointError, "cannot be compared"),
        ({"embed_batch_size": 0}, ValueError, "embed_batch_size"),
        ({"embed_batch_size": 4096}, ValueError, "2048"),
    ],
)
def test_bad_options_are_refused_with_what_is_allowed(options, error, message, make_model):
    with pytest.raises(error, match=message):
        make_model(**options)


def test_shared_metadata_needs_a_contextual_document_model(make_model, replica_v1):
    with pytest.raises(InputError, match="metadata_per_document=True needs a contextual document model"):
        make_model(document_model=replica_v1, metadata_per_document=True)
    with pytest.raises(InputError, match="metadata_per_document=True needs a contextual document model"):
        make_model(document_model=replica_v1).metadata_per_document = True


BAD = [
    (None, TypeError, "NoneType"),
    (b"bytes", TypeError, "bytes"),
    (7, TypeError, "int"),
    (["list"], TypeError, "list"),
    ("", ValueError, "empty"),
    ("\ud800", ValueError, "surrogate|Unicode|UTF-8"),
]


@pytest.mark.parametrize(("text", "error", "message"), BAD)
@pytest.mark.parametrize("method", ["get_query_embedding", "get_text_embedding", "encode_query"])
async def test_bad_single_texts_are_refused(method, text, error, message, embed_model):
    with pytest.raises(error, match=message):
        getattr(embed_model, method)(text)
    if method.startswith("get"):
        with pytest.raises(error, match=message):
            await getattr(embed_model, f"a{method}")(text)


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        ("a bare string", TypeError, r"put it in a list"),
        (None, TypeError, "NoneType"),
        (b"bytes", TypeError, "bytes"),
        ([["nested"]], TypeError, "text 0 must be a str, not list"),
        ([*TEXTS, None], TypeError, "text 25 must be a str, not NoneType"),
        ([*TEXTS, ""], ValueError, "text 25 is empty"),
    ],
)
async def test_bad_lists_are_refused_with_the_position(texts, error, message, make_model):
    embed_model = make_model(embed_batch_size=10)  # the position counts from the first batch
    with pytest.raises(error, match=message):
        embed_model.get_text_embedding_batch(texts)
    with pytest.raises(error, match=message):
        await embed_model.aget_text_embedding_batch(texts)
    with pytest.raises(error, match=message):
        embed_model.encode_texts(texts)


def test_odd_texts_work(embed_model):
    for text in ("\x00", "<|endoftext|>", " ", "\n\n", "😀" * 50, "e\u0301"):
        assert len(embed_model.get_text_embedding(text)) == 32


def test_a_text_over_the_limit_is_refused_unless_it_may_be_cut(make_model):
    long = "river " * 500
    with pytest.raises(InputError, match="truncate"):
        make_model(max_tokens=16).get_text_embedding(long)
    assert len(make_model(max_tokens=16, truncate=True).get_text_embedding(long)) == 32


def test_bare_texts_are_warned_about_in_every_call_and_queries_never(embed_model):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        embed_model.get_query_embedding("a")
        embed_model.get_text_embedding("a")
        embed_model.get_agg_embedding_from_queries(["a", "b"])
        assert not caught
        embed_model.get_text_embedding_batch(["alone"])  # what a VectorStoreIndex does with a node that is inserted
        embed_model.get_text_embedding_batch(["a", "b"] * 200)
    assert [warning.category for warning in caught] == [ContextWarning] * 2
    assert {warning.filename for warning in caught} == {__file__}
    # One text, so that Python's own filter shows it once a line of the program.
    [message] = {str(warning.message) for warning in caught}
    assert "contextual_index(documents, embed_model=embed_model)" in message


def test_a_model_without_context_says_nothing(flat_model):
    nodes = flat_model([TextNode(text=text, metadata={"k": "v"}) for text in TEXTS])
    expected = flat_model.encode_texts([node.get_content(MetadataMode.EMBED) for node in nodes], normalize=True)
    np.testing.assert_allclose([node.embedding for node in nodes], expected, atol=1e-6)
    again = asyncio.run(flat_model.acall([TextNode(text=text, metadata={"k": "v"}) for text in TEXTS]))
    np.testing.assert_allclose([node.embedding for node in again], expected, atol=1e-6)


def test_a_cache_by_text_is_refused_where_it_would_be_wrong(make_model, embed_model, replica_v1, replica_context_v1):
    for options in ({}, {"query_model": replica_context_v1}):
        with pytest.raises(InputError, match="IngestionPipeline"):
            make_model(embeddings_cache=SimpleKVStore(), **options)
    with pytest.raises(InputError, match="IngestionPipeline"):
        embed_model.embeddings_cache = SimpleKVStore()
    with pytest.raises(InputError, match="different models"):
        make_model(query_model=replica_context_v1, document_model=replica_v1, embeddings_cache=SimpleKVStore())


async def test_a_cache_by_text_works_where_it_is_right(make_model, replica_v1):
    cache = SimpleKVStore()
    embed_model = make_model(document_model=replica_v1, embeddings_cache=cache)
    first = embed_model.get_text_embedding_batch(TEXTS)
    assert len(cache.get_all(collection="embeddings")) == len(TEXTS)
    assert await embed_model.aget_text_embedding_batch(TEXTS) == first


def test_a_cache_must_be_a_key_value_store(make_model, replica_v1):
    with pytest.raises(TypeError, match="BaseKVStore"):
        make_model(document_model=replica_v1, embeddings_cache={})


def check_pairs(events, model_name, batches):
    assert [event.class_name() for event in events] == ["EmbeddingStartEvent", "EmbeddingEndEvent"] * len(batches)
    assert {event.model_dict["model_name"] for event in events[::2]} == {model_name}
    for event, chunks in zip(events[1::2], batches, strict=True):
        assert event.chunks == chunks
        assert len(event.embeddings) == len(chunks)


async def test_events_are_those_of_base_embedding(flat_model, events):
    flat_model.embed_batch_size = 10
    runs = [TEXTS[:10], TEXTS[10:20], TEXTS[20:]]
    for call in (flat_model.get_text_embedding_batch, flat_model.aget_text_embedding_batch):
        events.clear()
        result = call(TEXTS)
        if asyncio.iscoroutine(result):
            await result
        check_pairs(events, flat_model.model_name, runs)


async def test_a_transformation_emits_them_as_well(make_model, events):
    handler = LlamaDebugHandler(print_trace_on_end=False)
    embed_model = make_model(embed_batch_size=2, callback_manager=CallbackManager([handler]))
    nodes = [Document(text=f"text {number}") for number in range(3)]
    runs = [["text 0", "text 1"], ["text 2"]]
    embed_model(nodes)
    check_pairs(events, embed_model.model_name, runs)
    events.clear()
    await embed_model.acall(nodes)
    check_pairs(events, embed_model.model_name, runs)
    pairs = handler.get_event_pairs(CBEventType.EMBEDDING)
    assert [pair[1].payload[EventPayload.CHUNKS] for pair in pairs] == runs * 2
    assert all(len(pair[1].payload[EventPayload.EMBEDDINGS][0]) == 32 for pair in pairs)


def test_every_quantization_that_gives_floats_is_taken(make_model):
    for quantization in (*get_args(Quantization), None):
        if quantization != "ubinary":
            assert make_model(quantization=quantization).quantization == quantization


def test_no_asynchronous_method_needs_a_thread_of_the_loop(make_model, flat_model):
    embed_model = make_model()
    gate = threading.Event()

    async def work():
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        busy = loop.run_in_executor(None, gate.wait, 60)
        try:
            for model in (embed_model, flat_model):
                nodes = [Document(text=text) for text in TEXTS[:3]]
                await asyncio.wait_for(model.acall(nodes), 30)
                assert all(node.embedding for node in nodes)
            await asyncio.wait_for(embed_model.aget_query_embedding("a river"), 30)
            await asyncio.wait_for(embed_model.aget_text_embedding("a river"), 30)
            await asyncio.wait_for(flat_model.aget_text_embedding_batch(TEXTS), 30)
        finally:
            gate.set()
            await busy

    asyncio.run(work())


async def test_two_hundred_concurrent_queries_share_passes_outside_the_loop(exact_model, monkeypatch):
    queries = [f"query {number} about rivers" for number in range(200)]
    expected = [exact_model.get_query_embedding(query) for query in queries]
    scheduler, passes, threads = exact_model.biencoder.query.load()._loaded.scheduler, [], set()
    run = scheduler._run

    def noted(batch):
        passes.append(len(batch))
        threads.add(threading.get_ident())
        return run(batch)

    monkeypatch.setattr(scheduler, "_run", noted)
    found = await asyncio.gather(*map(exact_model.aget_query_embedding, queries))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert sum(passes) == 200
    assert len(passes) < 150
    assert threading.get_ident() not in threads


def test_thirty_two_threads_get_the_same_vectors(exact_model):
    queries = [f"query {number} about rivers" for number in range(200)]
    expected = [exact_model.get_query_embedding(query) for query in queries]
    fresh = PplxEmbedding.from_dict(exact_model.to_dict())
    with ThreadPoolExecutor(32) as pool:
        found = list(pool.map(fresh.get_query_embedding, queries))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_without_llama_index_the_extra_is_named():
    code = "import sys; sys.modules['llama_index.core'] = None; import pplx_embed_integrations.llama_index"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert 'MissingDependencyError: llama_index is not installed; type: pip install "pplx-embed' in done.stderr


def test_the_dictionary_is_plain_json(embed_model):
    assert json.loads(embed_model.to_json())["metadata_mode"] == "embed"
