"""What the other passages of a document lend to one of them, found by leaving each out and embedding the rest again.

Knows an embedder and cosine; must not know how a page shows it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import InputError
from ...vectors import cosine_similarity
from ..results import Found, Passage

if TYPE_CHECKING:
    import numpy.typing as npt

    from ...biencoder import PplxBiEncoder

MOST = 24
"""Passages of a document that is looked at: each costs an embedding of all the others."""
_TOLERANCE = 0.02
"""How far a score may be from the one that was measured: int8 codes differ by one between places."""


@dataclass(frozen=True)
class Lent:
    """Where the closeness of a passage to a question comes from.

    Attributes:
        alone: Cosine of the question and the passage by itself.
        in_context: The same with the passage embedded in its document.
        passages: The document's passages in reading order.
        place: Which of them it is.
        shares: For each passage, how much the cosine falls without it; 0 for the passage itself.
    """

    alone: float
    in_context: float
    passages: tuple[Passage, ...]
    place: int
    shares: tuple[float, ...]

    @property
    def most(self) -> int | None:
        """Place of the passage that lends most; None if none lends anything."""
        place = max(range(len(self.shares)), key=lambda one: self.shares[one])
        return place if self.shares[place] > 0 else None


class LeaveOneOut:
    """Leaves the passages of a document out, one at a time, and looks what becomes of another.

    Args:
        chunks: The chunks of the collection, those of a document in reading order; `Study.chunked.chunks`.
        embedder: The pair that was evaluated.

    Example:
        >>> from pplx_embed_integrations import PplxBiEncoder
        >>> texts = ["The Aral Sea lies in Asia.", "Fishing ended.", "It lost most of its water by 2007."]
        >>> chunks = [Passage("aral", place, place + 1, text) for place, text in enumerate(texts)]
        >>> explain = LeaveOneOut(chunks, PplxBiEncoder("miniature"))
        >>> [lent] = explain([("How much water did the Aral Sea lose?", chunks[2])])
        >>> lent.place, len(lent.shares), lent.shares[lent.place]
        (2, 3, 0.0)
    """

    def __init__(self, chunks: Iterable[Passage], embedder: PplxBiEncoder) -> None:
        self._documents: dict[str, list[Passage]] = {}
        for chunk in chunks:
            self._documents.setdefault(chunk.document, []).append(chunk)
        self._embedder = embedder

    def __call__(self, asked: Sequence[tuple[str, Passage]]) -> list[Lent | None]:
        """Explain passages.

        Args:
            asked: Questions, each with a chunk of the collection.

        Returns:
            For each what its document lends; None where the document has one passage, or more than `MOST`.

        Raises:
            InputError: A passage is no chunk of the collection.
        """
        found: list[Lent | None] = [None] * len(asked)
        documents = [self._document(passage) for _, passage in asked]
        chosen = [place for place, document in enumerate(documents) if 1 < len(document) <= MOST]
        if not chosen:
            return found
        questions = self._embedder.query.encode([asked[place][0] for place in chosen], role="query")
        alone = self._embedder.document.encode([asked[place][1].text for place in chosen], role="document")
        variants = [variant for place in chosen for variant in _variants(documents[place], asked[place][1])]
        matrices = iter(self._embedder.document.encode_documents([texts for texts, _ in variants]))
        rows = iter(np.stack([matrix[row] for matrix, (_, row) in zip(matrices, variants, strict=True)]))
        for number, place in enumerate(chosen):
            document, passage = documents[place], asked[place][1]
            whole = _cosine(questions[number], next(rows))
            left = [whole if chunk == passage else _cosine(questions[number], next(rows)) for chunk in document]
            shares = tuple(whole - each for each in left)
            by_itself = _cosine(questions[number], alone[number])
            found[place] = Lent(by_itself, whole, tuple(document), document.index(passage), shares)
        return found

    def _document(self, passage: Passage) -> list[Passage]:
        document = self._documents.get(passage.document, [])
        if passage not in document:
            raise InputError(
                f"a passage of document {passage.document!r} is no chunk of the collection; give LeaveOneOut the "
                "chunks that were evaluated"
            )
        return document


def check_scores(lent: Lent, *, in_context: Found | None, alone: Found | None) -> None:
    """Raise an error if what was embedded again is not what was evaluated.

    Raises:
        InputError: The cosine is another than the measured score.
    """
    for measured, again in ((in_context, lent.in_context), (alone, lent.alone)):
        if measured is not None and abs(measured.score - again) > _TOLERANCE:
            raise InputError(
                f"a passage of document {measured.passage.document!r} scored {measured.score:.3f} in the evaluation "
                f"and {again:.3f} now; give LeaveOneOut the embedder that was evaluated"
            )


def _variants(document: Sequence[Passage], passage: Passage) -> list[tuple[list[str], int]]:
    """Return the document whole and without each of the others, with the place of the passage in it."""
    place = document.index(passage)
    whole = [chunk.text for chunk in document]
    without = [
        (whole[:other] + whole[other + 1 :], place - (other < place)) for other in range(len(whole)) if other != place
    ]
    return [(whole, place), *without]


def _cosine(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    return float(cosine_similarity(one[None], other[None])[0, 0])
