"""The documents whose chunks are being indexed, and the way from a bare string back to the chunk it came from.

Knows strings, their identity, context variables and who embeds a document first; must not know models, stores or
metadata.
"""

from __future__ import annotations

import asyncio
import threading
import warnings
import weakref
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

import numpy as np

from ..errors import ContextWarning, InputError
from ..vectors import Vectors

__all__ = ["Lookup", "OnMiss", "Scope", "find", "open_scope"]

OnMiss = Literal["warn", "error"]
Place = tuple[int, int]
"""A document, and the row of a chunk in it."""

_PROBES = frozenset({"dummy_text"})
_LONGEST_PROBE = 64

_entered: ContextVar[tuple[Scope, ...]] = ContextVar("pplx_embed_documents", default=())
_open: set[Scope] = set()
_opening = threading.Lock()


class _Claim(Future[None]):
    """Done when a document has been embedded, or could not be.

    Args:
        loop_bound: Whether that takes something of an event loop which whoever waits may be keeping from it.
    """

    def __init__(self, *, loop_bound: bool) -> None:
        super().__init__()
        self.loop_bound = loop_bound
        self.set_running_or_notify_cancel()


class Scope:
    """The documents of one `documents(...)` block, and the vectors of those that were asked for.

    Args:
        owner: The embeddings object the block was opened on.
        texts: The chunks' texts in input order.
        groups: For each document the positions of its chunks in reading order.
        on_miss: What to do about a text that is no chunk of these documents.
    """

    def __init__(self, owner: object, texts: list[str], groups: list[list[int]], *, on_miss: OnMiss) -> None:
        self.owner = weakref.ref(owner)
        self.on_miss = on_miss
        self.asked = False
        self.closed = False
        self._lock = threading.Lock()
        self._warned = False
        self._probed = False
        self._documents = [[texts[index] for index in indices] for indices in groups]
        self._matrices: dict[int, Vectors] = {}
        self._pending: dict[int, _Claim] = {}
        self._turns: dict[int | str, int] = {}
        self._places: dict[int | str, list[Place]] = {}
        rows = {index: (number, row) for number, indices in enumerate(groups) for row, index in enumerate(indices)}
        for index, text in enumerate(texts):
            self._places.setdefault(id(text), []).append(rows[index])
            self._places.setdefault(text, []).append(rows[index])

    def close(self) -> None:
        """Let go of every text and vector."""
        with self._lock:
            self.closed = True
            self._documents, self._matrices, self._places, self._turns = [], {}, {}, {}

    def holds(self, text: str) -> bool:
        """Tell whether this very string object is one of the chunks."""
        return id(text) in self._places

    def place(self, key: int | str) -> Place | None:
        """Find the chunk of a string's identity or of its text; equal chunks take turns, first in first out."""
        with self._lock:
            places = self._places.get(key)
            if places is None:
                return None
            turn = 0
            if len(places) > 1:
                turn = self._turns.get(key, 0)
                self._turns[key] = (turn + 1) % len(places)
            self.asked = True
            return places[turn]

    def miss(self, texts: list[str], *, alone: bool) -> None:
        """Deal with texts that are no chunks of any open document."""
        first = texts[0]
        if alone and (first in _PROBES or (not self.asked and not self._probed and len(first) <= _LONGEST_PROBE)):
            self._probed = True  # a store asks for the width of a vector before it asks for any chunk
            return
        message = (
            f"{len(texts)} of the texts to embed are no chunks of the documents given to documents(...): each becomes "
            "a document of its own, without context. Pass exactly the documents that go into the store"
        )
        if self.on_miss == "error":
            raise InputError(message)
        self.warn_once(message)

    def warn_once(self, message: str) -> None:
        """Warn unless this block has warned before."""
        with self._lock:
            warned, self._warned = self._warned, True
        if not warned:
            warnings.warn(message, ContextWarning, stacklevel=5)

    def matrices(self, wanted: set[int], encode: Callable[[list[list[str]]], list[Vectors]]) -> dict[int, Vectors]:
        """Return the vectors of documents, embedding those that nobody has begun."""
        while True:
            mine, others = self._claim(wanted)
            if mine:
                with self._settling(mine) as store:
                    store(encode([self._documents[number] for number in mine]))
            elif not others:
                return self._taken(wanted)
            elif _on_event_loop() or any(claim.loop_bound for claim in others):
                # Whoever has begun may be a task of this very loop, or in need of this very thread: it cannot go on
                # while we wait.
                chosen = sorted(wanted)
                return dict(zip(chosen, encode([self._documents[number] for number in chosen]), strict=True))
            else:
                wait(others)

    async def amatrices(
        self,
        wanted: set[int],
        encode: Callable[[list[list[str]]], Awaitable[list[Vectors]]],
        *,
        loop_bound: bool = False,
    ) -> dict[int, Vectors]:
        """`matrices` without blocking the event loop; `loop_bound` if `encode` needs more of it than its attention."""
        while True:
            mine, others = self._claim(wanted, loop_bound=loop_bound)
            if mine:
                with self._settling(mine) as store:
                    store(await encode([self._documents[number] for number in mine]))
            elif not others:
                return self._taken(wanted)
            else:
                await asyncio.wait([asyncio.wrap_future(claim) for claim in others])

    def _claim(self, wanted: set[int], *, loop_bound: bool = False) -> tuple[list[int], list[_Claim]]:
        with self._lock:
            self._refuse_if_closed()
            missing = sorted(number for number in wanted if number not in self._matrices)
            mine = [number for number in missing if number not in self._pending]
            others = [self._pending[number] for number in missing if number in self._pending]
            self._pending.update((number, _Claim(loop_bound=loop_bound)) for number in mine)
            return mine, others

    @contextmanager
    def _settling(self, mine: list[int]) -> Iterator[Callable[[list[Vectors]], None]]:
        def store(matrices: list[Vectors]) -> None:
            with self._lock:
                self._refuse_if_closed()
                self._matrices.update(zip(mine, matrices, strict=True))

        try:
            yield store
        finally:  # after a failure those who waited try for themselves, and meet the error in their own call
            with self._lock:
                claims = [self._pending.pop(number) for number in mine]
            for claim in claims:
                claim.set_result(None)

    def _taken(self, wanted: set[int]) -> dict[int, Vectors]:
        with self._lock:
            self._refuse_if_closed()
            return {number: self._matrices[number] for number in wanted}

    def _refuse_if_closed(self) -> None:
        if self.closed:
            raise InputError(
                "the documents(...) block ended while its chunks were still being embedded; "
                "wait for the store inside the block"
            )


