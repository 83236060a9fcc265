"""The notebooks on smaller vectors run, show that little is lost, and are made from their scripts."""

from __future__ import annotations

import runpy
from pathlib import Path

import jupytext
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = [EXAMPLES / f"{framework}_quantized_store.py" for framework in ("langchain", "llama_index")]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_the_script_runs(
    script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    shown = runpy.run_path(str(script), run_name="__main__")
    kept, quality = shown["kept"], shown["quality"]
    assert kept == {"float32": 4 * 384, "int8": 384 + 48, "bits": 48}
    assert quality["float32"] > 0.5
    assert abs(quality["int8"] - quality["float32"]) < 0.05
    assert quality["bits"] > 0.75 * quality["float32"]
    assert capsys.readouterr().out.count("bytes a vector") == 3
    assert len(shown["figure"].axes) == 3


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_the_notebook_is_the_script(script: Path) -> None:
    cells = [
        [(cell.cell_type, cell.source) for cell in jupytext.read(path).cells]
        for path in (script, script.with_suffix(".ipynb"))
    ]
    assert cells[0] == cells[1]
