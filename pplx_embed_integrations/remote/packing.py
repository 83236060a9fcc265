"""Texts and documents become requests that stay within a server's limits.

Knows tokens, windows and what an error calls a text; must not know HTTP, nor what an answer looks like.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from ..backbone.sequences import Window, plan_windows
from ..checkpoints import CheckpointSpec
from ..errors import warn
from ..inputs import EMPTY, chunk_name, document_name, most_tokens, not_unicode, too_long
from .protocol import Limits

if TYPE_CHECKING:
    from ..backbone.tokenizer import TextTokenizer


class Lengths:
    """How many tokens texts have: exactly where the model's tokenizer is on this machine, else at most.

    Args:
        spec: The checkpoint; None for a model that is known to its server alone.
    """

    def __init__(self, spec: CheckpointSpec | None) -> None:
        self._spec = spec

    @cached_property
    def tokenizer(self) -> TextTokenizer | None:
        """The model's tokenizer, if it is here: nothing is downloaded."""
        from ..backbone.hub import cached_tokenizer

        folder = None if self._spec is None else cached_tokenizer(self._spec)
        if self._spec is None or folder is None:
            return None
        from ..backbone.tokenizer import TextTokenizer

        return TextTokenizer(folder, family=self._spec.family)

    def at_most(self, texts: Sequence[str], enough: int) -> list[int]:
        """Return for each text a number of tokens that it does not exceed, exact ones if they could exceed `enough`."""
        bounds = list(map(most_tokens, texts))
        if sum(bounds) <= enough or self.tokenizer is None:
            return bounds
        return list(map(len, self.tokenizer.encode(texts, name="text {}".format)))


@dataclass(frozen=True)
class Part:
    """What is embedded together: a text, or a document or a window of one.

    Attributes:
        chunks: Its texts.
        tokens: At most how many it has.
        owned: Which of the chunks take their vectors from it.
        rows: For each of these, the row of the result.
        name: What an error calls it.
        first: Number of its first chunk in its document; None for a text.
    """

    chunks: Sequence[str]
    tokens: int
    owned: list[int]
    rows: list[int]
    name: str
    first: int | None = None

    def called(self, chunk: int = 0) -> str:
        """Return what an error calls one of its chunks."""
        return self.name if self.first is None else chunk_name(self.name, self.first + chunk)


def text_parts(texts: Sequence[str], lengths: Lengths, *, enough: int) -> list[Part]:
    """Return a part for each text."""
    counts = lengths.at_most(texts, enough)
    return [
        Part([text], tokens, [0], [row], f"text {row}")
        for row, (text, tokens) in enumerate(zip(texts, counts, strict=True))
    ]


def document_parts(
    documents: Sequence[Sequence[str]],
    lengths: Lengths,
    *,
    names: Sequence[str] | None,
    max_tokens: int,
    longest: int,
    enough: int,
) -> list[Part]:
    """Return a part for each document, or one for each of its windows where it is too long to be sent whole.

    Args:
        documents: Chunks of each.
        lengths: Counts their tokens.
        names: How an error calls each.
        max_tokens: Longest window.
        longest: Tokens of a document that may be sent whole.
        enough: Tokens up to which none need be counted exactly.
    """
    counts = lengths.at_most([text for chunks in documents for text in chunks], min(enough, longest))
    parts: list[Part] = []
    row = 0
    for number, chunks in enumerate(documents):
        tokens = counts[row : row + len(chunks)]
        name = document_name(number, names)
        for window in _windows(tokens, name, lengths, max_tokens=max_tokens, longest=longest):
            inside = range(window.start, window.end)
            owned = [chunk - window.start for chunk in window.owned]
            total = sum(tokens[chunk] for chunk in inside) + len(inside) - 1
            rows = [row + chunk for chunk in window.owned]
            parts.append(Part(chunks[window.start : window.end], total, owned, rows, name, window.start))
        row += len(chunks)
    return parts


def _windows(tokens: list[int], name: str, lengths: Lengths, *, max_tokens: int, longest: int) -> list[Window]:
    if not tokens:
        return []
    if sum(tokens) + len(tokens) - 1 <= longest:
        return [Window(0, len(tokens), tuple(range(len(tokens))))]
    # A chunk that is longer, or may be, is sent alone, and the server cuts it or says that it is too long.
    tokens = [min(count, max_tokens) for count in tokens]
    windows = plan_windows(tokens, max_tokens=max_tokens)
    if lengths.tokenizer is None and len(windows) > 1:
        warn(
            f"{name} may be longer than {longest} tokens, which cannot be counted without the model's tokenizer: it is "
            f"read in {len(windows)} overlapping windows, perhaps more than it needs. The tokenizer, a few MB, comes "
            'with: hf download perplexity-ai/pplx-embed-context-v1-0.6b --include "tokenizer*"'
        )
    return windows


def pack(parts: Sequence[Part], limits: Limits) -> Iterator[list[Part]]:
    """Yield parts in their order, as many together as a request may hold; one that is larger goes alone.

    Example:
        >>> parts = text_parts(["a", "b", "c"], Lengths(None), enough=9)
        >>> [[part.name for part in request] for request in pack(parts, Limits(texts=2, chunks=9, tokens=9))]
        [['text 0', 'text 1'], ['text 2']]
    """
    request: list[Part] = []
    chunks = tokens = 0
    for part in parts:
        full = (
            len(request) == limits.texts
            or chunks + len(part.chunks) > limits.chunks
            or tokens + part.tokens > limits.tokens
        )
        if request and full:
            yield request
            request, chunks, tokens = [], 0, 0
        request.append(part)
        chunks, tokens = chunks + len(part.chunks), tokens + part.tokens
    if request:
        yield request


def problems(lengths: Lengths, max_tokens: int | None) -> Callable[[Sequence[str]], Iterator[tuple[int, str]]]:
    """Return what finds the texts that cannot be embedded, as `inputs.refuse_chunks` asks it."""

    def find(texts: Sequence[str]) -> Iterator[tuple[int, str]]:
        doubtful: list[int] = []
        for position, text in enumerate(texts):
            if problem := (EMPTY if not text else not_unicode(text)):
                yield position, problem
            elif max_tokens is not None and most_tokens(text) > max_tokens:
                doubtful.append(position)
        if doubtful and max_tokens is not None and lengths.tokenizer is not None:
            ids = lengths.tokenizer.encode([texts[each] for each in doubtful], name="text {}".format)
            for position, tokens in zip(doubtful, map(len, ids), strict=True):
                if tokens > max_tokens:
                    yield position, too_long(tokens, max_tokens, truncatable=False)

    return find
