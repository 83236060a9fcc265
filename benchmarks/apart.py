"""Each contender in a process of its own, as a user has it: no threads or memory of another's beside it.

Knows processes and pipes; must not know what a contender does or which workloads there are.
"""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.connection import Connection
from typing import Any

from .checkpoints import Shape
from .contenders import Contender, contenders
from .machine import synchronize

__all__ = ["Apart"]


class Apart:
    """A contender that is set up in a fresh process and stays there.

    OpenMP puts all of a process's threads to sleep between operations once there are more of them than processors,
    whichever contender they belong to: side by side in one process, all would be slower than any user finds them.

    Args:
        name: The contender's.
        shape: The model's.
        device: Where it runs.
        processor_time: Count processor time in place of time that passes.
    """

    def __init__(self, name: str, shape: Shape, *, device: str, processor_time: bool = False) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        given = (theirs, name, shape, device, processor_time)
        self._process = context.Process(target=_serve, args=given, daemon=True)
        self._process.start()
        theirs.close()

    def wait(self) -> None:
        """Wait until it is set up.

        Raises:
            RuntimeError: It cannot run; says why.
        """
        self._answer()

    def seconds(self, kind: str, calls: list[list[str]]) -> float:
        """Return how long the contender takes for some calls of one kind, measured over there.

        Raises:
            RuntimeError: It failed; says why.
        """
        self._pipe.send((kind, calls))
        found: float = self._answer()
        return found

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join()

    def _answer(self) -> Any:
        try:
            answer = self._pipe.recv()
        except EOFError:
            self._process.join()
            raise RuntimeError(f"its process ended with exit code {self._process.exitcode}") from None
        if isinstance(answer, str):
            raise RuntimeError(answer)
        return answer


def _serve(pipe: Connection, name: str, shape: Shape, device: str, processor_time: bool) -> None:
    ready, missing = contenders(shape, [name], device=device)
    if name not in ready:
        return pipe.send(missing.get(name, "no such contender"))
    pipe.send(0.0)
    contender: Contender = ready[name]
    clock = time.process_time if processor_time else time.perf_counter
    while True:
        try:
            kind, calls = pipe.recv()
        except EOFError:
            return None
        method = getattr(contender, kind)
        try:
            started = clock()
            for given in calls:
                method(given)
            synchronize(device)
            pipe.send(clock() - started)
        except RuntimeError as error:  # out of memory, most likely
            pipe.send(f"{type(error).__name__}: {str(error).splitlines()[0]}")
