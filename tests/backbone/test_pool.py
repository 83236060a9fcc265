"""Several devices: the same vectors from worker processes, whatever happens to these."""

import asyncio
import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pplx_embed_integrations import PplxBiEncoder, PplxEncoder
from pplx_embed_integrations.backbone.backends.base import Pooled
from pplx_embed_integrations.backbone.backends.worker import _answer
from pplx_embed_integrations.backbone.backends.workers import WorkerPool
from pplx_embed_integrations.backbone.sequences import TokenSequence
from pplx_embed_integrations.errors import EncodingError, InputError, InputTypeError, PplxEmbedError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system cannot halt a process"),
]
SAME = 2e-5
TEXTS = [f"text {i} " * (1 + i % 9) for i in range(200)]


def pool_of(encoder: PplxEncoder) -> WorkerPool:
    loaded = encoder.load()._loaded
    assert loaded is not None
    assert isinstance(loaded.backend, WorkerPool)
    return loaded.backend


def pids(encoder: PplxEncoder) -> list[int]:
    processes = [worker._process for worker in pool_of(encoder)._workers]
    return [process.pid for process in processes if process is not None]


def until(condition: Callable[[], object]) -> None:
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come about within 30 seconds")


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        # A process whose parent was killed may lie there until it is collected, at any moment.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except ProcessLookupError:
        return True
    except FileNotFoundError:
        return Path("/proc/self").exists()  # else this system has no such files


@contextmanager
def halted(encoder: PplxEncoder) -> Iterator[Callable[..., Any]]:
    """Halt the workers, so that the calls inside get no further than handing out batches."""
    pool, workers = pool_of(encoder), pids(encoder)
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor(8) as callers:

        def begin(*args: Any, **options: Any) -> Any:
            call = callers.submit(encoder.encode, *args, **options)
            until(lambda: not pool._idle)
            return call

        try:
            yield begin
        finally:
            for pid in workers:
                with suppress(ProcessLookupError):  # one is collected at any moment; the others must go on
                    os.kill(pid, signal.SIGCONT)


@contextmanager
def killing(encoder: PplxEncoder, workers: slice) -> Iterator[None]:
    """Kill some of the workers as soon as they are there, again and again."""
    done = threading.Event()

    def kill() -> None:
        while not done.wait(0.01):
            for worker in pool_of(encoder)._workers[workers]:
                if (process := worker._process) is not None:
                    process.kill()

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.fixture(scope="module")
def pooled(replica_context_v1: Path) -> Iterator[PplxEncoder]:
    encoder = PplxEncoder(
        replica_context_v1, dtype="float32", devices=["cpu", "cpu"], batch_tokens=100, token="hf_secret"
    )
    yield encoder.load()
    encoder.close()


def test_golden_documents(pooled: PplxEncoder, expected_context_v1: Any) -> None:
    got = np.concatenate(pooled.encode_documents(expected_context_v1.inputs, quantization=None))
    np.testing.assert_allclose(got, expected_context_v1.pooled, atol=SAME)
    codes = np.concatenate(pooled.encode_documents(expected_context_v1.inputs))
    np.testing.assert_array_equal(codes, expected_context_v1.int8)


async def test_texts_are_as_on_one_device(pooled: PplxEncoder, encoder_context_v1: PplxEncoder) -> None:
    expected = encoder_context_v1.encode(TEXTS, quantization=None)
    np.testing.assert_allclose(pooled.encode(TEXTS, quantization=None), expected, atol=SAME)
    calls = [pooled.aencode(TEXTS[i : i + 20], quantization=None) for i in range(0, 200, 20)]
    np.testing.assert_allclose(np.concatenate(await asyncio.gather(*calls)), expected, atol=SAME)
    assert pooled.encode([]).shape == (0, 32)


def test_both_workers_work_side_by_side(pooled: PplxEncoder) -> None:
    with halted(pooled) as begin:
        call = begin(TEXTS)  # returns once no worker is idle
        assert not call.done()
    assert call.result().shape == (200, 32)


