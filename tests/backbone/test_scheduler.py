"""The scheduler: gathering, fairness, faults and memory, with a function as the model and an event as the clock."""

import asyncio
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from pplx_embed_integrations.backbone.backends.base import Pooled, WorkerLostError
from pplx_embed_integrations.backbone.scheduler import Scheduler
from pplx_embed_integrations.backbone.sequences import TokenSequence
from pplx_embed_integrations.errors import EncodingError
from pplx_embed_integrations.flow import in_thread

Batch = list[TokenSequence]


def sequence(length: int, *, row: int, token: int = 1) -> TokenSequence:
    return TokenSequence(np.full(length, token, dtype=np.int32), ((0, length),), (row,))


def sequences(*lengths: int, token: int = 1) -> Batch:
    return [sequence(length, row=row, token=token) for row, length in enumerate(lengths)]


def rows_of(batch: Batch) -> Pooled:
    """A row for each span: the sequence's first token and its length."""
    return np.array([[s.ids[0], len(s.ids)] for s in batch for _ in s.spans], dtype=np.float32)


class Model:
    """Computes `rows_of`; remembers its batches; can be held, and made to fail."""

    def __init__(self, fail: Callable[[Batch], BaseException | None] = lambda batch: None) -> None:
        self.batches: list[list[tuple[int, int]]] = []
        self.fail = fail
        self.started, self.go = threading.Event(), threading.Event()
        self.go.set()

    def __call__(self, batch: Batch) -> Pooled:
        self.batches.append([(int(s.ids[0]), len(s.ids)) for s in batch])
        self.started.set()
        assert self.go.wait(30)
        if (error := self.fail(batch)) is not None:
            raise error
        return rows_of(batch)


class Call:
    """One call: its sequences, and what it has received."""

    def __init__(self, scheduler: Scheduler, *lengths: int, token: int = 1) -> None:
        self.scheduler = scheduler
        self.sequences = sequences(*lengths, token=token)
        self.got: dict[int, list[float]] = {}
        self.error: BaseException | None = None

    def receive(self, batch: Batch, pooled: Pooled) -> None:
        for sequence, row in zip(batch, pooled, strict=True):
            self.got[sequence.rows[0]] = row.tolist()

    def run(self) -> None:
        try:
            self.scheduler.run([self.sequences], self.receive)
        except BaseException as error:  # noqa: BLE001  (looked at by the test)
            self.error = error

    async def arun(self) -> None:
        await self.scheduler.arun([self.sequences], self.receive)

    def right(self) -> bool:
        return self.got == {s.rows[0]: [float(s.ids[0]), float(len(s.ids))] for s in self.sequences}


