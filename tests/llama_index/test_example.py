"""The cookbook runs, shows the difference that it promises, and its notebook is made from the script."""

import os
import runpy
import warnings
from contextlib import redirect_stdout
from pathlib import Path

import jupytext

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "llama_index_contextual_rag.py"


def _run(output: Path) -> None:
    os.chdir(output.parent)
    warnings.filterwarnings("error", category=UserWarning, module="__main__")
    with output.open("w") as stream, redirect_stdout(stream):
        runpy.run_path(str(SCRIPT), run_name="__main__")


def test_the_cookbook_runs_and_context_finds_more(processes, tmp_path: Path):
    processes.run(_run, tmp_path / "output.txt")
    printed = (tmp_path / "output.txt").read_text().splitlines()
    [line] = [line for line in printed if line.startswith("plain:")]
    plain, contextual = (int(part.split()[0]) for part in line.replace("|", ":").split(":")[1::2])
    assert contextual > plain


def test_the_notebook_is_the_script():
    notebook = jupytext.read(SCRIPT.with_suffix(".ipynb"))
    script = jupytext.read(SCRIPT)
    assert [(cell.cell_type, cell.source) for cell in notebook.cells] == [
        (cell.cell_type, cell.source) for cell in script.cells
    ]
