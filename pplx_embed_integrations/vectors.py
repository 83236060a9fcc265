"""What happens to a pooled float matrix: cut, quantise, normalise, pack, compare, hand over.

Knows the formulas of the published quantisers and numpy; must not know models, texts or frameworks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from .bits import hamming_distance, pack_bits, unpack_bits
from .errors import EncodingError, InputError, InputTypeError
from .inputs import check_matrix
from .options import Quantization, check_quantization

__all__ = [
    "Quantization",
    "Quantizer",
    "Vectors",
    "check_dimensions",
    "check_quantization",
    "cosine_similarity",
    "hamming_distance",
    "pack_bits",
    "quantize",
    "tanh_int8",
    "to_lists",
    "unpack_bits",
    "vector_dtype",
]

Vectors = npt.NDArray[Any]
"""A matrix of vectors, one a row: int8, uint8 or float32."""

Quantizer = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.int8]]
"""Turns pooled floats `[n, d]` into int8 codes."""

_ROWS_AT_ONCE = 256
"""Rows that are quantised together: a block of 256 x 1024 float32 stays in a core's cache."""


def check_dimensions(dimensions: object, *, smallest: int, largest: int) -> int:
    """Return the width that `dimensions` asks for, `largest` if it is `None`.

    Args:
        dimensions: The wanted width, or `None` for all of it.
        smallest: Smallest width that the checkpoint was trained for.
        largest: Width of the full vector.

    Raises:
        InputError: The width lies outside the limits.
        InputTypeError: It is no integer.

    Example:
        >>> check_dimensions(None, smallest=128, largest=1024)
        1024
    """
    if dimensions is None:
        return largest
    if isinstance(dimensions, bool) or not isinstance(dimensions, (int, np.integer)):
        raise InputTypeError(f"dimensions must be an integer or None, not {type(dimensions).__name__}")
    if not smallest <= dimensions <= largest:
        raise InputError(f"dimensions={dimensions} is out of range; this model gives {smallest} to {largest}")
    return int(dimensions)


def vector_dtype(quantization: Quantization | None, *, normalize: bool) -> np.dtype[Any]:
    """Return the dtype of the rows that `quantize` makes.

    Example:
        >>> vector_dtype("int8", normalize=False), vector_dtype("int8", normalize=True)
        (dtype('int8'), dtype('float32'))
    """
    if quantization is None or normalize:
        return np.dtype(np.float32)
    return np.dtype(np.uint8 if quantization == "ubinary" else np.int8)


def quantize(
    pooled: npt.ArrayLike,
    *,
    dimensions: int | None = None,
    quantization: Quantization | None = "int8",
    normalize: bool = False,
    rows: Sequence[int] | None = None,
    quantizer: Quantizer | None = None,
) -> Vectors:
    """Turn pooled floats into the vectors that the published models give: cut, then quantise, then normalise.

    The formulas are those of the published `st_quantize.py`: int8 is `round(tanh(x) * 127)`, rounded half to even;
    binary is +1 where `x >= 0`, else -1; ubinary packs the same bits, most significant first. They are applied to
    the pooled mean, and elementwise, so that cutting before or after gives the same.

    Args:
        pooled: Float matrix `[n, d]`, the pooled means before any quantiser.
        dimensions: Keep the first so many columns (Matryoshka); all by default.
        quantization: Form of the result.
        normalize: Scale each row of the quantised values to unit length; the result is float32.
        rows: What errors call each row, where `pooled` is a part of something larger.
        quantizer: What makes int8 codes; by default `tanh_int8`.

    Returns:
        `[n, dimensions]` int8, ±1 int8 or float32; for `"ubinary"` `[n, ceil(dimensions / 8)]` uint8.

    Raises:
        EncodingError: A value is NaN or infinite, or a row of zeros was to be normalised.
        InputError: The options contradict each other or the matrix.

    Example:
        >>> quantize([[0.5, -0.001, -2.0]])
        array([[  59,    0, -122]], dtype=int8)
        >>> quantize([[0.5, -0.001, -2.0]], quantization="binary")
        array([[ 1, -1, -1]], dtype=int8)
        >>> quantize([[0.5, -0.001, -2.0]], quantization="ubinary")
        array([[128]], dtype=uint8)
    """
    matrix = check_matrix(np.asarray(pooled, dtype=np.float32))
    if normalize and quantization == "ubinary":
        raise InputError('normalize=True has no meaning for packed bits; use quantization="binary" or normalize=False')
    bad = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
    if bad.size:
        raise EncodingError(
            f"the model gave NaN or infinite values for vector {_name(bad[0], rows)}; the weights may be damaged, or "
            'the arithmetic too narrow: try dtype="float32"'
        )
    matrix = matrix[:, : check_dimensions(dimensions, smallest=1, largest=matrix.shape[1])]
    if quantization is None:
        codes: Vectors = matrix.copy()
    elif quantization == "int8":
        codes = (quantizer or tanh_int8)(matrix)
    elif quantization == "ubinary":
        codes = np.packbits(matrix >= 0, axis=1)
    else:
        check_quantization(quantization)  # "binary", or it is refused
        codes = np.where(matrix >= 0, np.int8(1), np.int8(-1))
    return _unit_rows(codes, rows) if normalize else codes


