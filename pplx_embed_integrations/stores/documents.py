"""What goes into the table and what comes out: chunks, whole documents with their hash, hits with their score.

Knows ids, texts and metadata; must not know how they are stored, nor any vector but a hit's own.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ..documents import content_hash
from ..errors import InputError, InputTypeError

_DIGITS = 32
"""Hexadecimal digits kept of each of the two SHA-256 that make a document's hash: 128 bits of each."""


def chunk_id(document: str, position: int) -> str:
    """Name a chunk that has no name of its own, the same in every run.

    Example:
        >>> chunk_id("ada", 0)
        'aaee6cf4-c1ab-53b2-8a97-0b07f4cf474e'
    """
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{document}\x1f{position}"))


@dataclass(frozen=True)
class Chunk:
    """A piece of a document.

    Attributes:
        id: Name of the chunk; no two chunks of a table share one.
        text: Its text.
        metadata: What else is known of it: a dictionary of what JSON can hold.

    Example:
        >>> Chunk("ada-0", "Ada wrote notes.", {"year": 1843}).metadata["year"]
        1843
    """

    id: str
    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StoredDocument:
    """A document as the table keeps it: replaced as a whole, or not at all.

    Attributes:
        key: What the caller knows the document by.
        chunks: Its chunks in reading order.

    Raises:
        InputError: It has no chunk, or two of one id.
        InputTypeError: A key, an id or a text is no string.

    Example:
        >>> ada = StoredDocument("ada", [Chunk("ada-0", "Ada wrote notes."), Chunk("ada-1", "She was first.")])
        >>> ada.texts
        ['Ada wrote notes.', 'She was first.']
    """

    key: str
    chunks: Sequence[Chunk]

    def __post_init__(self) -> None:
        if not isinstance(self.key, str) or not self.key:
            raise InputTypeError(f"a document's key must be a string that is not empty, not {self.key!r}")
        if not self.chunks:
            raise InputError(f"document {self.key!r} has no chunk; to take it out of the table, delete it")
        for number, chunk in enumerate(self.chunks):
            for name, value in (("id", chunk.id), ("text", chunk.text)):
                if not isinstance(value, str):
                    raise InputTypeError(
                        f"the {name} of chunk {number} of document {self.key!r} must be a string, "
                        f"not {type(value).__name__}"
                    )
        if len({chunk.id for chunk in self.chunks}) < len(self.chunks):
            raise InputError(f"two chunks of document {self.key!r} have the same id; give each its own")

    @property
    def texts(self) -> list[str]:
        """The chunks' texts in reading order."""
        return [chunk.text for chunk in self.chunks]

    @cached_property
    def content(self) -> str:
        """Hash of the texts and their borders: what the vectors depend on."""
        return content_hash(self.texts)[:_DIGITS]

    @cached_property
    def hash(self) -> str:
        """Hash of all of it: `content`, then ids and metadata."""
        rest = json.dumps(
            [[chunk.id, chunk.metadata] for chunk in self.chunks], sort_keys=True, default=repr, ensure_ascii=True
        )
        return self.content + hashlib.sha256(rest.encode()).hexdigest()[:_DIGITS]


@dataclass(frozen=True)
class Hit:
    """A chunk that was found.

    Attributes:
        id: Name of the chunk.
        document: Key of its document.
        position: Its place in the document, from 0.
        text: Its text.
        metadata: Its metadata.
        score: Cosine with the query, in [-1, 1]; for a search by words, what that search ranks by.
        vector: `[d]` int8: its codes, or ±1 where the table keeps bits alone; None where no vector was read.
    """

    id: str
    document: str
    position: int
    text: str
    metadata: dict[str, Any]
    score: float = 0.0
    vector: npt.NDArray[np.int8] | None = field(default=None, compare=False)
