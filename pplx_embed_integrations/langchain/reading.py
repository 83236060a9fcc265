"""In which order the chunks of one document are read, and what looks wrong about them.

Knows chunks of one document, their texts and metadata; must not know how documents are named, vectors or stores.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple
from urllib.parse import urldefrag

from langchain_core.documents import Document

from ..documents import are_offsets, is_missing
from ..errors import warn
from ..overlaps import find_overlap
from .grouping import Stamp, number, shown, stamp_of

_PAGES = ("page", "page_number")
_SECTION = re.compile(r"^(header|heading|section|chapter|sheet|slide)", re.IGNORECASE)
_WHOSE = (
    "user", "user_id", "username", "owner", "owner_id", "tenant", "tenant_id", "customer", "customer_id", "account",
    "account_id", "workspace", "workspace_id", "organization_id", "org_id", "team_id", "project_id", "repository",
    "repo", "bucket", "folder", "directory", "title", "url", "link", "file_path", "filepath", "file_name",
    "filename", "file_id", "document_id", "row", "row_index", "row_number",
)  # fmt: skip
"""Metadata in which the chunks of one document do not differ."""
_WHICH = ("source", "source_id", "id", "_id", "uuid", "doc_id", "docid", "ref_doc_id")
"""The same, unless every chunk has one of its own."""
_OF_A_CHUNK = re.compile(
    r"(^|_)(chunk|chunks|row|line|node|element|passage|segment)(_|$|id|index)|^_?id$", re.IGNORECASE
)
_OWNERS = re.compile(
    r"^((user|username|owner|tenant|customer|account|workspace|organization|org|team|repository|repo|file_?path|file)"
    r"(_?id)?|project_id|bucket|folder|directory)$"
)
_MANY = 10
_LIKE = 0.5
"""Share of chunks that two versions of one document have in common, at least."""


class Arrival(NamedTuple):
    """How the chunks with one key arrived.

    Attributes:
        orders: For each time the document came the positions of its chunks, in reading order.
        versions: Whether it came with different texts.
    """

    orders: list[list[int]]
    versions: bool = False


def arrange(chunks: Sequence[Document]) -> Arrival:
    """Find the reading order of the chunks with one key.

    The stamp decides; else `start_index`, where it can be offsets in one text, within a page that is a number; else
    the input order stands.

    Args:
        chunks: The chunks in input order.

    Returns:
        The order; several where the document seems to have come more than once.

    Example:
        >>> chunks = [Document("two", metadata={"start_index": 9}), Document("one", metadata={"start_index": 0})]
        >>> arrange(chunks).orders
        [[1, 0]]
    """
    stamps = [stamp for stamp in map(stamp_of, chunks) if stamp is not None]
    if len(stamps) == len(chunks) and len({stamp.key for stamp in stamps}) == 1:
        return _by_stamp(chunks, stamps)
    found = [(chunk.page_content, *_place(chunk)) for chunk in chunks]
    times = math.gcd(*Counter(found).values())
    if times > 1:
        return Arrival([_by_offset(chunks, part) or part for part in _nth(found, times)])
    everything = list(range(len(chunks)))
    order = _by_offset(chunks, everything)
    if not order and (border := _second_version(found)):  # offsets in one text are those of one version
        parts = (everything[:border], everything[border:])
        return Arrival([_by_offset(chunks, part) or part for part in parts], versions=True)
    return Arrival([order or everything])


def _by_stamp(chunks: Sequence[Document], stamps: Sequence[Stamp]) -> Arrival:
    """Deal chunks out to the versions of their document, and to its copies where a place is taken several times."""
    orders: dict[tuple[str, int], list[int]] = {}
    turns: Counter[tuple[str, int]] = Counter()
    for index in sorted(range(len(chunks)), key=lambda index: stamps[index].position):
        place = (stamps[index].version, stamps[index].position)
        orders.setdefault((stamps[index].version, turns[place]), []).append(index)
        turns[place] += 1
    texts = {(stamp.position, chunk.page_content) for stamp, chunk in zip(stamps, chunks, strict=True)}
    places = {stamp.position for stamp in stamps}
    return Arrival(
        list(orders.values()), versions=len({stamp.version for stamp in stamps}) > 1 or len(texts) > len(places)
    )


def _place(chunk: Document) -> tuple[str, str]:
    page = [repr(chunk.metadata.get(name)) for name in (*_PAGES, "page_label", "row", "seq_num")]
    return " ".join([*page, *_section(chunk.metadata)]), repr(chunk.metadata.get("start_index"))


def _section(metadata: dict[str, Any]) -> tuple[str, ...]:
    return tuple(sorted(f"{name} {value!r}" for name, value in metadata.items() if _SECTION.search(str(name))))


def _nth(found: list[Any], times: int) -> list[list[int]]:
    """Deal equal chunks out to `times` copies, the first ones to the first copy."""
    counts, turns = Counter(found), Counter[Any]()
    copies: list[list[int]] = [[] for _ in range(times)]
    for index, each in enumerate(found):
        copies[turns[each] * times // counts[each]].append(index)
        turns[each] += 1
    return copies


def _second_version(found: list[tuple[str, str, str]]) -> int:
    """Find where a second version of the document begins; 0 if nowhere."""
    # One text that comes again at the same offset is sign enough; without offsets it takes two texts.
    where: dict[tuple[str, str], list[int]] = {}
    for index, (text, page, _) in enumerate(found):
        where.setdefault((text, page), []).append(index)
    for first in range(min(8, len(found) // 2)):
        text, page, start = found[first]
        for again in where[text, page][1:3]:
            border = again - first
            one, other = (Counter(each[:2] for each in part) for part in (found[:border], found[border:]))
            least = 1 if found[again][2] == start != repr(None) else 2
            if border > 1 and (one & other).total() >= max(least, _LIKE * max(border, len(found) - border)):
                return border
    return 0


def _by_offset(chunks: Sequence[Document], indices: list[int]) -> list[int]:
    """Order chunks by their offsets, if they all have one and these can be offsets in one text; else return nothing."""
    pages = [
        next(
            (chunks[index].metadata[name] for name in _PAGES if not is_missing(chunks[index].metadata.get(name))), None
        )
        for index in indices
    ]
    if len({page is None for page in pages}) > 1:
        return []
    places: dict[int, dict[int, int]] = {}
    for index, page in zip(indices, pages, strict=True):
        at, start = 0 if page is None else number(page), number(chunks[index].metadata.get("start_index"))
        if at is None or start is None or places.setdefault(at, {}).setdefault(start, index) != index:
            return []
    for within in places.values():
        order = [within[start] for start in sorted(within)]
        if not are_offsets([chunks[index].page_content for index in order], sorted(within)):
            return []
        # Those that are counted anew in each section do not leave every section in one piece.
        sections = [section for section, _ in groupby(_section(chunks[index].metadata) for index in order)]
        if len(sections) > len(set(sections)):
            return []
    return [places[page][start] for page in sorted(places) for start in sorted(places[page])]


def incomplete(chunks: Sequence[Document]) -> str:
    """Say how many chunks of a stamped document are here, if not all."""
    stamp = stamp_of(chunks[0])
    wanted = len(chunks) if stamp is None or stamp.chunks is None else stamp.chunks
    return "" if wanted == len(chunks) else f"{len(chunks)} of the {wanted} chunks"


def distinguishing(metadata: dict[str, Any]) -> dict[str, str]:
    """Return what in a document's metadata tells it from another document."""
    return {name: _shown(metadata[name]) for name in _named(metadata)}


