"""What the documentation says is what happens: every Python block runs, and prints what stands beneath it."""

import re
from pathlib import Path

import pytest

from tools.docs import outputs, steps

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_run_and_print_what_the_page_says(page: Path) -> None:
    for step, printed in outputs(page):
        if step.expected is not None:
            assert printed == step.expected["body"], f"{page.name}, line {step.line}"


def test_readme_starts_with_a_block_whose_output_is_shown() -> None:
    first = steps((ROOT / "README.md").read_text(encoding="utf-8"))[0]
    assert first.runs
    assert first.expected is not None
    assert first.line <= 25


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
