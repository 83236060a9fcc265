"""`pplx-embed demo`: both frameworks index the same passages, and the questions have answers in the documentation."""

from pathlib import Path

import pytest

from pplx_embed_integrations.cli import demo
from pplx_embed_integrations.cli.folder import TextFile

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def pages() -> list[TextFile]:
    return demo._pages()


def test_the_pages_are_the_documentation(pages: list[TextFile]) -> None:
    assert [page.source for page in pages] == sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))


@pytest.mark.parametrize("question", demo.QUESTIONS, ids=lambda question: question.text)
def test_every_question_is_answered_on_its_page(question: demo.Question) -> None:
    text = " ".join((DOCS / question.source).read_text(encoding="utf-8").split())
    assert text.count(question.answer) == 1


def test_both_frameworks_find_the_same_and_context_changes_it(pages: list[TextFile], replica_context_v1: Path) -> None:
    indexes = demo.rankings(pages[:3], model=str(replica_context_v1))
    assert list(indexes) == [
        ("LangChain", "plain"),
        ("LangChain", "in context"),
        ("LlamaIndex", "plain"),
        ("LlamaIndex", "in context"),
    ]
    for question in demo.QUESTIONS:
        found = {name: rank(question.text) for name, rank in indexes.items()}
        for mode in ("plain", "in context"):
            assert found["LangChain", mode] == found["LlamaIndex", mode]
        assert found["LangChain", "plain"] != found["LangChain", "in context"]
        assert len(found["LangChain", "plain"]) == demo.TOP


def test_the_miniature_finds_passages_that_answer(pages: list[TextFile]) -> None:
    few = {"dimensions-and-quantization.md", "errors.md", "evaluate.md", "testing-offline.md"}
    questions = [question for question in demo.QUESTIONS if question.source in few]
    for rank in demo.rankings([page for page in pages if page.source in few]).values():
        answered = [question for question in questions if any(hit.answers(question) for hit in rank(question.text))]
        assert len(answered) > len(questions) // 2