def test_a_budget_smaller_than_a_text(pooled: PplxEncoder, encoder_context_v1: PplxEncoder) -> None:
    assert pooled._loaded is not None
    pooled._loaded.scheduler.budget = 1
    expected = encoder_context_v1.encode(TEXTS[:9], quantization=None)
    np.testing.assert_allclose(pooled.encode(TEXTS[:9], quantization=None), expected, atol=SAME)
    pooled._loaded.scheduler.budget = 100


def test_one_callers_error_is_no_other_callers(pooled: PplxEncoder) -> None:
    loaded = pooled._loaded
    assert loaded is not None
    expected = pooled.encode(["good"])
    with halted(pooled) as begin:
        ahead = begin(TEXTS)
        with ThreadPoolExecutor(2) as callers:
            unknown = TokenSequence(np.array([10**6], dtype=np.int32), ((0, 1),), (0,))  # no such token
            bad = callers.submit(loaded.scheduler.run, [[unknown]], lambda sequences, rows: None)
            good = callers.submit(pooled.encode, ["good"])
            until(lambda: len(loaded.scheduler._jobs) == 3)
            for pid in pids(pooled):
                os.kill(pid, signal.SIGCONT)
            np.testing.assert_array_equal(good.result(), expected)
            with pytest.raises(IndexError):
                bad.result()
    assert ahead.result().shape == (200, 32)
    with pytest.raises(InputError, match="text 1 has a lone surrogate"):
        pooled.encode(["good", "bad \ud800"])