@contextmanager
def started(*calls: Call) -> Iterator[None]:
    threads = [threading.Thread(target=call.run, daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def queued(scheduler: Scheduler, count: int) -> None:
    """Wait until so many calls stand in line."""
    for _ in range(3000):
        if len(scheduler._jobs) >= count:
            return
        threading.Event().wait(0.01)
    raise AssertionError(f"{len(scheduler._jobs)} calls stand in line, not {count}")


def test_a_call_is_cut_into_batches_within_the_budget() -> None:
    model = Model()
    call = Call(Scheduler(model, budget=10), 3, 12, 4, 4, 5)
    call.run()
    assert call.right()
    assert model.batches == [[(1, 12)], [(1, 5), (1, 4)], [(1, 4), (1, 3)]]


def test_calls_that_wait_share_a_batch() -> None:
    model = Model()
    scheduler = Scheduler(model, budget=100)
    first, others = Call(scheduler, 5), [Call(scheduler, 5, token=token) for token in range(2, 12)]
    model.go.clear()
    with started(first):
        assert model.started.wait(30)
        with started(*others):
            queued(scheduler, 11)
            model.go.set()
    assert all(call.right() for call in [first, *others])
    assert len(model.batches) == 2


def test_a_query_waits_for_one_batch_and_not_for_the_corpus() -> None:
    model = Model()
    scheduler = Scheduler(model, budget=10)
    corpus, query = Call(scheduler, *[10] * 50), Call(scheduler, 4, token=2)
    model.go.clear()
    with started(corpus):
        assert model.started.wait(30)
        with started(query):
            queued(scheduler, 2)
            model.go.set()
    assert corpus.right()
    assert query.right()
    assert [(2, 4)] in model.batches[1:3]


def test_two_corpora_take_turns() -> None:
    model = Model()
    scheduler = Scheduler(model, budget=10)
    left, right = Call(scheduler, *[10] * 20), Call(scheduler, *[10] * 20, token=2)
    model.go.clear()
    with started(left):
        assert model.started.wait(30)
        with started(right):
            queued(scheduler, 2)
            model.go.set()
    tokens = [token for [(token, _)] in model.batches]
    assert left.right()
    assert right.right()
    assert abs(tokens[:20].count(1) - tokens[:20].count(2)) <= 2


def test_a_failing_call_fails_alone() -> None:
    model = Model(lambda batch: ValueError("bad text") if any(s.ids[0] == 7 for s in batch) else None)
    scheduler = Scheduler(model, budget=100)
    first, others = Call(scheduler, 5), [Call(scheduler, 5, 6, token=token) for token in range(2, 12)]
    model.go.clear()
    with started(first):
        assert model.started.wait(30)
        with started(*others):
            queued(scheduler, 11)
            model.go.set()
    for call in [first, *others]:
        if call.sequences[0].ids[0] == 7:
            assert isinstance(call.error, ValueError)
            assert str(call.error) == "bad text"
        else:
            assert call.error is None
            assert call.right()
    assert not scheduler._jobs


def test_a_call_that_cannot_receive_fails_alone() -> None:
    model = Model()
    scheduler = Scheduler(model, budget=100)
    first, bad, good = Call(scheduler, 5), Call(scheduler, 5, token=2), Call(scheduler, 5, token=3)

    def refuse(batch: Batch, pooled: Pooled) -> None:
        raise EncodingError("not finite")

    bad.receive = refuse  # type: ignore[method-assign]
    model.go.clear()
    with started(first):
        assert model.started.wait(30)
        with started(bad, good):
            queued(scheduler, 3)
            model.go.set()
    assert isinstance(bad.error, EncodingError)
    assert first.right()
    assert good.right()


@pytest.mark.parametrize("text", [None, "MPS backend out of memory (MPS allocated: 1 GB)"])
def test_memory_that_runs_out_halves_the_budget_and_goes_on(text: str | None, caplog: pytest.LogCaptureFixture) -> None:
    def fail(batch: Batch) -> BaseException | None:
        if sum(len(each.ids) for each in batch) <= 30:
            return None
        return torch.OutOfMemoryError("CUDA out of memory") if text is None else RuntimeError(text)

    model = Model(fail)
    scheduler = Scheduler(model, budget=100)
    call = Call(scheduler, *range(1, 29))
    with caplog.at_level(logging.WARNING):
        call.run()
    assert call.error is None
    assert call.right()
    assert scheduler.budget == 19  # half of 28 + 27 + 26, then half of 20 + 19
    assert "the device ran out of memory; going on with 40 tokens a batch" in caplog.text
    assert "the device ran out of memory; going on with 19 tokens a batch" in caplog.text


def test_memory_that_runs_out_among_several_calls_costs_none_of_them() -> None:
    model = Model(lambda batch: torch.OutOfMemoryError() if sum(len(each.ids) for each in batch) > 12 else None)
    scheduler = Scheduler(model, budget=200)
    calls = [Call(scheduler, 3, 9, 5, 12, token=token) for token in range(1, 12)]
    model.go.clear()
    with started(*calls):
        queued(scheduler, 11)
        model.go.set()
    assert all(call.error is None and call.right() for call in calls)


def test_what_was_planned_for_the_old_budget_does_not_halve_it_again() -> None:
    model = Model(lambda batch: torch.OutOfMemoryError() if sum(len(each.ids) for each in batch) > 64 else None)
    scheduler = Scheduler(model, budget=100)
    calls = [Call(scheduler, *[10] * 30, token=token) for token in range(1, 9)]
    model.go.clear()
    with started(*calls):
        queued(scheduler, 8)
        model.go.set()
    assert all(call.error is None and call.right() for call in calls)
    assert scheduler.budget == 50


def test_a_sequence_too_long_for_the_memory_is_an_error() -> None:
    model = Model(lambda batch: torch.OutOfMemoryError() if sum(len(each.ids) for each in batch) > 12 else None)
    scheduler = Scheduler(model, budget=100)
    long, good = Call(scheduler, 5, 40, 6), Call(scheduler, 3, token=2)
    model.go.clear()
    with started(long):
        assert model.started.wait(30)
        with started(good):
            queued(scheduler, 2)
            model.go.set()
    assert isinstance(long.error, EncodingError)
    assert "with a single sequence of 40 tokens; use a smaller max_tokens" in str(long.error)
    assert isinstance(long.error.__cause__, torch.OutOfMemoryError)
    assert good.error is None
    assert good.right()


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="this system sends no signal to a thread")
def test_an_interrupt_while_waiting_leaves_the_others_their_vectors() -> None:
    """Ctrl-C reaches the main thread, which waits while the scheduler's own thread computes."""
    model = Model()
    scheduler = Scheduler(model, budget=10)
    interrupted = Call(scheduler, *[10] * 20, token=99)
    others = [Call(scheduler, 5, token=token) for token in range(2, 6)]
    model.go.clear()

    def interrupt() -> None:
        queued(scheduler, 5)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    with started(*others):
        queued(scheduler, 4)
        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            interrupted.scheduler.run([interrupted.sequences], interrupted.receive)
        thread.join()
        model.go.set()
    assert all(call.error is None and call.right() for call in others)
    assert not interrupted.got
    again = Call(scheduler, 5, 6)
    again.run()
    assert again.right()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_what_is_no_exception_ends_the_batch_and_not_the_lane(kind: type[BaseException]) -> None:
    errors = iter([kind()])
    scheduler = Scheduler(Model(lambda batch: next(errors, None)), budget=10)
    call = Call(scheduler, 5)
    with started(call):
        pass
    assert isinstance(call.error, kind)
    again = Call(scheduler, 5, 6)
    again.run()
    assert again.right()


async def test_a_cancelled_task_leaves_the_others_alone() -> None:
    model = Model()
    scheduler = Scheduler(model, budget=10)
    model.go.clear()
    corpus, query = Call(scheduler, *[10] * 30), Call(scheduler, 4, token=2)
    cancelled = asyncio.create_task(corpus.arun())
    while not model.started.is_set():
        await asyncio.sleep(0.01)
    task = asyncio.create_task(query.arun())
    await asyncio.sleep(0.05)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    model.go.set()
    await asyncio.wait_for(task, 30)
    assert query.right()
    again = Call(scheduler, 3)
    await asyncio.wait_for(again.arun(), 30)
    assert again.right()
    assert len(model.batches) <= 4  # the rest of the corpus was not computed


async def test_threads_and_tasks_share_one_lane() -> None:
    model = Model()
    scheduler = Scheduler(model, budget=64)
    threaded = [Call(scheduler, *range(1, 20), token=token) for token in range(1, 9)]
    tasks = [Call(scheduler, *range(1, 20), token=token) for token in range(9, 17)]
    with started(*threaded):
        await asyncio.wait_for(asyncio.gather(*(call.arun() for call in tasks)), 30)
    assert all(call.error is None and call.right() for call in [*threaded, *tasks])


async def test_an_error_reaches_the_task_it_belongs_to() -> None:
    model = Model(lambda batch: RuntimeError("broken") if any(s.ids[0] == 2 for s in batch) else None)
    scheduler = Scheduler(model, budget=64)
    calls = [Call(scheduler, 5, token=token) for token in range(1, 5)]
    results = await asyncio.wait_for(asyncio.gather(*(c.arun() for c in calls), return_exceptions=True), 30)
    assert [type(result) for result in results] == [type(None), RuntimeError, type(None), type(None)]


async def test_what_is_no_exception_does_not_leave_a_task_waiting() -> None:
    errors = iter([GeneratorExit()])
    call = Call(Scheduler(Model(lambda batch: next(errors, None)), budget=64), 5)
    with pytest.raises(GeneratorExit):
        await asyncio.wait_for(call.arun(), 5)


def test_every_loop_may_use_the_same_lane() -> None:
    scheduler = Scheduler(Model(), budget=64)
    for token in range(1, 4):
        call = Call(scheduler, 5, 6, token=token)
        asyncio.run(call.arun())
        assert call.right()


def test_a_lane_without_work_takes_no_sequences() -> None:
    call = Call(Scheduler(Model(), budget=64))
    with started(call):
        pass
    assert call.error is None


def test_the_first_slice_is_computed_while_the_second_is_made() -> None:
    model = Model()
    call = Call(Scheduler(model, budget=10), 4, 9, 5, 3)

    def slices() -> Iterator[Batch]:
        yield call.sequences[:2]
        assert model.started.wait(30)
        yield []
        yield call.sequences[2:]

    call.scheduler.run(slices(), call.receive)
    assert call.right()
    assert model.batches[:2] == [[(1, 9)], [(1, 4)]]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_slice_that_cannot_be_made_ends_the_call(asynchronous: bool) -> None:
    model = Model()
    scheduler = Scheduler(model, budget=10)
    call = Call(scheduler, *[10] * 20)

    def slices() -> Iterator[Batch]:
        yield call.sequences
        assert model.started.wait(30)
        raise ValueError("text 20 is bad")

    run = (lambda *given: asyncio.run(scheduler.arun(*given))) if asynchronous else scheduler.run
    with pytest.raises(ValueError, match="text 20 is bad"):
        run(slices(), call.receive)
    again = Call(scheduler, 3, token=2)
    again.run()
    assert again.right()
    assert model.batches[-1] == [(2, 3)]  # nothing of the first is left to do
    assert not scheduler._jobs


async def test_no_more_slices_are_made_for_a_cancelled_task() -> None:
    made: list[int] = []
    scheduler = Scheduler(Model(), budget=10)

    def slices() -> Iterator[Batch]:
        for number in range(10_000):
            made.append(number)
            threading.Event().wait(0.001)
            yield sequences(3)

    task = asyncio.create_task(scheduler.arun(slices(), lambda batch, pooled: None))
    while len(made) < 5:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.1)
    stopped_at = len(made)
    await asyncio.sleep(0.1)
    assert len(made) == stopped_at < 10_000


