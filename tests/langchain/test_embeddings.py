"""PplxEmbeddings as an object: options, pickles, what it gives, what it refuses, and many callers at once."""

from __future__ import annotations

import asyncio
import copy
import inspect
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from langchain_core.documents import Document

from pplx_embed_integrations import PplxBiEncoder
from pplx_embed_integrations.errors import CheckpointError, InputError, InputTypeError, NotContextualError
from pplx_embed_integrations.langchain import PplxEmbeddings

TEXTS = ["late chunking", "Füße, 中文 and 🦦", "a\x00b", "<|endoftext|>"]


def test_importing_leaves_models_and_the_other_framework_alone():
    heavy = "[m for m in ('torch', 'sentence_transformers', 'transformers', 'llama_index') if m in sys.modules]"
    code = f"import sys; from pplx_embed_integrations.langchain import PplxEmbeddings as E; E('4b'); print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_vectors_are_unit_rows_of_the_codes(embeddings):
    codes = embeddings.encode_texts(TEXTS)
    assert codes.dtype == np.int8
    vectors = np.array(embeddings.embed_documents(TEXTS))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    floats = codes.astype(float)
    np.testing.assert_allclose(vectors, floats / np.linalg.norm(floats, axis=1)[:, None], atol=1e-6)
    query = embeddings.encode_query(TEXTS[0])
    np.testing.assert_allclose(embeddings.embed_query(TEXTS[0]), query / np.linalg.norm(query.astype(float)), atol=1e-6)


def test_query_and_documents_go_through_their_own_model(embeddings, encoder_v1, encoder_context_v1):
    assert (embeddings.encode_query("one") == encoder_v1.encode(["one"])[0]).all()
    assert (embeddings.encode_queries(["one"]) == encoder_v1.encode(["one"])).all()
    assert (embeddings.encode_texts(["one"]) == encoder_context_v1.encode(["one"])).all()


def test_options_reach_the_vectors(new_embeddings):
    raw = new_embeddings(normalize=False, dimensions=8, quantization="binary")
    assert set(raw.embed_query("one")) <= {1.0, -1.0}
    assert len(raw.embed_query("one")) == 8
    assert raw.encode_documents([["one", "two"]], quantization="ubinary", dimensions=16)[0].shape == (2, 2)
    floats = new_embeddings(quantization=None)
    assert floats.encode_texts(["one"]).dtype == np.float32


def test_chunks_are_embedded_together(embeddings):
    [together] = embeddings.embed_document_chunks([["one", "two"]])
    alone = embeddings.embed_documents(["one", "two"])
    assert together[0] != alone[0]
    assert embeddings.embed_document_chunks([["one"]])[0][0] == alone[0]


def test_empty_lists_load_nothing():
    embeddings = PplxEmbeddings("0.6b", local_files_only=True)  # not on this machine: loading would fail
    assert embeddings.embed_documents([]) == []
    assert embeddings.embed_document_chunks([]) == []
    assert asyncio.run(embeddings.aembed_documents([])) == []
    assert asyncio.run(embeddings.aembed_document_chunks([])) == []


async def test_async_twins_agree(embeddings):
    assert await embeddings.aembed_query("one") == embeddings.embed_query("one")
    assert await embeddings.aembed_documents(["one", "two"]) == embeddings.embed_documents(["one", "two"])
    assert await embeddings.aembed_document_chunks([["one", "two"]]) == embeddings.embed_document_chunks(
        [["one", "two"]]
    )


def test_pickle_and_copies_carry_options_not_weights(new_embeddings, byte_store):
    embeddings = new_embeddings(dimensions=16, cache=byte_store, token="hub-secret")
    vector = embeddings.embed_query("one")
    data = pickle.dumps(embeddings)
    assert len(data) < 2000
    restored = pickle.loads(data)
    assert restored.cache is None
    assert restored.dimensions == 16
    assert restored.token.get_secret_value() == "hub-secret"
    assert restored.embed_query("one") == vector
    copied = copy.deepcopy(embeddings)
    assert copied == embeddings
    assert copied.biencoder is embeddings.biencoder
    for narrower in (embeddings.model_copy(update={"dimensions": 8}), embeddings.copy(update={"dimensions": 8})):
        assert len(narrower.embed_query("one")) == narrower.dimensions == 8


