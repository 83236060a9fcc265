"""What makes two vectors comparable: in every key and stamp it is there, and nothing that changes no vector is."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pplx_embed_integrations import PplxBiEncoder, PplxEncoder
from pplx_embed_integrations.backbone import devices
from pplx_embed_integrations.embedder import Embedder, checkpoint_of, differences, in_form
from pplx_embed_integrations.errors import CheckpointError, InputError
from pplx_embed_integrations.langchain import PplxEmbeddings
from pplx_embed_integrations.llama_index import PplxEmbedding

CHANGES_NOTHING: list[dict[str, Any]] = [
    {"device": "cpu"},
    {"devices": ["cpu", "cpu"]},
    {"batch_tokens": 512},
    {"attention": "blocked"},
    {"cache_folder": "elsewhere"},
    {"local_files_only": True},
    {"token": "hf_secret"},
    {"dtype": "float32"},  # what "auto" becomes for so small a model
    {"max_tokens": 32768},  # the checkpoint's own limit
]
CHANGES_VECTORS: list[dict[str, Any]] = [
    {"dtype": "bfloat16"},
    {"weights": "int8"},
    {"backend": "openvino"},
    {"max_tokens": 64},
    {"truncate": True},
]


@pytest.fixture
def folder(replica_context_v1: Path, tmp_path: Path) -> Path:
    return shutil.copytree(replica_context_v1, tmp_path / "model")


def keys(folder: Path, **options: Any) -> list[Any]:
    """Everything that caches, indexes and records go by."""
    return [
        PplxEncoder(folder, **options).identity(),
        PplxBiEncoder(folder, **options).identity(),
        PplxEmbeddings(folder, **options).vector_identity(),
        PplxEmbedding(folder, **options).to_dict(),
    ]


@pytest.mark.parametrize("options", CHANGES_NOTHING, ids=str)
def test_what_changes_no_vector_is_in_no_key(replica_context_v1: Path, options: dict[str, Any]) -> None:
    assert PplxEncoder(replica_context_v1).max_tokens == 32768
    assert keys(replica_context_v1, **options) == keys(replica_context_v1)


@pytest.mark.parametrize("options", CHANGES_VECTORS, ids=str)
def test_what_changes_a_vector_is_in_every_key(replica_context_v1: Path, options: dict[str, Any]) -> None:
    pairs = zip(keys(replica_context_v1, **options), keys(replica_context_v1), strict=True)
    assert all(one != other for one, other in pairs)


def test_of_stored_vectors_the_form_is_part(replica_context_v1: Path) -> None:
    pair = PplxBiEncoder(replica_context_v1)
    assert pair.identity() == in_form(pair.document.identity(), dimensions=32, quantization="int8")
    others = [PplxBiEncoder(replica_context_v1, dimensions=16), PplxBiEncoder(replica_context_v1, quantization=None)]
    assert len({pair.identity(), *(other.identity() for other in others)}) == 3
    assert differences(pair.identity(), others[0].identity()) == ["dimensions 32, not 16"]
    assert PplxBiEncoder(replica_context_v1, normalize=False).identity() == pair.identity()  # codes are what is kept


def test_of_the_query_side_stored_vectors_know_nothing(replica_v1: Path, replica_context_v1: Path) -> None:
    one, other = (
        PplxBiEncoder(query_model=replica_v1, document_model=replica_context_v1),
        PplxBiEncoder(replica_context_v1),
    )
    assert one.identity() == other.identity()
    assert one.query.identity() != other.query.identity()


def test_notes_and_a_trainers_state_beside_the_weights_change_nothing(folder: Path) -> None:
    before = keys(folder)
    (folder / "README.md").write_text("A note.")
    (folder / "trainer_state.json").write_text("{}")
    (folder / "optimizer.pt").write_bytes(b"state")
    (folder / "optimizer.safetensors").write_bytes(b"state")
    (folder / "training_log.txt").write_text("loss 0.1")
    (folder / "checkpoint-10").mkdir()
    (folder / "checkpoint-10" / "model.safetensors").write_bytes(b"older")
    assert keys(folder) == before


def flip_last_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def add_setting(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "added": 1}))


@pytest.mark.parametrize(
    ("file", "change"),
    [("model.safetensors", flip_last_bit), ("config.json", add_setting), ("tokenizer_config.json", add_setting)],
)
def test_files_that_are_read_are_in_every_key(folder: Path, file: str, change: Callable[[Path], None]) -> None:
    before, status = keys(folder), (folder / file).stat()
    change(folder / file)
    os.utime(folder / file, ns=(status.st_atime_ns, status.st_mtime_ns))  # as rsync and cp -p leave it
    assert all(one != other for one, other in zip(keys(folder), before, strict=True))


def test_a_folder_is_known_by_its_content_wherever_it_is(folder: Path, tmp_path: Path) -> None:
    before = keys(folder)
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "link").symlink_to(folder)
    assert keys(tmp_path / "copy") == keys(tmp_path / "link") == before
    folder.rename(tmp_path / "moved")
    assert keys(tmp_path / "moved") == before


def test_identities_load_no_weights(replica_context_v1: Path) -> None:
    pair, embed_model = PplxBiEncoder(replica_context_v1), PplxEmbedding(replica_context_v1)
    assert pair.identity()
    assert embed_model.to_dict()
    assert pair.document._loaded is None
    assert embed_model.biencoder.document._loaded is None


def test_a_checkpoint_on_the_hub_is_known_by_its_commit() -> None:
    commit = "b42df969d4d78d1840769e45c68c4e4ce763768b"
    assert checkpoint_of(PplxBiEncoder("0.6b").identity()) == f"perplexity-ai/pplx-embed-context-v1-0.6b@{commit}"
    other = PplxEncoder("context-v1-0.6b", revision="0" * 40)
    assert checkpoint_of(other.identity()).endswith("@" + "0" * 40)


def test_auto_enters_as_what_it_becomes(monkeypatch: pytest.MonkeyPatch, replica_v1: Path) -> None:
    monkeypatch.setattr(devices, "_native_bfloat16", lambda device: True)
    assert json.loads(PplxEncoder("v1-0.6b", device="cpu").identity())["dtype"] == "bfloat16"
    assert json.loads(PplxEncoder(replica_v1, device="cpu").identity())["dtype"] == "float32"
    assert PplxEmbedding("v1-0.6b", dtype="bfloat16").to_dict() == PplxEmbedding("v1-0.6b", device="cpu").to_dict()
    monkeypatch.setattr(devices, "_native_bfloat16", lambda device: device.type == "cpu")
    monkeypatch.setattr(
        "pplx_embed_integrations.backbone.backends.base.resolve_device", lambda device: torch.device(device or "cpu")
    )
    mixed = PplxEncoder("v1-0.6b", devices=["cpu", "cuda:0"])
    assert json.loads(mixed.identity())["dtype"] == "bfloat16+float32"


def test_a_device_that_is_not_here_is_told() -> None:
    with pytest.raises(InputError, match="cuda:63"):
        PplxEncoder("v1-0.6b", device="cuda:63").identity()
    assert PplxEmbedding("v1-0.6b", device="cuda:63").to_dict()["dtype"] == "auto"


def test_files_that_change_under_an_encoder_are_never_mixed_in(folder: Path) -> None:
    loaded, known, fresh = PplxEncoder(folder).load(), PplxEncoder(folder), PplxEncoder(folder)
    identity = known.identity()
    flip_last_bit(folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="have changed since this encoder first looked at them"):
        loaded.identity()  # what is loaded is no longer there to be hashed
    with pytest.raises(CheckpointError, match="have changed since this encoder first looked at them"):
        known.load()  # under its identity other vectors may be stored
    assert known.identity() == identity
    known.close()
    assert known.load().identity() == fresh.load().identity() != identity
    assert loaded.encode(["still there"]).shape == (1, 32)


def test_a_file_that_is_gone_is_told(folder: Path) -> None:
    loaded = PplxEncoder(folder).load()
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="have changed since this encoder first looked at them"):
        loaded.identity()
    assert loaded.encode(["still there"]).shape == (1, 32)


def test_files_that_are_only_touched_are_the_same(folder: Path) -> None:
    known = PplxEncoder(folder)
    identity = known.identity()
    (folder / "model.safetensors").touch()
    assert known.load().identity() == identity


def test_dictionaries_find_their_folder_again(folder: Path, tmp_path: Path) -> None:
    data = PplxEmbedding(folder).to_dict()
    assert str(folder) not in str(data)
    again = PplxEmbedding.from_dict(json.loads(json.dumps(data)))
    assert again.to_dict() == data
    assert again.document_model == str(folder)
    folder.rename(tmp_path / "moved")
    with pytest.raises(CheckpointError, match=r"name the folder: from_dict\(data, query_model=...\)"):
        PplxEmbedding.from_dict(data)
    moved = PplxEmbedding.from_dict(data, query_model=tmp_path / "moved", document_model=tmp_path / "moved")
    assert moved.to_dict() == data


def test_a_dictionary_of_another_miniature_is_refused() -> None:
    data = {**PplxEmbedding("miniature").to_dict(), "document_revision": "sha256:" + "0" * 64}
    with pytest.raises(CheckpointError, match="'miniature-context-v1' has other weights now"):
        PplxEmbedding.from_dict(data)


def test_an_encoder_is_an_embedder(replica_context_v1: Path) -> None:
    embedder: Embedder = PplxEncoder(replica_context_v1)  # checked by mypy
    assert (embedder.dimension, embedder.min_dimension, embedder.contextual) == (32, 4, True)
