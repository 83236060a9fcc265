"""After `register()` plain transformers and sentence-transformers open checkpoints, run no code and ask nothing."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from pplx_embed_integrations import PplxEncoder
from pplx_embed_integrations.checkpoints import resolve
from tests.processes import Processes

TEXTS = ["a text", "another one, longer than the first"]


def open_plainly(foreign: Path, folders: list[str]) -> None:
    from sentence_transformers import SentenceTransformer
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    import pplx_embed_integrations

    pplx_embed_integrations.register()
    pplx_embed_integrations.register()
    found: dict[str, Any] = {}
    for folder in folders:
        model = SentenceTransformer(folder, device="cpu")
        native = AutoModel.from_pretrained(folder)
        native.save_pretrained(folder + "-again")
        found[folder] = {
            "floats": model.encode(TEXTS, **({} if len(model) == 2 else {"quantization": None})).tolist(),
            "codes": model.encode(TEXTS).tolist(),
            "names": [type(each).__name__ for each in (AutoConfig.from_pretrained(folder), native)],
            "ids": AutoTokenizer.from_pretrained(folder)(TEXTS)["input_ids"],
        }
    try:
        SentenceTransformer(str(foreign))
    except ValueError as error:
        found["foreign"] = str(error)
    print(json.dumps(found))


def test_plain_libraries_open_checkpoints(golden: Path, processes: Processes, tmp_path: Path) -> None:
    encoders, folders = {}, {}
    for kind in ("v1", "context-v1"):
        encoders[kind] = PplxEncoder(golden / f"replica-{kind}", dtype="float32")
        encoders[kind].sentence_transformer.save_pretrained(str(tmp_path / f"saved-{kind}"))
        shutil.copytree(golden / f"replica-{kind}", tmp_path / f"published-{kind}")
        folders |= {str(tmp_path / f"{how}-{kind}"): kind for how in ("saved", "published")}
    earlier = tmp_path / "saved-context-v1" / "modules.json"  # as the module was named before it moved
    assert "backbone.qwen3.sentence_transformer.TanhQuantizer" in earlier.read_text()
    earlier.write_text(earlier.read_text().replace("backbone.qwen3.sentence_transformer", "backbone.modules"))
    for folder in map(Path, folders):
        for file in ("st_quantize.py", "modeling.py", "configuration.py"):
            (folder / file).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    foreign = tmp_path / "foreign"
    shutil.copytree(golden / "replica-v1", foreign)
    modules = (foreign / "modules.json").read_text().replace("st_quantize.FlexibleQuantizer", "st_other.Quantizer")
    (foreign / "modules.json").write_text(modules)
    everything = json.loads(processes.run(open_plainly, foreign, list(folders)).splitlines()[-1])
    for folder, kind in folders.items():
        found, ours, contextual = everything[folder], encoders[kind], kind == "context-v1"
        np.testing.assert_allclose(found["floats"], ours.encode(TEXTS, quantization=None), atol=2e-5)
        if (Path(folder) / "modules.json").is_file():  # the published context checkpoints have no output stage
            np.testing.assert_array_equal(np.array(found["codes"]), ours.encode(TEXTS))
        assert found["names"] == ["PplxQwen3Config", "PplxQwen3ContextualModel" if contextual else "PplxQwen3Model"]
        assert [len(ids) for ids in found["ids"]] == ours.count_tokens(TEXTS)
        assert resolve(f"{folder}-again").contextual is contextual  # also after plain transformers has saved it
    assert "st_other.Quantizer" in everything["foreign"]  # other code still needs trust
    assert not (tmp_path / "ran").exists()
