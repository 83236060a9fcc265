"""Signs as packed bits: eight dimensions a byte, packed, unpacked and compared.

Knows numpy and in which order bits stand in a byte; must not know models, texts or how a sign came about.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .errors import InputError, PrecisionWarning, warn
from .inputs import check_matrix


def pack_bits(signs: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Pack ±1 vectors into bits: `"binary"` to `"ubinary"`.

    Args:
        signs: `[n, d]` ±1, or pooled floats; values of at least 0 become 1, the others 0.

    Returns:
        `[n, ceil(d / 8)]` uint8, most significant bit first; the last byte is filled up with zeros.

    Raises:
        InputError: The bits are packed already, `signs` holds NaN or truth values, or is no matrix.

    Warns:
        PrecisionWarning: `signs` holds int8 codes. A code of 0 stands for small values of either sign, and its bit
            becomes 1 whatever the model gave.

    Example:
        >>> pack_bits([[1, -1, -1, -1, -1, -1, -1, 1, 1]])
        array([[129, 128]], dtype=uint8)
    """
    matrix = check_matrix(signs)
    if matrix.dtype == np.uint8:
        raise InputError("these bits are packed already; pack_bits takes the ±1 form")
    if matrix.dtype.kind not in "if":
        raise InputError(f"pack_bits takes the ±1 form or floats, not {matrix.dtype}; True and False go to np.packbits")
    if matrix.dtype.kind == "f":
        if np.isnan(matrix).any():
            raise InputError("the vectors hold NaN, which has no sign")
    elif (np.abs(matrix.astype(np.int64)) != 1).any():
        warn(
            f"pack_bits was given codes, not ±1: {np.count_nonzero(matrix == 0)} of them are 0, which says nothing of "
            'the sign, and become 1. Use encode(..., quantization="ubinary") for the bits that the model gives',
            category=PrecisionWarning,
        )
    return np.packbits(matrix >= 0, axis=1)


def unpack_bits(packed: npt.NDArray[np.uint8], *, dimensions: int) -> npt.NDArray[np.int8]:
    """Unpack bits into ±1 vectors: `"ubinary"` to `"binary"`.

    Args:
        packed: `[n, ceil(dimensions / 8)]` uint8, most significant bit first.
        dimensions: Width of the vectors, which the packed form does not tell.

    Returns:
        `[n, dimensions]` int8, each +1 or -1.

    Raises:
        InputError: The packed rows are not as long as `dimensions` needs, or not uint8.

    Example:
        >>> unpack_bits(np.array([[160]], dtype=np.uint8), dimensions=3)
        array([[ 1, -1,  1]], dtype=int8)
    """
    if packed.dtype != np.uint8 or packed.ndim != 2 or packed.shape[1] != -(-dimensions // 8):
        raise InputError(
            f"{dimensions} dimensions are packed in uint8 rows of {-(-dimensions // 8)}; "
            f"given: {packed.dtype} of shape {packed.shape}"
        )
    bits = np.unpackbits(packed, axis=1, count=dimensions).view(np.int8)
    signs: npt.NDArray[np.int8] = bits * np.int8(2) - np.int8(1)
    return signs


def hamming_distance(left: npt.NDArray[np.uint8], right: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Return in how many bits every row of `left` differs from every row of `right`.

    For vectors of `d` bits, `1 - 2 * distance / d` is the cosine of their ±1 forms.

    Args:
        left: `[n, bytes]` uint8, packed.
        right: `[m, bytes]` uint8, packed.

    Returns:
        `[n, m]` int64.

    Raises:
        InputError: A side is not packed bits, or the widths differ.

    Example:
        >>> hamming_distance(np.array([[129]], dtype=np.uint8), np.array([[128], [129]], dtype=np.uint8))
        array([[1, 0]])
    """
    fit = all(side.dtype == np.uint8 and side.ndim == 2 for side in (left, right))
    if not fit or left.shape[1] != right.shape[1]:
        raise InputError(
            "two matrices of packed bits (uint8) of one width are wanted; "
            f"given: {left.dtype} {left.shape} and {right.dtype} {right.shape}"
        )
    distances = np.empty((len(left), len(right)), dtype=np.int64)
    for row, bits in enumerate(left):
        distances[row] = np.bitwise_count(bits ^ right).sum(axis=1, dtype=np.int64)
    return distances
