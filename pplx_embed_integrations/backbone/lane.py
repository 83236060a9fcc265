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

__all__ = ["Lane", "Receive", "Run"]

logger = logging.getLogger(__name__)

Pooled = npt.NDArray[np.float32]
Run = Callable[[list[TokenSequence]], Pooled]
"""Runs a batch and returns a row for each span of each sequence, in order."""
Receive = Callable[[list[TokenSequence], Pooled], None]
"""Takes what `Run` gave for some of a call's sequences."""


class _Job:
    """What is left to do of one call."""

    def __init__(self, sequences: list[TokenSequence], receive: Receive, budget: int) -> None:
        self.receive = receive
        self.future: Future[None] = Future()
        self.batches: deque[list[TokenSequence]] = deque()
        self.plan(sequences, budget)

    def plan(self, sequences: list[TokenSequence], budget: int) -> None:
        batches = plan_batches([len(sequence) for sequence in sequences], budget=budget)
        self.batches = deque([sequences[index] for index in batch] for batch in batches)

    def finish(self, error: BaseException | None = None) -> None:
        try:
            if error is None:
                self.future.set_result(None)
            else:
                self.future.set_exception(error)
        except InvalidStateError:
            pass  # its caller has cancelled it meanwhile


class Lane:
    """Runs the batches of concurrent calls, one batch at a time, in whichever caller's thread is free to.

    While a batch runs, calls queue up; the next batch takes the next piece of each call in turn as far as the token
    budget allows. So concurrent queries share a forward pass, a lone query waits for nothing, and a query behind a
    corpus job waits for one batch, not for the job.

    Args:
        run: Computes a batch.
        budget: Most tokens in a batch; a longer sequence goes alone.
    """

    def __init__(self, run: Run, *, budget: int) -> None:
        self.budget = budget
        self._run = run
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._led = False
        self._thread: ThreadPoolExecutor | None = None

    def run(self, sequences: list[TokenSequence], receive: Receive) -> None:
        """Run a call's sequences and hand each batch's rows to `receive`; returns when all have been received.

        Raises:
            EncodingError: Memory ran out with a single sequence in the batch.
        """
        job = self._submit(sequences, receive)
        try:
            self._drive(job)
        except BaseException:
            job.future.cancel()  # a KeyboardInterrupt while waiting: nobody needs the rest
            raise
        job.future.result()

    async def arun(self, sequences: list[TokenSequence], receive: Receive) -> None:
        """Like `run`, without blocking the event loop; cancelling the task leaves other calls alone."""
        job = self._submit(sequences, receive)
        with self._changed:
            self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix="pplx-embed")
        self._thread.submit(self._drive, job)
        await asyncio.wrap_future(job.future)

    def _submit(self, sequences: list[TokenSequence], receive: Receive) -> _Job:
        job = _Job(sequences, receive, self.budget)
        with self._changed:
            self._jobs.append(job)
        return job

    def _drive(self, job: _Job) -> None:
        """Take the lead a batch at a time, whenever nobody else has it, until `job` is done."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: job.future.done() or not self._led)
                if job.future.done():
                    return
                self._led = True
                parts = self._next_parts()
            try:
                self._run_parts(parts)
            except BaseException:
                # Ours to raise (KeyboardInterrupt): give back what belongs to others.
                with self._changed:
                    for other, batch in parts:
                        other.batches.appendleft(batch)
                raise
            finally:
                with self._changed:
                    self._led = False
                    self._changed.notify_all()

    def _next_parts(self) -> list[tuple[_Job, list[TokenSequence]]]:
        parts: list[tuple[_Job, list[TokenSequence]]] = []
        room = self.budget
        for job in list(self._jobs):
            if job.future.done():
                self._jobs.remove(job)
                continue
            size = sum(map(len, job.batches[0])) if job.batches else 0
            if size and (not parts or size <= room):
                parts.append((job, job.batches.popleft()))
                room -= size
        self._jobs.rotate(-1)
        return parts

    def _run_parts(self, parts: list[tuple[_Job, list[TokenSequence]]]) -> None:
        try:
            pooled = self._run([sequence for _, batch in parts for sequence in batch])
        except Exception as error:  # noqa: BLE001  (it is handed to the call it belongs to)
            if _is_out_of_memory(error):
                self._shrink(parts, error)
            elif len(parts) > 1:  # one call's failure is no other's
                for part in parts:
                    self._run_parts([part])
            else:
                self._end(parts[0][0], error)
            return
        start = 0
        for job, batch in parts:
            rows = sum(len(sequence.spans) for sequence in batch)
            try:
                job.receive(batch, pooled[start : start + rows])
            except Exception as error:  # noqa: BLE001  (it is handed to the call it belongs to)
                self._end(job, error)
            start += rows
            if not job.batches:
                self._end(job)

    def _end(self, job: _Job, error: BaseException | None = None) -> None:
        with self._changed:
            if job in self._jobs:
                self._jobs.remove(job)
        job.finish(error)

    def _shrink(self, parts: list[tuple[_Job, list[TokenSequence]]], error: Exception) -> None:
        torch.cuda.empty_cache()
        sequences = [sequence for _, batch in parts for sequence in batch]
        if len(sequences) == 1 and len(parts) == 1:
            failure = EncodingError(
                f"the device ran out of memory with a single sequence of {len(sequences[0])} tokens; use a smaller "
                "max_tokens, or device='cpu'"
            )
            failure.__cause__ = error
            self._end(parts[0][0], failure)
            return
        self.budget = max(1, min(self.budget, sum(map(len, sequences))) // 2)
        logger.warning("the device ran out of memory; going on with %d tokens a batch", self.budget)
        for job, batch in parts:
            job.plan([*batch, *(sequence for rest in job.batches for sequence in rest)], self.budget)


def _is_out_of_memory(error: Exception) -> bool:
    # MPS says it in a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "out of memory" in str(error).lower()
    )
