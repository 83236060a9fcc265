"""A checkpoint is data: no Python file of its folder is ever run, and nothing is asked on standard input."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.processes import Processes

FILES = ("modeling.py", "configuration.py", "st_quantize.py", "tokenization.py", "processing.py", "__init__.py")


def load(folder: Path, saved: Path) -> None:
    from pplx_embed_integrations import PplxEncoder

    os.chdir(folder)
    sys.path.insert(0, str(folder))  # a plain `import modeling` would find the file
    encoder = PplxEncoder(folder, dtype="float32")
    assert encoder.encode(["a text"]).shape == (1, 32)
    if encoder.checkpoint.contextual:
        assert encoder.encode_documents([["a", "b"]])[0].shape == (2, 32)
    model = encoder.sentence_transformer
    assert model.encode(["a text"]).shape == (1, 32)
    model.save_pretrained(str(saved))
    again = PplxEncoder(saved, dtype="float32")
    assert (again.encode(["a text"]) == encoder.encode(["a text"])).all()
    assert again.sentence_transformer.encode(["a text"]).shape == (1, 32)
    print("loaded")


def edit(path: Path, **entries: object) -> None:
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    path.write_text(json.dumps(content | entries), encoding="utf-8")


@pytest.fixture(params=["replica-v1", "replica-context-v1"])
def malicious(request: pytest.FixtureRequest, golden: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(golden / request.param, folder)
    marker = tmp_path / "marker"
    code = f"open({str(marker)!r}, 'a').write(__file__)\n"
    for file in FILES:
        names = (
            "class Evil:\n    def __init__(self, *a, **k): pass\n    from_pretrained = load = classmethod(__init__)\n"
        )
        (folder / file).write_text(code + names)
    kind = "PPLXQwen3ContextualModel" if "context" in request.param else "PPLXQwen3Model"
    edit(
        folder / "config.json",
        auto_map={
            "AutoConfig": "configuration.Evil",
            "AutoModel": f"modeling.{kind}",
            "AutoTokenizer": ["tokenization.Evil", "tokenization.Evil"],
            "AutoProcessor": "processing.Evil",
        },
        trust_remote_code=True,
    )
    auto_map = {"AutoTokenizer": ["tokenization.Evil", "tokenization.Evil"], "AutoProcessor": "processing.Evil"}
    edit(folder / "tokenizer_config.json", auto_map=auto_map, tokenizer_class="Evil", processor_class="Evil")
    edit(folder / "processor_config.json", auto_map=auto_map, processor_class="Evil")
    edit(folder / "preprocessor_config.json", auto_map=auto_map)
    trust = {"trust_remote_code": True}
    edit(folder / "sentence_bert_config.json", model_args=trust, config_args=trust, tokenizer_args=trust)
    edit(folder / "config_sentence_transformers.json", model_type="SentenceTransformer")
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "modeling.Evil"},
        {"idx": 1, "name": "1", "path": "", "type": "st_quantize.Evil", "kwargs": ["quantization"]},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder


def test_code_in_the_folder_is_never_run(malicious: Path, processes: Processes, tmp_path: Path) -> None:
    said = processes.run(load, malicious, tmp_path / "saved")
    assert said.strip().endswith("loaded")
    assert not (tmp_path / "marker").exists(), (tmp_path / "marker").read_text()
    assert "y/n" not in said.lower()
    assert "do you wish" not in said.lower()
