"""Turns: work on the same thing runs one after the other, in threads and on event loops alike.

Knows keys, threads and event loops; must not know what the keys stand for.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Hashable, Iterable
from typing import NamedTuple, TypeVar

from ..errors import InputError
from ..flow import Flow, Step

__all__ = ["Turns"]

T = TypeVar("T")

_PATIENCE = 0.002
"""Seconds between two looks of a task that waits for its turn: a thread cannot wake an event loop it does not know."""


class _Turn(NamedTuple):
    keys: frozenset[Hashable]
    loop: asyncio.AbstractEventLoop | None


class Turns:
    """A queue for each key; a caller that asks for several keys gets them together, so that there is no deadlock.

    Example:
        >>> from pplx_embed_integrations.flow import run
        >>> turns = Turns()
        >>> turn = run(turns.take(["a", "b"]))
        >>> turns.give_back(turn)
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queue: dict[object, _Turn] = {}

    def take(self, keys: Iterable[Hashable]) -> Flow[object]:
        """Wait until all who came earlier for one of the keys have gone; what is returned goes to `give_back`.

        Raises:
            InputError: The caller blocks the very event loop that holds a key, which could then never be given back.
        """
        ticket, wanted = object(), frozenset(keys)
        yield Step(lambda: self._wait(ticket, wanted), lambda: self._await(ticket, wanted))
        return ticket

    def during(self, keys: Iterable[Hashable], flow: Flow[T]) -> Flow[T]:
        """Run a flow while nobody else works on the keys."""
        turn = yield from self.take(keys)
        try:
            return (yield from flow)
        finally:
            self.give_back(turn)

    def give_back(self, ticket: object) -> None:
        """Let the next ones have the keys."""
        with self._changed:
            self._queue.pop(ticket, None)
            self._changed.notify_all()

    def _earlier(self, ticket: object) -> list[_Turn]:
        mine = self._queue[ticket]
        earlier = []
        for other, turn in self._queue.items():
            if other is ticket:
                break
            if turn.keys & mine.keys:
                earlier.append(turn)
        return earlier

    def _wait(self, ticket: object, keys: frozenset[Hashable]) -> None:
        loop = _running_loop()
        try:
            with self._changed:
                self._queue[ticket] = _Turn(keys, None)
                while earlier := self._earlier(ticket):
                    if loop is not None and any(turn.loop is loop for turn in earlier):
                        raise InputError(
                            "a task of this event loop is changing the same document of the index, and a call that "
                            "blocks the loop would wait for it forever: use the method whose name starts with an a, "
                            "for example await index.ainsert_nodes(nodes)"
                        )
                    self._changed.wait()
        except BaseException:
            self.give_back(ticket)
            raise

    async def _await(self, ticket: object, keys: frozenset[Hashable]) -> None:
        with self._changed:
            self._queue[ticket] = _Turn(keys, asyncio.get_running_loop())
        try:
            while self._is_early(ticket):
                await asyncio.sleep(_PATIENCE)
        except BaseException:
            self.give_back(ticket)
            raise

    def _is_early(self, ticket: object) -> bool:
        with self._changed:
            return bool(self._earlier(ticket))


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
