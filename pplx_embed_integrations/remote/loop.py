"""An event loop of this package's own, in a thread of its own, where all requests of a process are made.

Knows asyncio, threads and forks; must not know what is asked of whom. Synchronous and asynchronous callers share it, so
connections are shared too, and there is one way from a text to its vector.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def loop() -> asyncio.AbstractEventLoop:
    """Return the event loop, started at first use; a forked process has one of its own."""
    global _loop
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            # A daemon: a program ends when its own work does. What waits for the loop is a thread of the program.
            threading.Thread(target=_loop.run_forever, name="pplx-embed-requests", daemon=True).start()
        return _loop


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine there and return what it returns; an interruption ends it.

    Example:
        >>> run(asyncio.sleep(0, "done"))
        'done'
    """
    future = _submit(work)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


async def arun(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine there and await what it returns, from any other event loop; cancelling ends it."""
    return await asyncio.wrap_future(_submit(work))


def _submit(work: Coroutine[Any, Any, T]) -> Future[T]:
    return asyncio.run_coroutine_threadsafe(work, loop())


def _after_fork() -> None:
    global _lock, _loop  # the thread of the other process is not here, and may have held the lock
    _lock, _loop = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
