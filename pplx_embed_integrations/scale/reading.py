"""From a row of a dataset to a document of chunks, as both frameworks' stores name and stamp them.

Knows columns, keys and metadata; must not know vectors, tables or Ray.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..documents import document_key, is_missing, stamps
from ..errors import InputError, InputTypeError
from ..inputs import EMPTY, not_unicode
from ..stores import Chunk, StoredDocument
from ..stores.documents import chunk_id
from ..stores.metadata import dump
from .splitting import Cut, cutter


class JobError(InputTypeError):
    """What is wrong with a job, and would be with each of its documents."""


@dataclass(frozen=True)
class Reader:
    """Reads rows.

    Args:
        splitter: Splits a row's text; None where a row has a list of chunks in its place.
        text: The column of the text.
        key: The column that names the document.
        metadata: Columns that become metadata of each chunk; None for all others.
    """

    splitter: Any
    text: str
    key: str
    metadata: Sequence[str] | None

    @cached_property
    def _cut(self) -> Cut:
        return cutter(self.splitter)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_cut"}

    def check_columns(self, columns: Sequence[str]) -> None:
        """Refuse a dataset that lacks a column.

        Raises:
            InputError: It does.
        """
        for option, name in (
            ("text", self.text),
            ("key", self.key),
            *(("metadata", name) for name in self.metadata or ()),
        ):
            if name not in columns:
                raise InputError(
                    f"the dataset has no column {name!r} ({option}=); its columns are {', '.join(columns)}"
                )

    def name(self, row: Mapping[str, Any]) -> str | None:
        """Return the key of a row's document; None where it has none."""
        value = row[self.key]
        return None if is_missing(value) else document_key(value)

    def read(self, row: Mapping[str, Any]) -> StoredDocument:
        """Make the document.

        Raises:
            InputError: It has no key, no text, or text or metadata that cannot be stored.
            InputTypeError: A value has the wrong type.
            JobError: Nothing says how to split.
        """
        key = self.name(row)
        if key is None:
            raise InputError(f"a row has nothing in {self.key!r}, so its document has no name")
        others = (
            self.metadata if self.metadata is not None else [name for name in row if name not in (self.text, self.key)]
        )
        metadata = {name: row[name] for name in others if row[name] is not None}
        pieces = self._pieces(f"document {key!r}", row[self.text], metadata)
        texts = [text for text, _ in pieces]
        for position, text in enumerate(texts):
            if problem := not_unicode(text):
                raise InputError(f"chunk {position} of document {key!r} {problem}")
        chunks = [
            Chunk(chunk_id(key, position), text, {**known, **stamp})
            for position, ((text, known), stamp) in enumerate(zip(pieces, stamps(key, texts), strict=True))
        ]
        for chunk in chunks:
            dump(chunk.metadata, chunk=chunk.id)
        return StoredDocument(key, chunks)

    def _pieces(self, name: str, text: Any, metadata: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        if isinstance(text, (list, tuple)) and self.splitter is None:
            pieces = [(chunk, metadata) for chunk in text]
            for position, (chunk, _) in enumerate(pieces):
                if not isinstance(chunk, str):
                    raise InputTypeError(f"chunk {position} of {name} must be a str, not {type(chunk).__name__}")
                if not chunk:
                    raise InputError(f"chunk {position} of {name} {EMPTY}")
        elif text is not None and not isinstance(text, str):
            raise InputTypeError(f"the text of {name} must be a str, not {type(text).__name__}")
        elif self.splitter is None:
            raise JobError(f"the text of {name} is one string; pass splitter=, or a column of lists of chunks")
        else:
            pieces = self._cut(name, text, metadata) if text else []
        if not pieces:
            raise InputError(f"{name} has no text; leave it out")
        return pieces
