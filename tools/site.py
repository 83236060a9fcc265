"""Hook of `make docs`: the README becomes the front page, and the public names of each room become the API reference.

Knows mkdocs and where public names are listed; must not know what any of them does.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PACKAGE = "pplx_embed_integrations"
ROOMS = (
    "",
    "langchain",
    "llama_index",
    "evaluation",
    "evaluation/report",
    "stores",
    "scale",
    "remote/server",
    "vectors",
    "documents",
)
OUTSIDE = re.compile(r"\[([^\]]+)\]\((?:\.\./)*(?:(?:examples|training|benchmarks|tests|tools)/[^)]*|LICENSE)\)")
"""A link to a file of the repository that is no page of the site."""


def on_files(files: Files, config: Any) -> Files:
    """Add what is not written as a page of docs/."""
    names = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")
    pages = {name: (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](") for name in names}
    pages["index.md"] = pages.pop("README.md")
    for name, content in {**pages, "reference.md": reference()}.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Keep the words of a link that leads out of the site, to a file of the repository."""
    return OUTSIDE.sub(r"\1", markdown)


def reference() -> str:
    """Return the page that has every name in each room's `__all__`."""
    lines = ["# API reference", "", "Made from the docstrings; their examples run with the tests."]
    for room in ROOMS:
        module = ".".join(filter(None, (PACKAGE, room.replace("/", "."))))
        lines += ["", f"## {module}", ""]
        lines += [f"::: {module}.{name}" for name in public_names(room) if not name.startswith("__")]
    return "\n".join(lines) + "\n"


def public_names(room: str) -> list[str]:
    """Read a module's `__all__` without importing it."""
    base = ROOT / PACKAGE / room
    path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and any(getattr(each, "id", "") == "__all__" for each in node.targets):
            return list(ast.literal_eval(node.value))
    raise SystemExit(f"{path.relative_to(ROOT)} has no __all__")
