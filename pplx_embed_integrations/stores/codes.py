"""From floats back to the codes they were made of, exactly or not at all.

Knows how unit-length floats are made of codes; must not know tables or models.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..errors import InputError

_LARGEST = 127


def codes_of(floats: npt.ArrayLike, *, what: str = "the vectors") -> npt.NDArray[np.int8]:
    """Return the int8 codes whose float form these vectors are.

    LangChain and LlamaIndex hand vectors over as floats: codes as they are (`normalize=False`), or divided by their
    length. Two vectors of codes that do not point the same way differ by far more than float32 rounds, so there is one
    answer, up to a common factor of all codes, which changes no cosine and no sign. It is proven by going forward
    again: what comes out must be these very floats.

    Args:
        floats: `[n, d]`.
        what: What errors call them.

    Returns:
        `[n, d]` int8.

    Raises:
        InputError: A vector is no form of codes.

    Example:
        >>> codes_of([[3.0, -4.0], [0.6000000238418579, -0.800000011920929]])
        array([[ 3, -4],
               [ 3, -4]], dtype=int8)
    """
    matrix = np.asarray(floats, dtype=np.float32)
    if matrix.ndim != 2:
        raise InputError(f"{what} must be a matrix of one vector a row, not an array of {matrix.ndim} dimensions")
    codes = np.zeros(matrix.shape, dtype=np.int8)
    for row, vector in enumerate(matrix):
        found = _codes_of_one(vector)
        if found is None:
            raise InputError(
                f"{what}: vector {row} is no form of int8 codes, so storing it would change it. Take vectors of an "
                'embedding model with quantization="int8" (or "binary"), and of the model that the table was made with'
            )
        codes[row] = found
    return codes


def _codes_of_one(vector: npt.NDArray[np.float32]) -> npt.NDArray[np.int8] | None:
    if not np.isfinite(vector).all() or not vector.any():
        return None
    whole = np.rint(vector)
    if np.abs(vector).max() <= _LARGEST and (whole == vector).all():
        given: npt.NDArray[np.int8] = whole.astype(np.int8)
        return given
    sizes = np.abs(vector[vector != 0].astype(np.float64))
    # The smallest code is 1 in most vectors; else it is tried which it is.
    for smallest in range(1, int(_LARGEST * sizes.min() / sizes.max()) + 2):
        candidate = np.rint(vector * np.float64(smallest) / sizes.min())
        if np.abs(candidate).max() > _LARGEST:
            return None
        if (_unit(candidate) == vector).all():
            codes: npt.NDArray[np.int8] = candidate.astype(np.int8)
            return codes
    return None


def _unit(codes: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Divide codes by their length as `vectors.quantize` does, to the last bit."""
    norm = np.sqrt(np.einsum("i,i->", codes, codes)).astype(np.float32)
    unit: npt.NDArray[np.float32] = codes.astype(np.float32) / norm
    return unit
