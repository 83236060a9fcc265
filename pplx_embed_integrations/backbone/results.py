"""The result of one call: the form of its vectors, where each goes, and the bar that shows how far it is.

Knows quantisation, rows and tqdm; must not know texts, models or who computes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NoReturn

import numpy as np
from tqdm.auto import tqdm

from ..embedder import OutputForm
from ..vectors import Quantizer, Vectors
from .backends.base import Pooled
from .sequences import TokenSequence

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Progress", "Result"]


class Result:
    """A matrix that fills as batches come in, in any order and from any thread.

    Args:
        rows: How many vectors there will be.
        form: What they will look like.
        quantizer: What makes int8 codes.

    Attributes:
        vectors: The matrix, `[rows, width]`.
        progress: A bar, None where none is wanted.
    """

    def __init__(self, rows: int, form: OutputForm, *, quantizer: Quantizer) -> None:
        self.vectors: Vectors = np.empty((rows, form.width), dtype=form.dtype)
        self.progress = Progress(rows) if form.show_progress else None
        self._form, self._quantizer = form, quantizer

    def receive(self, sequences: list[TokenSequence], pooled: Pooled) -> None:
        """Put the rows of some sequences where they belong.

        Raises:
            EncodingError: A row is not finite.
        """
        rows = [row for sequence in sequences for row in sequence.rows]
        self.vectors[rows] = self._form.vectors(pooled, rows=rows, quantizer=self._quantizer)
        if self.progress is not None:
            self.progress.advance(sum(map(len, sequences)))


class Progress:
    """A bar that counts the tokens of a call; closes as a context manager.

    Args:
        rows: How many vectors there will be.
    """

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._bar: tqdm[NoReturn] | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            if self._bar is not None:
                self._bar.close()
                self._bar = None

    def counted(self, slices: Iterable[list[TokenSequence]]) -> Iterator[list[TokenSequence]]:
        """Pass a call's sequences on and tell the bar of them.

        What is not tokenised yet is taken to be as long as what is, so the bar's total, and with it the time it says
        remains, is an estimate that the last slice makes exact.
        """
        tokens = rows = 0
        for sequences in slices:
            tokens += sum(map(len, sequences))
            rows += sum(len(sequence.rows) for sequence in sequences)
            if rows:
                self._expect(round(tokens * self._rows / rows))
            yield sequences

    def advance(self, tokens: int) -> None:
        """Tell the bar of tokens that have been computed."""
        with self._lock:
            if self._bar is not None:
                self._bar.update(tokens)

    def _expect(self, tokens: int) -> None:
        with self._lock:
            if self._bar is None:
                self._bar = tqdm(total=tokens, unit="tok", unit_scale=True, desc="Embedding")
            self._bar.total = tokens
