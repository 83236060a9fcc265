"""Turns: work on the same thing runs one after the other, in threads and on event loops alike.

Knows keys, threads and event loops; must not know what the keys stand for.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Hashable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass

from ..errors import InputError
from ..flow import Flow, either

_PATIENCE = 0.002
"""Seconds between two looks of a task that waits for its turn: a thread cannot wake an event loop it does not know."""


@dataclass(eq=False)
class _Turn:
    keys: frozenset[Hashable]
    #: The event loop that must go on for the turn to end; None where a thread waits and works.
    loop: asyncio.AbstractEventLoop | None = None


class Turns:
    """A queue for each key; a caller that asks for several keys gets them together, so that there is no deadlock.

    Example:
        >>> from pplx_embed_integrations.flow import run
        >>> turns = Turns()
        >>> with run(turns.take(["a", "b"])):
        ...     print("nobody else has a or b")
        nobody else has a or b
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queue: list[_Turn] = []

    def take(self, keys: Iterable[Hashable]) -> Flow[ExitStack]:
        """Wait until all who came earlier for one of the keys have gone, and return a context that ends the turn.

        Raises:
            InputError: The caller blocks the very event loop that has to go on for its turn to come.
        """
        turn = _Turn(frozenset(keys))
        with ExitStack() as leaving:
            with self._changed:
                self._queue.append(turn)
            leaving.callback(self._leave, turn)
            yield either(self._wait, self._await, turn)
            return leaving.pop_all()

    def _leave(self, turn: _Turn) -> None:
        with self._changed:
            self._queue.remove(turn)
            self._changed.notify_all()

    def _ahead(self, turn: _Turn) -> list[_Turn]:
        """Return the turns before this one, if it has to wait for any of them."""
        with self._changed:
            ahead = self._queue[: self._queue.index(turn)]
        return ahead if any(other.keys & turn.keys for other in ahead) else []

    def _wait(self, turn: _Turn) -> None:
        loop = _running_loop()
        with self._changed:
            while ahead := self._ahead(turn):
                # Also one for another key: whom this turn waits for may wait for it.
                if loop is not None and any(other.loop is loop for other in ahead):
                    raise InputError(
                        "a task of this event loop is changing the index, and a call that blocks the loop would wait "
                        "for it forever: use the method whose name starts with an a, for example "
                        "await index.ainsert_nodes(nodes)"
                    )
                self._changed.wait()

    async def _await(self, turn: _Turn) -> None:
        turn.loop = asyncio.get_running_loop()
        while self._ahead(turn):
            await asyncio.sleep(_PATIENCE)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
