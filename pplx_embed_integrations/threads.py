"""Blocking work beside an event loop, in threads that nobody else can keep busy.

Knows threads, context variables and asyncio; must not know what the work is.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import lru_cache
from typing import TypeVar

__all__ = ["in_thread"]

T = TypeVar("T")


async def in_thread(work: Callable[..., T], *arguments: object) -> T:
    """Run a function in a thread of its own and await what it returns.

    `asyncio.to_thread` shares a few threads with the whole program, and all of them may be waiting for this very work.
    Here nothing waits for a thread to be free, and starting one costs about a tenth of a millisecond.

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
    context = copy_context()

    def run() -> None:
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(context.run(work, *arguments))
            except BaseException as error:  # noqa: BLE001  (it is handed to whoever awaits)
                future.set_exception(error)

    def start() -> None:
        try:
            threading.Thread(target=run, name="pplx-embed-async").start()
        except RuntimeError as error:  # the system has no more threads, or the program is ending
            future.set_exception(error)

    # `Thread.start` returns when the thread runs, which on a busy machine would hold the event loop.
    _starter(os.getpid()).submit(start)
    return await asyncio.wrap_future(future)


@lru_cache(maxsize=1)
def _starter(process: int) -> ThreadPoolExecutor:
    """Return the thread that starts the others; a process forked from this one needs another."""
    return ThreadPoolExecutor(1, thread_name_prefix="pplx-embed-start")
