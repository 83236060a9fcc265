"""Vectors as they stand in an answer, both ways: base64 of codes, of bits and of floats, and numbers.

Knows bytes, their order, and what makes an answer complete; must not know who sends it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from ..errors import EncodingError
from ..vectors import Quantization, Vectors, to_lists
from .protocol import EncodingFormat, field_of

FORMS: Mapping[EncodingFormat, tuple[Quantization | None, bool]] = {
    "base64_int8": ("int8", False),
    "base64_binary": ("ubinary", False),
    "float": ("int8", True),
    "base64": ("int8", True),
    "base64_float32": (None, False),
}
"""What each holds: a quantisation, and whether vectors have unit length.

`base64_int8` and `base64_binary` are Perplexity's: int8 codes, and bits with the **least** significant first, where
`"ubinary"` of this package has the most significant first. `float` and `base64` are OpenAI's: numbers, and float32 in
little-endian order; they are the codes at unit length, as the adapters of this package hand them to stores.
`base64_float32` is of this package's server alone: the floats that the other forms are made of.
"""

_PUBLISHED_FORMAT: EncodingFormat = "base64_int8"  # Perplexity's default
_REVERSED = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1), axis=1, bitorder="little")[:, 0]
"""Each byte with its bits in the other order."""


def encode_vectors(vectors: Vectors, encoding_format: EncodingFormat) -> list[str] | list[list[float]]:
    """Write vectors as they stand in an answer.

    Args:
        vectors: A row each, in the form that `FORMS` gives for the format.
        encoding_format: How they are written.

    Returns:
        A string each, for `float` a list of numbers.

    Example:
        >>> encode_vectors(np.array([[1, -1]], dtype=np.int8), "base64_int8")
        ['Af8=']
        >>> encode_vectors(np.packbits([[1, 0, 0]], axis=1), "base64_binary")  # packed: 0b10000000; written: 0b00000001
        ['AQ==']
    """
    if encoding_format == "float":
        return to_lists(vectors)
    if encoding_format == "base64_binary":
        vectors = _REVERSED[vectors]
    rows = np.ascontiguousarray(vectors, dtype=_wire_dtype(encoding_format))
    return [base64.b64encode(row).decode("ascii") for row in rows]


def decode_vectors(
    written: Sequence[object], encoding_format: EncodingFormat, *, dimensions: int | None = None
) -> Vectors:
    """Read the vectors of an answer.

    Args:
        written: What `encode_vectors` gives, or a server that may be wrong.
        encoding_format: How they are written.
        dimensions: Width that they must have; by default that of the first, which bits do not tell.

    Returns:
        A row each, in the form that `FORMS` gives for the format.

    Raises:
        EncodingError: One is no vector: not of this format, of another width, or not finite. The message says which.

    Example:
        >>> decode_vectors(["Af8="], "base64_int8")
        array([[ 1, -1]], dtype=int8)
        >>> decode_vectors(["AQ=="], "base64_binary", dimensions=3)
        array([[128]], dtype=uint8)
    """
    dtype = _wire_dtype(encoding_format)
    width = -(-dimensions // 8) if dimensions and encoding_format == "base64_binary" else dimensions
    rows: list[Vectors] = []
    for number, value in enumerate(written):
        row = _row(value, encoding_format, dtype)
        if row is None:
            raise EncodingError(f"vector {number} of the answer is not in the format {encoding_format!r}")
        width = len(row) if width is None else width
        if len(row) != width or not width:
            unit = "bytes" if encoding_format == "base64_binary" else "numbers"
            raise EncodingError(f"vector {number} of the answer has {len(row)} {unit}, not {width or 'some'}")
        if dtype.kind == "f" and not np.isfinite(row).all():
            raise EncodingError(f"vector {number} of the answer holds NaN or infinite values")
        rows.append(row)
    matrix = np.array(rows, dtype=dtype.newbyteorder("=")).reshape(len(rows), width or 0)
    if encoding_format != "base64_binary":
        return matrix
    spare = 8 * matrix.shape[1] - dimensions if dimensions else 0
    packed: Vectors = _REVERSED[matrix]
    if spare and (packed[:, -1] & ((1 << spare) - 1)).any():
        raise EncodingError(f"the answer has vectors of more than {dimensions} bits")
    return packed


def read_vectors(
    answer: object, *, count: int, encoding_format: EncodingFormat = _PUBLISHED_FORMAT, dimensions: int | None = None
) -> Vectors:
    """Read the answer to an `EmbeddingsRequest`: its vectors in the order of the texts.

    Args:
        answer: The body, parsed.
        count: How many texts were sent.
        encoding_format: What was asked for.
        dimensions: Width that the vectors must have.

    Returns:
        `[count, width]`, in the form that `FORMS` gives for the format.

    Raises:
        EncodingError: It is no answer to that request: vectors are missing, doubled or malformed.

    Example:
        >>> items = [{"index": 1, "embedding": "Ag=="}, {"index": 0, "embedding": "AQ=="}]
        >>> read_vectors({"data": items}, count=2)
        array([[1],
               [2]], dtype=int8)
    """
    return decode_vectors(_embeddings(answer, count, "text"), encoding_format, dimensions=dimensions)


def read_documents(
    answer: object,
    *,
    chunks: Sequence[int],
    encoding_format: EncodingFormat = _PUBLISHED_FORMAT,
    dimensions: int | None = None,
) -> list[Vectors]:
    """Read the answer to a `ContextualizedRequest`: a matrix a document, a row a chunk.

    Args:
        answer: The body, parsed.
        chunks: How many chunks each document has that was sent.
        encoding_format: What was asked for.
        dimensions: Width that the vectors must have.

    Returns:
        `[chunks, width]` for each document.

    Raises:
        EncodingError: It is no answer to that request: documents or chunks are missing, doubled or malformed.

    Example:
        >>> inner = {"index": 0, "data": [{"index": 0, "embedding": "AQ=="}]}
        >>> read_documents({"data": [inner]}, chunks=[1])
        [array([[1]], dtype=int8)]
    """
    documents = _in_order(answer, len(chunks), "document")
    written = [
        embedding
        for number, (document, count) in enumerate(zip(documents, chunks, strict=True))
        for embedding in _embeddings(document, count, f"chunk of document {number}")
    ]
    matrix = decode_vectors(written, encoding_format, dimensions=dimensions)
    return np.split(matrix, np.cumsum(chunks)[:-1]) if chunks else []


def _wire_dtype(encoding_format: EncodingFormat) -> np.dtype[Any]:
    quantization, normalized = FORMS[encoding_format]
    if quantization is None or normalized:
        return np.dtype("<f4")
    return np.dtype(np.uint8 if quantization == "ubinary" else np.int8)


def _row(value: object, encoding_format: EncodingFormat, dtype: np.dtype[Any]) -> Vectors | None:
    """Return a vector, None if it is not in that format."""
    if encoding_format == "float":
        if not isinstance(value, list) or any(type(number) not in (int, float) for number in value):
            return None
        with np.errstate(over="ignore"):  # it becomes infinite, and that is refused
            return np.array(value, dtype=np.float64).astype(dtype)
    try:
        content = base64.b64decode(cast("str", value), validate=True)
        return np.frombuffer(content, dtype=dtype)
    except (binascii.Error, TypeError, ValueError):
        return None


def _embeddings(answer: object, count: int, what: str) -> list[object]:
    return [field_of(item, "embedding") for item in _in_order(answer, count, what)]


def _in_order(answer: object, count: int, what: str) -> list[object]:
    """Return the entries of an answer's `data` by their index, each there once."""
    data = field_of(answer, "data")
    if not isinstance(data, list) or len(data) != count:
        found = f"{len(data)} entries" if isinstance(data, list) else "no data"
        raise EncodingError(f"the answer has {found} where one for each {what} is wanted: {count}")
    places: list[object] = [None] * count
    for item in data:
        index = field_of(item, "index")
        if type(index) is not int or not 0 <= index < count or places[index] is not None:
            raise EncodingError(f"the answer has an entry of index {index!r}; each of 0 to {count - 1} is wanted once")
        places[index] = item
    return places