def _name(row: int, rows: Sequence[int] | None) -> int:
    return row if rows is None else rows[row]


def tanh_int8(matrix: npt.NDArray[np.float32]) -> npt.NDArray[np.int8]:
    """Return `round(tanh(x) * 127)`, rounded half to even: the codes of pplx-embed.

    Example:
        >>> tanh_int8(np.array([[0.5, -2.0]], dtype=np.float32))
        array([[  59, -122]], dtype=int8)
    """
    codes = np.empty(matrix.shape, dtype=np.int8)
    scratch = np.empty((min(_ROWS_AT_ONCE, len(matrix)), matrix.shape[1]), dtype=np.float32)
    for start in range(0, len(matrix), _ROWS_AT_ONCE):
        rows = matrix[start : start + _ROWS_AT_ONCE]
        block = scratch[: len(rows)]
        np.tanh(rows, out=block)
        block *= np.float32(127)
        # Rounded while still float: a cast alone would truncate, the published code's off-by-one in 1 % of codes.
        np.rint(block, out=block)
        codes[start : start + len(rows)] = block
    return codes


def _norms(codes: Vectors, rows: Sequence[int] | None = None) -> npt.NDArray[np.float32]:
    floats = codes.astype(np.float32) if codes.dtype != np.float32 else codes
    norms: npt.NDArray[np.float64] = np.sqrt(np.einsum("ij,ij->i", floats, floats, dtype=np.float64))
    zero = np.flatnonzero(norms == 0)
    if zero.size:
        raise EncodingError(
            f"vector {_name(zero[0], rows)} is all zeros and has no direction; use normalize=False to see it, or "
            "quantization=None"
        )
    return norms.astype(np.float32)


def _unit_rows(codes: Vectors, rows: Sequence[int] | None = None) -> npt.NDArray[np.float32]:
    unit: npt.NDArray[np.float32] = codes.astype(np.float32) / _norms(codes, rows)[:, None]
    return unit


def to_lists(codes: Vectors, *, normalize: bool = False) -> list[list[float]]:
    """Hand vectors over as lists of Python floats, the form LangChain and LlamaIndex take.

    A row of int8 codes has at most 255 distinct values, also after division by its norm. So one float object a
    value is shared by the whole row instead of made anew for every element: less time and less memory than
    `ndarray.tolist()`.

    Args:
        codes: `[n, d]` int8 (codes or ±1) or float32.
        normalize: Scale each row to unit length on the way; the floats equal those of
            `quantize(..., normalize=True)`.

    Returns:
        `n` lists of `d` Python floats.

    Raises:
        EncodingError: A row of zeros was to be normalised.
        InputError: `codes` holds packed bits, which are no numbers, or is no matrix.

    Example:
        >>> to_lists(np.array([[3, -4]], dtype=np.int8))
        [[3.0, -4.0]]
        >>> to_lists(np.array([[3, -4]], dtype=np.int8), normalize=True)
        [[0.6000000238418579, -0.800000011920929]]
    """
    if check_matrix(codes).dtype == np.uint8:
        raise InputError('packed bits have no float form; use quantization="binary", which ranks the same')
    if codes.dtype != np.int8:
        floats = _unit_rows(codes) if normalize else codes.astype(np.float32, copy=False)
        return cast("list[list[float]]", floats.tolist())
    # Index a table by the code's byte: 0..127, then -128..-1.
    values = np.arange(256, dtype=np.uint8).view(np.int8).astype(np.float32)
    rows = np.ascontiguousarray(codes).view(np.uint8)
    if not normalize:
        table = values.astype(object)
        return [table[row].tolist() for row in rows]
    lists: list[list[float]] = []
    for start in range(0, len(codes), _ROWS_AT_ONCE):
        norms = _norms(codes[start : start + _ROWS_AT_ONCE], range(start, len(codes)))
        # Divided in float32 as everywhere; float objects are made fastest from float64.
        tables = (values / norms[:, None]).astype(np.float64)
        block = rows[start : start + _ROWS_AT_ONCE].astype(np.intp)
        lists += [table.astype(object).take(row).tolist() for table, row in zip(tables, block, strict=True)]
    return lists


def cosine_similarity(left: npt.ArrayLike, right: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Return the cosine of every row of `left` with every row of `right`, for int8 codes, ±1 or floats.

    Args:
        left: `[n, d]`.
        right: `[m, d]`.

    Returns:
        `[n, m]` float32.

    Raises:
        EncodingError: A row is all zeros.
        InputError: The rows are packed bits (use `hamming_distance` for those), or the widths differ.

    Example:
        >>> cosine_similarity(np.array([[1, 0]]), np.array([[2, 0], [0, 3]]))
        array([[1., 0.]], dtype=float32)
    """
    sides = [check_matrix(side) for side in (left, right)]
    if any(side.dtype == np.uint8 for side in sides):
        raise InputError("packed bits have no cosine; use hamming_distance")
    if sides[0].shape[1] != sides[1].shape[1]:
        raise InputError(f"vectors of {sides[0].shape[1]} and of {sides[1].shape[1]} dimensions cannot be compared")
    first, second = (_unit_rows(side) for side in sides)
    cosines: npt.NDArray[np.float32] = first @ second.T
    return cosines
