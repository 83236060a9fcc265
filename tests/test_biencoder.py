"""PplxBiEncoder: which side embeds what, and in which form it leaves."""

import asyncio
import copy
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pplx_embed_integrations import PplxBiEncoder, PplxEncoder
from pplx_embed_integrations.errors import CheckpointError, InputError, InputTypeError, NotContextualError

TEXTS = ["a text", "another one", "東京"]
DOCUMENTS = [["Marie Curie was born.", "She moved to Paris."], ["one chunk"], []]


def pair(replica_v1: Path, replica_context_v1: Path, **options: Any) -> PplxBiEncoder:
    return PplxBiEncoder(query_model=replica_v1, document_model=replica_context_v1, dtype="float32", **options)


def call(owner: Any, name: str, asynchronous: bool, *args: Any, **options: Any) -> Any:
    if asynchronous:
        return asyncio.run(getattr(owner, f"a{name}")(*args, **options))
    return getattr(owner, name)(*args, **options)


def test_importing_and_constructing_imports_no_model_library() -> None:
    code = """
import sys
import pplx_embed_integrations.biencoder
from pplx_embed_integrations import PplxBiEncoder
pair = PplxBiEncoder("0.6b", dimensions=256, quantization="binary")
assert pair.dimension == 256 and pair.contextual and pair.options["document_model"].endswith("context-v1-0.6b")
heavy = {"torch", "transformers", "sentence_transformers", "tokenizers", "huggingface_hub"}
heavy |= {"langchain_core", "llama_index"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_each_side_embeds_its_own(
    biencoder: PplxBiEncoder, encoder_v1: PplxEncoder, encoder_context_v1: PplxEncoder, asynchronous: bool
) -> None:
    queries, texts = encoder_v1.encode(TEXTS), encoder_context_v1.encode(TEXTS)
    np.testing.assert_array_equal(call(biencoder, "encode_queries", asynchronous, TEXTS), queries)
    np.testing.assert_array_equal(call(biencoder, "encode_query", asynchronous, TEXTS[1]), queries[1])
    np.testing.assert_array_equal(call(biencoder, "encode_texts", asynchronous, TEXTS), texts)
    documents = encoder_context_v1.encode_documents(DOCUMENTS)
    for got, expected in zip(call(biencoder, "encode_documents", asynchronous, DOCUMENTS), documents, strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_floats_are_the_codes_at_unit_length(biencoder: PplxBiEncoder, asynchronous: bool) -> None:
    for name in ("queries", "texts"):
        floats = call(biencoder, f"embed_{name}", asynchronous, TEXTS)
        assert all(type(value) is float for row in floats for value in row)
        codes = getattr(biencoder, f"encode_{name}")(TEXTS).astype(np.float64)
        np.testing.assert_allclose(floats, codes / np.linalg.norm(codes, axis=1, keepdims=True), rtol=1e-6, atol=1e-8)
        assert floats == getattr(biencoder, f"encode_{name}")(TEXTS, normalize=True).tolist()
    assert call(biencoder, "embed_query", asynchronous, TEXTS[0]) == biencoder.embed_queries(TEXTS)[0]
    documents = call(biencoder, "embed_documents", asynchronous, DOCUMENTS)
    assert [len(matrix) for matrix in documents] == [2, 1, 0]
    matrices = biencoder.encode_documents(DOCUMENTS, normalize=True)
    assert documents == [matrix.tolist() for matrix in matrices]


def test_a_call_may_choose_another_form(biencoder: PplxBiEncoder) -> None:
    bits = biencoder.encode_queries(TEXTS, quantization="ubinary", dimensions=20)
    assert (bits.dtype, bits.shape) == (np.dtype(np.uint8), (3, 3))
    assert biencoder.encode_query("a", quantization=None).dtype == np.float32
    with pytest.raises(InputError, match="dimensions=99 is out of range"):
        biencoder.encode_texts(TEXTS, dimensions=99)


def test_settings_decide_the_form(replica_v1: Path, replica_context_v1: Path) -> None:
    both = pair(replica_v1, replica_context_v1, dimensions=16, quantization="binary", normalize=False)
    assert both.dimension == 16
    assert set(np.unique(both.embed_texts(TEXTS))) == {-1.0, 1.0}
    assert len(both.embed_query("a")) == 16
    np.testing.assert_array_equal(both.encode_queries(TEXTS), both.embed_queries(TEXTS))


@pytest.mark.parametrize("asynchronous", [False, True])
def test_packed_bits_have_no_floats_and_that_is_said_before_the_work(
    replica_v1: Path, replica_context_v1: Path, asynchronous: bool
) -> None:
    packed = pair(replica_v1, replica_context_v1, quantization="ubinary")
    for name, argument in (("queries", TEXTS), ("texts", TEXTS), ("documents", DOCUMENTS), ("query", "a")):
        with pytest.raises(InputError, match='use "binary", which ranks the same'):
            call(packed, f"embed_{name}", asynchronous, argument)
    assert packed.query._loaded is None
    assert packed.document._loaded is None
    assert packed.encode_query("a").shape == (4,)


def test_one_checkpoint_on_both_sides_is_one_object(replica_context_v1: Path) -> None:
    same = PplxBiEncoder(str(replica_context_v1), dtype="float32")
    assert same.query is same.document
    relative = PplxBiEncoder(query_model=replica_context_v1, document_model=str(replica_context_v1) + "/")
    assert relative.query is relative.document
    assert same.embed_query("a") == same.embed_texts(["a"])[0]
    assert PplxBiEncoder("v1-0.6b").query is not PplxBiEncoder("v1-0.6b").query
    revised = PplxBiEncoder("v1-0.6b", query_revision="main")
    assert revised.query is not revised.document


def test_racing_threads_get_one_encoder_a_side(replica_v1: Path, replica_context_v1: Path) -> None:
    both = pair(replica_v1, replica_context_v1)
    barrier, seen = threading.Barrier(16), set()

    def work() -> None:
        barrier.wait()
        seen.update((id(both.query), id(both.document)))

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 2


def test_only_the_side_that_is_used_is_loaded(replica_v1: Path, replica_context_v1: Path) -> None:
    both = pair(replica_v1, replica_context_v1)
    both.embed_query("a")
    assert both.query._loaded is not None
    assert both.document._loaded is None


def test_a_document_side_for_single_texts_has_no_context(replica_v1: Path) -> None:
    plain = PplxBiEncoder(replica_v1)
    assert not plain.contextual
    with pytest.raises(NotContextualError, match="use a contextual checkpoint"):
        plain.embed_documents([["a", "b"]])


def test_names_of_pairs_and_of_sides() -> None:
    sides = [PplxBiEncoder(name).options for name in ("0.6b", "4B", "v1-4b")]
    named = [(side["query_model"], side["document_model"]) for side in sides]
    prefix = "perplexity-ai/pplx-embed-"
    assert named == [
        (f"{prefix}v1-0.6b", f"{prefix}context-v1-0.6b"),
        (f"{prefix}v1-4b", f"{prefix}context-v1-4b"),
        (f"{prefix}v1-4b", f"{prefix}v1-4b"),
    ]
    assert PplxBiEncoder("0.6b", query_model="context-v1-0.6b").options["query_model"] == f"{prefix}context-v1-0.6b"


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"model": "0.6"}, CheckpointError, "did you mean '0.6b'"),
        ({"model": None}, InputTypeError, "the model must be a name"),
        ({"query_model": "v1-4b"}, CheckpointError, "gives 2560 dimensions and context-v1-0.6b 1024"),
        ({"dimensions": 127}, InputError, "dimensions=127 is out of range; this model gives 128 to 1024"),
        ({"dimensions": 1025}, InputError, "dimensions=1025 is out of range"),
        ({"dimensions": True}, InputTypeError, "dimensions must be an integer"),
        ({"quantization": "int4"}, InputError, "quantization='int4' is unknown"),
        ({"dtype": "float16"}, InputError, "overflows"),
        ({"max_tokens": 0}, InputError, "max_tokens=0 is out of range; it must be 1 to 32768"),
        ({"max_tokens": 40_000}, InputError, "max_tokens=40000 is out of range; it must be 1 to 32768"),
        ({"batch_tokens": -1}, InputError, "batch_tokens=-1 is out of range"),
        ({"batch_tokens": True}, InputTypeError, "batch_tokens must be an integer"),
    ],
)
def test_bad_settings_are_refused_at_once(options: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        PplxBiEncoder(**options)


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(
    ("name", "argument", "kind", "message"),
    [
        ("embed_query", ["a"], InputTypeError, "the query must be a str, not list"),
        ("embed_query", None, InputTypeError, "the query must be a str, not NoneType"),
        ("embed_query", "", InputError, "the query is empty"),
        ("encode_query", b"a", InputTypeError, "the query must be a str, not bytes"),
        ("embed_queries", "bare", InputTypeError, "not a bare str"),
        ("embed_texts", "bare", InputTypeError, "not a bare str"),
        ("embed_texts", [["nested"]], InputTypeError, "text 0 must be a str, not list"),
        ("embed_texts", ["a", "\ud800"], InputError, "text 1 has a lone surrogate"),
        ("embed_documents", ["flat"], InputTypeError, "for document 0 a list of chunks is wanted"),
        ("embed_documents", [["a", None]], InputTypeError, "chunk 1 of document 0 must be a str"),
        ("encode_documents", [["a", ""]], InputError, "chunk 1 of document 0 is empty"),
    ],
)
def test_bad_inputs(
    biencoder: PplxBiEncoder, name: str, argument: Any, kind: type[Exception], message: str, asynchronous: bool
) -> None:
    with pytest.raises(kind, match=message):
        call(biencoder, name, asynchronous, argument)


def test_options_name_everything_that_changes_a_vector(replica_v1: Path, replica_context_v1: Path) -> None:
    base: dict[str, Any] = {}
    changes: list[dict[str, Any]] = [
        {"dimensions": 16},
        {"quantization": "binary"},
        {"normalize": False},
        {"max_tokens": 100},
        {"truncate": True},
    ]
    seen = [pair(replica_v1, replica_context_v1, **change).options for change in [base, *changes]]
    seen.append(PplxBiEncoder(replica_v1, dtype="float32").options)
    seen.append(PplxBiEncoder(query_model=replica_v1, document_model=replica_context_v1, dtype="bfloat16").options)
    assert len({tuple(options.items()) for options in seen}) == len(seen)
    same = pair(replica_v1, replica_context_v1, batch_tokens=7, device="cpu", token="secret", show_progress=True)
    assert same.options == seen[0]
    assert "secret" not in repr(same)


def test_copies_carry_no_weights(replica_v1: Path, replica_context_v1: Path) -> None:
    both = pair(replica_v1, replica_context_v1, dimensions=16)
    expected = both.embed_query("a"), both.embed_documents(DOCUMENTS)
    pickled = pickle.dumps(both)
    assert len(pickled) < 4000
    for other in (pickle.loads(pickled), copy.deepcopy(both)):
        assert other.query._loaded is None
        assert other.options == both.options
        assert (other.embed_query("a"), other.embed_documents(DOCUMENTS)) == expected
