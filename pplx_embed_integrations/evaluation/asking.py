"""A question for a passage, asked of a LangChain chat model.

Knows what is asked and how an answer is read; must not know where passages come from or questions go, nor import the
framework.
"""

from __future__ import annotations

from typing import Any

from ..errors import InputError

_BEGINNING = 600
"""Characters of the document's beginning that are told, so that the question can name the subject."""
_LONGEST = 400
"""Characters of the longest question: more is no question but a talk."""
_PROMPT = """\
Write one question that somebody would type into a search, and that the passage below answers.

The person has never seen the document. So name what the question is about, in full and in everyday words, and do not
say "the passage", "the text" or "this". Ask for what only this passage tells, in other words than it uses where you
can. Use the language of the passage. Answer with the question alone, on one line.

The document {name} begins:
{beginning}

The passage:
{passage}
"""


def question_for(chat: Any, *, name: str, beginning: str, passage: str) -> str | None:
    """Ask a chat model for a question that a passage answers.

    Args:
        chat: Anything with LangChain's `invoke`.
        name: What the document is called.
        beginning: How it begins.
        passage: The passage.

    Returns:
        The question; None if the model gave nothing that can be one.

    Raises:
        InputError: The model failed.

    Example:
        >>> from langchain_core.language_models import FakeListChatModel
        >>> question_for(FakeListChatModel(responses=['"When is high tide?"']), name="a", beginning="b", passage="c")
        'When is high tide?'
    """
    prompt = _PROMPT.format(name=name, beginning=beginning[:_BEGINNING], passage=passage)
    try:
        answer = chat.invoke(prompt)
    except Exception as error:
        told = " ".join(str(error).split())
        raise InputError(f"{type(chat).__name__} failed: {type(error).__name__}: {told}") from error
    written = [line.strip() for line in _text(answer).splitlines() if line.strip()]
    question = written[0].strip("\"'“”„«» ") if written else ""
    return question if 0 < len(question) <= _LONGEST else None


def _text(answer: Any) -> str:
    content = getattr(answer, "content", answer)
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(part if isinstance(part, str) else str(part.get("text", "")) for part in parts)
