"""The invariants that specify batching and late chunking, one test each."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pplx_embed_integrations import PplxEncoder
from pplx_embed_integrations.vectors import Quantization

texts = st.lists(
    st.sampled_from(["one", "two ", "drei", "四", "🙂", "\n", "longer words"]), min_size=1, max_size=9
).map(" ".join)
corpora = st.lists(texts, min_size=1, max_size=12)
documents = st.lists(st.lists(texts, min_size=1, max_size=6), min_size=1, max_size=6)
few = settings(max_examples=25)

SAME = 2e-5  # float32; vectors have a length of some 4


def assert_same(left: np.ndarray, right: np.ndarray) -> None:
    np.testing.assert_allclose(left, right, atol=SAME, rtol=0)


@few
@given(corpora, st.randoms())
def test_permuting_the_input_permutes_the_output(encoder_v1: PplxEncoder, corpus: list[str], random: object) -> None:
    order = list(range(len(corpus)))
    random.shuffle(order)  # type: ignore[attr-defined]
    expected = encoder_v1.encode(corpus, quantization=None)[order]
    assert_same(encoder_v1.encode([corpus[i] for i in order], quantization=None), expected)


@few
@given(documents, st.randoms())
def test_permuting_documents_permutes_the_matrices(
    encoder_context_v1: PplxEncoder, corpus: list[list[str]], random: object
) -> None:
    order = list(range(len(corpus)))
    random.shuffle(order)  # type: ignore[attr-defined]
    expected = encoder_context_v1.encode_documents(corpus, quantization=None)
    got = encoder_context_v1.encode_documents([corpus[i] for i in order], quantization=None)
    for position, matrix in zip(order, got, strict=True):
        assert_same(matrix, expected[position])


@pytest.fixture(scope="module")
def encoders(replica_context_v1: Path) -> list[PplxEncoder]:
    return [PplxEncoder(replica_context_v1, dtype="float32", batch_tokens=budget) for budget in (1, 7, 64)]


@few
@given(corpus=documents)
def test_budget_and_packing_never_change_a_vector(
    encoders: list[PplxEncoder], encoder_context_v1: PplxEncoder, corpus: list[list[str]]
) -> None:
    expected = [encoder_context_v1.encode_documents([chunks], quantization=None)[0] for chunks in corpus]
    for encoder in [encoder_context_v1, *encoders]:
        for matrix, alone in zip(encoder.encode_documents(corpus, quantization=None), expected, strict=True):
            assert_same(matrix, alone)


@few
@given(st.lists(st.lists(texts, max_size=6), max_size=6), st.integers(12, 40))
def test_n_chunks_in_n_vectors_out(replica_context_v1: Path, corpus: list[list[str]], max_tokens: int) -> None:
    encoder = PplxEncoder(replica_context_v1, dtype="float32", max_tokens=max_tokens, truncate=True)
    shapes = [matrix.shape for matrix in encoder.encode_documents(corpus)]
    assert shapes == [(len(chunks), 32) for chunks in corpus]


@few
@given(texts)
def test_a_one_chunk_document_is_the_text_alone(encoder_context_v1: PplxEncoder, text: str) -> None:
    [[vector]] = encoder_context_v1.encode_documents([[text]], quantization=None)
    assert_same(vector, encoder_context_v1.encode([text], quantization=None)[0])


def test_changing_chunk_3_moves_chunk_1_and_no_other_documents(encoder_context_v1: PplxEncoder) -> None:
    document = ["Marie Curie was born.", "She moved.", "She won prizes."]
    other = ["Another document.", "Its second chunk."]
    before = encoder_context_v1.encode_documents([document, other], quantization=None)
    after = encoder_context_v1.encode_documents([[*document[:2], "He lost a shoe."], other], quantization=None)
    assert np.abs(after[0][0] - before[0][0]).max() > 1e-2
    assert_same(after[1], before[1])


def test_a_chunk_repeated_within_its_document_has_two_vectors(
    encoder_context_v1: PplxEncoder,
) -> None:
    [alone] = encoder_context_v1.encode_documents([["a chunk"]], quantization=None)
    [together] = encoder_context_v1.encode_documents([["a chunk", "a chunk"]], quantization=None)
    assert np.abs(together[0] - alone[0]).max() > 1e-3  # the second is context, not a copy
    assert np.abs(together[0] - together[1]).max() > 1e-3  # and stands elsewhere


@pytest.mark.parametrize("form", ["int8", "binary", None])
def test_cutting_dimensions_commutes_with_quantising(encoder_v1: PplxEncoder, form: Quantization | None) -> None:
    whole = encoder_v1.encode(["a text", "another"], quantization=form)
    for width in (4, 7, 16, 32):
        cut = encoder_v1.encode(["a text", "another"], quantization=form, dimensions=width)
        np.testing.assert_array_equal(cut, whole[:, :width])


def test_an_empty_list_gives_an_empty_result_without_loading() -> None:
    code = """
import numpy as np
from pplx_embed_integrations import PplxBiEncoder, PplxEncoder
import asyncio
encoder = PplxEncoder("context-v1-0.6b", local_files_only=True)
assert encoder.encode([]).shape == (0, 1024) and encoder.encode([]).dtype == np.int8
assert encoder.encode([], dimensions=200, quantization="ubinary").shape == (0, 25)
assert encoder.encode([], normalize=True).dtype == np.float32
assert encoder.encode_documents([]) == []
assert [m.shape for m in encoder.encode_documents([[], []], quantization=None)] == [(0, 1024)] * 2
assert asyncio.run(encoder.aencode([])).shape == (0, 1024)
assert asyncio.run(encoder.aencode_documents([])) == []
pair = PplxBiEncoder("4b", dimensions=128)
assert pair.embed_texts([]) == [] and pair.embed_queries([]) == [] and pair.embed_documents([]) == []
assert pair.embed_documents([[]]) == [[]]
assert pair.encode_queries([]).shape == (0, 128)
assert asyncio.run(pair.aembed_texts([])) == [] and asyncio.run(pair.aembed_documents([])) == []
assert encoder._loaded is None
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
