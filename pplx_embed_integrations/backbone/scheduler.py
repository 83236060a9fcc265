"""The scheduler of a model: batches of every call in turn, small ones together.

Knows fairness, gathering, cancellation and what to do when memory or a worker is lost; must not know what computes.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from itertools import chain

import torch

from ..errors import EncodingError
from ..threads import in_thread, start_thread
from .backends.base import Pooled, WorkerLostError
from .devices import release_memory
from .sequences import TokenSequence, plan_batches

__all__ = ["Receive", "Run", "Scheduler"]

logger = logging.getLogger(__name__)

Run = Callable[[list[TokenSequence]], Pooled]
"""Runs a batch and returns a row for each span of each sequence, in order."""
Receive = Callable[[list[TokenSequence], Pooled], None]
"""Takes what `Run` gave for some of a call's sequences; with several batches at a time, from several threads."""
Slices = Iterable[list[TokenSequence]]
"""A call's sequences as they become ready: the first are computed while the last are still being made."""

_AHEAD = 2
"""Slices of a call that wait to be cut into batches, at most; with one, a call of a single slice would
have to wait for room before it learnt that no other is to come."""
_ATTEMPTS = 3
"""How many workers may be lost over the batch of one call before the call fails."""


class _Job:
    """One call: what is left to do of it, and what is being done. Touched under the scheduler's lock alone."""

    def __init__(self, receive: Receive) -> None:
        self.receive = receive
        self.future: Future[None] = Future()
        self.complete = False
        self.running = 0
        self._fresh: list[TokenSequence] = []
        self._batches: deque[list[TokenSequence]] = deque()
        self._budget = 0
        self._slices = 0
        self._hungry: Future[None] | None = None

    def add(self, sequences: list[TokenSequence]) -> None:
        """Take sequences in; what has come in is cut into batches together when the ones before are used up."""
        self._fresh += sequences
        self._slices += 1

    def room(self) -> Future[None]:
        """Return what is done when more sequences are wanted: few wait to be cut into batches, or all is over.

        So no more than a few slices are held at a time, and the next is made while others are computed.
        """
        room = self._hungry = Future[None]()
        self.call_for_more()
        return room

    def call_for_more(self) -> None:
        """Tell the one who waits for room, if there is some."""
        if self._hungry is not None and (self._slices < _AHEAD or self.future.done()):
            hungry, self._hungry = self._hungry, None
            with suppress(InvalidStateError):  # its task was cancelled
                hungry.set_result(None)

    def next_size(self, budget: int) -> int:
        """Return the tokens of the next batch, 0 where there is none, planned for this budget."""
        if budget != self._budget:
            self._fresh = [*chain.from_iterable(self._batches), *self._fresh]
            self._batches.clear()
            self._budget = budget
        if not self._batches and self._fresh:
            plan = plan_batches([len(sequence) for sequence in self._fresh], budget=budget)
            self._batches.extend([self._fresh[index] for index in batch] for batch in plan)
            self._fresh = []
            self._slices = 0
            self.call_for_more()
        return sum(map(len, self._batches[0])) if self._batches else 0

    def take(self) -> list[TokenSequence]:
        self.running += 1
        return self._batches.popleft()

    def settle(self) -> None:
        """Finish if nothing is left to come, to do or to wait for."""
        if self.complete and not (self._fresh or self._batches or self.running):
            self.finish()

    def finish(self, error: BaseException | None = None) -> None:
        try:
            if error is None:
                self.future.set_result(None)
            else:
                self.future.set_exception(error)
        except InvalidStateError:
            pass  # its caller has cancelled it meanwhile, or it has failed already


_Parts = list[tuple[_Job, list[TokenSequence]]]