def test_slices_that_wait_are_cut_into_batches_together() -> None:
    model = Model()
    call = Call(Scheduler(model, budget=10), 10, *[2, 7] * 10)

    def slices() -> Iterator[Batch]:
        model.go.clear()
        yield call.sequences[:1]
        assert model.started.wait(30)
        yield call.sequences[1:11]
        yield call.sequences[11:]

    thread = threading.Thread(target=call.scheduler.run, args=(slices(), call.receive))
    thread.start()
    for _ in range(3000):
        if model.started.is_set() and call.scheduler._jobs[0].slices == 2:
            break
        threading.Event().wait(0.01)
    model.go.set()
    thread.join(30)
    assert call.right()
    assert len(model.batches) == 1 + 10 + 2  # the long ones, and the short ones five by five


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_long_call_is_never_far_ahead_of_what_is_computed(asynchronous: bool) -> None:
    model = Model()
    scheduler = Scheduler(model, budget=10)
    made: list[int] = []
    ahead: list[int] = []

    def slices() -> Iterator[Batch]:
        for number in range(200):
            made.append(number)
            ahead.append(number - len(model.batches))
            yield [sequence(10, row=number)]

    def receive(batch: Batch, pooled: Pooled) -> None:
        assert pooled.tolist() == [[1.0, 10.0]]

    if asynchronous:
        asyncio.run(scheduler.arun(slices(), receive))
    else:
        scheduler.run(slices(), receive)
    assert made == [*range(200)]
    assert len(model.batches) == 200
    assert max(ahead) <= 3