def test_memory_that_runs_out_in_a_worker_halves_the_budget(
    pooled: PplxEncoder,
    encoder_context_v1: PplxEncoder,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert pooled._loaded is not None
    scheduler, before = pooled._loaded.scheduler, pids(pooled)
    for each in pool_of(pooled)._workers:
        monkeypatch.setattr(each, "compute", partial(_compute_in_little_memory, each.compute))
    monkeypatch.setattr(scheduler, "budget", 400)
    got = pooled.encode(TEXTS, quantization=None)
    np.testing.assert_allclose(got, encoder_context_v1.encode(TEXTS, quantization=None), atol=SAME)
    assert "the device ran out of memory; going on with" in caplog.text
    assert scheduler.budget <= 100
    assert pids(pooled) == before


def _compute_in_little_memory(compute: Callable[..., Pooled], sequences: list[TokenSequence]) -> Pooled:
    if sum(len(each.ids) for each in sequences) > 100:
        error = _answer(_Full(), sequences)  # type: ignore[arg-type]
        raise pickle.loads(pickle.dumps(error))  # as it comes through the pipe
    return compute(sequences)


class _Full:
    """What stands in a worker for a model on a device that is full."""

    def run(self, sequences: list[TokenSequence]) -> Pooled:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def test_an_error_that_cannot_travel_is_told_in_words() -> None:
    class OddError(Exception):
        """Known in one process only."""

    class Engine:
        def run(self, sequences: list[TokenSequence]) -> Pooled:
            raise OddError("unheard of")

    answer = _answer(Engine(), [])  # type: ignore[arg-type]
    assert type(answer) is RuntimeError
    assert str(answer) == "OddError: unheard of"


def test_workers_leave_a_ctrl_c_to_their_parent(pooled: PplxEncoder) -> None:
    before = pids(pooled)
    for pid in before:
        os.kill(pid, signal.SIGINT)
    assert pooled.encode(TEXTS).shape == (200, 32)
    assert pids(pooled) == before


def test_a_worker_killed_in_the_middle_is_replaced(
    pooled: PplxEncoder, encoder_context_v1: PplxEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = pids(pooled)
    with halted(pooled) as begin:
        call = begin(TEXTS, quantization=None)
        os.kill(first, signal.SIGKILL)
    np.testing.assert_allclose(call.result(), encoder_context_v1.encode(TEXTS, quantization=None), atol=SAME)
    assert "the worker on cpu died with exit code -9 (SIGKILL) while computing a batch" in caplog.text
    assert "text" not in caplog.text
    until(lambda: len(pids(pooled)) == 2)
    assert first not in pids(pooled)
    assert second in pids(pooled)


def test_pickles_carry_the_devices_and_no_process(pooled: PplxEncoder) -> None:
    other = pickle.loads(pickle.dumps(pooled))
    assert other._loaded is None
    assert other.devices == ("cpu", "cpu")
    assert b"hf_secret" not in pickle.dumps([worker._order for worker in pool_of(pooled)._workers])
    assert repr(other) == "PplxEncoder('replica-context-v1', devices=['cpu', 'cpu'], dtype='float32')"


def test_the_sentence_transformer_is_elsewhere(pooled: PplxEncoder) -> None:
    with pytest.raises(InputError, match=r"use device= to have them"):
        _ = pooled.sentence_transformer


def survive(encoder: PplxEncoder, caplog: pytest.LogCaptureFixture) -> list[int]:
    with killing(encoder, slice(0, 1)):
        until(lambda: "died 3 times in a row; going on without it" in caplog.text or not encoder.encode(TEXTS).size)
        assert encoder.encode(TEXTS).shape == (200, 32)
    broken = encoder._loaded

    def work_until_it_hits() -> None:
        while encoder._loaded is broken:
            encoder.encode(TEXTS)

    with killing(encoder, slice(0, 2)), pytest.raises(EncodingError, match=r"-9 \(SIGKILL\).*use fewer devices"):
        work_until_it_hits()
    assert encoder.encode(["later"]).shape == (1, 32)
    return pids(encoder)


def test_workers_that_keep_dying(replica_v1: Path, caplog: pytest.LogCaptureFixture) -> None:
    make = partial(PplxEncoder, replica_v1, dtype="float32", devices=["cpu", "cpu"], batch_tokens=100)
    workers = survive(make(), caplog)
    gc.collect()
    assert all(map(gone, workers))  # with the encoder


def test_close_and_use_again(pooled: PplxEncoder) -> None:
    before, workers = pooled.encode(TEXTS), pids(pooled)
    with halted(pooled) as begin:
        call = begin(TEXTS)
        pooled.close()
        with pytest.raises(EncodingError, match="was closed before this call was done"):
            call.result()
    assert all(map(gone, workers))
    np.testing.assert_array_equal(pooled.encode(TEXTS), before)  # loaded anew
    pooled.close()
    pooled.close()


INTERRUPTED = """
import os, signal, threading
from pplx_embed_integrations import PplxEncoder

encoder = PplxEncoder({folder!r}, dtype="float32", devices=["cpu"])  # no guard around what starts workers

def stuck():
    workers = [worker._process.pid for worker in encoder.load()._loaded.backend._workers if worker._process]
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    return workers

before = stuck()
try:
    encoder.encode(["a", "b"])
except KeyboardInterrupt:
    for pid in before:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            print("gone")
print(encoder.encode(["a", "b"]).shape)
print(*stuck(), flush=True)
encoder.encode(["a", "b"])
"""


def test_an_interrupt_ends_the_workers_and_hangs_nothing(replica_v1: Path) -> None:
    script = INTERRUPTED.format(folder=str(replica_v1))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    first, shape, last = done.stdout.splitlines()  # and nothing of the workers'
    assert (first, shape) == ("gone", "(2, 32)")
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")
    assert done.returncode != 0
    assert gone(int(last))


INTERRUPTED_ELSEWHERE = """
import asyncio, os, signal, sys, threading
from pplx_embed_integrations import PplxEncoder
from pplx_embed_integrations.backbone.backends.workers import WorkerPool, _Worker

def interrupt():
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()

def halt_and_interrupt(worker):
    launch(worker)
    print(worker._process.pid, flush=True)
    os.kill(worker._process.pid, signal.SIGSTOP)  # it never becomes ready
    interrupt()

encoder = PplxEncoder({folder!r}, dtype="float32", devices=["cpu"])
if sys.argv[1] == "loading":
    launch, _Worker.launch = _Worker.launch, halt_and_interrupt
    encoder.load()
else:
    print(encoder.load()._loaded.backend._workers[0]._process.pid, flush=True)
    interrupt()
    asyncio.run(encoder.aencode(["word " * 50] * 100_000))
"""


@pytest.mark.parametrize("during", ["loading", "a task"])
def test_an_interrupt_ends_the_program_and_its_workers(during: str, replica_v1: Path) -> None:
    script = INTERRUPTED_ELSEWHERE.format(folder=str(replica_v1))
    command = [sys.executable, "-c", script, during]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")
    assert done.returncode != 0
    [pid] = done.stdout.split()
    until(lambda: gone(int(pid)))


KILLED = """
from pplx_embed_integrations import PplxEncoder

encoder = PplxEncoder({folder!r}, dtype="float32", devices=["cpu"]).load()
print(encoder._loaded.backend._workers[0]._process.pid, flush=True)
while True:
    encoder.encode(["word " * 15_000])
"""


def test_workers_go_with_a_parent_that_is_killed(replica_v1: Path) -> None:
    script = KILLED.format(folder=str(replica_v1))
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        time.sleep(0.5)  # into a batch, which may take much longer
        assert not gone(worker)
        parent.kill()
    until(lambda: gone(worker))


def test_a_device_that_is_not_there(replica_v1: Path) -> None:
    with pytest.raises(InputError, match=r"device='cuda:99' is not there; this machine has \d+ CUDA devices"):
        PplxEncoder(replica_v1, devices=["cuda:99"]).encode(["a"])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"devices": []}, InputError, r"devices=\[\] is empty; name a device for each worker"),
        ({"devices": "cpu"}, InputTypeError, r"devices='cpu' must be a list of names, as in devices=\["),
        ({"devices": 2}, InputTypeError, r"devices=2 must be a list of names"),
        ({"devices": [0, 1]}, InputTypeError, "device 0 of devices must be a str, not int"),
        ({"devices": ["cpu", ""]}, InputError, "device 1 of devices is empty"),
        ({"devices": ["cpu"] * 1000}, InputError, r"'cpu' 1000 times; on this machine \d+ times is the most"),
        ({"devices": ["cuda:0"] * 5}, InputError, "'cuda:0' 5 times; on this machine 4 times is the most"),
        ({"devices": ["cpu"], "device": "cpu"}, InputError, r"device='cpu' and devices=\['cpu'\] exclude each other"),
    ],
)
def test_what_is_no_list_of_devices(
    options: dict[str, Any], error: type[PplxEmbedError], message: str, replica_v1: Path
) -> None:
    for make in (PplxEncoder, PplxBiEncoder):
        with pytest.raises(error, match=message):
            make(replica_v1, **options)


