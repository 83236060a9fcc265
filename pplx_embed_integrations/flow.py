"""How work runs: called or awaited though it is written once, in a few threads that async code shares, or in its own.

Knows generators, threads, context variables and asyncio; must not know what the work is. There is no executor here on
purpose: those of the standard library take no work once the main thread has ended, while other threads still run.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import Future
from contextvars import copy_context
from functools import partial
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

_MOMENT = 0.1
"""Seconds for which a thread waits for more work: who starts one waits until it runs, and that may be an event loop."""

_MOST = 8
"""Threads for async code: with many more the event loop's own thread would seldom get the interpreter."""


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


async def in_thread(work: Callable[..., T], *arguments: object) -> T:
    """Run a function in one of a few threads of this package and await what it returns.

    `asyncio.to_thread` shares its threads with the whole program, and all of them may be waiting for this very work.

    Args:
        work: The function, which must not wait for other work of this kind; it sees the caller's context variables.
        *arguments: What it is called with.

    Returns:
        What it returns.

    Example:
        >>> asyncio.run(in_thread(sum, [1, 2]))
        3
    """
    return await asyncio.wrap_future(_shared.submit(partial(copy_context().run, work, *arguments)))


def in_own_thread(work: Callable[..., T], *arguments: object) -> Future[T]:
    """Run a function in a thread that ends with it.

    What libraries set up for the thread that first calls them ends with it, too.

    Args:
        work: The function.
        *arguments: What it is called with.

    Returns:
        What it returns, once it does.

    Example:
        >>> in_own_thread(sum, [1, 2]).result()
        3
    """
    future: Future[T] = Future()
    start_thread(partial(_settle, future, partial(work, *arguments)))
    return future


def start_thread(work: Callable[[], object]) -> None:
    """Run a function in a new thread; in this one where the system gives no other, as at the end of a program."""
    try:
        threading.Thread(target=work, name="pplx-embed").start()
    except RuntimeError:
        work()


def _settle(future: Future[T], work: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(work())
    except BaseException as error:  # noqa: BLE001  (it belongs to the caller who waits)
        future.set_exception(error)


class _Threads:
    """Threads that are started when there is work for them, and end when there was none for a moment."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[Callable[[], None]] = deque()
        self._running = self._idle = 0

    def submit(self, work: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()
        with self._changed:
            self._waiting.append(partial(_settle, future, work))
            start = self._idle < len(self._waiting) and self._running < _MOST
            self._running += start
            self._changed.notify()
        if start:
            start_thread(self._work)
        return future

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._waiting:
                    self._idle += 1
                    self._changed.wait(_MOMENT)
                    self._idle -= 1
                if not self._waiting:
                    self._running -= 1
                    return
                work: Callable[[], Any] = self._waiting.popleft()
            work()


_shared = _Threads()


def _after_fork() -> None:
    global _shared  # the threads of the other process are not here
    _shared = _Threads()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
