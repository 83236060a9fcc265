"""Cosines of codes without rounding on the way, and what is made of scores: order, diversity, fused rankings.

Knows int8 codes, packed bits and numpy; must not know tables, texts or files.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from ..errors import EncodingError, InputError, InputTypeError
from ..vectors import Vectors, unpack_bits

Name = TypeVar("Name", bound=Hashable)

_EXACT_COLUMNS = 1040
"""So many products of two codes (127 x 127) sum up to less than 2^24, which float32 holds without rounding."""
_ROWS_AT_ONCE = 512
_RANK_CONSTANT = 60
"""Of reciprocal rank fusion, as published: Cormack, Clarke and Büttcher, SIGIR 2009."""


def cosines(query: npt.NDArray[np.int8], codes: npt.NDArray[np.int8]) -> npt.NDArray[np.float64]:
    """Return the cosine of a query with every row of codes, the same to the last bit wherever it is computed.

    Args:
        query: `[d]` int8.
        codes: `[n, d]` int8, no row all zeros.

    Returns:
        `[n]` float64 in [-1, 1].

    Example:
        >>> cosines(np.array([3, 4], np.int8), np.array([[3, 4], [-6, -8]], np.int8))
        array([ 1., -1.])
    """
    results = np.empty(len(codes))
    asked = query.astype(np.float32)
    length = float(np.dot(query.astype(np.float64), query.astype(np.float64)))
    for start in range(0, len(codes), _ROWS_AT_ONCE):
        rows = codes[start : start + _ROWS_AT_ONCE].astype(np.float32)
        products = squares = 0.0  # sums of integers, so exact; only the last division rounds
        for column in range(0, rows.shape[1], _EXACT_COLUMNS):
            part = rows[:, column : column + _EXACT_COLUMNS]
            # Not by BLAS: its threads wait for each other longer than a product of a matrix and a vector takes.
            products = products + np.einsum("ij,j->i", part, asked[column : column + _EXACT_COLUMNS]).astype(np.float64)
            squares = squares + np.einsum("ij,ij->i", part, part).astype(np.float64)
        with np.errstate(invalid="ignore"):
            results[start : start + _ROWS_AT_ONCE] = products / np.sqrt(squares * length)
    return np.clip(results, -1.0, 1.0)


def check_query(query: npt.ArrayLike, *, dimensions: int) -> npt.NDArray[np.int8]:
    """Return a query's codes, and refuse what is none.

    Args:
        query: `[d]` int8 codes (or ±1), or `[ceil(d / 8)]` uint8 packed bits.
        dimensions: Width of the table's vectors.

    Returns:
        `[d]` int8: codes as they are, packed bits as ±1.

    Raises:
        InputError: The width or the dtype is another, or all codes are zero.

    Example:
        >>> check_query(np.array([160], np.uint8), dimensions=3)
        array([ 1, -1,  1], dtype=int8)
    """
    vector: npt.NDArray[Any] = np.asarray(query)
    if vector.dtype == np.uint8 and vector.shape == (-(-dimensions // 8),):
        return cast("npt.NDArray[np.int8]", unpack_bits(vector[None], dimensions=dimensions)[0])
    if vector.dtype != np.int8 or vector.shape != (dimensions,):
        raise InputError(
            f"a query must be {dimensions} int8 codes, or as many bits packed in uint8, as encode_query gives them; "
            f"given: {vector.dtype} of shape {vector.shape}"
        )
    if not vector.any():
        raise EncodingError("the query's codes are all zeros and have no direction")
    return cast("npt.NDArray[np.int8]", vector)


def check_codes(vectors: object, *, rows: int, dimensions: int, packed: bool, document: str) -> Vectors:
    """Return a document's vectors, and refuse what cannot be one.

    Args:
        vectors: `[rows, d]` int8, or, where the table keeps bits alone, `[rows, ceil(d / 8)]` uint8 as well.
        rows: How many chunks the document has.
        dimensions: Width of the table's vectors.
        packed: Whether packed bits will do.
        document: What errors call the document.

    Raises:
        InputError: Shape or dtype is another.
        EncodingError: A row of codes is all zeros.
    """
    if not isinstance(vectors, np.ndarray):
        raise InputTypeError(f"the vectors of document {document!r} must be an array, not {type(vectors).__name__}")
    if packed and vectors.dtype == np.uint8 and vectors.shape == (rows, -(-dimensions // 8)):
        return vectors
    if vectors.dtype != np.int8 or vectors.shape != (rows, dimensions):
        raise InputError(
            f"document {document!r} has {rows} chunks, so {rows} x {dimensions} int8 codes are wanted; "
            f"given: {vectors.dtype} of shape {vectors.shape}"
        )
    if not vectors.any(axis=1).all():
        raise EncodingError(f"a vector of document {document!r} is all zeros and has no direction")
    return vectors


def signs(vectors: Vectors) -> npt.NDArray[np.uint8]:
    """Return packed bits of codes, 1 where a code is at least 0: what finds the candidates that the codes then rank."""
    return vectors if vectors.dtype == np.uint8 else np.packbits(vectors >= 0, axis=1)


def diversify(query: npt.NDArray[np.int8], codes: npt.NDArray[np.int8], *, k: int, diversity: float) -> list[int]:
    """Choose rows near a query and far from each other: maximal marginal relevance.

    Args:
        query: `[d]` int8.
        codes: `[n, d]` int8, best first.
        k: How many.
        diversity: 0 for relevance alone, 1 for diversity alone.

    Returns:
        The chosen rows, in the order they were chosen.

    Example:
        >>> codes = np.array([[9, 1], [9, 2], [1, 9]], np.int8)
        >>> diversify(np.array([9, 0], np.int8), codes, k=2, diversity=0.7)
        [0, 2]
    """
    if not 0 <= diversity <= 1:
        raise InputError(f"the balance of relevance and diversity must lie between 0 and 1, not {diversity}")
    relevance = cosines(query, codes)
    closest = np.zeros(len(codes))  # cosine with the nearest of those chosen
    chosen: list[int] = []
    while len(chosen) < min(k, len(codes)):
        gain = (1 - diversity) * relevance - diversity * closest
        gain[chosen] = -np.inf
        best = int(np.argmax(gain))
        to_best = cosines(codes[best], codes)
        closest = np.maximum(closest, to_best) if chosen else to_best
        chosen.append(best)
    return chosen


def fuse(rankings: Sequence[Sequence[Name]], weights: Sequence[float] | None = None) -> dict[Name, float]:
    """Fuse rankings by reciprocal ranks.

    Args:
        rankings: Names, best first.
        weights: One a ranking; equal by default.

    Returns:
        Each name's fused score, best first; equal scores in the order of first appearance.

    Example:
        >>> list(fuse([["a", "b"], ["b", "c"]]))
        ['b', 'a', 'c']
    """
    scores: dict[Name, float] = {}
    for ranking, weight in zip(rankings, weights or [1.0] * len(rankings), strict=True):
        for rank, name in enumerate(ranking, start=1):
            scores[name] = scores.get(name, 0.0) + weight / (_RANK_CONSTANT + rank)
    return dict(sorted(scores.items(), key=lambda entry: -entry[1]))