def test_neither_repr_nor_dump_shows_the_token(new_embeddings):
    embeddings = new_embeddings(token="hub-secret")
    assert (
        "hub-secret"
        not in repr(embeddings) + str(embeddings) + str(embeddings.model_dump()) + embeddings.model_dump_json()
    )


def test_options_are_fields_and_cannot_change(embeddings):
    assert {"query_model", "document_model", "dimensions", "quantization", "normalize", "max_tokens"} <= set(
        embeddings.model_dump()
    )
    with pytest.raises(ValueError, match="frozen"):
        embeddings.dimensions = 8
    assert PplxEmbeddings.model_validate(embeddings.model_dump()) == embeddings


def test_it_has_every_option_of_the_bi_encoder():
    theirs = inspect.signature(PplxBiEncoder).parameters
    assert {name: field.default for name, field in PplxEmbeddings.model_fields.items() if name != "cache"} == {
        name: parameter.default for name, parameter in theirs.items()
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dimension": 128}, "did you mean 'dimensions'"),
        ({"quantisation": "int8"}, "did you mean 'quantization'"),
        ({"dimensions": 7000}, "128 to 1024"),
        ({"dimensions": 4}, "128 to 1024"),
        ({"dimensions": "many"}, "dimensions must be an integer or None, not str"),
        ({"quantization": "ubinary"}, 'use "binary"'),
        ({"dtype": "float16"}, "float16"),
        ({"query_model": "v1-4b"}, "2560"),
        ({"query_model": 5}, "the model must be a name"),
        ({"model": None}, "the model must be a name"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"cache": {}}, "cache"),
    ],
)
def test_bad_options_say_what_is_allowed(options, message):
    with pytest.raises((InputError, InputTypeError, CheckpointError), match=message):
        PplxEmbeddings(**options)


def test_unknown_model_names_the_nearest():
    with pytest.raises(CheckpointError, match=r"context-v1-0\.6b"):
        PplxEmbeddings("context-v1-0.6")


BAD_FLAT = [None, b"bytes", "bare", 7, [None], [b"bytes"], [["nested"]], {"a": 1}, ["fine", 3]]


@pytest.mark.parametrize("texts", BAD_FLAT, ids=repr)
def test_wrong_types_are_refused_by_every_flat_method(embeddings, texts):
    for method in (embeddings.embed_documents, embeddings.encode_texts, embeddings.encode_queries):
        with pytest.raises(InputTypeError):
            method(texts)
    with pytest.raises(InputTypeError):
        asyncio.run(embeddings.aembed_documents(texts))


@pytest.mark.parametrize("text", [None, b"bytes", ["list"], 7], ids=repr)
def test_wrong_types_are_refused_as_queries(embeddings, text):
    for method in (embeddings.embed_query, embeddings.encode_query):
        with pytest.raises(InputTypeError):
            method(text)
    with pytest.raises(InputTypeError):
        asyncio.run(embeddings.aembed_query(text))


@pytest.mark.parametrize(
    "documents", [None, "bare", b"bytes", ["flat"], [None], [[None]], [[["deep"]]], [[3]]], ids=repr
)
def test_wrong_nesting_is_refused(embeddings, documents):
    for method in (embeddings.embed_document_chunks, embeddings.encode_documents):
        with pytest.raises(InputTypeError):
            method(documents)
    with pytest.raises(InputTypeError):
        asyncio.run(embeddings.aembed_document_chunks(documents))


def test_empty_texts_are_refused_with_their_position(embeddings):
    with pytest.raises(InputError, match="query"):
        embeddings.embed_query("")
    with pytest.raises(InputError, match="text 1"):
        embeddings.embed_documents(["one", ""])
    with pytest.raises(InputError, match="chunk 1 of document 2"):
        embeddings.embed_document_chunks([["a"], ["b"], ["c", ""]])
    with (
        pytest.raises(InputError, match="chunk 1 of document 1 is empty"),
        embeddings.documents(
            [Document("a", metadata={"source": 1}), Document("", metadata={"source": 1})], group_by="source"
        ),
    ):
        pass