async def test_no_thread_waits_for_room_in_an_asynchronous_call() -> None:
    model = Model()
    scheduler = Scheduler(model, budget=10)
    model.go.clear()

    def slices() -> Iterator[Batch]:
        for number in range(9):
            yield [sequence(10, row=number)]

    calls = [asyncio.create_task(scheduler.arun(slices(), lambda batch, pooled: None)) for _ in range(50)]
    while not all(job.room for job in scheduler._jobs) or len(scheduler._jobs) < 50:
        await asyncio.sleep(0.01)
    assert await in_thread(sum, [40, 2]) == 42  # the few threads are free
    calls[0].cancel()
    model.go.set()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError] + [type(None)] * 49
    assert not scheduler._jobs


def test_an_error_reaches_a_call_that_waits_for_room() -> None:
    model = Model(fail=lambda batch: ValueError("broken"))

    def slices() -> Iterator[Batch]:
        while True:
            yield [sequence(10, row=0)]

    with pytest.raises(ValueError, match="broken"):
        Scheduler(model, budget=10).run(slices(), lambda batch, pooled: None)


def test_two_batches_run_side_by_side_and_a_query_still_waits_for_one() -> None:
    both = threading.Barrier(2)

    def meet(batch: Batch) -> None:
        both.wait(30)

    model = Model(meet)
    scheduler = Scheduler(model, budget=10, parallel=2)
    corpus = Call(scheduler, *[10] * 40)
    corpus.run()  # passes no barrier with one batch at a time
    assert corpus.right()
    model.fail = lambda batch: None
    model.batches.clear()
    model.started.clear()
    model.go.clear()
    query = Call(scheduler, 4, token=2)
    with started(corpus):
        assert model.started.wait(30)
        with started(query):
            queued(scheduler, 2)
            model.go.set()
    assert query.right()
    assert [(2, 4)] in model.batches[1:5]


