"""Text to token ids, through the checkpoint's own `tokenizer.json`.

Knows the tokenizers library and where a checkpoint names its separator; must not know models, spans or batches.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from tokenizers import Tokenizer

from ..errors import CheckpointError, InputError

__all__ = ["TextTokenizer"]


class TextTokenizer:
    """The tokenizer of a checkpoint: byte-level BPE that adds nothing and reads special tokens as plain text.

    A text that spells a special token, such as the separator, is tokenised like any other text, so that no text can
    forge a chunk border. Safe to share between threads: nothing is changed after construction.

    Args:
        folder: The checkpoint's folder, with `tokenizer.json` and `tokenizer_config.json`.

    Raises:
        CheckpointError: A file is missing or damaged, or names no separator.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise CheckpointError(
                f"{str(folder)!r} has no tokenizer.json; copy it from the checkpoint the weights come from"
            )
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception for a file it cannot read
            raise CheckpointError(f"{str(path)!r} cannot be read as a tokenizer: {error}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        separator = self._tokenizer.token_to_id(_separator(folder))
        if separator is None:
            raise CheckpointError(f"{str(path)!r} does not hold the separator {_separator(folder)!r}")
        self.separator: int = separator
        self._tokenizer.encode_special_tokens = True

    def encode(self, texts: Sequence[str], *, name: Callable[[int], str]) -> list[list[int]]:
        """Tokenise each text by itself.

        Args:
            texts: Non-empty strings.
            name: How an error calls the text at a position.

        Returns:
            Token ids, a list a text.

        Raises:
            InputError: A text cannot be written in UTF-8 (a lone surrogate) or has no token.
        """
        try:
            # Without offsets, which nobody here reads, encoding is about a third faster.
            encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        except (TypeError, UnicodeError):
            for position, text in enumerate(texts):
                _check_unicode(text, name(position))
            raise
        ids = [encoding.ids for encoding in encodings]
        for position, tokens in enumerate(ids):
            if not tokens:
                raise InputError(f"{name(position)} has no tokens after normalisation; leave it out")
        return ids


def _check_unicode(text: str, name: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"{name} has a lone surrogate (U+{ord(text[error.start]):04X}) at character {error.start}, which is no "
            "text; decode the source with the right encoding, or use text.encode('utf-8', 'replace').decode()"
        ) from error


def _separator(folder: Path) -> str:
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        path = folder / file
        if not path.is_file():
            continue
        try:
            settings = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{str(path)!r} cannot be read as JSON: {error}") from error
        if not isinstance(settings, dict):
            raise CheckpointError(f"{str(path)!r} holds no JSON object")
        # `eos_token` is the same token in every published checkpoint; a re-saved one may drop `sep_token`.
        for key in ("sep_token", "eos_token"):
            token = settings.get(key)
            token = token.get("content") if isinstance(token, dict) else token
            if isinstance(token, str):
                return token
    raise CheckpointError(f"{str(folder)!r} names no sep_token in tokenizer_config.json or special_tokens_map.json")
