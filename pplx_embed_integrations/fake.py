"""FakeEmbedder: vectors without a model, for tests of code that embeds.

Knows the checks and forms that every embedder shares, and a hash; must not know weights, tokenizers or frameworks.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from typing_extensions import Unpack

from .embedder import Form, OutputForm, check_contextual, identify, split
from .families import PPLX_EMBED
from .inputs import (
    EMPTY,
    Role,
    check_documents,
    check_positive,
    check_role,
    check_texts,
    not_unicode,
    refuse_chunks,
    too_long,
)
from .vectors import Vectors

_TOKEN = re.compile(r"\s*(?:\w+|[^\w\s])|\s+")


@dataclass(frozen=True)
class FakeEmbedder:
    """An embedder for tests: instant, deterministic, contextual, and without any weights.

    It takes and refuses what `PplxEncoder` does, and gives the same shapes and dtypes. A vector is made of the hashes
    of the text's words, so texts that share words are near each other; in a document it also depends on every other
    chunk and on its own place: a change in one chunk moves the vectors of its whole document and of no other. A text
    on its own has the vector of a document of one chunk. The vectors say nothing about the quality of a model.

    Stands wherever an embedder may: `PplxBiEncoder(FakeEmbedder())`, `PplxEmbeddings(FakeEmbedder())`,
    `PplxEmbedding(FakeEmbedder())`. Objects are immutable and picklable; equal ones give equal vectors.

    Args:
        dimension: Width of the full vector.
        contextual: Whether the chunks of a document are embedded together; `encode_documents` is refused otherwise.
        max_tokens: Longest text or chunk, in words and punctuation marks.

    Raises:
        InputError: A number is not positive.
        InputTypeError: A number is no integer.

    Example:
        >>> embedder = FakeEmbedder(256)
        >>> [before], [after] = (embedder.encode_documents([["one", last]]) for last in ("two", "three"))
        >>> before.shape, bool((before[0] != after[0]).any())
        ((2, 256), True)
    """

    dimension: int = 1024
    contextual: bool = field(default=True, kw_only=True)
    max_tokens: int = field(default=32_768, kw_only=True)

    def __post_init__(self) -> None:
        check_positive("dimension", self.dimension)
        check_positive("max_tokens", self.max_tokens)

    @property
    def min_dimension(self) -> int:
        """Smallest width to which a vector may be cut: 128, or an eighth where that is less."""
        return PPLX_EMBED.min_dimension(self.dimension)

    def identity(self) -> str:
        """Return what decides a full vector besides the text; see `PplxEncoder.identity`.

        Example:
            >>> FakeEmbedder(256).identity() == FakeEmbedder(512).identity()
            False
        """
        return identify("fake", dimension=self.dimension, contextual=self.contextual, max_tokens=self.max_tokens)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return how many words and punctuation marks each text has.

        Example:
            >>> FakeEmbedder().count_tokens(["one", "one, two"])
            [1, 3]
        """
        return [len(_TOKEN.findall(text)) for text in check_texts(texts)]

    def check_documents(self, documents: Sequence[Sequence[str]], *, names: Sequence[str] | None = None) -> None:
        """Raise one `InputError` for everything that `encode_documents` would refuse."""
        check_contextual(self, name=repr(self))
        refuse_chunks(check_documents(documents, names=names, allow_empty=True), self._problems, names=names)

    def encode(self, texts: Sequence[str], *, role: Role | None = None, **form: Unpack[Form]) -> Vectors:
        """Embed texts, each by itself; see `PplxEncoder.encode`. The role makes no difference.

        Example:
            >>> FakeEmbedder().encode(["one", "two"], quantization="ubinary").shape
            (2, 128)
        """
        check_role(role)
        output = OutputForm.of(self, **form)
        checked = check_texts(texts)
        refuse_chunks([checked], self._problems, call=lambda _, row: f"text {row}")
        pooled = [row for text in checked for row in self._pooled([text])]
        return output.vectors(np.reshape(pooled, (len(pooled), self.dimension)))

    def encode_documents(
        self, documents: Sequence[Sequence[str]], *, names: Sequence[str] | None = None, **form: Unpack[Form]
    ) -> list[Vectors]:
        """Embed the chunks of each document together; see `PplxEncoder.encode_documents`."""
        output = OutputForm.of(self, **form)
        self.check_documents(documents, names=names)
        pooled = [row for chunks in documents for row in self._pooled(list(chunks))]
        vectors = output.vectors(np.reshape(pooled, (len(pooled), self.dimension)))
        return split(vectors, documents)

    async def aencode(self, texts: Sequence[str], *, role: Role | None = None, **form: Unpack[Form]) -> Vectors:
        """`encode`, which takes too little time to block an event loop."""
        return self.encode(texts, role=role, **form)

    async def aencode_documents(
        self, documents: Sequence[Sequence[str]], *, names: Sequence[str] | None = None, **form: Unpack[Form]
    ) -> list[Vectors]:
        """`encode_documents`, which takes too little time to block an event loop."""
        return self.encode_documents(documents, names=names, **form)

    def close(self) -> None:
        """Do nothing: nothing is held."""

    def _problems(self, texts: Sequence[str]) -> Iterator[tuple[int, str]]:
        for position, text in enumerate(texts):
            if problem := (EMPTY if not text else not_unicode(text)):
                yield position, problem
            elif (tokens := len(_TOKEN.findall(text))) > self.max_tokens:
                yield position, too_long(tokens, self.max_tokens)

    def _pooled(self, chunks: list[str]) -> list[npt.NDArray[np.float32]]:
        """Return a vector for each chunk: mostly its own words, then those of its document, then its place there."""
        words = [[token.strip().casefold() for token in _TOKEN.findall(chunk)] for chunk in chunks]
        sums = [np.sum([_direction(word, self.dimension) for word in each], axis=0) for each in words]
        whole = np.sum(sums, axis=0) / np.sqrt(sum(map(len, words)) or 1)
        mark = hashlib.sha256(repr(chunks).encode()).hexdigest()
        return [
            own / np.sqrt(len(each)) + whole / 2 + _direction(f"{mark} {place}", self.dimension) / 4
            for place, (own, each) in enumerate(zip(sums, words, strict=True))
        ]


@lru_cache(maxsize=4096)
def _direction(key: str, dimension: int) -> npt.NDArray[np.float32]:
    """Return pseudo-random numbers between -1 and 1 that depend on the key alone."""
    numbers = np.frombuffer(hashlib.shake_128(key.encode()).digest(dimension), dtype=np.uint8)
    direction: npt.NDArray[np.float32] = numbers.astype(np.float32) / np.float32(127.5) - np.float32(1)
    return direction
