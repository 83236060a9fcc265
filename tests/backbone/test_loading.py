"""Checkpoint folders: layouts that load, and damage that is named."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pplx_embed_integrations import PplxEncoder
from pplx_embed_integrations.errors import CheckpointError
from pplx_embed_integrations.files import unreadable
from pplx_embed_integrations.vectors import cosine_similarity

Copy = Callable[..., Path]


def encode(folder: Path) -> np.ndarray:
    return PplxEncoder(folder, dtype="float32").encode(["a text", "another"], quantization=None)


def shard(folder: Path, parts: int) -> dict[str, str]:
    """Cut model.safetensors into shards with an index, as the larger checkpoints are published."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    weight_map = {}
    for part in range(parts):
        file = f"model-{part + 1:05}-of-{parts:05}.safetensors"
        mine = names[part::parts]
        save_file({name: tensors[name] for name in mine}, folder / file)
        weight_map |= dict.fromkeys(mine, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return weight_map


def test_sharded_weights_are_the_same(copy_of: Copy, replica_v1: Path) -> None:
    folder = copy_of(replica_v1)
    shard(folder, 3)
    np.testing.assert_array_equal(encode(folder), encode(replica_v1))


def test_weights_on_disk_may_be_bfloat16(copy_of: Copy, replica_v1: Path) -> None:
    folder = copy_of(replica_v1)
    tensors = load_file(folder / "model.safetensors")
    save_file({name: tensor.bfloat16() for name, tensor in tensors.items()}, folder / "model.safetensors")
    got, expected = encode(folder), encode(replica_v1)
    assert got.dtype == np.float32
    assert np.diag(cosine_similarity(got, expected)).min() > 0.999


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("tokenizer.json", r"has no tokenizer\.json; copy it from the checkpoint"),
        ("model.safetensors", r"has no model\.safetensors and no model\.safetensors\.index\.json"),
    ],
)
def test_a_missing_file_is_named(copy_of: Copy, replica_v1: Path, file: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        encode(copy_of(replica_v1, without=(file,)))


def test_a_missing_configuration_is_named_at_once(copy_of: Copy, replica_v1: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        PplxEncoder(copy_of(replica_v1, without=("config.json",)))


def test_the_separator_may_be_named_in_either_file(copy_of: Copy, replica_context_v1: Path) -> None:
    for without in ("tokenizer_config.json", "special_tokens_map.json"):
        assert PplxEncoder(copy_of(replica_context_v1, without=(without,))).encode_documents([["a", "b"]])
    nameless = copy_of(replica_context_v1, without=("tokenizer_config.json", "special_tokens_map.json"))
    with pytest.raises(CheckpointError, match="names no sep_token"):
        PplxEncoder(nameless).encode(["a"])


@pytest.mark.parametrize("settings", [None, {"sep_token": "[SEP]"}, {"sep_token": None, "eos_token": None}])
def test_single_texts_need_no_separator(copy_of: Copy, replica_v1: Path, settings: dict[str, object] | None) -> None:
    folder = copy_of(replica_v1, without=("tokenizer_config.json", "special_tokens_map.json"))
    if settings is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    np.testing.assert_array_equal(encode(folder), encode(replica_v1))


def test_a_separator_that_the_tokenizer_does_not_hold(copy_of: Copy, replica_context_v1: Path) -> None:
    folder = copy_of(replica_context_v1)
    (folder / "tokenizer_config.json").write_text('{"sep_token": {"content": "[SEP]"}}')
    with pytest.raises(CheckpointError, match=r"does not hold the separator '\[SEP\]'"):
        encode(folder)


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00\x01"])
def test_a_damaged_tokenizer_is_named(copy_of: Copy, replica_v1: Path, file: str, text: str) -> None:
    folder = copy_of(replica_v1)
    (folder / file).write_text(text)
    with pytest.raises(CheckpointError, match=file.replace(".", r"\.")):
        encode(folder)


@pytest.mark.parametrize("kept", [0, 4, 100, 5000, -1])
def test_truncated_weights_are_named(copy_of: Copy, replica_v1: Path, kept: int) -> None:
    folder = copy_of(replica_v1)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(
        CheckpointError, match=r"model\.safetensors.*is damaged or incomplete .*; delete it and download"
    ):
        encode(folder)


def test_weights_that_are_something_else_are_named(copy_of: Copy, replica_v1: Path) -> None:
    folder = copy_of(replica_v1)
    (folder / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(CheckpointError, match="is damaged or incomplete"):
        encode(folder)


def test_a_missing_shard_is_named(copy_of: Copy, replica_v1: Path) -> None:
    folder = copy_of(replica_v1)
    shard(folder, 3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(
        CheckpointError, match=r"lacks model-00002-of-00003\.safetensors, which model\.safetensors\.index"
    ):
        encode(folder)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"weight_map": 3}',
        '{"weight_map": ["a"]}',
        '{"weight_map": {"a": 3}}',
        '{"weight_map": {}}',
        '{"weight_map": {"a": "../x.safetensors"}}',
        '{"weight_map": {"a": "/x.safetensors"}}',
        '{"weight_map": {"a": "..\\\\x.safetensors"}}',
        '{"weight_map": {"a": "x.bin"}}',
        "[" * 100000,
    ],
)
def test_a_damaged_index_is_named(copy_of: Copy, replica_v1: Path, text: str) -> None:
    folder = copy_of(replica_v1)
    shard(folder, 2)
    (folder / "model.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"model\.safetensors\.index\.json' cannot be read"):
        encode(folder)


def change(folder: Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")
    return folder


def renamed(prefix: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def edit(tensors: dict[str, torch.Tensor]) -> None:
        for name in list(tensors):
            tensors[prefix + name] = tensors.pop(name)

    return edit


@pytest.mark.parametrize("prefix", ["model.", "module.", "_orig_mod.", "module.model.", "0.auto_model."])
def test_tensors_may_have_a_prefix(copy_of: Copy, replica_v1: Path, prefix: str) -> None:
    folder = change(copy_of(replica_v1), renamed(prefix))
    np.testing.assert_array_equal(encode(folder), encode(replica_v1))
    shard(folder, 3)
    np.testing.assert_array_equal(encode(folder), encode(replica_v1))
    mixed = change(copy_of(replica_v1), renamed(prefix))
    change(mixed, lambda tensors: tensors.update({"norm.weight": tensors.pop(f"{prefix}norm.weight")}))
    np.testing.assert_array_equal(encode(mixed), encode(replica_v1))


@pytest.mark.parametrize("tied", [True, False, "DROP"])
@pytest.mark.parametrize("prefix", ["", "model."])
def test_a_head_that_repeats_the_embeddings_is_passed_over(
    copy_of: Copy, replica_v1: Path, tied: object, prefix: str
) -> None:
    folder = change(copy_of(replica_v1, tie_word_embeddings=tied), renamed(prefix))
    table = f"{prefix}embed_tokens.weight"
    change(folder, lambda tensors: tensors.update({"lm_head.weight": tensors[table].clone()}))
    np.testing.assert_array_equal(encode(folder), encode(replica_v1))


def test_a_head_of_its_own_is_refused(copy_of: Copy, replica_v1: Path) -> None:
    folder = change(copy_of(replica_v1, tie_word_embeddings=False), renamed("model."))
    change(folder, lambda tensors: tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"] + 1}))
    with pytest.raises(CheckpointError, match=r"holds the tensor 'lm_head\.weight', which its config\.json does not"):
        encode(folder)


def test_tensors_that_do_not_fit_are_named(copy_of: Copy, replica_v1: Path) -> None:
    norm = "norm.weight"
    with pytest.raises(CheckpointError, match=r"lacks 1 tensors, 'norm\.weight' the first"):
        encode(change(copy_of(replica_v1), lambda tensors: tensors.__delitem__(norm)))
    with pytest.raises(CheckpointError, match=r"holds the tensor 'lm_head\.weight', which its config\.json does not"):
        encode(change(copy_of(replica_v1), lambda tensors: tensors.update({"lm_head.weight": torch.zeros(2)})))
    with pytest.raises(
        CheckpointError, match=r"tensor 'norm\.weight' .* has shape \(31,\); config\.json asks for \(32,\)"
    ):
        encode(change(copy_of(replica_v1), lambda tensors: tensors.update({norm: tensors[norm][:31].clone()})))
    with pytest.raises(CheckpointError, match=r"tensor 'norm\.weight' .*int8"):
        encode(change(copy_of(replica_v1), lambda tensors: tensors.update({norm: tensors[norm].to(torch.int8)})))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"num_attention_heads": "four"}, r"num_attention_heads='four'; a positive integer is needed"),
        ({"num_hidden_layers": None}, "num_hidden_layers=None; a positive integer"),
        ({"hidden_act": "nonsense"}, "hidden_act='nonsense'; pplx-embed has 'silu'"),
        ({"attention_bias": True}, "attention_bias=True; pplx-embed has False"),
        ({"head_dim": 15}, "head_dim=15; an even number"),
        ({"num_key_value_heads": 3}, "num_key_value_heads=3; a divisor of 4"),
        ({"vocab_size": -1}, "vocab_size=-1; a positive integer"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps='small'; a positive number"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4}}, "rope_type='yarn'; pplx-embed has 'default'"),
        ({"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2}}, "rope_type='linear'"),
        ({"rope_parameters": {"rope_theta": 10000, "partial_rotary_factor": 0.5}}, "partial_rotary_factor=0.5"),
        ({"rope_parameters": None, "rope_theta": None}, "rope_theta=None; a positive number"),
        ({"rope_parameters": 7}, "rope_parameters=7; an object"),
        ({"layer_types": ["sliding_attention", "full_attention"]}, "no sliding attention"),
        ({"layer_types": None, "use_sliding_window": True}, "no sliding attention"),
        ({"layer_types": "full_attention"}, "no sliding attention"),
        ({"num_hidden_layers": 3}, "lacks 11 tensors"),
        ({"hidden_size": 33}, r"shape \(1024, 32\); config\.json asks for \(1024, 33\)"),
    ],
    ids=str,
)
def test_a_configuration_that_does_not_fit_is_a_checkpoint_error(
    copy_of: Copy, replica_v1: Path, config: dict[str, object], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        encode(copy_of(replica_v1, **config))


@pytest.mark.parametrize(
    "config",
    [
        {"rope_parameters": None},
        {"rope_parameters": None, "rope_scaling": None},
        {"rope_theta": None},
        {"layer_types": None},
        {"hidden_act": "silu", "use_sliding_window": False, "max_window_layers": 28},
    ],
    ids=str,
)
def test_what_transformers_of_any_age_writes_is_read(
    copy_of: Copy, replica_v1: Path, config: dict[str, object]
) -> None:
    np.testing.assert_array_equal(encode(copy_of(replica_v1, **config)), encode(replica_v1))


def test_a_pickle_of_weights_is_never_read(copy_of: Copy, replica_v1: Path) -> None:
    folder = copy_of(replica_v1, without=("model.safetensors",))
    torch.save(load_file(replica_v1 / "model.safetensors"), folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors"):
        encode(folder)


def test_other_files_in_the_folder_do_no_harm(copy_of: Copy, replica_v1: Path) -> None:
    folder = copy_of(replica_v1)
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"x")
    (folder / "generation_config.json").write_text("{")
    np.testing.assert_array_equal(encode(folder), encode(replica_v1))
    shutil.rmtree(folder / "1_Pooling")
    (folder / "modules.json").unlink()
    np.testing.assert_array_equal(encode(folder), encode(replica_v1))


def test_a_revision_of_another_width_is_refused(replica_v1: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(replica_v1, folder)
    encoder = PplxEncoder(folder)
    narrow = json.loads((folder / "config.json").read_text())
    weights = {
        name: tensor[..., :16] if tensor.shape[-1] == 32 else tensor[:16] if tensor.shape[0] == 32 else tensor
        for name, tensor in load_file(folder / "model.safetensors").items()
    }
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**narrow, "hidden_size": 16}))
    with pytest.raises(CheckpointError, match="gives 16 dimensions, not the 32"):
        encoder.encode(["text"])


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_folder_in_place_of_a_file_is_named(copy_of: Copy, replica_v1: Path, file: str) -> None:
    folder = copy_of(replica_v1)
    (folder / file).unlink()
    (folder / file).mkdir()
    with pytest.raises(CheckpointError, match=rf"{re.escape(file)}' is a folder, and a file is needed"):
        encode(folder)


def test_a_file_that_may_not_be_read_is_told_apart_from_damage(tmp_path: Path) -> None:
    error = unreadable(tmp_path / "model.safetensors", PermissionError(13, "Permission denied"))
    assert "may not be read by this user (Permission denied)" in str(error)
    assert "delete" not in str(error)


def test_the_log_says_what_auto_became(copy_of: Copy, replica_v1: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = copy_of(replica_v1)
    with caplog.at_level("INFO", logger="pplx_embed_integrations"):
        PplxEncoder(folder, device="cpu", dtype="auto").load()
        PplxEncoder(folder, device="cpu", dtype="bfloat16").load()
    assert [record.getMessage() for record in caplog.records] == [
        f"loaded {folder} on cpu in float32",
        f"loaded {folder} on cpu in bfloat16",
    ]
