"""The cookbook runs as it stands, and its notebook is what the script says."""

from __future__ import annotations

import os
import runpy
from contextlib import redirect_stdout
from pathlib import Path

import jupytext

SCRIPT = Path(__file__).parents[2] / "examples" / "langchain_contextual_rag.py"


def _run(output: Path) -> None:
    os.chdir(output.parent)
    with output.open("w") as stream, redirect_stdout(stream):
        runpy.run_path(str(SCRIPT), run_name="__main__")


def test_the_script_runs(processes, tmp_path):
    processes.run(_run, tmp_path / "output.txt")
    printed = (tmp_path / "output.txt").read_text().splitlines()
    rows = {line[:30].strip(): float(line.split()[-1]) for line in printed if " MRR " in line}
    assert len(rows) == 8
    assert rows["contextual"] > rows["plain"]


def test_the_notebook_is_the_script():
    script, notebook = jupytext.read(SCRIPT), jupytext.read(SCRIPT.with_suffix(".ipynb"))
    assert [(cell.cell_type, cell.source) for cell in notebook.cells] == [
        (cell.cell_type, cell.source) for cell in script.cells
    ]
    headings = [line for cell in notebook.cells for line in cell.source.splitlines() if line.startswith("## ")]
    assert [heading.split()[1] for heading in headings] == [f"{number}." for number in range(1, 9)]
