"""Worker processes, each with the model on a device of its own, that compute the batches of one scheduler.

Knows how workers are started, watched, replaced and ended; must not know texts, calls or what a model computes.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch

from ...errors import EncodingError, InputError, PplxEmbedError
from ..sequences import TokenSequence
from .base import Backend, Loading, Pooled, WorkerLostError
from .worker import BROKEN, Order, Process, Ready, receive, send

logger = logging.getLogger(__name__)

_DEATHS = 3
"""Deaths in a row after which a worker is replaced no more."""


class WorkerPool(Backend):
    """Worker processes that make up a backend, each computing a batch at a time.

    They hold the weights for as long as the pool lives. One that dies is replaced, and what it was computing is for
    the scheduler to try again; one that dies again and again is given up while there are others.

    Args:
        loading: What each of them loads.
        devices: Where, a worker each. This process's number of torch threads is divided among them.

    Raises:
        CheckpointError: The files are damaged or incomplete.
        EncodingError: No worker lives long enough to load the model.
        InputError: The machine has no such device.
    """

    def __init__(self, loading: Loading, devices: Sequence[str]) -> None:
        threads = max(1, torch.get_num_threads() // len(devices))
        workers = [_Worker(Order(loading, device, threads)) for device in devices]
        self._workers = workers
        self._serving = set(workers)
        self._idle = deque(workers)
        self._changed = threading.Condition()
        self._end = ""
        self.parallel = len(workers)
        self._stop = weakref.finalize(self, _end_workers, workers, os.getpid())
        try:
            for worker in workers:
                worker.launch()  # all of them, so that they load side by side
            ready = [worker.load() for worker in workers if self._bring_up(worker)]
        except BaseException:  # a Ctrl-C, too
            self.close()
            raise
        self.width = ready[0].width
        self.batch_tokens = min(each.batch_tokens for each in ready)

    def run(self, sequences: list[TokenSequence]) -> Pooled:
        """Have the next free worker compute a batch; several threads may.

        Raises:
            EncodingError: The pool is closed, or no worker can be started any more.
            WorkerLostError: The worker died of it, or in the middle of it.
        """
        while True:
            with self._borrowed() as worker:
                if not self._bring_up(worker):
                    continue
                try:
                    pooled = worker.compute(sequences)
                except WorkerLostError:
                    self._count_death(worker)
                    raise
                worker.deaths = 0
                return pooled

    def check_trainable(self) -> None:
        """Refuse: the weights are not here.

        Raises:
            InputError: Always.
        """
        raise InputError("with devices= the weights are in other processes; use device= to have them in this one")

    def interrupt(self) -> None:
        """End what the workers are computing; they start anew when there is something to do."""
        for worker in self._workers:
            worker.stop()

    def close(self, reason: str = "the encoder was closed before this call was done; call it again") -> None:
        """End the workers for good; calls that wait for them fail."""
        with self._changed:
            self._end = self._end or reason
            self.closed = True
            self._changed.notify_all()
        self._stop()

    @contextmanager
    def _borrowed(self) -> Iterator[_Worker]:
        """Wait for a worker that is free; after the block it is free again, or has been given up."""
        with self._changed:
            self._changed.wait_for(lambda: self._idle or self._end)
            if self._end:
                raise EncodingError(self._end)
            worker = self._idle.popleft()
        try:
            yield worker
        finally:
            with self._changed:
                if worker in self._serving:
                    self._idle.append(worker)
                    self._changed.notify()

    def _bring_up(self, worker: _Worker) -> bool:
        """Have a worker load its model, in one process after the other; return False once it is given up."""
        while worker in self._serving:
            try:
                worker.load()
                return True
            except WorkerLostError as error:
                if worker.stopped:
                    raise
                self._count_death(worker)
                if worker in self._serving and worker.deaths >= _DEATHS:  # the last there is
                    self.close(str(error))
                    raise EncodingError(str(error)) from error
        return False

    def _count_death(self, worker: _Worker) -> None:
        with self._changed:
            worker.deaths += not worker.stopped
            if worker.deaths >= _DEATHS and len(self._serving) > 1:
                self._serving.discard(worker)
                logger.warning("the worker on %s died %d times in a row; going on without it", worker.device, _DEATHS)


class _Worker:
    """One process after the other, and the pipes to it; used by a thread at a time, stopped by any."""

    def __init__(self, order: Order) -> None:
        self.device = order.device
        self.deaths = 0
        self.stopped = False
        self._order = order
        self._over = False
        self._ready: Ready | None = None
        self._process: Process | None = None
        self._lock = threading.Lock()

    def launch(self) -> None:
        """Start a process without waiting for it."""
        with self._lock:
            if self._over:
                return
            self.stopped = False
            try:
                self._process = Process()
            except OSError as error:
                raise EncodingError(
                    f"no worker process can be started ({error}); use device= in place of devices="
                ) from error
        with suppress(WorkerLostError), self._running() as process:  # its end is met again when it should be ready
            send(process.messages, self._order)

    def load(self) -> Ready:
        """Wait until a process has its model loaded; start one if there is none.

        Raises:
            WorkerLostError: It died, now or since it was last used.
        """
        if self._process is not None and self._process.poll() is not None:
            lost = self._lost()
            if not self.stopped:
                raise lost
        if self._process is None:
            self.launch()
        if self._ready is None:
            try:
                self._ready = self._hear()
            except PplxEmbedError:  # it has said why it cannot, and ends
                process, self._process = self._process, None
                if process is not None:
                    process.reap()
                raise
        return self._ready

    def compute(self, sequences: list[TokenSequence]) -> Pooled:
        """Return the rows of a batch.

        Raises:
            WorkerLostError: The process died.
        """
        with self._running() as process:
            send(process.messages, sequences)
        pooled: Pooled = self._hear()
        return pooled

    def stop(self, *, over: bool = False) -> None:
        """Kill the process; with `over` there will be no other."""
        with self._lock:
            self.stopped = True
            self._over = self._over or over
            process = self._process  # the thread that uses it may drop it meanwhile
            if process is not None:
                process.kill()
                process.reap()

    @contextmanager
    def _running(self) -> Iterator[Process]:
        """Speak to the process; should it turn out to be gone, that is the error."""
        try:
            if self._process is None:
                raise EOFError
            yield self._process
        except BROKEN as error:
            raise self._lost() from error

    def _hear(self) -> Any:
        with self._running() as process:
            answer = receive(process.answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _lost(self) -> WorkerLostError:
        """Clean up after a process that is gone, and say what became of it."""
        doing = "computing a batch" if self._ready else "loading the model"
        process, self._process, self._ready = self._process, None, None
        if process is None or self.stopped:
            return WorkerLostError(f"the worker on {self.device} was ended while {doing}")
        code = process.reap()
        logger.warning("the worker on %s died with exit code %s while %s", self.device, code, doing)
        return WorkerLostError(
            f"the worker on {self.device} died with exit code {code} while {doing}, and so did those that replaced it; "
            "if the memory is too small use fewer devices, or a smaller batch_tokens or max_tokens; "
            f"device={self.device!r} in place of devices= computes in this process and may show the cause"
            + (f". It said:\n{said}" if (said := process.said()) else "")
        )


def _end_workers(workers: list[_Worker], owner: int) -> None:
    if os.getpid() == owner:  # a process forked from it has no say over them
        for worker in workers:
            worker.stop(over=True)
