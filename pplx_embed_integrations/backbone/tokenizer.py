"""Texts and documents to token sequences, through the checkpoint's own `tokenizer.json`.

Knows the tokenizers library and where a checkpoint names its separator; must not know models or batches.
"""

from __future__ import annotations

import json
import logging
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from ..errors import CheckpointError, InputError
from ..families import PPLX_EMBED, Family
from ..files import read_json, unreadable
from ..inputs import EMPTY, Role, chunk_name, document_name, most_tokens, not_unicode, too_long
from .sequences import TokenSequence, document_sequences

logger = logging.getLogger(__name__)

_NO_TOKENS = "has no tokens after normalisation; leave it out"
_CHARACTERS_AT_ONCE = 1_000_000


@dataclass(frozen=True)
class Limits:
    """What an encoder sets to its texts.

    Attributes:
        max_tokens: Longest sequence.
        truncate: Cut what is longer instead of refusing it.
        characters: Characters that are tokenised at a time, or a single text where it has more.
    """

    max_tokens: int
    truncate: bool
    characters: int


class TextTokenizer:
    """The tokenizer of a checkpoint: byte-level BPE that adds nothing and reads special tokens as plain text.

    A text that spells a special token, such as the separator, is tokenised like any other text, so that no text can
    forge a chunk border. Safe to share between threads: nothing is changed after construction.

    Args:
        folder: The checkpoint's folder, with `tokenizer.json`, and `tokenizer_config.json` where it is contextual.
        contextual: Whether the separator is needed; no single text has one.
        family: Which separator and prompts there are.

    Attributes:
        prompts: Tokens that are read before a text in each role; without one there are none.

    Raises:
        CheckpointError: A file is missing or damaged, or no separator is named where one is needed.
    """

    def __init__(self, folder: Path, *, contextual: bool = False, family: Family = PPLX_EMBED) -> None:
        path = folder / "tokenizer.json"
        if not path.exists():
            raise CheckpointError(
                f"{str(folder)!r} has no tokenizer.json; copy it from the checkpoint the weights come from"
            )
        try:
            content = path.read_bytes()
            self._tokenizer = Tokenizer.from_buffer(content)
        except Exception as error:  # the library raises bare Exception for a file it cannot read
            raise unreadable(path, error, "cannot be read as a tokenizer") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._folder, self._separator_token = folder, family.separator or _separator(folder)
        if contextual:
            _ = self.separator  # refused now, not when the weights are there
        query, document = (
            self._tokenizer.encode(prompt, add_special_tokens=False).ids for prompt in family.prompts or ("", "")
        )
        self.prompts: dict[Role | None, list[int]] = {None: [], "query": query, "document": document}
        self._tokenizer.encode_special_tokens = True
        self._bytes_bound_tokens = _byte_level(json.loads(content))

    @property
    def separator(self) -> int:
        """The token between two chunks of a document.

        Raises:
            CheckpointError: The folder names none, or its tokenizer does not hold it.
        """
        if self._separator_token is None:
            raise CheckpointError(
                f"{str(self._folder)!r} names no sep_token in tokenizer_config.json or special_tokens_map.json, and "
                "chunks in context are joined by it; copy these files from the checkpoint the weights come from"
            )
        separator = self._tokenizer.token_to_id(self._separator_token)
        if separator is None:
            path = str(self._folder / "tokenizer.json")
            raise CheckpointError(f"{path!r} does not hold the separator {self._separator_token!r}")
        return int(separator)

    def encode(
        self,
        texts: Sequence[str],
        *,
        name: Callable[[int], str],
        first: int = 0,
        max_tokens: int | None = None,
        truncate: bool = False,
    ) -> list[list[int]]:
        """Tokenise each text by itself.

        Args:
            texts: Non-empty strings.
            name: How an error calls the text of a number.
            first: Number of the first text.
            max_tokens: Longest text, None where any length is right.
            truncate: Cut what is longer instead of refusing it.

        Returns:
            Token ids, a list a text.

        Raises:
            InputError: A text cannot be written in UTF-8 (a lone surrogate), has no token or too many.
        """
        try:
            # Without offsets, which nobody here reads, encoding is about a third faster.
            encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        except (TypeError, UnicodeError):
            for number, text in enumerate(texts, first):
                if why := not_unicode(text):
                    raise InputError(f"{name(number)} {why}") from None
            raise
        ids = [encoding.ids for encoding in encodings]
        for position, tokens in enumerate(ids):
            if not tokens:
                raise InputError(f"{name(first + position)} {_NO_TOKENS}")
            if max_tokens is not None and len(tokens) > max_tokens:
                if not truncate:
                    raise InputError(f"{name(first + position)} {too_long(len(tokens), max_tokens)}")
                ids[position] = tokens[:max_tokens]
        return ids

    def text_slices(
        self, limits: Limits, texts: Sequence[str], *, role: Role | None = None
    ) -> Iterator[list[TokenSequence]]:
        """Tokenise texts, a sequence each with one span after the prompt, in slices, each when it is asked for.

        Raises:
            InputError: A text is too long or not Unicode.
        """
        prompt = self.prompts[role]
        before = len(prompt)
        longest = limits.max_tokens - before
        for start, end in _slices(map(len, texts), limits.characters):
            ids = self.encode(
                texts[start:end], name="text {}".format, first=start, max_tokens=longest, truncate=limits.truncate
            )
            yield [
                TokenSequence(np.asarray([*prompt, *tokens], dtype=np.int32), ((before, before + len(tokens)),), (row,))
                for row, tokens in enumerate(ids, start)
            ]

    def document_slices(
        self, limits: Limits, documents: Sequence[Sequence[str]], *, names: Sequence[str] | None = None
    ) -> Iterator[list[TokenSequence]]:
        """Tokenise documents, a sequence each, or several windows where one is too long, in slices like texts.

        Args:
            limits: What is too long.
            documents: Chunks of each; their rows follow each other.
            names: How an error calls each, by default `document 0` and so on.

        Raises:
            InputError: A chunk is too long or not Unicode.
        """
        borders = list(accumulate(map(len, documents), initial=0))
        prompt = self.prompts["document"]
        longest = limits.max_tokens - len(prompt)

        def name(row: int) -> str:
            number = bisect_right(borders, row) - 1
            return chunk_name(document_name(number, names), row - borders[number])

        for start, end in _slices((sum(map(len, chunks)) for chunks in documents), limits.characters):
            chunks, first = list(chain.from_iterable(documents[start:end])), borders[start]
            ids = self.encode(chunks, name=name, first=first, max_tokens=longest, truncate=limits.truncate)
            sequences: list[TokenSequence] = []
            for number in range(start, end):
                windows = document_sequences(
                    ids[borders[number] - first : borders[number + 1] - first],
                    separator=self.separator,
                    max_tokens=limits.max_tokens,
                    first_row=borders[number],
                    prompt=prompt,
                )
                if len(windows) > 1:
                    message = "%s is longer than %d tokens and is read in %d overlapping windows"
                    logger.info(message, document_name(number, names), limits.max_tokens, len(windows))
                sequences += windows
            yield sequences

    def problems(self, texts: Sequence[str], *, max_tokens: int | None) -> Iterator[tuple[int, str]]:
        """Find the texts that cannot be embedded, without tokenising those that are clearly short enough.

        Args:
            texts: Strings.
            max_tokens: Longest text, None where any length is right.

        Yields:
            The position of a text, and what is wrong with it, in any order.
        """
        pending: list[int] = []
        characters = 0
        for position, text in enumerate(texts):
            if not text:
                yield position, EMPTY
            elif why := not_unicode(text):
                yield position, why
            elif not (self._bytes_bound_tokens and (max_tokens is None or most_tokens(text) <= max_tokens)):
                pending.append(position)
                characters += len(text)
                if characters > _CHARACTERS_AT_ONCE:
                    yield from self._tokenized_problems(texts, pending, max_tokens)
                    pending, characters = [], 0
        yield from self._tokenized_problems(texts, pending, max_tokens)

    def _tokenized_problems(
        self, texts: Sequence[str], positions: list[int], max_tokens: int | None
    ) -> Iterator[tuple[int, str]]:
        encodings = self._tokenizer.encode_batch_fast([texts[each] for each in positions], add_special_tokens=False)
        for position, tokens in zip(positions, map(len, encodings), strict=True):
            if not tokens:
                yield position, _NO_TOKENS
            elif max_tokens is not None and tokens > max_tokens:
                yield position, too_long(tokens, max_tokens)


