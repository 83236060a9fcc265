"""One batch on all cores: who computes what, and that it makes no difference."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from pplx_embed_integrations.backbone import engine as module
from pplx_embed_integrations.backbone.engine import Engine, Loading
from pplx_embed_integrations.backbone.packing import TokenSequence


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def engine(replica_context_v1: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setattr(module, "_ALONE_FROM", 16)
    return Engine(Loading(replica_context_v1, contextual=True, dtype="float32"), "cpu")


def documents(*lengths: int, seed: int = 0) -> list[TokenSequence]:
    """Documents of two chunks each, of random tokens."""
    random = np.random.default_rng(seed)
    return [
        TokenSequence(random.integers(0, 200, length).astype(np.int32), ((0, 2), (3, length)), (2 * at, 2 * at + 1))
        for at, length in enumerate(lengths)
    ]


def observe(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[tuple[threading.Thread, int, int]]:
    """Note each forward pass: its thread, how many threads OpenMP has for it, and its sequences."""
    passes: list[tuple[threading.Thread, int, int]] = []
    forward = engine.model.forward_packed

    def noting(ids: list[torch.Tensor], **options: object) -> torch.Tensor:
        passes.append((threading.current_thread(), torch.get_num_threads(), len(ids)))
        return forward(ids, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(engine.model, "forward_packed", noting)
    return passes


def test_each_core_computes_sequences_of_its_own(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.mark.parametrize("lengths", [(30,), (5, 5), (400, 30, 30)], ids=["one", "few tokens", "a long one"])
def test_what_cannot_be_shared_out_is_computed_together(
    lengths: tuple[int, ...], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = observe(engine, monkeypatch)
    engine.run(documents(*lengths))
    assert [(threads, count) for _, threads, count in passes] == [(2, len(lengths))]


def test_an_error_on_one_core_is_raised_when_the_others_are_done(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = documents(30, 30)
    passes = observe(engine, monkeypatch)
    noting = engine.model.forward_packed
    broken = batch[0].ids[0]

    def failing(ids: list[torch.Tensor], **options: object) -> torch.Tensor:
        if int(ids[0][0]) == broken:
            raise MemoryError("out of memory")
        return noting(ids, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(engine.model, "forward_packed", failing)
    with pytest.raises(MemoryError):
        engine.run(batch)
    assert len(passes) == 1
    monkeypatch.setattr(engine.model, "forward_packed", noting)
    assert engine.run(batch).shape == (4, engine.width)


def test_a_single_thread_needs_no_helpers(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    passes = observe(engine, monkeypatch)
    engine.run(documents(30, 30, 30, 30))
    assert [(thread, count) for thread, _, count in passes] == [(threading.current_thread(), 4)]
