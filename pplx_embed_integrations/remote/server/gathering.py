"""Short requests that wait at the same time are embedded in one call, each with its own answer and its own error.

Knows how to put calls together and take them apart; must not know HTTP. Any concurrent calls share forward passes; here
they also share what a call itself costs, which is a third of a query with a small model.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from itertools import accumulate, chain, pairwise
from typing import Generic, TypeVar

from ...vectors import Vectors

Form = TypeVar("Form", bound=Hashable)

_TEXT = 250
"""Characters that a text counts as at least."""
_SHORT = 8 * _TEXT
"""The largest request that waits for others; a larger one goes by itself at once."""
_CALL = 64 * _TEXT
"""What fills a call. While one is computed, a second is started only when there is enough for it: two that share what
waits would have the model run twice as often, and compete for the interpreter with the event loop."""
_CALLS = 2
_TURNS = 3
"""Of the event loop, in which a request that has arrived comes from its socket to here."""

_Taken = list[tuple[list[str], "asyncio.Future[Vectors]"]]


@dataclass
class _Line:
    """The requests of one form that wait.

    Attributes:
        requests: The texts of each, their size and what waits for their vectors.
        size: Of all of them.
        calls: How many are being made for them.
    """

    requests: deque[tuple[list[str], int, asyncio.Future[Vectors]]] = field(default_factory=deque)
    size: int = 0
    calls: int = 0

    def add(self, texts: list[str], size: int) -> asyncio.Future[Vectors]:
        future: asyncio.Future[Vectors] = asyncio.get_running_loop().create_future()
        self.requests.append((texts, size, future))
        self.size += size
        return future

    def take(self) -> _Taken:
        """Take what fills a call, or all there is."""
        taken: _Taken = []
        room = _CALL
        while self.requests and self.requests[0][1] <= room:
            texts, size, future = self.requests.popleft()
            self.size -= size
            if not future.done():  # else its client has hung up
                taken.append((texts, future))
                room -= size
        return taken


class Gathering(Generic[Form]):
    """Puts short requests of one form together.

    Args:
        embed: Embeds texts in a form.
    """

    def __init__(self, embed: Callable[[list[str], Form], Awaitable[Vectors]]) -> None:
        self._embed = embed
        self._lines: dict[Form, _Line] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def embed(self, texts: list[str], form: Form) -> Vectors:
        """Return the vectors of texts, computed together with those of others where both are short."""
        size = max(_TEXT * len(texts), sum(map(len, texts)))
        if size > _SHORT:
            return await self._embed(texts, form)
        line = self._lines.setdefault(form, _Line())
        future = line.add(texts, size)
        if line.calls == 0 or (line.calls < _CALLS and line.size >= _CALL):
            line.calls += 1
            task = asyncio.ensure_future(self._work(line, form))
            self._tasks.add(task)  # the loop itself keeps none alive
            task.add_done_callback(self._tasks.discard)
        return await future

    async def _work(self, line: _Line, form: Form) -> None:
        """Embed what waits, until nothing does."""
        while line.requests:
            await self._arrivals(line)
            if taken := line.take():
                await self._answer(taken, form)
        line.calls -= 1
        if not line.calls:
            del self._lines[form]

    async def _arrivals(self, line: _Line) -> None:
        """Wait until the event loop has read all requests that have arrived, or there are enough for a call."""
        size = -1
        while size < line.size < _CALL:
            size = line.size
            for _ in range(_TURNS):
                await asyncio.sleep(0)

    async def _answer(self, taken: _Taken, form: Form) -> None:
        try:
            vectors = await self._embed(list(chain.from_iterable(texts for texts, _ in taken)), form)
        except Exception as error:  # noqa: BLE001  (it is told to whom it belongs)
            if len(taken) == 1:
                _settle(taken[0][1], error)
            else:  # one request's failure is no other's
                for each in taken:
                    await self._answer([each], form)
            return
        borders = accumulate((len(texts) for texts, _ in taken), initial=0)
        for (_, future), (start, end) in zip(taken, pairwise(borders), strict=True):
            _settle(future, vectors[start:end])


def _settle(future: asyncio.Future[Vectors], result: Vectors | Exception) -> None:
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
