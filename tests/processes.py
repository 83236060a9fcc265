"""Functions run in other processes, alone or several at once, which start fast because a fork server has imported all.

Knows how processes are started and how they end; must not know what they do.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Processes:
    """Runs functions of test modules elsewhere.

    Args:
        *preload: Modules to import once, before the first process starts.
    """

    def __init__(self, *preload: str) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(preload))

    def run(self, work: Callable[..., None], *arguments: Any, exitcode: int = 0) -> str:
        """Run a function in a process of its own, which must end in the way expected; return what it printed."""
        [said] = self._run(work, [arguments], exitcode)
        return said

    def run_at_once(self, work: Callable[..., None], arguments: list[tuple[Any, ...]]) -> None:
        """Run a function in as many processes as there are arguments; they begin together, and all must succeed."""
        self._run(work, arguments, 0)

    def _run(self, work: Callable[..., None], arguments: list[tuple[Any, ...]], exitcode: int) -> list[str]:
        together = self._context.Barrier(len(arguments))
        with tempfile.TemporaryDirectory() as folder:
            outputs = [Path(folder, str(number)) for number in range(len(arguments))]
            started = []
            for output, each in zip(outputs, arguments, strict=True):
                output.touch()
                started.append(self._context.Process(target=_begin, args=(together, output, work, *each)))
            for process in started:
                process.start()
            for process in started:
                process.join()
            said = [output.read_text(errors="replace") for output in outputs]
        assert [process.exitcode for process in started] == [exitcode] * len(started), "\n".join(said)
        return said


def _begin(together: Any, output: Path, work: Callable[..., None], *arguments: Any) -> None:
    import torch

    with output.open("wb") as file:
        for stream in (1, 2):  # whoever writes there
            os.dup2(file.fileno(), stream)
    torch.set_num_threads(1)
    together.wait()
    work(*arguments)
