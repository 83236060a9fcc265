"""A collection cut into chunks, and which of them are right.

Knows how a judged passage becomes a judged chunk; must not know splitters, models, vectors or metrics.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from ..errors import InputError
from .collection import Collection
from .results import Passage

Split = Callable[[str], Iterable[tuple[int, int]]]
"""Returns start and end (exclusive) of a text's chunks, in reading order."""


@dataclass(frozen=True)
class Chunked:
    """A collection's chunks.

    Attributes:
        chunks: All of them, document by document, in reading order.
        documents: Ids of the documents that have any, in the order of the collection.
        starts: For each of these, where its chunks begin in `chunks`.
        judgements: For each query with judged passages, the grade by place in `chunks`. A place below zero is that of a
            passage which no chunk holds: it is right, and cannot be found.
        notes: What a reader should know, in sentences.
    """

    chunks: tuple[Passage, ...]
    documents: tuple[str, ...]
    starts: tuple[int, ...]
    judgements: dict[str, dict[int, int]]
    notes: tuple[str, ...]

    @property
    def nested(self) -> list[list[str]]:
        """The chunks' texts by document."""
        ends = [*self.starts[1:], len(self.chunks)]
        return [[chunk.text for chunk in self.chunks[start:end]] for start, end in zip(self.starts, ends, strict=True)]


def cut(collection: Collection, split: Split | None) -> Chunked:
    """Cut a collection's documents, and judge the chunks by the judged passages.

    Args:
        collection: Documents and judgements.
        split: Where to cut; None where the collection brings its chunks.

    Raises:
        InputError: There is no way to cut, a chunk lies outside its text or is white space, or there is none at all.

    Example:
        >>> collection = Collection({"d": "One. Two."}, {"q": "?"}, {"q": {"d": 1}},
        ...                         passages={"q": {Passage("d", 5, 9, "Two."): 1}})
        >>> cut(collection, lambda text: [(0, 4), (5, 9)]).judgements
        {'q': {1: 1}}
    """
    if collection.chunks is None and split is None:
        raise InputError("this collection has no chunks of its own; say with split= where its texts are to be cut")
    if collection.chunks is not None and split is not None:
        raise InputError("this collection brings its chunks, which are what is judged; leave split= out")
    chunks: list[Passage] = []
    for document, text in collection.documents.items():
        chunks += _chunks(document, text, split) if split else (collection.chunks or {}).get(document, ())
    if not chunks:
        raise InputError("no document of the collection has a chunk; look at what split= returns")
    owners = [document for document, _ in groupby(chunks, key=lambda chunk: chunk.document)]
    firsts: dict[str, int] = {}
    for place, chunk in enumerate(chunks):
        firsts.setdefault(chunk.document, place)
    judgements, notes = _judged(collection, chunks)
    return Chunked(tuple(chunks), tuple(owners), tuple(firsts[each] for each in owners), judgements, notes)


def is_right(chunk: Passage, passage: Passage) -> bool:
    """Return whether a chunk answers where a passage does: it holds half of the passage, or half of it lies in there.

    Characters are counted without white space, which splitters drop at borders. So a passage that is cut in two has a
    right chunk, and every chunk within a long passage is right, while a chunk that only touches it is not.

    Example:
        >>> answer = Passage("d", 0, 10, "high tides")
        >>> [is_right(Passage("d", *span, "high tides come"[slice(*span)]), answer) for span in [(0, 15), (9, 15)]]
        [True, False]
    """
    if chunk.document != passage.document:
        return False
    start, end = max(chunk.start, passage.start), min(chunk.end, passage.end)
    shared = _size(chunk.text[start - chunk.start : end - chunk.start]) if start < end else 0
    return shared > 0 and (2 * shared >= _size(passage.text) or 2 * shared >= _size(chunk.text))


def _size(text: str) -> int:
    return sum(map(len, text.split()))


def _chunks(document: str, text: str, split: Split) -> Iterator[Passage]:
    for start, end in split(text):
        if not 0 <= start < end <= len(text) or text[start:end].isspace():
            raise InputError(
                f"split= gave {start} to {end} as a chunk of document {document!r}, which has {len(text)} characters; "
                "wanted are start and end (exclusive) of parts that are more than white space"
            )
        yield Passage(document, start, end, text[start:end])


def _judged(collection: Collection, chunks: list[Passage]) -> tuple[dict[str, dict[int, int]], tuple[str, ...]]:
    places: defaultdict[str, list[int]] = defaultdict(list)
    for place, chunk in enumerate(chunks):
        places[chunk.document].append(place)
    holding: dict[Passage, list[int]] = {}
    whole: dict[Passage, bool] = {}
    judgements: dict[str, dict[int, int]] = {}
    for query, grades in collection.passages.items():
        judged: dict[int, int] = {}
        for passage, grade in grades.items():
            if passage not in holding:
                near = places[passage.document]
                holding[passage] = [place for place in near if is_right(chunks[place], passage)]
                whole[passage] = any(_holds(chunks[place], passage) for place in near)
            for place in holding[passage] or ([-1 - len(judged)] if grade > 0 else []):
                judged[place] = max(grade, judged.get(place, grade))
        judgements[query] = judged
    found = [passage for passage, right in holding.items() if right]
    cut_apart = sum(not whole[passage] for passage in found)
    counts = {
        f"judged passages cut by a chunk border, of {len(holding)}": cut_apart,
        "judged passages that no chunk holds, counted as not found": len(holding) - len(found),
    }
    return judgements, tuple(f"{note}: {count}" for note, count in counts.items() if count)


def _holds(chunk: Passage, passage: Passage) -> bool:
    """Return whether a chunk holds a passage but for white space at its ends."""
    start = passage.start + len(passage.text) - len(passage.text.lstrip())
    return chunk.start <= start and start + len(passage.text.strip()) <= chunk.end