def _on_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


@contextmanager
def open_scope(
    owner: object, texts: list[str], groups: list[list[int]], *, on_miss: OnMiss = "warn"
) -> Iterator[Scope]:
    """Open a scope for the running thread or task and whatever inherits its context."""
    scope = Scope(owner, texts, groups, on_miss=on_miss)
    _entered.set((scope, *_entered.get()))
    with _opening:
        _open.add(scope)
    try:
        yield scope
    finally:
        # Not by token: an async fixture or generator may leave in another copy of the context than it entered in.
        _entered.set(tuple(other for other in _entered.get() if other is not scope))
        with _opening:
            _open.discard(scope)
        scope.close()


class Lookup:
    """Where each text of one call to `embed_documents` belongs.

    Args:
        scopes: The open scopes, the innermost first.
        texts: The texts of the call.
    """

    def __init__(self, scopes: list[Scope], texts: list[str]) -> None:
        self._size = len(texts)
        self._found: dict[int, tuple[Scope, Place]] = {}
        for position, text in enumerate(texts):
            for scope, key in [(scope, key) for key in (id(text), text) for scope in scopes]:
                place = scope.place(key)
                if place is not None:
                    self._found[position] = (scope, place)
                    break
        self._missed = [position for position in range(len(texts)) if position not in self._found]
        self.misses = [texts[position] for position in self._missed]
        if self.misses:
            scopes[0].miss(self.misses, alone=len(texts) == 1)

    def wanted(self) -> list[tuple[Scope, set[int]]]:
        """Return the documents whose vectors are needed, by scope."""
        wanted: dict[Scope, set[int]] = {}
        for scope, (number, _) in self._found.values():
            wanted.setdefault(scope, set()).add(number)
        return list(wanted.items())

    def rows(self, matrices: dict[Scope, dict[int, Vectors]], isolated: Vectors | None) -> Vectors:
        """Put the vectors of all texts into the order of the call."""
        rows = {position: matrices[scope][number][row] for position, (scope, (number, row)) in self._found.items()}
        if isolated is not None:
            rows.update(zip(self._missed, isolated, strict=True))
        return np.stack([rows[position] for position in range(self._size)])


def find(owner: object, texts: list[str]) -> Lookup | None:
    """Look texts up in the open scopes of an embeddings object.

    Args:
        owner: The embeddings object.
        texts: What a store asks it to embed.

    Returns:
        Where the texts belong; None where no block is open, and each text stands alone.

    Raises:
        InputError: A text is no chunk of the documents, and `on_miss` is `"error"`.
    """
    entered = [scope for scope in _entered.get() if scope.owner() is owner]
    scopes = [scope for scope in entered if not scope.closed]
    if scopes:
        return Lookup(scopes, texts)
    for scope in entered:
        scope.warn_once("texts are embedded without context: a task outlived its documents(...) block; wait inside it")
    with _opening:
        elsewhere = [scope for scope in _open if scope.owner() is owner]
    for scope in elsewhere:
        if any(map(scope.holds, texts)):
            scope.warn_once(
                "texts are embedded without context: their documents(...) block is open, but this thread does not "
                "inherit it; start the thread's work with contextvars.copy_context().run(...)"
            )
    return None
