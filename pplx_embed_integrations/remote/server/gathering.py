"""Short requests that wait at the same time are embedded in one call, each with its own answer and its own error.

Knows how to put calls together and take them apart; must not know HTTP. Any concurrent calls share forward passes; here
they also share what a call itself costs, which is a third of a query with a small model.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from itertools import accumulate, chain, pairwise
from typing import Generic, TypeVar

from ...vectors import Vectors

__all__ = ["Gathering"]

Form = TypeVar("Form", bound=Hashable)

_TEXTS, _CHARACTERS = 8, 2000
"""Of a request that waits for others; a longer one goes by itself at once."""
_TOGETHER = 64
"""Texts in a call; the next is prepared while it is computed."""
_CALLS = 2


class Gathering(Generic[Form]):
    """Puts short requests of one form together.

    Args:
        embed: Embeds texts in a form.
    """

    def __init__(self, embed: Callable[[list[str], Form], Awaitable[Vectors]]) -> None:
        self._embed = embed
        self._waiting: dict[Form, deque[tuple[list[str], asyncio.Future[Vectors]]]] = {}
        self._calls: dict[Form, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def embed(self, texts: list[str], form: Form) -> Vectors:
        """Return the vectors of texts, computed together with those of others where both are short."""
        if len(texts) > _TEXTS or sum(map(len, texts)) > _CHARACTERS:
            return await self._embed(texts, form)
        future: asyncio.Future[Vectors] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(form, deque()).append((texts, future))
        if self._calls.get(form, 0) < _CALLS:
            self._calls[form] = self._calls.get(form, 0) + 1
            task = asyncio.ensure_future(self._work(form))
            self._tasks.add(task)  # the loop itself keeps none alive
            task.add_done_callback(self._tasks.discard)
        return await future

    async def _work(self, form: Form) -> None:
        """Embed what waits, until nothing does."""
        while taken := self._take(form):
            await self._answer(taken, form)
        self._calls[form] -= 1
        if not self._calls[form]:
            del self._calls[form], self._waiting[form]

    def _take(self, form: Form) -> list[tuple[list[str], asyncio.Future[Vectors]]]:
        waiting = self._waiting[form]
        taken: list[tuple[list[str], asyncio.Future[Vectors]]] = []
        room = _TOGETHER
        while waiting and len(waiting[0][0]) <= room:
            texts, future = waiting.popleft()
            if not future.done():  # else its client has hung up
                taken.append((texts, future))
                room -= len(texts)
        return taken

    async def _answer(self, taken: list[tuple[list[str], asyncio.Future[Vectors]]], form: Form) -> None:
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