@pytest.mark.parametrize("cached", [False, True])
def test_lone_surrogates_are_refused(new_embeddings, byte_store, cached):
    embeddings = new_embeddings(cache=byte_store if cached else None)
    for call in (
        lambda: embeddings.embed_query("\ud800"),
        lambda: embeddings.embed_documents(["fine", "\ud800"]),
        lambda: embeddings.embed_document_chunks([["fine", "\ud800"]]),
    ):
        with pytest.raises(InputError):
            call()


def test_a_model_for_single_texts_takes_no_documents(new_embeddings, replica_v1):
    plain = new_embeddings(document_model=replica_v1)
    assert not plain.contextual
    with pytest.raises(NotContextualError):
        plain.embed_document_chunks([["one", "two"]])
    with (
        pytest.raises(NotContextualError, match="context-v1"),
        plain.documents([Document("a", metadata={"source": 1})]),
    ):
        pass


def test_32_threads_get_what_one_gets(new_embeddings):
    embeddings = new_embeddings()
    queries = [f"query number {n % 40}" for n in range(320)]
    sequential = {query: embeddings.embed_query(query) for query in set(queries)}
    fresh = new_embeddings()  # loads under contention
    with ThreadPoolExecutor(32) as pool:
        found = list(pool.map(fresh.embed_query, queries))
    for query, vector in zip(queries, found, strict=True):
        np.testing.assert_allclose(vector, sequential[query], atol=0.006)  # a code may be one apart at a border


async def test_200_concurrent_queries_share_passes_outside_the_loop(embeddings, monkeypatch):
    queries = [f"query number {n}" for n in range(200)]
    expected = [embeddings.embed_query(query) for query in queries]
    scheduler, threads = embeddings.biencoder.query.load()._loaded.scheduler, []
    run = scheduler._run

    def noted(batch):
        threads.append(threading.get_ident())
        return run(batch)

    monkeypatch.setattr(scheduler, "_run", noted)
    found = await asyncio.gather(*map(embeddings.aembed_query, queries))
    assert threading.get_ident() not in threads
    assert len(threads) < 150
    np.testing.assert_allclose(found, expected, atol=0.006)  # a code may be one apart at a border


LOOP = """
import asyncio, sys, threading
from langchain_core.documents import Document
from langchain_core.indexing import InMemoryRecordManager
from langchain_core.vectorstores import InMemoryVectorStore
from pplx_embed_integrations.langchain import *

class Seen(ImportError):
    pass

class Spy:
    # Torch is not imported but for the last calls: which thread would import it first is what matters.
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            on_loop.append(threading.current_thread() is threading.main_thread())
            if not let_in:
                raise Seen(name)

sys.meta_path.insert(0, Spy())
one, split = [Document("One. Two.", id="a")], lambda text: text.split(". ")

def index(embeddings):
    records = InMemoryRecordManager("x")
    return aindex_documents(one, records, InMemoryVectorStore(embeddings), splitter=split)

calls = {
    "aembed_query": lambda embeddings: embeddings.aembed_query("x"),
    "aembed_documents": lambda embeddings: embeddings.aembed_documents(["x"]),
    "aembed_document_chunks": lambda embeddings: embeddings.aembed_document_chunks([["x"]]),
    "aadd_documents": lambda embeddings: aadd_documents(InMemoryVectorStore(embeddings), one, splitter=split),
    "afrom_documents": lambda embeddings: afrom_documents(InMemoryVectorStore, one, embeddings, splitter=split),
    "aindex_documents": index,
}
for let_in in (False, True):
    for name, call in calls.items():
        on_loop = []
        try:
            asyncio.run(call(PplxEmbeddings("miniature")))
        except Seen:
            assert not let_in, name
        assert on_loop == ([] if let_in and name != "aembed_query" else [False]), (name, on_loop)
"""


def test_the_first_asynchronous_call_leaves_the_loop_free():
    """Importing the backbone takes seconds, so it happens in a thread."""
    done = subprocess.run([sys.executable, "-c", LOOP], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
