"""One lane per model: every call's batches pass through it one at a time, small ones together.

Knows fairness, gathering, cancellation and what to do when memory runs out; must not know what a model computes.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch

from ..errors import EncodingError
from .packing import TokenSequence, plan_batches

__all__ = ["Lane", "Pooled", "Receive", "Run"]

logger = logging.getLogger(__name__)

Pooled = npt.NDArray[np.float32]
Run = Callable[[list[TokenSequence]], Pooled]
"""Runs a batch and returns a row for each span of each sequence, in order."""
Receive = Callable[[list[TokenSequence], Pooled], None]
"""Takes what `Run` gave for some of a call's sequences."""


class _Job:
    """What is left to do of one call; all but the future is touched by the lane's thread alone."""

    def __init__(self, sequences: list[TokenSequence], receive: Receive) -> None:
        self.receive = receive
        self.future: Future[None] = Future()
        self.batches: deque[list[TokenSequence]] = deque([sequences])
        self.budget = 0

    def plan(self, budget: int) -> None:
        """Cut what is left into batches, unless it already is, for this budget."""
        if budget != self.budget:
            left = [sequence for batch in self.batches for sequence in batch]
            batches = plan_batches([len(sequence) for sequence in left], budget=budget)
            self.batches = deque([left[index] for index in batch] for batch in batches)
            self.budget = budget

    def finish(self, error: BaseException | None = None) -> None:
        try:
            if error is None:
                self.future.set_result(None)
            else:
                self.future.set_exception(error)
        except InvalidStateError:
            pass  # its caller has cancelled it meanwhile, or it has failed already


_Parts = list[tuple[_Job, list[TokenSequence]]]


class Lane:
    """Runs the batches of concurrent calls, one batch at a time, in a thread of its own.

    While a batch runs, calls queue up; the next batch takes the next piece of each call in turn as far as the token
    budget allows. So concurrent queries share a forward pass, a lone query waits for nothing, and a query behind a
    corpus job waits for one batch, not for the job.

    The thread keeps a Ctrl-C, which reaches the main thread only, out of the middle of a batch, and a caller's
    autocast or default device out of the model; and the processor's threads are set up for one thread, not for each
    that ever called.

    Args:
        run: Computes a batch.
        budget: Most tokens in a batch; a longer sequence goes alone.
    """

    def __init__(self, run: Run, *, budget: int) -> None:
        self.budget = budget
        self._run = run
        self._jobs: deque[_Job] = deque()
        self._lock = threading.Lock()
        self._busy = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pplx-embed")

    def run(self, sequences: list[TokenSequence], receive: Receive) -> None:
        """Run a call's sequences and hand each batch's rows to `receive`; returns when all have been received.

        Raises:
            EncodingError: Memory ran out with a single sequence in the batch.
        """
        job = self._submit(sequences, receive)
        try:
            job.future.result()
        finally:
            job.future.cancel()  # after a KeyboardInterrupt nobody needs the rest

    async def arun(self, sequences: list[TokenSequence], receive: Receive) -> None:
        """Like `run`, without blocking the event loop; cancelling the task leaves other calls alone."""
        await asyncio.wrap_future(self._submit(sequences, receive).future)

    def _submit(self, sequences: list[TokenSequence], receive: Receive) -> _Job:
        job = _Job(sequences, receive)
        if not sequences:
            job.finish()
            return job
        with self._lock:
            self._jobs.append(job)
            if not self._busy:
                self._thread.submit(self._drive)
                self._busy = True
        return job

    def _drive(self) -> None:
        while jobs := self._waiting():
            parts = self._next_parts(jobs)
            try:
                self._run_parts(parts)
            except BaseException as error:  # noqa: BLE001  (whatever it is, nobody must wait for ever)
                for job, _ in parts:
                    job.finish(error)

    def _waiting(self) -> list[_Job]:
        """Return the calls in the order of their turn, which moves on by one; when there are none, rest."""
        with self._lock:
            self._jobs = deque(job for job in self._jobs if not job.future.done())
            jobs = list(self._jobs)
            self._jobs.rotate(-1)
            self._busy = bool(jobs)
        return jobs

    def _next_parts(self, jobs: list[_Job]) -> _Parts:
        parts: _Parts = []
        room = self.budget
        for job in jobs:
            job.plan(self.budget)
            size = sum(map(len, job.batches[0]))
            if not parts or size <= room:
                parts.append((job, job.batches.popleft()))
                room -= size
        return parts

    def _run_parts(self, parts: _Parts) -> None:
        try:
            pooled = self._run([sequence for _, batch in parts for sequence in batch])
        except Exception as error:  # noqa: BLE001  (it is handed to the call it belongs to)
            if _is_out_of_memory(error):
                self._shrink(parts, error)
            elif len(parts) > 1:  # one call's failure is no other's
                for part in parts:
                    self._run_parts([part])
            else:
                parts[0][0].finish(error)
            return
        start = 0
        for job, batch in parts:
            rows = sum(len(sequence.spans) for sequence in batch)
            try:
                job.receive(batch, pooled[start : start + rows])
            except Exception as error:  # noqa: BLE001  (it is handed to the call it belongs to)
                job.finish(error)
            start += rows
            if not job.batches:
                job.finish()

    def _shrink(self, parts: _Parts, error: Exception) -> None:
        torch.cuda.empty_cache()
        sequences = [sequence for _, batch in parts for sequence in batch]
        if len(sequences) == 1:
            failure = EncodingError(
                f"the device ran out of memory with a single sequence of {len(sequences[0])} tokens; use a smaller "
                "max_tokens, or device='cpu'"
            )
            failure.__cause__ = error
            parts[0][0].finish(failure)
            return
        self.budget = max(1, min(self.budget, sum(map(len, sequences))) // 2)
        logger.warning("the device ran out of memory; going on with %d tokens a batch", self.budget)
        for job, batch in parts:
            job.batches.appendleft(batch)  # to be planned anew


def _is_out_of_memory(error: Exception) -> bool:
    # MPS says it in a plain RuntimeError, and so does the CPU, in other words.
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError)
        and any(words in str(error).lower() for words in ("out of memory", "can't allocate memory"))
    )
