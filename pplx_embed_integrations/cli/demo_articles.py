"""The demo's articles and questions.

Knows where they are, how the articles are cut, and which questions may be shown; must not know models or frameworks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from ..evaluation import Collection, load_collection

FOLDER = Path(str(resources.files("pplx_embed_integrations"))) / "evaluation" / "demo"
"""The collection; `pplx-embed evaluate` reads it as well."""

_BLANK_LINE = re.compile(r"\n\n")


def articles() -> Collection:
    """Read the articles, the questions and which passage answers each."""
    return load_collection(FOLDER)


def passages(text: str) -> Iterator[tuple[int, int]]:
    r"""Yield start and end of an article's passages, at its blank lines; the title stands before the first.

    Example:
        >>> text = "Title\n\nFirst passage.\n\nSecond."
        >>> [text[start:end] for start, end in passages(text)]
        ['Title\n\nFirst passage.', 'Second.']
    """
    _, *borders = (match.span() for match in _BLANK_LINE.finditer(text))
    starts, ends = [0, *(end for _, end in borders)], [*(start for start, _ in borders), len(text)]
    yield from zip(starts, ends, strict=True)


def shown_questions() -> set[str]:
    """Return the ids of the half of the questions that may be shown; the others are only counted."""
    lines = (FOLDER / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    return {question["_id"] for question in map(json.loads, lines) if question["metadata"]["shown"]}
