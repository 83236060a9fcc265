"""In which order the chunks of one document are read, and what looks wrong about them.

Knows chunks of one document, their texts and metadata; must not know how documents are named, vectors or stores.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple
from urllib.parse import urldefrag

from langchain_core.documents import Document

from ..documents import are_offsets, is_missing
from ..errors import warn
from ..overlaps import find_overlap
from .grouping import Key, number, stamp_of

__all__ = ["Arrival", "Doubts", "arrange", "distinguishing", "owners"]

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
        kind: `"once"`, several times the same (`"copies"`), or in several `"versions"`.
    """

    orders: list[list[int]]
    kind: Literal["once", "copies", "versions"]


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
    if len(stamps) == len(chunks) and len({stamp.key.form for stamp in stamps}) == 1:
        versions: dict[str, list[int]] = {}
        for index in sorted(range(len(chunks)), key=lambda index: stamps[index].position):
            versions.setdefault(stamps[index].key.version, []).append(index)
        if len(versions) > 1:
            return Arrival(list(versions.values()), "versions")
        return _stamped(chunks, [stamp.position for stamp in stamps])
    found = [(chunk.page_content, *_place(chunk)) for chunk in chunks]
    times = math.gcd(*Counter(found).values()) if found else 1
    if times > 1:
        return Arrival([_in_order(chunks, indices) for indices in _nth(found, times)], "copies")
    everything = list(range(len(chunks)))
    order = _by_offset(chunks, everything)
    border = _second_version(found) if order is None else 0  # offsets in one text are those of one version
    if border:
        return Arrival([_in_order(chunks, part) for part in (everything[:border], everything[border:])], "versions")
    return Arrival([everything if order is None else order], "once")


def _stamped(chunks: Sequence[Document], places: list[int]) -> Arrival:
    times = max(Counter(places).values())
    order = sorted(range(len(chunks)), key=places.__getitem__)
    if times == 1:
        return Arrival([order], "once")
    turns: Counter[int] = Counter()
    orders: list[list[int]] = [[] for _ in range(times)]
    texts: dict[int, set[str]] = {}
    for index in order:
        orders[turns[places[index]]].append(index)
        turns[places[index]] += 1
        texts.setdefault(places[index], set()).add(chunks[index].page_content)
    same = all(len(each) == 1 for each in texts.values())
    return Arrival(orders, "copies" if same else "versions")


def _place(chunk: Document) -> tuple[str, str]:
    page = [repr(chunk.metadata.get(name)) for name in (*_PAGES, "page_label", "row", "seq_num")]
    return " ".join([*page, *_section(chunk.metadata)]), repr(chunk.metadata.get("start_index"))


def _section(metadata: dict[str, Any]) -> list[str]:
    return sorted(f"{name} {value!r}" for name, value in metadata.items() if _SECTION.search(str(name)))


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


def _in_order(chunks: Sequence[Document], indices: list[int]) -> list[int]:
    order = _by_offset(chunks, indices)
    return indices if order is None else order


def _by_offset(chunks: Sequence[Document], indices: list[int]) -> list[int] | None:
    """Order chunks by their offsets, if they all have one and these can be offsets in one text."""
    starts = [number(chunks[index].metadata.get("start_index")) for index in indices]
    known = [start for start in starts if start is not None]
    if len(known) < len(indices):
        return None
    pages = [
        next((m[name] for name in _PAGES if not is_missing(m.get(name))), None) for m in _metadata(chunks, indices)
    ]
    numbers = [0 if page is None else number(page) for page in pages]
    if None in numbers or len({page is None for page in pages}) > 1:
        return None
    places: dict[Any, dict[int, int]] = {}
    for index, page, start in zip(indices, numbers, known, strict=True):
        if places.setdefault(page, {}).setdefault(start, index) != index:
            return None
    for within in places.values():
        if not are_offsets([chunks[index].page_content for index in within.values()], list(within)):
            return None
        if not _sections_apart(chunks, [within[start] for start in sorted(within)]):
            return None
    return [places[page][start] for page in sorted(places) for start in sorted(places[page])]


