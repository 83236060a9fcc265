"""Work that is written once and runs both ways: a generator of steps, each of which can be called or awaited.

Knows generators, threads and event loops; must not know what the steps do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from contextvars import copy_context
from functools import partial
from typing import Any, NamedTuple, TypeVar

from .threads import in_own_thread, in_thread

__all__ = ["Flow", "Step", "arun", "either", "in_worker", "run", "run_elsewhere"]

T = TypeVar("T")


class Step(NamedTuple):
    """One piece of work, to be called or to be awaited."""

    call: Callable[[], Any]
    acall: Callable[[], Awaitable[Any]]


Flow = Generator[Step, Any, T]


def either(call: Callable[..., Any], acall: Callable[..., Awaitable[Any]], *arguments: Any, **named: Any) -> Step:
    """Make a step of a method and its asynchronous twin, which take the same arguments."""
    return Step(partial(call, *arguments, **named), partial(acall, *arguments, **named))


def in_worker(work: Callable[..., Any], *arguments: Any) -> Step:
    """Make a step of blocking work, which runs in a thread where an event loop awaits it."""
    return Step(partial(work, *arguments), partial(in_thread, work, *arguments))


def run(flow: Flow[T]) -> T:
    """Run a flow to its end, calling each step, and return what it returns.

    Example:
        >>> def flow():
        ...     length = yield in_worker(len, "abc")
        ...     return length + 1
        >>> run(flow()), asyncio.run(arun(flow()))
        (4, 4)
    """
    try:
        step = next(flow)
        while True:
            try:
                result = step.call()
            except BaseException as error:  # noqa: BLE001  (the flow decides what becomes of it)
                step = flow.throw(error)
            else:
                step = flow.send(result)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


async def arun(flow: Flow[T]) -> T:
    """Run a flow to its end, awaiting each step, and return what it returns."""
    try:
        step = next(flow)
        while True:
            try:
                result = await step.acall()
            except BaseException as error:  # noqa: BLE001  (the flow decides what becomes of it)
                step = flow.throw(error)
            else:
                step = flow.send(result)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


def run_elsewhere(flow: Flow[T]) -> T:
    """Run a flow by its asynchronous steps for a caller who waits, whether or not an event loop runs here."""
    result: T = in_own_thread(copy_context().run, asyncio.run, arun(flow)).result()
    return result
