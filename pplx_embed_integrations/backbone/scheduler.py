"""The scheduler of a model: batches of every call in turn, small ones together.

Knows fairness, gathering, cancellation and what to do when memory or a worker is lost; must not know what computes.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from itertools import chain
from typing import NamedTuple

from ..errors import EncodingError
from ..flow import in_thread, start_thread
from .backends.base import Pooled, WorkerLostError
from .devices import is_out_of_memory, release_memory
from .sequences import TokenSequence, plan_batches

logger = logging.getLogger(__name__)

Run = Callable[[list[TokenSequence]], Pooled]
"""Runs a batch and returns a row for each span of each sequence, in order."""
Receive = Callable[[list[TokenSequence], Pooled], None]
"""Takes what `Run` gave for some of a call's sequences; with several batches at a time, from several threads."""
Slices = Iterable[list[TokenSequence]]
"""A call's sequences as they become ready: the first are computed while the last are still being made."""


class Batches(NamedTuple):
    """What has been run so far.

    Attributes:
        passes: Forward passes.
        sequences: Sequences in them.
        tokens: Tokens in them.
    """

    passes: int = 0
    sequences: int = 0
    tokens: int = 0


_AHEAD = 2
"""Slices of a call that wait to be cut into batches, at most."""
_ATTEMPTS = 3
"""How many workers may be lost over the batch of one call before the call fails."""


