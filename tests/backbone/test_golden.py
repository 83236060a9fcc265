"""Both replicas give what the published algorithm gave, whatever the attention, the batch and the company."""

from functools import cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pplx_embed_integrations import PplxEncoder
from pplx_embed_integrations.backbone.qwen3 import forward
from pplx_embed_integrations.vectors import Quantization

FORMS: list[Quantization | None] = ["int8", "binary", "ubinary", None]


def assert_rows(got: np.ndarray, expected: Any, rows: slice | list[int], form: Quantization | None) -> None:
    """Float within 1e-5; a code one apart only where the float lies at a rounding border; bits equal."""
    if form is None:
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, expected.pooled[rows], atol=1e-5, rtol=0)
    elif form == "int8":
        assert got.dtype == np.int8
        scaled = np.tanh(expected.pooled[rows].astype(np.float64)) * 127
        at_border = np.abs(scaled - np.floor(scaled) - 0.5) < 1e-3
        apart = np.abs(got.astype(int) - expected.int8[rows])
        assert apart[~at_border].max(initial=0) == 0
        assert apart.max(initial=0) <= 1
    else:
        assert got.dtype == (np.int8 if form == "binary" else np.uint8)
        np.testing.assert_array_equal(got, getattr(expected, form)[rows])


@cache
def encoder(folder: Path, batch_tokens: int | None = None) -> PplxEncoder:
    return PplxEncoder(folder, dtype="float32", batch_tokens=batch_tokens)


@pytest.mark.parametrize("form", FORMS)
def test_texts(form: Quantization | None, replica_v1: Path, expected_v1: Any) -> None:
    made = encoder(replica_v1)
    assert_rows(made.encode(expected_v1.inputs, quantization=form), expected_v1, slice(None), form)
    alone = [made.encode([text], quantization=form)[0] for text in expected_v1.inputs]
    assert_rows(np.array(alone), expected_v1, slice(None), form)


@pytest.mark.parametrize("form", FORMS)
def test_documents(form: Quantization | None, replica_context_v1: Path, expected_context_v1: Any) -> None:
    made = encoder(replica_context_v1)
    matrices = made.encode_documents(expected_context_v1.inputs, quantization=form)
    assert [len(matrix) for matrix in matrices] == [len(chunks) for chunks in expected_context_v1.inputs]
    assert_rows(np.concatenate(matrices), expected_context_v1, slice(None), form)
    alone = [made.encode_documents([chunks], quantization=form)[0] for chunks in expected_context_v1.inputs]
    assert_rows(np.concatenate(alone), expected_context_v1, slice(None), form)


@pytest.mark.parametrize("budget", [1, 40, 300, 10_000])
def test_the_order_and_the_token_budget_change_nothing(
    budget: int,
    replica_v1: Path,
    replica_context_v1: Path,
    expected_v1: Any,
    expected_context_v1: Any,
) -> None:
    rng = np.random.default_rng(budget)
    texts = encoder(replica_v1, budget)
    order = rng.permutation(len(expected_v1.inputs)).tolist()
    got = texts.encode([expected_v1.inputs[i] for i in order], quantization=None)
    assert_rows(got, expected_v1, order, None)

    documents = encoder(replica_context_v1, budget)
    borders = list(pairwise(accumulate(map(len, expected_context_v1.inputs), initial=0)))
    order = rng.permutation(len(borders)).tolist()
    matrices = documents.encode_documents([expected_context_v1.inputs[i] for i in order], quantization=None)
    for position, matrix in zip(order, matrices, strict=True):
        assert_rows(matrix, expected_context_v1, slice(*borders[position]), None)


def test_texts_and_documents_in_one_mixed_corpus(replica_context_v1: Path, expected_context_v1: Any) -> None:
    made = encoder(replica_context_v1)
    company = [["a"], ["b " * 400, "c"], *([["x y z", "later"]] * 7)]
    mixed = [document for pair in zip(expected_context_v1.inputs, company, strict=False) for document in pair]
    matrices = made.encode_documents(mixed, quantization=None)[::2]
    assert_rows(np.concatenate(matrices), expected_context_v1, slice(None), None)


def test_token_ids(
    encoder_v1: PplxEncoder, encoder_context_v1: PplxEncoder, expected_v1: Any, expected_context_v1: Any
) -> None:
    loaded = encoder_v1.load()._loaded
    assert loaded is not None
    [texts] = loaded.tokenizer.text_slices(encoder_v1._limits, expected_v1.inputs)
    assert [s.ids.tolist() for s in texts] == expected_v1.input_ids
    assert [(s.spans, s.rows) for s in texts] == [(((0, len(s.ids)),), (row,)) for row, s in enumerate(texts)]
    loaded = encoder_context_v1.load()._loaded
    assert loaded is not None
    [documents] = loaded.tokenizer.document_slices(encoder_context_v1._limits, expected_context_v1.inputs)
    assert [s.ids.tolist() for s in documents] == expected_context_v1.input_ids


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_texts_through_sentence_transformers(implementation: str, replica_v1: Path, expected_v1: Any) -> None:
    model = PplxEncoder(replica_v1, dtype="float32").sentence_transformer
    model[0].model.set_attn_implementation(implementation)
    got = model.encode(expected_v1.inputs, quantization=None, batch_size=4)  # padded
    assert_rows(got, expected_v1, slice(None), None)
    short = [row for row, ids in enumerate(expected_v1.input_ids) if len(ids) < 200]
    texts = [expected_v1.inputs[row] for row in short]
    for form, batch_size in (("int8", 1), ("int8", 32), ("binary", 3)):
        got = model.encode(texts, quantization=form, batch_size=batch_size)
        assert got.dtype == np.float32
        assert (got == np.rint(got)).all()
        assert_rows(got.astype(np.int8), expected_v1, short, form)


def test_bfloat16_is_close(replica_v1: Path, expected_v1: Any) -> None:
    got = PplxEncoder(replica_v1, dtype="bfloat16").encode(expected_v1.inputs, quantization=None)
    cosines = (
        (got * expected_v1.pooled).sum(1) / np.linalg.norm(got, axis=1) / np.linalg.norm(expected_v1.pooled, axis=1)
    )
    assert cosines.min() > 0.999


def test_plain_layers_and_odd_blocks_give_the_same(
    replica_context_v1: Path, expected_context_v1: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "_FLOATS_AT_ONCE", 100)
    monkeypatch.setattr(forward, "row_blocks", lambda rows: (7,) * (rows // 7 + 1))  # up to a block too many
    made = PplxEncoder(replica_context_v1, dtype="float32")
    assert made.sentence_transformer is not None  # from here on the linear layers are torch's own
    matrices = made.encode_documents(expected_context_v1.inputs, quantization=None)
    assert_rows(np.concatenate(matrices), expected_context_v1, slice(None), None)
