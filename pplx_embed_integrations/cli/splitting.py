"""Texts to chunks without overlap, at the best border there is: heading, paragraph, line, sentence, word.

Knows where a text may be cut and how long its parts are in tokens; must not know models beyond a function that counts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

_SEGMENT = 1 << 20
"""Characters that are looked at in one go: bounds memory, and the time for which nothing else is heard."""
_LONGEST_TOKENS = 4
"""Bytes, and so tokens at most, of one character."""

_LINE, _WORD, _BLOCK = range(3)
_PARAGRAPH, _HEADING = re.compile(r"\n[^\S\n]*\n|\f"), re.compile(r"#{1,6}\s|(?:\*{3,}|-{3,}|_{3,})[^\S\n]*(?:\n|\Z)")
_SENTENCE_END = re.compile(r"[.!?…。！？][\"')\]»”’」』]*\Z")
_CLAUSE_END = re.compile(r"[，、；：]\Z")

Count = Callable[[list[str]], list[int]]
_Span = tuple[int, int]


class Chunk(NamedTuple):
    """A part of a text.

    Attributes:
        start: Where it begins, in characters.
        text: The part, without white space at its ends.
        tokens: How many it has.
    """

    start: int
    text: str
    tokens: int


class Splitter:
    """Cuts texts into chunks of at most so many tokens.

    A text is cut at the highest kind of border at which its parts fit, and neighbouring parts are put together as far
    as they fit. Lines are counted first, then the words of those that are too long, then blocks of a word: no
    character is tokenised more than four times, however the text is made up.

    Args:
        chunk_tokens: The longest chunk. A single character is never cut, whatever it has.
        count_tokens: Counts the tokens of each text, as `PplxEncoder.count_tokens` does.
        markdown: Whether headings and rules are borders.

    Example:
        >>> words = Splitter(chunk_tokens=3, count_tokens=lambda texts: [len(text.split()) for text in texts])
        >>> [chunk.text for chunk in words.split("One two. Three four five.")]
        ['One two.', 'Three four five.']
    """

    def __init__(self, *, chunk_tokens: int, count_tokens: Count, markdown: bool = False) -> None:
        self._most = chunk_tokens
        self._count = count_tokens
        self._markdown = markdown
        block = max(1, chunk_tokens // _LONGEST_TOKENS)
        self._units = {
            _LINE: re.compile(r"\S[^\n]*"),
            _WORD: re.compile(r"\S+"),
            _BLOCK: re.compile(rf"\S.{{0,{block - 1}}}?(?<=[。！？，、；：])|\S.{{0,{block - 1}}}", re.DOTALL),
        }

    def split(self, text: str) -> Iterator[Chunk]:
        """Yield the chunks of a text in reading order; together they hold all of it but white space."""
        for start, end in _segments(text):
            yield from self._checked(text, list(self._spans(text, start, end, _LINE, self._most)), self._most)

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return where each chunk of a text begins and ends."""
        return [(chunk.start, chunk.start + len(chunk.text)) for chunk in self.split(text)]

    def _checked(self, text: str, spans: list[_Span], limit: int) -> Iterator[Chunk]:
        """Yield chunks of these spans, cut more closely where the whole has more tokens than its parts had."""
        texts = [text[start:end] for start, end in spans]
        counts = self._count(texts) if texts else []
        for (start, end), chunk, tokens in zip(spans, texts, counts, strict=True):
            if tokens <= self._most or limit == 1 or end - start == 1:
                yield Chunk(start, chunk, tokens)
            else:
                closer = max(1, limit - (tokens - self._most))
                yield from self._checked(text, list(self._spans(text, start, end, _LINE, closer)), closer)

    def _spans(self, text: str, start: int, end: int, kind: int, limit: int) -> Iterator[_Span]:
        units = [_stripped(text, match.span()) for match in self._units[kind].finditer(text, start, end)]
        if not units:
            return
        sizes = self._sizes(text, units, leading=kind == _WORD)
        borders = [_border(text, before, after, markdown=self._markdown) for before, after in pairwise(units)]
        for first, last in _merged(sizes, [0, *borders], limit):
            if first == last and sizes[first] > limit and kind < _BLOCK:
                yield from self._spans(text, *units[first], kind + 1, limit)
            else:
                yield units[first][0], units[last][1]

    def _sizes(self, text: str, units: list[_Span], *, leading: bool) -> list[int]:
        """Count each unit with the white space before it or behind it, as tokenizers join it; equal ones once."""
        ends = [end for _, end in units]
        if leading:
            spans = zip([units[0][0], *ends[:-1]], ends, strict=True)
        else:
            spans = zip((start for start, _ in units), [*(start for start, _ in units[1:]), ends[-1]], strict=True)
        texts = [text[start:end] for start, end in spans]
        distinct = list(dict.fromkeys(texts))
        counts = dict(zip(distinct, self._count(distinct), strict=True))
        return [counts[unit] for unit in texts]


def _segments(text: str) -> Iterator[_Span]:
    start = 0
    while start < len(text):
        end = min(start + _SEGMENT, len(text))
        if end < len(text):
            line = text.rfind("\n", start, end)
            end = line + 1 if line >= start else end
        yield start, end
        start = end


def _stripped(text: str, span: _Span) -> _Span:
    start, end = span
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def _border(text: str, before: _Span, after: _Span, *, markdown: bool) -> int:
    """Rank the border between two units: 0 is the best place to cut, 6 the worst."""
    gap = text[before[1] : after[0]]
    if "\n" in gap or "\f" in gap:
        if markdown and _HEADING.match(text, *after):
            return 0
        return 1 if _PARAGRAPH.search(gap) else 2
    end = text[max(before[0], before[1] - 8) : before[1]]
    if _SENTENCE_END.search(end) and (gap or not end[-1].isascii()):
        return 3
    if gap or _CLAUSE_END.search(end):
        return 4
    return 5


_WORST = 5


def _merged(sizes: Sequence[int], borders: Sequence[int], limit: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of units, ends included, that fit the limit or are single units.

    Args:
        sizes: Tokens of each unit.
        borders: For each unit the rank of the border before it; that of the first has no meaning.
        limit: Most tokens of a range.
    """
    before = [0, *accumulate(sizes)]

    def cut(first: int, end: int, rank: int) -> Iterator[tuple[int, int]]:
        if before[end] - before[first] <= limit or end - first == 1:
            yield first, end - 1
            return
        starts = [first, *(unit for unit in range(first + 1, end) if borders[unit] <= rank)]
        begin = first
        for start, after in zip(starts, [*starts[1:], end], strict=True):
            if before[after] - before[begin] <= limit:
                continue
            if begin < start:
                yield begin, start - 1
            begin = start
            if before[after] - before[start] > limit:
                yield from cut(start, after, min(rank + 1, _WORST))
                begin = after
        if begin < end:
            yield begin, end - 1

    return cut(0, len(sizes), 0)
