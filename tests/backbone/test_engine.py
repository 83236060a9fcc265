"""One batch on all cores: who computes what, and that it makes no difference."""

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pplx_embed_integrations.backbone.backends import torch as module
from pplx_embed_integrations.backbone.backends.base import Loading
from pplx_embed_integrations.backbone.backends.torch import TorchBackend
from pplx_embed_integrations.backbone.devices import resolve_dtype
from pplx_embed_integrations.backbone.sequences import TokenSequence


@pytest.fixture(autouse=True)
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(module, "available_cores", lambda: 2)
    monkeypatch.setattr(module, "busy_elsewhere", lambda: 0)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def engine(replica_context_v1: Path, monkeypatch: pytest.MonkeyPatch) -> TorchBackend:
    monkeypatch.setattr(module, "_IN_CACHE", 0)
    monkeypatch.setattr(module, "_ALONE_FROM", {"small": 8, "large": 16})
    return TorchBackend(Loading(replica_context_v1, contextual=True, dtype="float32"), "cpu")


def documents(*lengths: int, seed: int = 0) -> list[TokenSequence]:
    """Documents of two chunks each, of random tokens."""
    random = np.random.default_rng(seed)
    return [
        TokenSequence(random.integers(0, 200, length).astype(np.int32), ((0, 2), (3, length)), (2 * at, 2 * at + 1))
        for at, length in enumerate(lengths)
    ]


def observe(engine: TorchBackend, monkeypatch: pytest.MonkeyPatch) -> list[tuple[threading.Thread, int, int]]:
    """Note each forward pass: its thread, how many threads OpenMP has for it, and its sequences."""
    passes: list[tuple[threading.Thread, int, int]] = []
    forward = module.packed_forward

    def noting(model: Any, ids: list[torch.Tensor], **options: object) -> torch.Tensor:
        passes.append((threading.current_thread(), torch.get_num_threads(), len(ids)))
        return forward(model, ids, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "packed_forward", noting)
    return passes


def test_each_core_computes_sequences_of_its_own(engine: TorchBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = documents(30, 9, 12, 25, 17, 7, 30)
    alone = np.concatenate([engine.run([each]) for each in batch])
    passes = observe(engine, monkeypatch)
    together = engine.run(batch)
    assert [threads for _, threads, _ in passes] == [1, 1]
    assert sum(count for _, _, count in passes) == len(batch)
    assert threading.current_thread() not in [thread for thread, _, _ in passes]
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)
    assert torch.get_num_threads() == 2  # here, and in threads that are yet to come
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert seen == [2]


@pytest.mark.parametrize("lengths", [(30,), (5, 5), (25, 3, 3)], ids=["one", "few tokens", "uneven"])
def test_what_cannot_be_shared_out_is_computed_together(
    lengths: tuple[int, ...], engine: TorchBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = observe(engine, monkeypatch)
    engine.run(documents(*lengths))
    assert [(threads, count) for _, threads, count in passes] == [(2, len(lengths))]


@pytest.mark.parametrize("kernel", [None, "sdpa", "blocked"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_long_sequence_is_divided_among_the_cores(
    kernel: str | None, dtype: str, replica_context_v1: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if dtype == "bfloat16" and resolve_dtype("auto", device=torch.device("cpu"), parameters=10**9) == torch.float32:
        pytest.skip("this processor emulates bfloat16")
    monkeypatch.setattr(module, "_IN_CACHE", 0)
    monkeypatch.setattr(module, "_ALONE_FROM", {"small": 8, "large": 16})
    engine = TorchBackend(Loading(replica_context_v1, contextual=True, dtype=dtype, attention=kernel), "cpu")
    batch = documents(401, 30, 32, 333, 9)
    threads: set[str] = set()
    part_forward = module.part_forward

    def noting(*args: Any, **options: Any) -> torch.Tensor:
        threads.add(threading.current_thread().name)
        assert torch.get_num_threads() == 1
        return part_forward(*args, **options)

    monkeypatch.setattr(module, "part_forward", noting)
    divided = np.concatenate([engine.run([each]) for each in batch])
    assert len(threads) == 2
    together = engine.run(batch)
    torch.set_num_threads(1)
    threads.clear()
    alone = np.concatenate([engine.run([each]) for each in batch])
    assert not threads
    torch.set_num_threads(2)
    tolerance = 1e-5 if dtype == "float32" else 0.05
    np.testing.assert_allclose(divided, alone, atol=tolerance)
    np.testing.assert_allclose(together, alone, atol=tolerance)


def test_more_threads_than_cores_are_no_more_parts(engine: TorchBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "available_cores", lambda: 3)
    torch.set_num_threads(8)
    [sequence] = documents(100)
    divided = engine.run([sequence])
    torch.set_num_threads(1)
    np.testing.assert_allclose(divided, engine.run([sequence]), atol=1e-5)


def test_an_error_in_one_part_ends_the_others(engine: TorchBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    part_forward = module.part_forward

    def failing(model: Any, ids: torch.Tensor, part: slice, meeting: Any, **options: Any) -> torch.Tensor:
        if part.start > 0:
            layers = model.layers
            broken = SimpleNamespace(
                **{name: getattr(model, name) for name in ("rotary_emb", "embed_tokens", "norm", "dtype")}
            )
            broken.layers = [layers[0], None]
            model = broken
        return part_forward(model, ids, part, meeting, **options)

    monkeypatch.setattr(module, "part_forward", failing)
    [sequence] = documents(100)
    with pytest.raises(AttributeError, match="NoneType"):
        engine.run([sequence])
    monkeypatch.setattr(module, "part_forward", part_forward)
    assert engine.run([sequence]).shape == (2, engine.width)


def test_an_error_on_one_core_is_raised_when_the_others_are_done(
    engine: TorchBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = documents(30, 30)
    passes = observe(engine, monkeypatch)
    noting = module.packed_forward
    broken = batch[0].ids[0]

    def failing(model: Any, ids: list[torch.Tensor], **options: object) -> torch.Tensor:
        if int(ids[0][0]) == broken:
            raise MemoryError("out of memory")
        return noting(model, ids, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "packed_forward", failing)
    with pytest.raises(MemoryError):
        engine.run(batch)
    assert len(passes) == 1
    monkeypatch.setattr(module, "packed_forward", noting)
    assert engine.run(batch).shape == (4, engine.width)


def test_a_single_thread_computes_all_at_once(engine: TorchBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    passes = observe(engine, monkeypatch)
    engine.run(documents(30, 30, 30, 30))
    assert [(threads, count) for _, threads, count in passes] == [(1, 4)]