def owners(chunks: Sequence[Document]) -> dict[str, set[str]]:
    """Return the metadata of a document's chunks that says whose it is, or which file."""
    found: dict[str, set[str]] = {}
    for chunk in chunks:
        for name, value in chunk.metadata.items():
            if _OWNERS.match(str(name).lower()) and not is_missing(value):
                found.setdefault(name, set()).add(repr(value))
    return found


def _named(metadata: dict[str, Any]) -> Iterator[str]:
    names = (*_WHICH, *_WHOSE)
    return (name for name in metadata if str(name).lower() in names and not is_missing(metadata[name]))


def _shown(value: Any) -> str:
    return repr(urldefrag(value).url if isinstance(value, str) and "://" in value else value)


class Doubts:
    """Looks at documents as they come, and warns once of each thing that looks wrong about them.

    Args:
        named: The metadata key that names documents; None where a function, a list or the stamp does.

    Attributes:
        named: The same.
    """

    def __init__(self, named: str | None = None) -> None:
        self.named = named
        self._said: set[str] = set()
        self._documents = self._chunks = 0
        self._shared: dict[str, Counter[str]] = {}

    def once(self, kind: str, message: str) -> None:
        """Warn of something, unless that was done before."""
        if kind not in self._said:
            self._said.add(kind)
            warn(message)

    def look(self, key: str, chunks: Sequence[Document], *, stamped: bool = False) -> None:
        """Look at the chunks of a document, in reading order; `stamped` if they were grouped by their stamp."""
        self._documents += 1
        self._chunks += len(chunks)
        self._overlap(key, chunks)
        if stamped:
            self._missing(key, chunks)
        if self.named is not None:
            self._differing(key, chunks)
            if len(chunks) == 1 and self._documents <= 1000:
                for name, value in distinguishing(chunks[0].metadata).items():
                    self._shared.setdefault(name, Counter())[value] += 1

    def end(self) -> None:
        """Warn of what can be said only when all documents have been seen."""
        if self.named is None or self._documents < 2 or self._chunks > self._documents:
            return
        sharing = [name for name, values in self._shared.items() if max(values.values()) > 1 < len(values)]
        if self._documents >= _MANY or sharing or _OF_A_CHUNK.search(self.named):
            better = f" (chunks share their {sharing[0]!r})" if sharing else ""
            self.once(
                "single",
                f"each of the {self._documents} documents that group_by={self.named!r} makes has one chunk only, so "
                f"no chunk has read another. If {self.named!r} names the chunk and not its document, pass the key of "
                f"the document{better}; for whole documents pass splitter=",
            )

    def _overlap(self, key: str, chunks: Sequence[Document]) -> None:
        starts = [number(chunk.metadata.get("start_index")) for chunk in chunks]
        found = find_overlap([[chunk.page_content for chunk in chunks]], [starts])
        if found is not None:
            self.once(
                "overlap",
                f"chunks {found.chunk - 1} and {found.chunk} of document {shown(key)} share {found.characters} "
                "characters: the model reads a document's chunks together, so shared text is read twice. Set "
                "chunk_overlap=0 in the splitter",
            )

    def _missing(self, key: str, chunks: Sequence[Document]) -> None:
        if lacking := incomplete(chunks):
            self.once(
                "missing",
                f"{lacking} of document {shown(key)} are here: their vectors know nothing of "
                "the others. Pass all chunks of a document together",
            )

    def _differing(self, key: str, chunks: Sequence[Document]) -> None:
        for name in _named(chunks[0].metadata):
            values = [_shown(chunk.metadata.get(name)) for chunk in chunks]
            several = len(set(values)) > 1 and name != self.named
            if several and (name.lower() in _WHOSE or len(set(values)) < len(values)):
                other = next(value for value in values if value != values[0])
                self.once(
                    "differing",
                    f"chunks of document {shown(key)} differ in {name!r} ({values[0]}, {other}), so "
                    f"group_by={self.named!r} may join several documents. If so: group_by=lambda chunk: "
                    f"(chunk.metadata[{self.named!r}], chunk.metadata[{name!r}])",
                )
