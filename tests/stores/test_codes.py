"""From floats back to codes: the inverse of what the frameworks are handed, or a refusal."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pplx_embed_integrations import InputError
from pplx_embed_integrations.stores.codes import codes_of
from pplx_embed_integrations.vectors import to_lists

ROWS = st.lists(st.integers(-127, 127), min_size=1, max_size=200).filter(any)


@given(ROWS)
def test_unit_floats_give_their_codes_back(row: list[int]) -> None:
    codes = np.array([row], dtype=np.int8)
    floats = to_lists(codes, normalize=True)
    found = codes_of(floats)
    assert to_lists(found, normalize=True) == floats
    left, right = found[0].astype(int), codes[0].astype(int)
    assert (np.outer(left, right) == np.outer(right, left)).all()  # the same direction: the same but for a factor
    np.testing.assert_array_equal(codes_of(to_lists(codes)), codes)


def test_real_widths() -> None:
    for width in (1024, 2560):
        codes = np.rint(np.tanh(np.random.default_rng(width).standard_normal((200, width))) * 127).astype(np.int8)
        np.testing.assert_array_equal(codes_of(to_lists(codes, normalize=True)), codes)
        signs = np.where(codes >= 0, 1, -1).astype(np.int8)
        np.testing.assert_array_equal(codes_of(to_lists(signs, normalize=True)), signs)


@given(ROWS.filter(lambda row: len(row) > 3), st.floats(1e-4, 0.1))
def test_floats_that_are_no_codes_are_refused(row: list[int], shift: float) -> None:
    floats = np.array(to_lists(np.array([row], dtype=np.int8), normalize=True))
    floats[0, 0] += shift
    floats /= np.linalg.norm(floats)
    try:
        found = codes_of(floats)
    except InputError:
        return
    # A short vector may have come to be that of other codes; then it is theirs, to the last bit.
    np.testing.assert_array_equal(np.float32(to_lists(found, normalize=True)), np.float32(floats))


@pytest.mark.parametrize(
    "floats", [[[0.0, 0.0]], [[np.nan, 1.0]], [[0.1234, 0.5678, -0.9]], [[128.0, 1.0]], [[1.5, 2.0]]]
)
def test_what_is_no_form_of_codes(floats: list[list[float]]) -> None:
    with pytest.raises(InputError, match="vector 0 is no form of int8 codes"):
        codes_of(floats)
