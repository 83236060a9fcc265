"""Work in threads that nobody else can keep busy, or that leave nothing behind.

Knows threads, context variables and asyncio; must not know what the work is.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import lru_cache, partial
from queue import SimpleQueue
from typing import Any, TypeVar

__all__ = ["in_passing_thread", "in_thread"]

T = TypeVar("T")

_FEW = 4
"""Threads that are made at once when there is work for them."""
_PATIENCE = 0.005
"""Seconds after which work that finds all threads busy gets another."""


async def in_thread(work: Callable[..., T], *arguments: object) -> T:
    """Run a function in a thread of this package and await what it returns.

    `asyncio.to_thread` shares a few threads with the whole program, and all of them may be waiting for this very work.
    Here work waits for other work no longer than some milliseconds, whatever that is busy with.

    Args:
        work: The function; it sees the caller's context variables.
        *arguments: What it is called with.

    Returns:
        What it returns.

    Example:
        >>> asyncio.run(in_thread(sum, [1, 2]))
        3
    """
    future: Future[T] = Future()
    _threads(os.getpid()).submit(future, partial(copy_context().run, work, *arguments))
    return await asyncio.wrap_future(future)


def in_passing_thread(work: Callable[..., T], *arguments: object) -> T:
    """Run a function in a thread that ends with it, and return what it returns.

    What libraries set up for the thread that first calls them ends with it, too.

    Args:
        work: The function.
        *arguments: What it is called with.

    Returns:
        What it returns.

    Example:
        >>> in_passing_thread(sum, [1, 2])
        3
    """
    with ThreadPoolExecutor(1, thread_name_prefix="pplx-embed-passing") as thread:
        return thread.submit(work, *arguments).result()


class _Threads:
    """A few threads, and more of them only while those there are stay busy.

    With a thread for each of a thousand queries the event loop would get a thousandth of the interpreter's time.
    """

    def __init__(self) -> None:
        self._queue: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        self._threads = ThreadPoolExecutor(10_000, thread_name_prefix="pplx-embed-async")
        self._free = threading.Semaphore(_FEW)
        # An executor makes a thread under a lock, which takes until the thread runs: no event loop must wait for that.
        threading.Thread(target=self._admit, name="pplx-embed-door", daemon=True).start()

    def submit(self, future: Future[T], work: Callable[[], T]) -> None:
        self._queue.put((future, work))

    def _admit(self) -> None:
        while True:
            future, work = self._queue.get()
            self._free.acquire(timeout=_PATIENCE)
            try:
                self._threads.submit(self._run, future, work)
            except RuntimeError as error:  # the system has no more threads, or the program is ending
                if future.set_running_or_notify_cancel():
                    future.set_exception(error)

    def _run(self, future: Future[T], work: Callable[[], T]) -> None:
        try:
            if future.set_running_or_notify_cancel():
                future.set_result(work())
        except BaseException as error:  # noqa: BLE001  (it is handed to whoever awaits)
            future.set_exception(error)
        finally:
            self._free.release()


@lru_cache(maxsize=1)
def _threads(process: int) -> _Threads:
    """Return the threads of a process: one that is forked from another inherits none."""
    return _Threads()
