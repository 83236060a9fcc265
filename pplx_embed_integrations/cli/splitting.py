"""Texts to chunks without overlap, through LangChain's splitters.

Knows which splitter suits which kind of text; must not know models beyond a function that counts tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import MissingDependencyError

if TYPE_CHECKING:
    from langchain_text_splitters import RecursiveCharacterTextSplitter

__all__ = ["splitter"]


def splitter(
    *, chunk_tokens: int, count_tokens: Callable[[list[str]], list[int]], markdown: bool = False, extra: str = "cli"
) -> RecursiveCharacterTextSplitter:
    """Return LangChain's recursive splitter for chunks of at most so many tokens.

    Args:
        chunk_tokens: The longest chunk.
        count_tokens: Counts the tokens of each text, as `PplxEncoder.count_tokens` does.
        markdown: Prefer to cut at headings.
        extra: The extra of this package that the calling command belongs to.

    Returns:
        The splitter; it notes where each chunk starts.

    Raises:
        MissingDependencyError: `langchain-text-splitters` is not installed.

    Example:
        >>> words = splitter(chunk_tokens=3, count_tokens=lambda texts: [len(text.split()) for text in texts])
        >>> words.split_text("one two three four five")
        ['one two three', 'four five']
    """
    try:
        from langchain_text_splitters import Language, RecursiveCharacterTextSplitter
    except ImportError:
        raise MissingDependencyError("langchain_text_splitters", extra=extra) from None

    # The text is read once by a contextual model: an overlap would be read twice.
    def length(text: str) -> int:
        return count_tokens([text])[0] if text.strip() else 0

    if markdown:
        return RecursiveCharacterTextSplitter.from_language(
            Language.MARKDOWN,
            chunk_size=chunk_tokens,
            chunk_overlap=0,
            length_function=length,
            add_start_index=True,
        )
    return RecursiveCharacterTextSplitter(
        chunk_size=chunk_tokens, chunk_overlap=0, length_function=length, add_start_index=True
    )
