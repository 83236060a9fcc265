"""The bar that shows how far a call is.

Knows tqdm and how many tokens sequences have; must not know texts, models or who computes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import NoReturn

from tqdm.auto import tqdm
from typing_extensions import Self

from .sequences import TokenSequence


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
            tokens += sum(len(sequence.ids) for sequence in sequences)
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
