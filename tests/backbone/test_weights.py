"""Weights are loaded once a process for all who ask for the same, and released with the last of them."""

import copy
import gc
import json
import os
import pickle
import shutil
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pplx_embed_integrations import PplxBiEncoder, PplxEncoder
from pplx_embed_integrations.backbone import weights
from pplx_embed_integrations.errors import CheckpointError
from pplx_embed_integrations.langchain import PplxEmbeddings
from pplx_embed_integrations.llama_index import PplxEmbedding


@pytest.fixture
def folder(replica_context_v1: Path, tmp_path: Path) -> Path:
    """A checkpoint that no other test has loaded."""
    return shutil.copytree(replica_context_v1, tmp_path / "model")


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that were loaded."""
    folders: list[Path] = []
    start = weights.start_backend

    def counted(loading: Any, device: str | None) -> Any:
        folders.append(loading.folder)
        return start(loading, device)

    monkeypatch.setattr(weights, "start_backend", counted)
    return folders


def test_equal_objects_copies_and_unpickled_ones_load_once(folder: Path, loads: list[Path]) -> None:
    first = PplxEncoder(folder)
    expected = first.encode(["a river"])
    others = [PplxEncoder(folder), PplxEncoder(folder, device="cpu"), copy.copy(first), copy.deepcopy(first)]
    others += [pickle.loads(pickle.dumps(first)) for _ in range(3)]
    others += [PplxEncoder(folder, max_tokens=64), PplxEncoder(folder, truncate=True), PplxBiEncoder(folder).query]
    for other in others:
        np.testing.assert_array_equal(other.encode(["a river"]), expected)
    assert len(loads) == 1


def test_ten_threads_that_ask_first_load_once(folder: Path, loads: list[Path]) -> None:
    barrier = threading.Barrier(10)

    def work(_: int) -> PplxEncoder:
        barrier.wait()
        return PplxEncoder(folder).load()

    with ThreadPoolExecutor(10) as pool:
        assert len({id(encoder._load()) for encoder in pool.map(work, range(10))}) == 1
    assert len(loads) == 1


def test_what_computes_differently_is_loaded_by_itself(folder: Path, loads: list[Path]) -> None:
    kept = [PplxEncoder(folder).load(), PplxEncoder(folder, dtype="bfloat16").load()]
    kept.append(PplxEncoder(folder, batch_tokens=64).load())
    assert len(loads) == 3


def test_a_changed_folder_is_loaded_anew(folder: Path, loads: list[Path]) -> None:
    old = PplxEncoder(folder).load()
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    new = PplxEncoder(folder).load()
    assert len(loads) == 2
    assert not np.array_equal(new.encode(["a"], quantization=None), old.encode(["a"], quantization=None))


def test_weights_go_with_the_last_who_uses_them(folder: Path, loads: list[Path]) -> None:
    one, other = PplxEncoder(folder).load(), PplxEncoder(folder).load()
    alive = weakref.ref(one._load())
    one.close()
    assert other.encode(["a"]).shape == (1, 32)
    assert alive() is not None
    del other
    gc.collect()
    assert alive() is None
    assert one.encode(["a"]).shape == (1, 32)
    assert len(loads) == 2


def test_closing_one_leaves_the_others_their_workers(folder: Path) -> None:
    one, other = PplxEncoder(folder, devices=["cpu"]).load(), PplxEncoder(folder, devices=["cpu"]).load()
    engine = other._load().backend
    assert one._load().backend is engine
    one.close()
    assert other.encode(["a"]).shape == (1, 32)
    other.close()
    assert engine.closed


@pytest.mark.parametrize("adapter", [PplxEmbeddings, PplxEmbedding])
def test_a_copy_with_another_form_reloads_nothing(adapter: Any, folder: Path, loads: list[Path]) -> None:
    model = adapter(folder)
    query = model.embed_query if adapter is PplxEmbeddings else model.get_query_embedding
    assert len(query("a river")) == 32
    del query
    for dimensions in (16, 8):
        model = model.model_copy(update={"dimensions": dimensions})  # the one before goes
        gc.collect()
    query = model.embed_query if adapter is PplxEmbeddings else model.get_query_embedding
    assert len(query("a river")) == 8
    assert len(loads) == 1


def test_what_a_trainer_changes_is_nobody_elses(folder: Path, loads: list[Path]) -> None:
    trained, other = PplxEncoder(folder, dtype="float32").load(), PplxEncoder(folder, dtype="float32").load()
    before = other.encode(["a river"], quantization=None)
    identity = trained.identity()
    model = trained.sentence_transformer
    assert trained.identity() == identity
    later = PplxEncoder(folder, dtype="float32").load()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    for untouched in (other, later):
        np.testing.assert_array_equal(untouched.encode(["a river"], quantization=None), before)
        assert untouched.identity() == identity
    assert not np.array_equal(trained.encode(["a river"], quantization=None), before)
    assert trained.identity() != identity  # so no cache takes one for the other
    assert len(loads) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_shares_nothing_with_its_parent(folder: Path) -> None:
    kept = PplxEncoder(folder).load()
    child = os.fork()
    if not child:
        os._exit(len(weights._known))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert kept.encode(["a"]).shape == (1, 32)


def test_what_changed_while_it_was_loaded_is_used_by_nobody(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def changing(loading: Any, device: str | None) -> Any:
        loaded = start(loading, device)
        tensors = load_file(folder / "model.safetensors")
        save_file({name: tensor * 1.5 for name, tensor in tensors.items()}, folder / "model.safetensors")
        monkeypatch.setattr(weights, "start_backend", start)
        return loaded

    start = weights.start_backend
    monkeypatch.setattr(weights, "start_backend", changing)
    encoder, other = PplxEncoder(folder), PplxEncoder(folder)
    other.identity()  # it has seen the former files
    with pytest.raises(CheckpointError, match="have changed since"):
        encoder.encode(["a river"])
    with pytest.raises(CheckpointError, match="have changed since"):
        other.encode(["a river"])
    np.testing.assert_array_equal(encoder.encode(["a river"]), PplxEncoder(folder).encode(["a river"]))
    assert json.loads(encoder.identity())["checkpoint"] != json.loads(other.identity())["checkpoint"]
