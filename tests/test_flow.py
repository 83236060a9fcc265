"""Work beside an event loop: results, errors, context and cancellation, whatever else keeps the loop's threads busy."""

import asyncio
import contextvars
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pplx_embed_integrations import PplxBiEncoder, PplxEncoder, flow
from pplx_embed_integrations.flow import in_thread

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


async def test_however_much_work_there_is_few_threads_do_it_and_none_stays() -> None:
    def work() -> threading.Thread:
        time.sleep(0.001)
        return threading.current_thread()

    for _ in range(3):
        did = set(await asyncio.gather(*(in_thread(work) for _ in range(500))))
        assert 1 < len(did) < 500
        for thread in did:
            await asyncio.to_thread(thread.join, 30)
        assert not any(thread.is_alive() for thread in did)
        assert flow._shared._running == 0


async def test_at_no_time_are_there_many_threads() -> None:
    at_work, most = set[int](), list[int]()

    def work() -> None:
        at_work.add(threading.get_ident())
        most.append(len(at_work))
        time.sleep(0.002)
        at_work.discard(threading.get_ident())

    await asyncio.gather(*(in_thread(work) for _ in range(300)))
    assert max(most) <= flow._MOST


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_system_without_more_threads_works_in_the_one_there_is(
    asynchronous: bool, monkeypatch: pytest.MonkeyPatch, replica_v1: Path
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    encoder = PplxEncoder(replica_v1)
    expected = encoder.encode(["a"])
    encoder.close()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    vectors = asyncio.run(encoder.aencode(["a"])) if asynchronous else encoder.encode(["a"])
    np.testing.assert_array_equal(vectors, expected)


@pytest.mark.parametrize("where", ["a thread that outlives the main one", "atexit"])
def test_embedding_works_after_the_main_thread_has_ended(where: str, replica_v1: Path) -> None:
    start = "atexit.register(work)" if where == "atexit" else "threading.Thread(target=work).start()"
    code = f"""
import asyncio, atexit, threading
from pplx_embed_integrations import PplxEncoder
t = ["some longer text about rivers and lakes " * 8] * 2
def fresh():
    return PplxEncoder({str(replica_v1)!r})
def work():
    if threading.current_thread() is not threading.main_thread():
        threading.main_thread().join(60)
    print(len(asyncio.run(fresh().aencode(t))), len(fresh().encode(t)), len(fresh().encode(t * 64)))
{start}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.split() == ["2", "2", "128"], done.stderr


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
