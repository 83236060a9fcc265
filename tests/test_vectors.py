"""Quantising, packing and comparing, against the published formulas in torch, naive loops and bytes made by hand."""

import gc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pplx_embed_integrations.errors import EncodingError, InputError, InputTypeError, PrecisionWarning
from pplx_embed_integrations.vectors import (
    Quantization,
    check_dimensions,
    check_quantization,
    cosine_similarity,
    hamming_distance,
    pack_bits,
    quantize,
    to_lists,
    unpack_bits,
    vector_dtype,
)

FORMS: list[Quantization | None] = ["int8", "binary", "ubinary", None]

floats = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=40),
    elements=st.floats(-4, 4, width=32),
)
widths = st.integers(1, 70)


def signs_of(width: int, rows: int = 5, seed: int = 0) -> np.ndarray:
    return np.where(np.random.default_rng(seed).random((rows, width)) < 0.5, np.int8(-1), np.int8(1))


@given(floats)
def test_int8_is_the_published_formula(pooled: np.ndarray) -> None:
    published = torch.clamp(torch.round(torch.tanh(torch.from_numpy(pooled)) * 127), -128, 127).to(torch.int8).numpy()
    codes = quantize(pooled)
    assert codes.dtype == np.int8
    scaled = np.tanh(pooled.astype(np.float64)) * 127
    at_border = np.abs(np.abs(scaled - np.floor(scaled)) - 0.5) < 1e-3
    assert (np.abs(codes.astype(int) - published)[~at_border] == 0).all()
    assert (np.abs(codes.astype(int) - published) <= 1).all()


def test_codes_are_rounded_and_not_truncated() -> None:
    # 0.99999 of the way to the next code: a cast alone would give one less.
    pooled = np.arctanh((np.arange(-120, 121) - np.sign(np.arange(-120, 121)) * 1e-4) / 127)[None]
    assert quantize(pooled)[0].tolist() == list(range(-120, 121))


def test_half_is_rounded_to_even() -> None:
    # tanh(x) * 127 exactly at a half is out of float32's reach; the rounding itself is numpy's and torch's alike.
    halves = np.array([0.5, 1.5, 2.5, -0.5, -1.5], dtype=np.float32)
    assert np.rint(halves).tolist() == torch.round(torch.from_numpy(halves)).tolist() == [0, 2, 2, 0, -2]


def test_the_sign_of_a_code_is_not_the_bit() -> None:
    pooled = [[-0.001, 0.0, -0.0, 0.001]]
    assert quantize(pooled).tolist() == [[0, 0, 0, 0]]
    assert quantize(pooled, quantization="binary").tolist() == [[-1, 1, 1, 1]]
    assert quantize(pooled, quantization="ubinary").tolist() == [[0b01110000]]


def test_packed_bits_have_the_most_significant_bit_first() -> None:
    pooled = [[1, -1, -1, -1, -1, -1, -1, -1, -1, 1]]
    assert quantize(pooled, quantization="ubinary").tolist() == [[0b10000000, 0b01000000]]


@given(floats, st.sampled_from(FORMS), st.data())
def test_cutting_commutes_with_quantising(pooled: np.ndarray, form: Quantization | None, data: st.DataObject) -> None:
    width = data.draw(st.integers(1, pooled.shape[1]))
    first = quantize(pooled[:, :width], quantization=form)
    both = quantize(pooled, dimensions=width, quantization=form)
    np.testing.assert_array_equal(first, both)
    if form != "ubinary":
        np.testing.assert_array_equal(quantize(pooled, quantization=form)[:, :width], both)