def _slices(lengths: Iterable[int], most: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of neighbours that together reach `most`, the last one excepted."""
    start = end = total = 0
    for length in lengths:
        end += 1
        total += length
        if total >= most:
            yield start, end
            start, total = end, 0
    if end > start:
        yield start, end


def _byte_level(tokenizer: dict[str, Any]) -> bool:
    """Whether a text that is not empty has at least one token and at most as many as bytes after normalisation."""
    pretokenizer = tokenizer.get("pre_tokenizer") or {}
    steps = pretokenizer.get("pretokenizers") or [pretokenizer]
    return (
        tokenizer.get("model", {}).get("type") == "BPE"
        and (tokenizer.get("normalizer") or {}).get("type") in (None, "NFC")
        and any(step.get("type") == "ByteLevel" and not step.get("add_prefix_space") for step in steps)
        and all(step.get("behavior", "Isolated") != "Removed" for step in steps)
    )


def _separator(folder: Path) -> str | None:
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        path = folder / file
        if not path.exists():
            continue
        settings = read_json(path)
        # `eos_token` is the same token in every published checkpoint; a re-saved one may drop `sep_token`.
        for key in ("sep_token", "eos_token"):
            token = settings.get(key)
            token = token.get("content") if isinstance(token, dict) else token
            if isinstance(token, str):
                return token
    return None
