"""The cookbook runs, shows the difference that it promises, and its notebook is made from the script."""

import os
import subprocess
import sys
from pathlib import Path

import jupytext

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "llama_index_contextual_rag.py"


def test_the_cookbook_runs_and_context_finds_more(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning:__main__", str(SCRIPT)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stdout.splitlines() if line.startswith("plain:")]
    plain, contextual = (int(part.split()[0]) for part in line.replace("|", ":").split(":")[1::2])
    assert contextual > plain


def test_the_notebook_is_the_script():
    notebook = jupytext.read(SCRIPT.with_suffix(".ipynb"))
    script = jupytext.read(SCRIPT)
    assert [(cell.cell_type, cell.source) for cell in notebook.cells] == [
        (cell.cell_type, cell.source) for cell in script.cells
    ]
