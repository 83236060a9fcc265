"""Work beside an event loop: results, errors, context and cancellation, whatever else keeps the loop's threads busy."""

import asyncio
import contextvars
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pplx_embed_integrations import PplxBiEncoder, threads
from pplx_embed_integrations.threads import in_thread

WORD: contextvars.ContextVar[str] = contextvars.ContextVar("word", default="none")


async def test_results_errors_and_context_pass() -> None:
    WORD.set("given")
    assert await in_thread(WORD.get) == "given"
    assert await in_thread(divmod, 7, 2) == (3, 1)
    assert await in_thread(threading.get_ident) != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        await in_thread(divmod, 1, 0)


async def test_who_is_cancelled_does_not_wait_for_the_thread() -> None:
    started, gate = threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        gate.wait(30)

    task = asyncio.create_task(in_thread(work))
    while not started.is_set():
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.set()


async def test_work_does_not_wait_for_other_work_that_does_not_end() -> None:
    barrier = threading.Barrier(50)  # lets go of the first when the fiftieth is there
    await asyncio.wait_for(asyncio.gather(*(in_thread(barrier.wait) for _ in range(1000))), 60)


async def test_much_short_work_takes_few_threads() -> None:
    names = await asyncio.gather(*(in_thread(lambda: threading.current_thread().name) for _ in range(1000)))
    assert len(set(names)) < 100


async def test_a_system_without_more_threads_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threads._threads(os.getpid())._threads, "submit", refuse)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        await in_thread(sum, [1])


def test_no_asynchronous_method_needs_a_thread_of_the_loop(replica_v1: Path, replica_context_v1: Path) -> None:
    pair = PplxBiEncoder(query_model=replica_v1, document_model=replica_context_v1, dtype="float32")
    gate = threading.Event()

    async def work() -> list[list[float]]:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        busy = loop.run_in_executor(None, gate.wait, 60)
        try:
            query = await asyncio.wait_for(pair.aembed_query("a"), 30)
            [again] = await asyncio.wait_for(pair.aembed_queries(["a"]), 30)
            [text] = await asyncio.wait_for(pair.aembed_texts(["a"]), 30)
            [[chunk]] = await asyncio.wait_for(pair.aembed_documents([["a"]]), 30)
        finally:
            gate.set()
            await busy
        return [query, again, text, chunk]

    query, again, text, chunk = asyncio.run(work())
    np.testing.assert_allclose([query, text], [again, chunk], atol=0.006)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_has_threads_as_well() -> None:
    assert asyncio.run(in_thread(sum, [1])) == 1
    child = os.fork()
    if not child:
        os._exit(asyncio.run(in_thread(sum, [40, 2])))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