def _metadata(chunks: Sequence[Document], indices: list[int]) -> list[dict[str, Any]]:
    return [chunks[index].metadata for index in indices]


def _sections_apart(chunks: Sequence[Document], order: list[int]) -> bool:
    """Tell whether offsets leave every section in one piece, as those that are counted anew in each do not."""
    sections = [tuple(_section(metadata)) for metadata in _metadata(chunks, order)]
    runs = [section for index, section in enumerate(sections) if index == 0 or section != sections[index - 1]]
    return len(runs) == len(set(runs))


def distinguishing(metadata: dict[str, Any]) -> dict[str, str]:
    """Return what in a document's metadata tells it from another document."""
    return {name: _shown(metadata[name]) for name in _named(metadata, (*_WHICH, *_WHOSE))}


def owners(chunks: Sequence[Document]) -> dict[str, set[str]]:
    """Return the metadata of a document's chunks that says whose it is, or which file."""
    found: dict[str, set[str]] = {}
    for chunk in chunks:
        for name, value in chunk.metadata.items():
            if _OWNERS.match(str(name).lower()) and not is_missing(value):
                found.setdefault(name, set()).add(repr(value))
    return found


def _named(metadata: dict[str, Any], names: Sequence[str]) -> Iterator[str]:
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

    def _once(self, kind: str, message: str) -> None:
        if kind not in self._said:
            self._said.add(kind)
            warn(message)

    def look(self, key: Key, chunks: Sequence[Document], *, stamped: bool = False) -> None:
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
            self._once(
                "single",
                f"each of the {self._documents} documents that group_by={self.named!r} makes has one chunk only, so "
                f"no chunk has read another. If {self.named!r} names the chunk and not its document, pass the key of "
                f"the document{better}; for whole documents pass splitter=",
            )

    def _overlap(self, key: Key, chunks: Sequence[Document]) -> None:
        starts = [number(chunk.metadata.get("start_index")) for chunk in chunks]
        found = find_overlap([[chunk.page_content for chunk in chunks]], [starts])
        if found is not None:
            self._once(
                "overlap",
                f"chunks {found.chunk - 1} and {found.chunk} of document {key.shown} share {found.characters} "
                "characters: the model reads a document's chunks together, so shared text is read twice. Set "
                "chunk_overlap=0 in the splitter",
            )

    def _missing(self, key: Key, chunks: Sequence[Document]) -> None:
        stamps = [stamp for stamp in map(stamp_of, chunks) if stamp is not None]
        counts = {stamp.chunks for stamp in stamps}
        if len(stamps) < len(chunks) or len(counts) > 1 or len({stamp.key for stamp in stamps}) > 1:
            return
        count = counts.pop() if counts else None
        if count is not None and len(chunks) != count:
            self._once(
                "missing",
                f"{len(chunks)} of the {count} chunks of document {key.shown} are here: their vectors know nothing of "
                "the others. Pass all chunks of a document together",
            )

    def _differing(self, key: Key, chunks: Sequence[Document]) -> None:
        for name in _named(chunks[0].metadata, (*_WHICH, *_WHOSE)):
            values = [_shown(chunk.metadata.get(name)) for chunk in chunks]
            several = len(set(values)) > 1 and name != self.named
            if several and (name.lower() in _WHOSE or len(set(values)) < len(values)):
                other = next(value for value in values if value != values[0])
                self._once(
                    "differing",
                    f"chunks of document {key.shown} differ in {name!r} ({values[0]}, {other}), so "
                    f"group_by={self.named!r} may join several documents. If so: group_by=lambda chunk: "
                    f"(chunk.metadata[{self.named!r}], chunk.metadata[{name!r}])",
                )
