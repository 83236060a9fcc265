"""The processor's cores: how many this process may use, how many others leave free, and a thread for each.

Knows the operating system and OpenMP's settings; must not know what is computed.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import torch
from threadpoolctl import ThreadpoolController

_Order = tuple[Future[Any], Callable[[], Any]]
_Queue = SimpleQueue[_Order | None]
T = TypeVar("T")
_PROC = Path("/proc")
_CGROUP = Path("/sys/fs/cgroup")


class Cores:
    """Threads that compute one task each, without the help of OpenMP's.

    OpenMP's threads wait for each other by keeping their cores busy. Where another process wants these cores, each of
    some hundred operations waits until the system takes them away; these threads wait in their sleep.

    They are made when they are first needed and end with the object. They last so long because oneDNN prepares
    products anew for each thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queues: list[_Queue] = []
        self._end = weakref.finalize(self, _dismiss, self._queues)
        self._end.atexit = False  # they are daemons, and what runs at exit may want them

    def hire(self, count: int) -> int:
        """Make sure that there are so many threads; return how many there are, fewer where the system has no more."""
        with self._lock:
            while len(self._queues) < count:
                queue: _Queue = SimpleQueue()
                name = f"pplx-embed-core-{len(self._queues)}"
                try:
                    threading.Thread(target=_work, args=(queue,), name=name, daemon=True).start()
                except RuntimeError:  # the limit of threads is reached, or the interpreter is ending
                    break
                self._queues.append(queue)
            return min(count, len(self._queues))

    def at_once(self, tasks: Sequence[Callable[[], T]]) -> list[T]:
        """Compute each task on a core of its own; raise an error when all have ended.

        Args:
            tasks: One, which this thread computes where the system has no other, or no more than have been hired;
                they may wait for each other.
        """
        if not self._queues and not self.hire(1):
            return [task() for task in tasks]
        futures: list[Future[T]] = [Future() for _ in tasks]
        with self._lock:  # every thread has the tasks of several callers in the same order
            for queue, future, task in zip(self._queues, futures, tasks, strict=False):
                queue.put((future, task))
        wait(futures)
        errors = [error for future in futures if (error := future.exception()) is not None]
        # A broken barrier is what a failed thread does to the others.
        if errors:
            raise min(errors, key=lambda error: isinstance(error, threading.BrokenBarrierError))
        return [future.result() for future in futures]


def _work(queue: _Queue) -> None:
    with openmp_threads(1):
        while (order := queue.get()) is not None:
            future, task = order
            try:
                future.set_result(task())
            except BaseException as error:  # noqa: BLE001  (it is handed to the caller)
                future.set_exception(error)
            del order, future, task  # while it waits, a thread keeps nothing alive


def _dismiss(queues: list[_Queue]) -> None:
    for queue in queues:
        queue.put(None)


@contextmanager
def openmp_threads(count: int) -> Iterator[None]:
    """Have this thread, and no other, compute with so many of OpenMP's threads."""
    torch.get_num_threads()  # torch sets a thread up when it first needs to, which would undo the next line
    with _openmp().limit(limits=count, user_api="openmp"):
        yield


@cache
def _openmp() -> ThreadpoolController:
    return ThreadpoolController()  # looks through all libraries of the process, which takes some milliseconds


def available_cores() -> int:
    """Return how many cores this process may keep busy: those it is bound to, or what its container is granted."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(bound, _granted() or bound))


@cache
def _granted() -> int | None:
    """Return the cores that a control group grants (version 2, then 1), rounded up; None where it sets no limit."""
    for names, separator in ((("cpu.max",), " "), (("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"), " ")):
        try:
            quota, period = separator.join((_CGROUP / name).read_text().strip() for name in names).split()
        except (OSError, ValueError):
            continue
        return -(-int(quota) // int(period)) if quota not in ("max", "-1") and int(period) > 0 else None
    return None


def busy_elsewhere() -> int:
    """Return how many threads of other processes are computing at this moment; 0 where the system does not say."""
    try:
        running = int((_PROC / "loadavg").read_text().split()[3].partition("/")[0])
        if running > 1:
            running -= sum(_is_running(task) for task in (_PROC / "self" / "task").iterdir())
        else:
            running -= 1
    except (OSError, ValueError, IndexError):
        return 0
    return max(0, running)


def _is_running(task: Path) -> bool:
    try:
        return (task / "stat").read_text().rpartition(")")[2].split()[0] == "R"
    except OSError:  # it has ended
        return False