class _Job:
    """One call: what is left to do of it, and what is being done. Touched under the scheduler's lock alone."""

    def __init__(self, receive: Receive) -> None:
        self.receive = receive
        self.future: Future[None] = Future()
        self.complete = False
        self.running = 0
        self.slices = 0
        self.room: Future[None] | None = None
        self.fresh: list[TokenSequence] = []
        self._batches: deque[list[TokenSequence]] = deque()
        self._budget = 0

    def take(self, room: float, budget: int) -> list[TokenSequence]:
        """Take the next batch, planned for this budget, if it has at most so many tokens; else nothing."""
        if budget != self._budget:
            self.fresh = [*chain.from_iterable(self._batches), *self.fresh]
            self._batches.clear()
            self._budget = budget
        if not self._batches and self.fresh:
            fresh, self.fresh, self.slices = self.fresh, [], 0
            plan = plan_batches([len(each.ids) for each in fresh], budget=budget) if len(fresh) > 1 else [[0]]
            self._batches.extend([fresh[index] for index in batch] for batch in plan)
            if self.room is not None:
                self.call_for_more()
        if not self._batches or sum(len(each.ids) for each in self._batches[0]) > room:
            return []
        self.running += 1
        return self._batches.popleft()

    def call_for_more(self) -> None:
        """Tell the one who waits to add a slice, if somebody does."""
        room, self.room = self.room, None
        if room is not None:
            with suppress(InvalidStateError):  # its task was cancelled
                room.set_result(None)

    def settle(self, error: BaseException | None = None) -> None:
        """Finish, after an error or if nothing is left to come, to do or to wait for."""
        with suppress(InvalidStateError):  # its caller has cancelled it meanwhile, or it has failed already
            if error is not None:
                self.future.set_exception(error)
            elif self.complete and not (self.fresh or self._batches or self.running):
                self.future.set_result(None)


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

    Attributes:
        batches: What has been run so far.
    """

    def __init__(self, run: Run, *, budget: int, parallel: int = 1) -> None:
        self.budget = budget
        self.parallel = parallel
        self.batches = Batches()
        self._run = run
        self._jobs: deque[_Job] = deque()
        self._lock = threading.Lock()
        self._driving = 0
        self._process = os.getpid()

    def check_process(self) -> None:
        """Refuse to compute in a process that was forked from the one in which the model was loaded.

        The threads of torch, and these, do not run there, and it would hang.

        Raises:
            EncodingError: This is such a process.
        """
        if self._process != os.getpid():
            raise EncodingError(
                "this process was forked from one that had loaded the model, whose threads are not here; start "
                'processes with multiprocessing.get_context("spawn"), or load the model after the fork'
            )

    def run(self, slices: Slices, receive: Receive) -> None:
        """Run a call's sequences and hand each batch's rows to `receive`; returns when all have been received.

        The slices are drawn in the calling thread while others compute; what they raise ends the call.

        Raises:
            EncodingError: Memory ran out with a single sequence in the batch, worker after worker was lost, or the
                process is a fork of the one that loaded the model.
        """
        self.check_process()
        job = _Job(receive)
        try:
            for step in self._feed(job, iter(slices)):
                step.result()
        finally:
            self._drop(job)

    async def arun(self, slices: Slices, receive: Receive) -> None:
        """Like `run`, without blocking the event loop; cancelling the task leaves other calls alone.

        A thread is needed for as long as a slice is drawn, and none to wait for the next.
        """
        self.check_process()
        job = _Job(receive)
        try:
            steps = self._feed(job, iter(slices))
            over = False
            while not over:
                step = await in_thread(next, steps)
                await asyncio.wrap_future(step)
                over = step is job.future
        finally:
            self._drop(job)

    def _feed(self, job: _Job, slices: Iterator[list[TokenSequence]]) -> Iterator[Future[None]]:
        """Draw slices; yield what is to be waited for before going on: room for more of them, and at last the end.

        So no more than a few slices are held at a time, and the next is made while others are computed.
        """
        with self._lock:
            if not job.future.done():  # its task was cancelled before this thread came to it
                self._jobs.append(job)
        while not job.future.done() and (sequences := next(slices, None)) is not None:  # done: failed, or cancelled
            with self._lock:
                job.fresh += sequences
                job.slices += 1
                room: Future[None] | None = None
                if job.slices >= _AHEAD and not job.future.done():
                    room = job.room = Future()
                idle, self._driving = self.parallel - self._driving, self.parallel
            for _ in range(idle):
                start_thread(self._drive)
            if room is not None:
                yield room
        with self._lock:
            job.complete = True
            job.settle()
        yield job.future

    def _drop(self, job: _Job) -> None:
        job.future.cancel()  # after an error or an interrupt nobody needs the rest
        with self._lock:
            if job in self._jobs:
                self._jobs.remove(job)

    def _drive(self) -> None:
        """Run batches until there is nothing to do."""
        while parts := self._next_parts():
            try:
                self._run_parts(parts)
            except BaseException as error:  # noqa: BLE001  (whatever it is, nobody must wait for ever)
                for job, _ in parts:
                    job.settle(error)

    def _next_parts(self) -> _Parts:
        """Take the next batch, in which calls come in the order of their turn; when there is nothing to do, rest."""
        parts: _Parts = []
        room = self.budget
        with self._lock:
            for job in list(self._jobs):
                if job.future.done():
                    self._jobs.remove(job)
                    job.call_for_more()
                elif batch := job.take(room if parts else math.inf, self.budget):
                    parts.append((job, batch))
                    room -= sum(len(each.ids) for each in batch)
            self._jobs.rotate(-1)
            if not parts:
                self._driving -= 1
        return parts

    def _run_parts(self, parts: _Parts, attempts: int = _ATTEMPTS) -> None:
        """Compute a batch and hand each call what is its own."""
        parts = [(job, batch) for job, batch in parts if not job.future.done()]
        if not parts:
            return
        sequences = [sequence for _, batch in parts for sequence in batch]
        try:
            pooled = self._run(sequences)
        except Exception as error:  # noqa: BLE001  (it is handed to the call it belongs to)
            self._recover(parts, error, attempts)
            return
        with self._lock:
            passes, count, tokens = self.batches
            tokens += sum(len(each.ids) for each in sequences)
            self.batches = Batches(passes + 1, count + len(sequences), tokens)
        for job, batch in parts:
            count = sum(len(sequence.spans) for sequence in batch)
            own, pooled, failure = pooled[:count], pooled[count:], None
            try:
                if not job.future.done():
                    job.receive(batch, own)
            except Exception as error:  # noqa: BLE001  (it is handed to the call it belongs to)
                failure = error
            with self._lock:
                job.running -= 1
                job.settle(failure)

    def _recover(self, parts: _Parts, error: Exception, attempts: int) -> None:
        """Go on after an error: with less at a time, with each call by itself, or once more; else it is the call's."""
        if is_out_of_memory(error):
            self._shrink(parts, error)
        elif len(parts) > 1:  # one call's failure is no other's
            for part in parts:
                self._run_parts([part])
        elif isinstance(error, WorkerLostError) and attempts > 1:
            self._run_parts(parts, attempts - 1)
        else:
            parts[0][0].settle(error)

    def _shrink(self, parts: _Parts, error: Exception) -> None:
        error.__traceback__ = None  # its frames hold the failed batch's arrays
        release_memory()
        sequences = [sequence for _, batch in parts for sequence in batch]
        if len(sequences) == 1:
            failure = EncodingError(
                f"the device ran out of memory with a single sequence of {len(sequences[0].ids)} tokens; use a smaller "
                "max_tokens, or device='cpu'"
            )
            failure.__cause__ = error
            parts[0][0].settle(failure)
            return
        with self._lock:
            half = max(1, sum(len(each.ids) for each in sequences) // 2)
            if half < self.budget:  # else another batch, planned before, has lowered it already
                self.budget = half
                logger.warning("the device ran out of memory; going on with %d tokens a batch", half)
            for job, batch in parts:
                job.fresh += batch
                job.running -= 1