class Scheduler:
    """Runs the batches of concurrent calls in threads of its own, as many at a time as there are devices.

    While batches run, calls queue up; the next batch takes the next piece of each call in turn as far as the token
    budget allows. So concurrent queries share a forward pass, a lone query waits for nothing, and a query behind a
    corpus job waits for one batch, not for the job.

    A thread of its own keeps a Ctrl-C, which reaches the main thread only, out of the middle of a batch, and a
    caller's autocast or default device out of the model. It ends when there is nothing to do, and OpenMP's threads
    with it: as soon as there are more of those than processors, busy or not, GNU's OpenMP has all of them sleep
    between any two operations, and a batch takes an eighth longer.

    Args:
        run: Computes a batch; `parallel` threads call it.
        budget: Most tokens in a batch; a longer sequence goes alone.
        parallel: Batches at a time.
    """

    def __init__(self, run: Run, *, budget: int, parallel: int = 1) -> None:
        self.budget = budget
        self.parallel = parallel
        self._run = run
        self._jobs: deque[_Job] = deque()
        self._lock = threading.Lock()
        self._driving = 0

    def run(self, slices: Slices, receive: Receive) -> None:
        """Run a call's sequences and hand each batch's rows to `receive`; returns when all have been received.

        The slices are drawn in the calling thread while others compute; what they raise ends the call.

        Raises:
            EncodingError: Memory ran out with a single sequence in the batch, or worker after worker was lost.
        """
        job = self._open(receive)
        try:
            feed = iter(slices)
            while self._feed(job, feed):
                self._room(job).result()
            job.future.result()
        finally:
            self._drop(job)

    async def arun(self, slices: Slices, receive: Receive) -> None:
        """Like `run`, without blocking the event loop; cancelling the task leaves other calls alone.

        A thread is needed for as long as a slice is drawn, and none to wait for the next.
        """
        job = self._open(receive)
        try:
            feed = iter(slices)
            while await in_thread(self._feed, job, feed):
                await asyncio.wrap_future(self._room(job))
            await asyncio.wrap_future(job.future)
        finally:
            self._drop(job)

    def _open(self, receive: Receive) -> _Job:
        job = _Job(receive)
        with self._lock:
            self._jobs.append(job)
        return job

    def _room(self, job: _Job) -> Future[None]:
        with self._lock:
            return job.room()

    def _feed(self, job: _Job, slices: Iterator[list[TokenSequence]]) -> bool:
        """Draw the next slice; return whether there may be another."""
        sequences = None if job.future.done() else next(slices, None)  # done: it failed, or was cancelled
        with self._lock:
            if sequences is None:
                job.complete = True
                job.settle()
                return False
            job.add(sequences)
            idle = self.parallel - self._driving
            self._driving += idle
        for _ in range(idle):
            start_thread(self._drive)
        return True

    def _drop(self, job: _Job) -> None:
        job.future.cancel()  # after an error or an interrupt nobody needs the rest
        with self._lock:
            job.call_for_more()
            if job in self._jobs:
                self._jobs.remove(job)

    def _drive(self) -> None:
        while parts := self._next_parts():
            try:
                self._run_parts(parts)
            except BaseException as error:  # noqa: BLE001  (whatever it is, nobody must wait for ever)
                for job, _ in parts:
                    job.finish(error)

    def _next_parts(self) -> _Parts:
        """Take the next batch, in which calls come in the order of their turn; when there is nothing to do, rest."""
        with self._lock:
            for job in self._jobs:
                if job.future.done():
                    job.call_for_more()
            jobs = [job for job in self._jobs if not job.future.done()]
            self._jobs = deque(jobs)
            self._jobs.rotate(-1)
            parts: _Parts = []
            room = self.budget
            for job in jobs:
                size = job.next_size(self.budget)
                if size and (not parts or size <= room):
                    parts.append((job, job.take()))
                    room -= size
            if not parts:
                self._driving -= 1
            return parts

    def _run_parts(self, parts: _Parts, attempts: int = _ATTEMPTS) -> None:
        parts = [(job, batch) for job, batch in parts if not job.future.done()]
        if not parts:
            return
        try:
            pooled = self._run([sequence for _, batch in parts for sequence in batch])
        except Exception as error:  # noqa: BLE001  (it is handed to the call it belongs to)
            if _is_out_of_memory(error):
                self._shrink(parts, error)
            elif len(parts) > 1:  # one call's failure is no other's
                for part in parts:
                    self._run_parts([part])
            elif isinstance(error, WorkerLostError) and attempts > 1:
                self._run_parts(parts, attempts - 1)
            else:
                parts[0][0].finish(error)
            return
        start = 0
        for job, batch in parts:
            rows = sum(len(sequence.spans) for sequence in batch)
            self._hand_over(job, batch, pooled[start : start + rows])
            start += rows

    def _hand_over(self, job: _Job, batch: list[TokenSequence], pooled: Pooled) -> None:
        if not job.future.done():
            try:
                job.receive(batch, pooled)
            except Exception as error:  # noqa: BLE001  (it is handed to the call it belongs to)
                job.finish(error)
        with self._lock:
            job.running -= 1
            job.settle()

    def _shrink(self, parts: _Parts, error: Exception) -> None:
        error.__traceback__ = None  # its frames hold the failed batch's arrays
        release_memory()
        sequences = [sequence for _, batch in parts for sequence in batch]
        if len(sequences) == 1:
            failure = EncodingError(
                f"the device ran out of memory with a single sequence of {len(sequences[0])} tokens; use a smaller "
                "max_tokens, or device='cpu'"
            )
            failure.__cause__ = error
            parts[0][0].finish(failure)
            return
        with self._lock:
            half = max(1, sum(map(len, sequences)) // 2)
            if half < self.budget:  # else another batch, planned before, has lowered it already
                self.budget = half
                logger.warning("the device ran out of memory; going on with %d tokens a batch", half)
            for job, batch in parts:
                job.add(batch)
                job.running -= 1


def _is_out_of_memory(error: Exception) -> bool:
    # MPS says it in a plain RuntimeError, and so does the CPU, in other words.
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError)
        and not isinstance(error, EncodingError)
        and any(words in str(error).lower() for words in ("out of memory", "can't allocate memory"))
    )
