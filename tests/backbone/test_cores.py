"""Threads for each core: what they wait for, what they leave behind, and how many there may be."""

import gc
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info

from pplx_embed_integrations.backbone.backends import cores as module
from pplx_embed_integrations.backbone.backends import torch as engine_module
from pplx_embed_integrations.backbone.backends.base import Loading
from pplx_embed_integrations.backbone.backends.cores import Cores, available_cores, busy_elsewhere, openmp_threads
from pplx_embed_integrations.backbone.backends.torch import TorchBackend
from pplx_embed_integrations.backbone.sequences import TokenSequence


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def sequence(length: int) -> TokenSequence:
    return TokenSequence(np.arange(length, dtype=np.int32) % 200, ((0, length),), (0,))


def test_tasks_may_wait_for_each_other_and_compute_alone(two_threads: None) -> None:
    cores, barrier = Cores(), threading.Barrier(2)

    def task() -> tuple[str, int]:
        barrier.wait(60)
        return threading.current_thread().name, torch.get_num_threads()

    assert cores.hire(2) == 2
    found = cores.at_once([task, task])
    assert found == [("pplx-embed-core-0", 1), ("pplx-embed-core-1", 1)]
    assert torch.get_num_threads() == 2


def test_several_callers_never_wait_for_each_other_in_a_circle(two_threads: None) -> None:
    cores = Cores()
    cores.hire(2)

    def call() -> None:
        for _ in range(50):
            barrier = threading.Barrier(2)
            cores.at_once([lambda barrier=barrier: barrier.wait(60)] * 2)

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert not any(caller.is_alive() for caller in callers)


def test_an_error_is_raised_when_all_have_ended() -> None:
    cores, ended = Cores(), []
    cores.hire(2)

    def fail() -> None:
        raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"):
        cores.at_once([fail, lambda: ended.append(1)])
    assert ended == [1]
    assert cores.at_once([lambda: 3]) == [3]


def test_threads_end_with_their_object() -> None:
    cores = Cores()
    cores.hire(1)
    [thread] = cores.at_once([threading.current_thread])
    del cores
    gc.collect()
    thread.join(60)
    assert not thread.is_alive()


def test_a_system_without_threads_is_said(monkeypatch: pytest.MonkeyPatch, replica_v1: Path) -> None:
    engine = TorchBackend(Loading(replica_v1, contextual=False, dtype="float32"), "cpu")
    expected = engine.run([sequence(90)])
    engine = TorchBackend(Loading(replica_v1, contextual=False, dtype="float32"), "cpu")

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert Cores().hire(2) == 0
    np.testing.assert_allclose(engine.run([sequence(90)]), expected, atol=1e-5)


def test_the_setting_of_openmp_is_this_threads_and_restored(two_threads: None) -> None:
    before = [each["num_threads"] for each in threadpool_info() if each["user_api"] == "openmp"]
    seen: list[int] = []
    with openmp_threads(1):
        assert torch.get_num_threads() == 1
        other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        other.start()
        other.join()
    assert seen == [2]
    assert [each["num_threads"] for each in threadpool_info() if each["user_api"] == "openmp"] == before


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu.max": "odd\n"}, None),
        ({}, None),
    ],
)
def test_a_container_grants_cores(
    files: dict[str, str], cores: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(module, "_CGROUP", tmp_path)
    module._granted.cache_clear()
    try:
        assert module._granted() == cores
    finally:
        module._granted.cache_clear()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity here")
def test_a_process_bound_to_some_cores_uses_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_granted", lambda: None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 6})
    assert available_cores() == 3


def test_threads_of_other_processes_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PROC", tmp_path)
    assert busy_elsewhere() == 0  # not said
    for number, state in enumerate("RSR"):
        task = tmp_path / "self" / "task" / str(number)
        task.mkdir(parents=True)
        (task / "stat").write_text(f"{number} (odd) name) {state} 1 1\n")
    for running, others in ((1, 0), (2, 0), (5, 3)):
        (tmp_path / "loadavg").write_text(f"0.5 0.5 0.5 {running}/300 4242\n")
        assert busy_elsewhere() == others


def threads_seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that each forward pass notes in how many threads it may compute with."""
    seen: list[int] = []
    forward = engine_module.packed_forward

    def noting(*given: Any, **options: Any) -> torch.Tensor:
        seen.append(torch.get_num_threads())
        return forward(*given, **options)

    monkeypatch.setattr(engine_module, "packed_forward", noting)
    return seen


@pytest.mark.parametrize(
    ("size", "busy", "threads"), [("small", 0, 1), ("large", 0, 2), ("large", 1, 1), ("large", 9, 1)]
)
def test_a_query_takes_the_threads_that_its_work_is_worth(
    size: str, busy: int, threads: int, two_threads: None, replica_v1: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "available_cores", lambda: 2)
    monkeypatch.setattr(engine_module, "busy_elsewhere", lambda: busy)
    engine = TorchBackend(Loading(replica_v1, contextual=False, dtype="float32"), "cpu")
    assert engine.size == "small"
    engine.size = size  # type: ignore[assignment]
    seen = threads_seen(monkeypatch)
    engine.run([sequence(12)])
    assert seen == [threads]
    assert torch.get_num_threads() == 2


def test_a_moment_of_another_process_changes_nothing(
    two_threads: None, replica_v1: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = iter([0, 0, 0, 1, 0, 1, 1, 1, 1])
    monkeypatch.setattr(engine_module, "available_cores", lambda: 2)
    monkeypatch.setattr(engine_module, "busy_elsewhere", lambda: next(busy))
    engine = TorchBackend(Loading(replica_v1, contextual=False, dtype="float32"), "cpu")
    engine.size = "large"
    seen = threads_seen(monkeypatch)
    for _ in range(9):
        engine.run([sequence(12)])
    assert seen == [2, 2, 2, 2, 2, 2, 1, 1, 1]
