"""Vectors as a server gives them become vectors in the form that a caller asks for.

Knows what each API can give, and the forms; must not know HTTP.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..bits import unpack_bits
from ..embedder import OutputForm
from ..errors import EncodingError, InputError
from ..vectors import Vectors, quantize
from .protocol import EncodingFormat
from .served import Served

_LARGEST = 127
_NEAR = 1e-3
"""How far from an integer a code may be that went through a division and a multiplication in float32."""


def asked_format(served: Served, form: OutputForm) -> EncodingFormat:
    """Return how vectors are asked for.

    Raises:
        InputError: The server has no such vectors.
    """
    if served.api == "openai":
        return "float"
    if form.quantization == "int8":
        return "base64_int8"
    if form.quantization is not None:
        return "base64_binary"
    if served.api == "perplexity":
        raise InputError(
            'quantization=None asks for float32, which Perplexity\'s API does not give; use quantization="int8", with '
            "normalize=True for floats of unit length, or a server of your own"
        )
    return "base64_float32"


def in_form(given: Vectors, served: Served, form: OutputForm) -> Vectors:
    """Return an answer's vectors in the form that is wanted.

    Args:
        given: A row each: codes, packed bits or floats as `asked_format` asked for them; of a server that speaks
            OpenAI's API alone, floats of full width.
        served: The model.
        form: What is wanted.

    Raises:
        EncodingError: They are no vectors of such a model.
        InputError: The form cannot be made of what this server gives.
    """
    if served.api == "openai":
        return _of_floats(given, form)
    if form.quantization == "int8" and (given < -_LARGEST).any():
        raise EncodingError(f"the answer holds {given.min()}, which is no code: those lie between -127 and 127")
    if form.quantization == "binary":
        given = unpack_bits(given, dimensions=form.dimensions)
    # Nothing is left to be quantised: what is here are codes, and what divides them by their length takes floats.
    return quantize(given, quantization=None, normalize=True) if form.normalize else given


def _of_floats(floats: npt.NDArray[np.float32], form: OutputForm) -> Vectors:
    """Make vectors of pooled means, of their codes, or of either at unit length: servers differ."""
    codes = _codes(floats)
    if codes is not None:
        if form.quantization != "int8":
            raise InputError(
                f"quantization={form.quantization!r} cannot be made of what this server gives, which is int8 codes: "
                'a code of 0 has no sign, and is no float; use quantization="int8", or pplx-embed serve'
            )
        codes = codes[:, : form.dimensions]
        return quantize(codes, quantization=None, normalize=True) if form.normalize else codes
    unit = np.allclose(np.linalg.norm(floats, axis=1), 1, atol=1e-4)
    if unit and form.quantization == "int8":
        raise InputError(
            'quantization="int8" cannot be made of what this server gives: pooled floats divided by their length, of '
            "which the codes cannot be known. Have it not normalise (vLLM: --pooler-config '{\"normalize\": false}'), "
            'or use quantization="binary"'
        )
    if unit and form.quantization is None and not form.normalize:
        raise InputError(
            "quantization=None asks for pooled floats, and this server divides them by their length; use "
            "normalize=True as well, or have it not normalise"
        )
    return quantize(floats, dimensions=form.dimensions, quantization=form.quantization, normalize=form.normalize)


def _codes(floats: npt.NDArray[np.float32]) -> npt.NDArray[np.int8] | None:
    """Return the codes that these are, as they are or divided by their length; None if they are none.

    text-embeddings-inference rounds to codes, and divides them by their length on this route whatever is asked.
    """
    rows = [_codes_of_one(row.astype(np.float64)) for row in floats]
    found = [row for row in rows if row is not None]
    return np.array(found, dtype=np.int8) if len(found) == len(rows) and rows else None


def _codes_of_one(row: npt.NDArray[np.float64]) -> npt.NDArray[np.float64] | None:
    sizes = np.abs(row[row != 0])
    if not sizes.size:
        return None
    if sizes.max() <= _LARGEST and sizes.min() >= 1 and not (row % 1).any():
        return row
    # The smallest code is 1 in most vectors; else it is tried which it is.
    for smallest in range(1, int(_LARGEST * sizes.min() / sizes.max()) + 2):
        scaled = row * (smallest / sizes.min())
        whole: npt.NDArray[np.float64] = np.rint(scaled)
        if np.abs(whole).max() <= _LARGEST and np.abs(scaled - whole).max() < _NEAR:
            return whole
    return None