def test_calls_on_several_devices_get_what_is_theirs() -> None:
    scheduler = Scheduler(Model(), budget=40, parallel=4)
    calls = [Call(scheduler, *range(1, 39), token=token) for token in range(1, 17)]
    with started(*calls):
        pass
    assert all(call.error is None and call.right() for call in calls)
    assert not scheduler._jobs


def test_a_budget_is_halved_once_by_batches_that_ran_side_by_side() -> None:
    both = threading.Barrier(2)

    def fail(batch: Batch) -> BaseException | None:
        if sum(len(each.ids) for each in batch) <= 10:
            return None
        both.wait(30)
        return torch.OutOfMemoryError()

    scheduler = Scheduler(Model(fail), budget=20, parallel=2)
    call = Call(scheduler, *[5] * 8)
    call.run()
    assert call.error is None
    assert call.right()
    assert scheduler.budget == 10


def test_a_batch_whose_worker_is_lost_is_tried_again() -> None:
    lost = iter([WorkerLostError("gone"), WorkerLostError("gone")])
    call = Call(Scheduler(Model(lambda batch: next(lost, None)), budget=10), 5, 5, 5)
    call.run()
    assert call.error is None
    assert call.right()


def test_a_batch_that_loses_worker_after_worker_fails_its_call_alone() -> None:
    model = Model(lambda batch: WorkerLostError("gone") if any(s.ids[0] == 7 for s in batch) else None)
    scheduler = Scheduler(model, budget=100)
    first, others = Call(scheduler, 5), [Call(scheduler, 5, 6, token=token) for token in range(2, 12)]
    model.go.clear()
    with started(first):
        assert model.started.wait(30)
        with started(*others):
            queued(scheduler, 11)
            model.go.set()
    for call in [first, *others]:
        if call.sequences[0].ids[0] == 7:
            assert isinstance(call.error, EncodingError)
        else:
            assert call.right()
    assert model.batches.count([(7, 6), (7, 5)]) == 3


def test_nothing_is_tried_again_for_a_call_that_is_over() -> None:
    model = Model()
    scheduler = Scheduler(model, budget=10)
    call = Call(scheduler, 5)

    def fail(batch: Batch) -> BaseException:
        for job in list(scheduler._jobs):
            job.future.cancel()
        return WorkerLostError("ended")

    model.fail = fail
    call.run()
    assert len(model.batches) == 1


def test_the_lanes_thread_ends_when_there_is_nothing_to_do() -> None:
    names: list[str] = []

    def compute(batch: Batch) -> Pooled:
        names.append(threading.current_thread().name)
        return rows_of(batch)

    scheduler = Scheduler(compute, budget=10)
    for _ in range(3):
        Call(scheduler, 4).run()
        for thread in threading.enumerate():
            if thread.name == names[-1]:
                thread.join(10)  # else OpenMP's threads, which are its own, would stay for as long as the model
                assert not thread.is_alive()
    assert threading.current_thread().name not in names
