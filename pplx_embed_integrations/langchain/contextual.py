"""The documents whose chunks are being indexed, and the way from a bare string back to the chunk it came from.

Knows strings, their identity and context variables; must not know models, stores or metadata.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

import numpy as np
from langchain_core.documents import Document

from ..errors import InputError, warn
from ..flow import Flow
from ..vectors import Vectors

OnMiss = Literal["warn", "error"]
Place = tuple[int, int]
"""A document, and the row of a chunk in it."""

_PROBES = frozenset({"dummy_text"})
_LONGEST_PROBE = 64

_entered: ContextVar[tuple[Scope, ...]] = ContextVar("pplx_embed_documents", default=())
_open: set[Scope] = set()
_opening = threading.Lock()
_telling_apart = threading.Lock()


class Scope:
    """The documents of one `documents(...)` block, and the vectors of those that were asked for.

    Threads that ask for one document at the same time may both embed it: the work is deterministic.

    Args:
        owner: The embeddings object the block was opened on.
        documents: The texts of each document's chunks, in reading order.
        places: Where each chunk is, in input order: the order in which equal ones take turns.
        on_miss: What to do about a text that is no chunk of these documents.
        in_turn: Whether chunks are known to be asked for in input order, so that equal ones may take turns.
    """

    def __init__(
        self,
        owner: object,
        documents: list[list[str]],
        places: Iterable[Place],
        *,
        on_miss: OnMiss = "warn",
        in_turn: bool = False,
    ) -> None:
        self.owner = weakref.ref(owner)
        self.on_miss = on_miss
        self.closed = False
        self._in_turn = in_turn
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._said: set[str] = set()
        self._probed = False
        self._documents = documents
        self._matrices: dict[int, Vectors] = {}
        self._turns: dict[str, int] = {}
        self._count = sum(map(len, documents))
        self._asked: set[Place] = set()
        self._objects: dict[int, Place | None] = {}
        self._texts: dict[str, list[Place]] = {}
        for place in places:
            text = documents[place[0]][place[1]]
            # Python has one object only for a text of one character.
            self._objects[id(text)] = None if id(text) in self._objects else place
            self._texts.setdefault(text, []).append(place)

    def close(self) -> None:
        """Drop every text and vector."""
        with self._lock:
            self.closed = True
            self._documents, self._matrices, self._objects, self._texts = [], {}, {}, {}

    @property
    def asked(self) -> int:
        """How many chunks have been asked for."""
        return len(self._asked)

    @property
    def unasked(self) -> int:
        """How many chunks have not been asked for."""
        return self._count - len(self._asked)

    def holds(self, text: str) -> bool:
        """Tell whether this very string object is one of the chunks."""
        return self._objects.get(id(text)) is not None

    def place_of_object(self, text: str) -> Place | None:
        """Find the chunk that is this very string object."""
        with self._lock:
            place = self._objects.get(id(text))
            if place is not None:
                self._asked.add(place)
            return place

    def place_of_text(self, text: str) -> Place | None:
        """Find the chunk of this text; equal chunks take turns, first in first out, with a warning."""
        with self._lock:
            places = self._texts.get(text)
            if places is None:
                return None
            turn = self._turns.get(text, 0)
            self._turns[text] = (turn + 1) % len(places)
            self._asked.add(places[turn])
        if len(places) > 1 and not self._in_turn and not self._alike(places):
            self._ambiguous(len(places))
        return places[turn]

    def _alike(self, places: list[Place]) -> bool:
        """Tell whether chunks stand at one row of equal documents, so that it does not matter which is meant."""
        number, row = places[0]
        return all(other == row and self._documents[copy] == self._documents[number] for copy, other in places)

    def _ambiguous(self, count: int) -> None:
        message = (
            f"{count} chunks have the same text, and something between the store and the model has copied the strings, "
            "so which of them is meant cannot be told"
        )
        if os.getpid() != self._process:  # a warning would stay in a process that nobody looks at
            raise InputError(f"{message}; embed in the process that opened documents(...)")
        self.warn_once("equal", f"{message}: they are taken in the order of the documents")

    def miss(self, texts: list[str], *, alone: bool) -> None:
        """Handle texts that are not chunks of any open document."""
        first = texts[0]
        if alone and (first in _PROBES or (not self._asked and not self._probed and len(first) <= _LONGEST_PROBE)):
            self._probed = True  # a store asks for the width of a vector before it asks for any chunk
            return
        message = (
            f"{len(texts)} of the texts to embed are no chunks of the documents given to documents(...): each becomes "
            "a document of its own, without context. Pass exactly the documents that go into the store"
        )
        if self.on_miss == "error":
            raise InputError(message)
        self.warn_once("miss", message)

    def warn_once(self, kind: str, message: str) -> None:
        """Warn unless this block has warned of the same before."""
        with self._lock:
            new = kind not in self._said
            self._said.add(kind)
        if new:
            warn(message)

    def matrices(
        self, wanted: set[int], encode: Callable[[list[list[str]]], Flow[list[Vectors]]]
    ) -> Flow[dict[int, Vectors]]:
        """Return the vectors of documents, embedding those that are not there yet."""
        with self._lock:
            self._refuse_if_closed()
            missing = sorted(wanted - self._matrices.keys())
            documents = [self._documents[number] for number in missing]
        found = (yield from encode(documents)) if missing else []
        with self._lock:
            self._refuse_if_closed()
            self._matrices.update(zip(missing, found, strict=True))
            return {number: self._matrices[number] for number in wanted}

    def _refuse_if_closed(self) -> None:
        if self.closed:
            raise InputError(
                "the documents(...) block ended while its chunks were still being embedded; "
                "wait for the store inside the block"
            )


@contextmanager
def open_scope(scope: Scope) -> Iterator[Scope]:
    """Open a scope for the running thread or task and whatever inherits its context."""
    _entered.set((scope, *_entered.get()))
    with _opening:
        _open.add(scope)
    try:
        yield scope
    finally:
        # Not by token: an async fixture or generator may leave in another copy of the context than it entered in.
        _entered.set(tuple(other for other in _entered.get() if other is not scope))
        with _opening:
            _open.discard(scope)
        scope.close()


def is_open(owner: object) -> bool:
    """Tell whether any block of an embeddings object is open, in whatever thread."""
    with _opening:
        return any(scope.owner() is owner for scope in _open)


class Lookup:
    """Where each text of one call to `embed_documents` belongs.

    Args:
        scopes: The open scopes, the innermost first.
        texts: The texts of the call.
    """

    def __init__(self, scopes: list[Scope], texts: list[str]) -> None:
        self._size = len(texts)
        self._found: dict[int, tuple[Scope, Place]] = {}
        ways = [(scope, scope.place_of_object) for scope in scopes] + [(scope, scope.place_of_text) for scope in scopes]
        for position, text in enumerate(texts):
            for scope, find_place in ways:
                if (place := find_place(text)) is not None:
                    self._found[position] = (scope, place)
                    break
        self._missed = [position for position in range(len(texts)) if position not in self._found]
        self.misses = [texts[position] for position in self._missed]
        if self.misses:
            scopes[0].miss(self.misses, alone=len(texts) == 1)

    def wanted(self) -> list[tuple[Scope, set[int]]]:
        """Return the documents whose vectors are needed, by scope."""
        wanted: dict[Scope, set[int]] = {}
        for scope, (number, _) in self._found.values():
            wanted.setdefault(scope, set()).add(number)
        return list(wanted.items())

    def rows(self, matrices: dict[Scope, dict[int, Vectors]], isolated: Vectors | None) -> Vectors:
        """Put the vectors of all texts into the order of the call."""
        rows = {position: matrices[scope][number][row] for position, (scope, (number, row)) in self._found.items()}
        if isolated is not None:
            rows.update(zip(self._missed, isolated, strict=True))
        return np.stack([rows[position] for position in range(self._size)])


def find(owner: object, texts: list[str], *, alone: Callable[[list[str]], None] = lambda texts: None) -> Lookup | None:
    """Look texts up in the open scopes of an embeddings object.

    Args:
        owner: The embeddings object.
        texts: What a store asks it to embed.
        alone: Called with the texts where no block has anything to do with them.

    Returns:
        Where the texts belong; None where no block is open, and each text stands alone.

    Raises:
        InputError: A text is no chunk of the documents, and `on_miss` is `"error"`.
    """
    entered = [scope for scope in _entered.get() if scope.owner() is owner]
    scopes = [scope for scope in entered if not scope.closed]
    if scopes:
        return Lookup(scopes, texts)
    for scope in entered:
        scope.warn_once(
            "late", "texts are embedded without context: a task outlived its documents(...) block; wait inside it"
        )
    with _opening:
        elsewhere = [scope for scope in _open if scope.owner() is owner and any(map(scope.holds, texts))]
    for scope in elsewhere:
        scope.warn_once(
            "thread",
            "texts are embedded without context: their documents(...) block is open, but this thread does not "
            "inherit it; start the thread's work with contextvars.copy_context().run(...)",
        )
    if not entered and not elsewhere:
        alone(texts)
    return None


def tell_apart(chunks: Iterable[Document]) -> None:
    """Give chunks of equal text a string object each.

    A store hands the embedder plain strings. Their identity says which chunk is meant, unless two chunks hold the very
    same object, as those made from one constant do; these get an equal copy.

    Args:
        chunks: The chunks; `page_content` may be replaced by an equal string.

    Example:
        >>> footer = "All rights reserved."
        >>> chunks = [Document(footer), Document(footer)]
        >>> tell_apart(chunks)
        >>> chunks[0].page_content == chunks[1].page_content, chunks[0].page_content is chunks[1].page_content
        (True, False)
    """
    with _telling_apart:
        owners: dict[int, Document] = {}
        for chunk in chunks:
            owner = owners.setdefault(id(chunk.page_content), chunk)
            if owner is not chunk:
                text = chunk.page_content
                chunk.page_content = text[:1] + text[1:]
                owners[id(chunk.page_content)] = chunk
