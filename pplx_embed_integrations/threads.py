"""Work in plain threads: a few that async code shares, and threads of their own that end with their work.

Knows threads, context variables and asyncio; must not know what the work is. There is no executor here on purpose:
those of the standard library take no work once the main thread has ended, while other threads still run.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar

__all__ = ["in_own_thread", "in_thread", "start_thread"]

T = TypeVar("T")

_MOMENT = 0.1
"""Seconds for which a thread waits for more work: who starts one waits until it runs, and that may be an event loop."""

_MOST = 8
"""Threads for async code: with many more the event loop's own thread would seldom get the interpreter."""


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
