"""How far a long job is: a bar on a terminal, a line now and then in a log.

Knows time and where standard error goes; must not know what is done.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from tqdm import tqdm

_TICK, _LOGGED = 1.0, 15.0
"""Seconds between two looks at the clock, and between two lines in a log."""


class Progress:
    """A job's progress, in characters.

    Args:
        total: How many there are to be done.
        label: What is done.
    """

    def __init__(self, total: int, label: str) -> None:
        self._total, self._label = total, label
        self._done = 0
        self._bar: tqdm[NoReturn] | None = None
        self._ended = threading.Event()
        if sys.stderr.isatty():
            self._bar = tqdm(total=total, unit="char", unit_scale=True, desc=label, file=sys.stderr)

    def update(self, characters: int) -> None:
        """Count characters as done."""
        self._done += characters
        if self._bar is not None:
            self._bar.update(characters)

    def run(self) -> None:
        """Show that time goes by, until `end`: one step may take minutes."""
        start = logged = time.monotonic()
        while not self._ended.wait(_TICK):
            if self._bar is not None:
                self._bar.refresh()
            elif time.monotonic() - logged >= _LOGGED:
                logged = time.monotonic()
                share = f"{self._done / max(1, self._total):.0%} of {self._total:,} characters"
                print(f"{self._label}: {share}, {logged - start:.0f} s", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Stop showing."""
        self._ended.set()
        if self._bar is not None:
            self._bar.close()


@contextmanager
def progress(total: int, label: str) -> Iterator[Progress]:
    """Show progress while the block runs."""
    shown = Progress(total, label)
    clock = threading.Thread(target=shown.run, name="pplx-embed-progress", daemon=True)
    clock.start()
    try:
        yield shown
    finally:
        shown.end()
        clock.join()
