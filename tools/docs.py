"""Run the Python blocks of a Markdown page, and check or refresh the output printed beneath them.

A page is one session: its ```python blocks run in order, in one namespace, in an empty folder. A ```text block that
follows a Python block holds what it prints. A block marked ```python no-run is compiled only (it would download
gigabytes or needs a server). Usage: python tools/docs.py README.md docs/*.md   (rewrites the ```text blocks)
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

_BLOCK = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Step:
    """A Python block, and the output block beneath it if there is one."""

    code: str
    line: int
    runs: bool
    expected: re.Match[str] | None


def steps(text: str) -> list[Step]:
    """Return a page's Python blocks in order, each with the output block beneath it."""
    blocks = list(_BLOCK.finditer(text))
    found = []
    for block, following in zip_longest(blocks, blocks[1:]):
        if block["info"].split()[:1] != ["python"]:
            continue
        adjacent = following is not None and not text[block.end() : following.start()].strip()
        expected = following if adjacent and following and following["info"] == "text" else None
        line = text.count("\n", 0, block.start("body")) + 1
        found.append(Step(block["body"], line, "no-run" not in block["info"], expected))
    return found


def outputs(path: Path) -> Iterator[tuple[Step, str]]:
    """Run a page and yield each step that ran with what it printed."""
    namespace = {"__name__": "__main__"}
    page = path.resolve()
    home = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            for step in steps(page.read_text(encoding="utf-8")):
                code = compile("\n" * (step.line - 1) + step.code, str(page), "exec")
                if step.runs:
                    printed = io.StringIO()
                    with contextlib.redirect_stdout(printed):
                        exec(code, namespace)
                    yield step, printed.getvalue()
        finally:
            os.chdir(home)


def refresh(path: Path) -> None:
    """Write what a page's blocks print into the output blocks beneath them."""
    text = path.read_text(encoding="utf-8")
    for step, printed in reversed(list(outputs(path))):
        if step.expected is not None:
            start, end = step.expected.span("body")
            text = text[:start] + printed + text[end:]
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        refresh(Path(name))