@given(floats, st.sampled_from(["int8", "binary", None]))
def test_normalising_gives_unit_length_in_the_same_direction(pooled: np.ndarray, form: Quantization | None) -> None:
    codes = quantize(pooled, quantization=form)
    kept = (codes.astype(np.float64) ** 2).sum(axis=1) > 1e-12
    if not kept.all():
        pooled, codes = pooled[kept], codes[kept]
    unit = quantize(pooled, quantization=form, normalize=True)
    assert unit.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, rtol=1e-6)
    exact = codes.astype(np.float64) / np.linalg.norm(codes.astype(np.float64), axis=1, keepdims=True)
    np.testing.assert_allclose(unit, exact, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("form", FORMS)
def test_memory_layout_does_not_matter(form: Quantization | None) -> None:
    pooled = np.random.default_rng(0).normal(size=(1000, 48)).astype(np.float32)
    expected = quantize(pooled, quantization=form)
    for other in (np.asfortranarray(pooled), np.repeat(pooled, 2, axis=1)[:, ::2], pooled.astype(np.float64)):
        np.testing.assert_array_equal(quantize(other, quantization=form), expected)


@pytest.mark.parametrize("form", FORMS)
def test_what_comes_out_shares_no_memory_with_what_went_in(form: Quantization | None) -> None:
    pooled = np.ones((2, 8), dtype=np.float32)
    assert not np.shares_memory(quantize(pooled, quantization=form), pooled)


@pytest.mark.parametrize(
    ("form", "normalize"),
    [(form, flag) for form in FORMS for flag in (False, True) if not (flag and form == "ubinary")],
)
def test_no_rows_give_no_rows_of_the_right_width_and_dtype(form: Quantization | None, normalize: bool) -> None:
    out = quantize(np.empty((0, 20), dtype=np.float32), quantization=form, normalize=normalize, dimensions=12)
    assert out.shape == (0, 2 if form == "ubinary" else 12)
    assert out.dtype == vector_dtype(form, normalize=normalize)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("form", FORMS)
def test_a_value_that_is_no_number_is_an_error_naming_the_vector(bad: float, form: Quantization | None) -> None:
    pooled = np.ones((4, 8), dtype=np.float32)
    pooled[2, 7] = bad
    with pytest.raises(EncodingError, match="for vector 2;"):
        quantize(pooled, quantization=form, dimensions=4)
    with pytest.raises(EncodingError, match="for vector 12;"):
        quantize(pooled, quantization=form, rows=[10, 11, 12, 13])


def test_a_zero_vector_has_no_direction() -> None:
    pooled = np.ones((600, 4), dtype=np.float32)
    pooled[500] = 1e-4  # every code rounds to 0
    assert quantize(pooled)[500].tolist() == [0, 0, 0, 0]
    with pytest.raises(EncodingError, match="vector 500 is all zeros"):
        quantize(pooled, normalize=True)
    with pytest.raises(EncodingError, match="vector 500 is all zeros"):
        to_lists(quantize(pooled), normalize=True)
    np.testing.assert_allclose(
        np.linalg.norm(quantize(pooled, quantization=None, normalize=True), axis=1), 1, rtol=1e-6
    )


def test_contradicting_options_are_refused() -> None:
    with pytest.raises(InputError, match="packed bits"):
        quantize([[1.0]], quantization="ubinary", normalize=True)
    with pytest.raises(InputError, match='\'int4\' is unknown; use "int8", "binary", "ubinary" or None'):
        quantize([[1.0]], quantization="int4")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="a matrix of one vector a row"):
        quantize([1.0, 2.0])
    with pytest.raises(InputError, match="dimensions=3 is out of range; this model gives 1 to 2"):
        quantize([[1.0, 2.0]], dimensions=3)


@pytest.mark.parametrize("value", [0, -1, 127, 1025, 10**9])
def test_dimensions_out_of_range_name_the_range(value: int) -> None:
    with pytest.raises(InputError, match=f"dimensions={value} is out of range; this model gives 128 to 1024"):
        check_dimensions(value, smallest=128, largest=1024)


@pytest.mark.parametrize("value", [True, False, 512.0, "512", [512]])
def test_dimensions_of_a_wrong_type_are_refused(value: object) -> None:
    with pytest.raises(InputTypeError, match="dimensions must be an integer or None"):
        check_dimensions(value, smallest=128, largest=1024)


def test_dimensions_at_the_limits_pass() -> None:
    assert [check_dimensions(d, smallest=128, largest=1024) for d in (128, 1024, None, np.int64(300))] == [
        128,
        1024,
        1024,
        300,
    ]