def test_the_adapters_pass_devices_on(replica_v1: Path) -> None:
    langchain = pytest.importorskip("pplx_embed_integrations.langchain")
    llama_index = pytest.importorskip("pplx_embed_integrations.llama_index")
    for adapter in (
        langchain.PplxEmbeddings(replica_v1, devices=["cpu"]),
        llama_index.PplxEmbedding(replica_v1, devices=["cpu"]),
    ):
        for each in (adapter, pickle.loads(pickle.dumps(adapter)), adapter.model_copy(update={"dimensions": 16})):
            assert each.biencoder.query.devices == ("cpu",)
        assert adapter.model_copy(update={"devices": None, "device": "cpu"}).biencoder.document.devices is None
    for make in (langchain.PplxEmbeddings, llama_index.PplxEmbedding):
        with pytest.raises(PplxEmbedError, match="devices"):
            make(replica_v1, devices="cpu")


def start_up_file(folder: Path, content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every interpreter that starts run some lines first."""
    (folder / "sitecustomize.py").write_text(content)
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")


def test_what_a_start_up_file_prints_or_reads_disturbs_no_worker(
    tmp_path: Path, replica_v1: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    content = "import os, sys\nprint('hello', flush=True)\nos.write(1, b'raw' * 1000)\nassert sys.stdin.read() == ''\n"
    start_up_file(tmp_path, content, monkeypatch)
    encoder = PplxEncoder(replica_v1, devices=["cpu"])
    assert encoder.encode(["a river"]).shape == (1, 32)
    encoder.close()
    said = capfd.readouterr()
    assert "hello" in said.err  # passed on, where errors go
    assert not said.out


def test_a_worker_that_fails_says_why(tmp_path: Path, replica_v1: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = "import os\nos.write(2, b'no licence for this machine')\nos._exit(3)\n"
    start_up_file(tmp_path, content, monkeypatch)
    with pytest.raises(EncodingError, match=r"(?s)died with exit code 3.*It said:\nno licence for this machine"):
        PplxEncoder(replica_v1, devices=["cpu"]).load()
