"""Functions run in other processes, alone or several at once, which start fast because a fork server has imported all.

Knows how processes are started and how they end; must not know what they do.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any


class Processes:
    """Runs functions of test modules elsewhere.

    Args:
        *preload: Modules to import once, before the first process starts.
    """

    def __init__(self, *preload: str) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(preload))

    def run(self, work: Callable[..., None], *arguments: Any, exitcode: int = 0) -> None:
        """Run a function in a process of its own, which must end in the way expected."""
        self._run(work, [arguments], exitcode)

    def run_at_once(self, work: Callable[..., None], arguments: list[tuple[Any, ...]]) -> None:
        """Run a function in as many processes as there are arguments; they begin together, and all must succeed."""
        self._run(work, arguments, 0)

    def _run(self, work: Callable[..., None], arguments: list[tuple[Any, ...]], exitcode: int) -> None:
        together = self._context.Barrier(len(arguments))
        started = [self._context.Process(target=_begin, args=(together, work, *each)) for each in arguments]
        for process in started:
            process.start()
        for process in started:
            process.join()
        assert [process.exitcode for process in started] == [exitcode] * len(started)


def _begin(together: Any, work: Callable[..., None], *arguments: Any) -> None:
    import torch

    torch.set_num_threads(1)
    together.wait()
    work(*arguments)