@pytest.mark.parametrize("value", ["float32", "INT8", "", 8, []])
def test_an_unknown_quantization_names_the_known(value: object) -> None:
    with pytest.raises(InputError, match='use "int8", "binary", "ubinary" or None'):
        check_quantization(value)


@given(widths, st.integers(0, 6), st.integers(0, 2**32))
def test_unpacking_what_was_packed_gives_it_back(width: int, rows: int, seed: int) -> None:
    signs = signs_of(width, rows, seed)
    packed = pack_bits(signs)
    assert packed.dtype == np.uint8
    assert packed.shape == (rows, -(-width // 8))
    back = unpack_bits(packed, dimensions=width)
    assert back.dtype == np.int8
    np.testing.assert_array_equal(back, signs)


@given(widths, st.integers(0, 2**32))
def test_popcount_hamming_equals_naive_hamming(width: int, seed: int) -> None:
    left, right = signs_of(width, 4, seed), signs_of(width, 7, seed + 1)
    naive = [[sum(a != b for a, b in zip(row, other, strict=True)) for other in right] for row in left]
    assert hamming_distance(pack_bits(left), pack_bits(right)).tolist() == naive


@given(widths, st.integers(0, 2**32))
def test_cosine_on_signs_ranks_as_hamming_does(width: int, seed: int) -> None:
    query, stored = signs_of(width, 1, seed), signs_of(width, 30, seed + 1)
    cosines = cosine_similarity(query, stored)[0]
    distances = hamming_distance(pack_bits(query), pack_bits(stored))[0]
    np.testing.assert_allclose(cosines, 1 - 2 * distances / width, atol=1e-6)
    by_cosine = np.argsort(-np.round(cosines * width).astype(int), kind="stable")
    np.testing.assert_array_equal(by_cosine, np.argsort(distances, kind="stable"))


def test_hamming_at_a_million_pairs() -> None:
    rng = np.random.default_rng(0)
    left, right = (rng.integers(0, 256, (1000, 16), dtype=np.uint8) for _ in range(2))
    distances = hamming_distance(left, right)
    bits = [np.unpackbits(side, axis=1).astype(np.int64) for side in (left, right)]
    np.testing.assert_array_equal(distances, bits[0] @ (1 - bits[1]).T + (1 - bits[0]) @ bits[1].T)


@pytest.mark.parametrize(
    ("packed", "dimensions"),
    [
        (np.zeros((1, 2), np.uint8), 8),
        (np.zeros((1, 2), np.uint8), 17),
        (np.zeros((1, 1), np.int8), 8),
        (np.zeros(1, np.uint8), 8),
        (np.zeros((1, 1), np.uint8), 0),
    ],
)
def test_rows_that_do_not_hold_the_dimensions_are_refused(packed: np.ndarray, dimensions: int) -> None:
    with pytest.raises(InputError, match=f"{dimensions} dimensions are packed in"):
        unpack_bits(packed, dimensions=dimensions)


def test_packing_codes_warns() -> None:
    pooled = np.array([[0.5, -0.001, -2.0, 0.001]])
    codes = quantize(pooled)
    with pytest.warns(PrecisionWarning, match="2 of them are 0, which") as caught:
        packed = pack_bits(codes)
    assert caught[0].filename == __file__
    assert packed.tolist() == [[0b11010000]]
    assert quantize(pooled, quantization="ubinary").tolist() == [[0b10010000]]
    with pytest.warns(PrecisionWarning):
        pack_bits([[59, -122]])  # right by chance, and codes all the same


def test_what_has_signs_is_packed_without_a_word(recwarn: pytest.WarningsRecorder) -> None:
    pooled = np.array([[0.5, -0.001, -2.0, 0.0]], dtype=np.float32)
    for signs in (pooled, pooled.astype(np.float64), quantize(pooled, quantization="binary"), [[1, -1, -1, 1]]):
        assert pack_bits(signs).tolist() == [[0b10010000]]
    assert not recwarn.list
    with pytest.raises(InputError, match="NaN"):
        pack_bits([[np.nan, 1.0]])
    with pytest.raises(InputError, match="not bool"):
        pack_bits([[True, False]])


def test_packed_bits_are_taken_for_nothing_else() -> None:
    packed = np.zeros((2, 4), np.uint8)
    with pytest.raises(InputError, match="packed already"):
        pack_bits(packed)
    with pytest.raises(InputError, match="use hamming_distance"):
        cosine_similarity(packed, packed)
    with pytest.raises(InputError, match="no float form"):
        to_lists(packed)
    with pytest.raises(InputError, match="packed bits"):
        hamming_distance(packed.view(np.int8), packed.view(np.int8))
    with pytest.raises(InputError, match="one width"):
        hamming_distance(packed, packed[:, :3])
    with pytest.raises(InputError, match="packed bits"):
        hamming_distance(packed[0], packed)


def test_vectors_of_two_widths_cannot_be_compared() -> None:
    with pytest.raises(InputError, match="of 2 and of 3 dimensions"):
        cosine_similarity(np.ones((1, 2)), np.ones((1, 3)))


@given(floats)
def test_cosine_is_the_cosine(pooled: np.ndarray) -> None:
    pooled = pooled[np.linalg.norm(pooled, axis=1) > 1e-3]
    exact = pooled.astype(np.float64)
    norms = np.linalg.norm(exact, axis=1)
    np.testing.assert_allclose(cosine_similarity(pooled, pooled), exact @ exact.T / np.outer(norms, norms), atol=1e-5)


def test_int8_codes_do_not_overflow_in_a_cosine() -> None:
    codes = np.full((2, 2560), 127, dtype=np.int8)
    codes[1] = -127
    np.testing.assert_allclose(cosine_similarity(codes, codes), [[1, -1], [-1, 1]], atol=1e-5)


codes = hnp.arrays(np.int8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=30), elements=st.integers(-128, 127))


@given(codes, st.booleans())
def test_lists_equal_what_numpy_gives(matrix: np.ndarray, normalize: bool) -> None:
    matrix = matrix[(matrix != 0).any(axis=1)]
    lists = to_lists(matrix, normalize=normalize)
    floats32 = matrix.astype(np.float32)
    if normalize:
        norms = np.sqrt((matrix.astype(np.float64) ** 2).sum(axis=1)).astype(np.float32)
        floats32 = floats32 / norms[:, None]
    assert lists == floats32.tolist()
    assert all(type(value) is float for row in lists for value in row)


@pytest.mark.parametrize("rows", [0, 1, 255, 256, 257, 513])
def test_lists_of_any_number_of_rows_and_any_layout(rows: int) -> None:
    matrix = np.random.default_rng(rows).integers(-127, 128, (rows, 16), dtype=np.int8)
    matrix[:, 0] = 1
    expected = (matrix.astype(np.float32) / np.linalg.norm(matrix.astype(np.float64), axis=1)[:, None]).tolist()
    for layout in (matrix, np.asfortranarray(matrix), np.repeat(matrix, 2, axis=0)[::2]):
        np.testing.assert_allclose(
            np.array(to_lists(layout, normalize=True)).reshape(rows, 16),
            np.array(expected).reshape(rows, 16),
            rtol=1e-6,
        )


@pytest.mark.parametrize("collecting", [True, False])
@pytest.mark.parametrize("normalize", [True, False])
def test_lists_leave_the_cycle_collector_as_it_was(collecting, normalize) -> None:
    was = gc.isenabled()
    try:
        (gc.enable if collecting else gc.disable)()
        to_lists(np.array([[3, 4]], dtype=np.int8), normalize=normalize)
        assert gc.isenabled() == collecting
        with pytest.raises(EncodingError):
            to_lists(np.zeros((1, 4), dtype=np.int8), normalize=True)
        assert gc.isenabled() == collecting
    finally:
        (gc.enable if was else gc.disable)()


def test_lists_of_floats_are_floats() -> None:
    assert to_lists(np.array([[3, 4]], dtype=np.float32), normalize=True) == [pytest.approx([0.6, 0.8])]
    assert all(type(value) is float for value in to_lists(np.array([[3, 4]]))[0])
    with pytest.raises(InputError, match="matrix"):
        to_lists(np.array([3, 4], dtype=np.int8))
