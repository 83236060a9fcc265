"""One folder into one collection: what is missing, and how it is embedded and stored a piece at a time.

Knows what makes a file's chunks complete and current, and that what could not be read is never deleted; must not know
options or tables' insides.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from .folder import FoundFile, LeftOut, Listing, TextFile, read_file
from .progress import Progress, progress
from .splitting import Chunk as Part
from .splitting import Splitter
from .terminal import shown

if TYPE_CHECKING:
    from ..backbone.sequences import Window
    from ..biencoder import PplxBiEncoder
    from ..stores import Chunk, ChunkTable, StoredDocument
    from ..vectors import Vectors

_TOGETHER = 64
"""Chunks that are embedded and stored in one go, unless one pass over a long file holds more."""
_UNFINISHED = "unfinished"
"""Metadata of chunks that were stored before the rest of their long file."""


@dataclass(frozen=True)
class Found:
    """A text file: its hash when it was looked at, and its length in characters."""

    file: FoundFile
    content: str
    characters: int


@dataclass
class Plan:
    """What is to be done so that the collection holds the folder.

    Attributes:
        todo: Files whose chunks are not there, or not all of them.
        held: How many files of the folder the collection holds.
        unchanged: How many files need nothing.
        gone: For sources that were deleted, the keys of their documents.
        kept: Sources that are missing for another reason, with the reason.
        failed: Files that could not be read when their turn came.
    """

    todo: list[Found] = field(default_factory=list)
    held: int = 0
    unchanged: int = 0
    gone: dict[str, str] = field(default_factory=dict)
    kept: list[LeftOut] = field(default_factory=list)
    failed: list[LeftOut] = field(default_factory=list)


@dataclass(frozen=True)
class _CutFile:
    """A file in chunks, and the windows in which they are embedded."""

    source: str
    document: StoredDocument
    windows: list[Window]
    characters: list[int]
    """What each chunk counts for, up to where the next one begins."""


def files_of(keys: Iterable[str]) -> dict[str, dict[str, str]]:
    """Sort the keys of a collection's documents by folder and by source; what others put there has neither.

    Example:
        >>> files_of(['["/notes", "a.txt"]', "ada"])
        {'/notes': {'a.txt': '["/notes", "a.txt"]'}}
    """
    folders: dict[str, dict[str, str]] = {}
    for key in keys:
        try:
            folder, source = json.loads(key)
        except ValueError:
            continue
        folders.setdefault(str(folder), {})[str(source)] = key
    return folders


class Job:
    """One folder, one collection.

    Args:
        folder: What the folder is called; a collection may hold several.
        table: Where the chunks go.
        pair: What embeds them.
        chunk_tokens: Longest chunk.
    """

    def __init__(self, folder: str, table: ChunkTable, pair: PplxBiEncoder, chunk_tokens: int) -> None:
        self._folder, self._table, self._pair = folder, table, pair
        self._chunk_tokens = chunk_tokens
        self._folders: set[str] = set()

    def plan(self, files: list[Found], listing: Listing, *, allow_removal: bool) -> Plan:
        """Compare files with chunks; a file is current if all chunks of its content are there.

        Args:
            files: What could be read.
            listing: What is in the folder.
            allow_removal: Whether more than half of the files may go, and what was in a folder or file that is empty.
        """
        counts = self._table.documents()
        folders = files_of(counts)
        self._folders = set(folders)
        held = folders.get(self._folder, {})
        contents = self._contents(counts)
        plan = Plan(held=len(held))
        for found in files:
            key = held.pop(found.file.source, "")
            if contents.get(key) == found.content:
                plan.unchanged += 1
            else:
                plan.todo.append(found)
        self._sort_missing(plan, held, listing, allow_removal=allow_removal)
        return plan

    def _contents(self, counts: Mapping[str, int]) -> dict[str, str]:
        """Return the hash of the content of each document that is there as a whole."""
        contents: dict[str, str] = {}
        firsts = self._table.get(where="position = 0")
        often = Counter(hit.document for hit in firsts)
        for hit in firsts:
            whole = counts.get(hit.document) == hit.metadata.get("chunks") and _UNFINISHED not in hit.metadata
            if whole and often[hit.document] == 1:
                contents[hit.document] = str(hit.metadata.get("content"))
        return contents

    def _sort_missing(self, plan: Plan, missing: dict[str, str], listing: Listing, *, allow_removal: bool) -> None:
        for source, reason in listing.why_missing(sorted(missing)):
            if reason is None or (allow_removal and reason.kind == "empty"):
                plan.gone[source] = missing[source]
            else:
                hint = "; if that is meant, add --allow-removal" if reason.kind == "empty" else ""
                plan.kept.append(LeftOut(source, f"{reason.reason}{hint}", reason.kind))
        if len(plan.gone) * 2 > plan.held and not allow_removal:
            told = f"gone, and more than half of the {plan.held} files; if that is meant, add --allow-removal"
            plan.kept += [LeftOut(source, told, "empty") for source in plan.gone]
            plan.gone = {}

    def moved(self) -> list[str]:
        """Return folders of the collection that are not there any more, if this one is new to it."""
        if self._folder in self._folders:
            return []
        return sorted(name for name in self._folders if os.path.isabs(name) and not os.path.lexists(name))  # noqa: PTH117

    def carry_out(self, plan: Plan) -> int:
        """Store what is missing, some files at a time, and return how many files were; fewer if interrupted.

        A file's old chunks are there until its new ones are, in one version of the table. Of a long file each window
        is stored as soon as it is embedded, so the next run goes on from there.
        """
        self._table.delete(documents=list(plan.gone.values()))
        if not plan.todo:
            return 0
        done = 0
        waiting: list[_CutFile] = []
        with progress(sum(found.characters for found in plan.todo), "Indexing") as bar:
            try:
                for found in plan.todo:
                    file = read_file(found.file)
                    if isinstance(file, LeftOut):
                        plan.failed.append(file)
                        continue
                    cut = self._cut(file)
                    chunks = sum(len(other.document.chunks) for other in (*waiting, cut))
                    if waiting and (chunks > _TOGETHER or len(cut.windows) > 1):
                        done += self._store(waiting, bar)
                        waiting = []
                    if len(cut.windows) > 1:
                        done += self._store_long(cut, bar)
                    else:
                        waiting.append(cut)
                done += self._store(waiting, bar)
            except KeyboardInterrupt:
                pass
        return done

    def _store(self, files: list[_CutFile], bar: Progress) -> int:
        """Store files as wholes, together."""
        if files:
            vectors = self._encode([file.document.texts for file in files], [file.source for file in files])
            self._table.replace([file.document for file in files], vectors)
            bar.update(sum(sum(file.characters) for file in files))
        return len(files)

    def _store_long(self, file: _CutFile, bar: Progress) -> int:
        """Store a file's windows as they come, less those that are there, and then the file in their place."""
        document = file.document
        vectors = self._held_vectors(document)
        for window in file.windows:
            missing = any(number not in vectors for number in window.owned)
            if missing:
                [matrix] = self._encode([document.texts[window.start : window.end]], [file.source])
                vectors |= {number: matrix[number - window.start] for number in window.owned}
            if missing and window is not file.windows[-1]:
                owned = [document.chunks[number] for number in window.owned]
                self._table.upsert(
                    [replace(chunk, metadata={**chunk.metadata, _UNFINISHED: True}) for chunk in owned],
                    np.stack([vectors[number] for number in window.owned]),
                    documents=[document.key] * len(owned),
                    positions=window.owned,
                )
            bar.update(sum(file.characters[number] for number in window.owned))
        self._table.replace([document], [np.stack([vectors[number] for number in range(len(document.chunks))])])
        return 1

    def _held_vectors(self, document: StoredDocument) -> dict[int, Vectors]:
        """Read the vectors of chunks of this very content, by their place."""
        places = {chunk.id: place for place, chunk in enumerate(document.chunks)}
        held = self._table.get(documents=[document.key], with_vectors=True)
        return {places[hit.id]: hit.vector for hit in held if hit.id in places and hit.vector is not None}

    def _cut(self, file: TextFile) -> _CutFile:
        from ..stores import StoredDocument

        encoder = self._pair.document
        splitter = Splitter(chunk_tokens=self._chunk_tokens, count_tokens=encoder.count_tokens, markdown=file.markdown)
        parts = list(splitter.split(file.text))
        borders = [0, *(part.start for part in parts[1:]), len(file.text)]
        return _CutFile(
            source=file.source,
            document=StoredDocument(
                json.dumps([self._folder, file.source], ensure_ascii=False), self._chunks(file, parts)
            ),
            windows=self._windows(parts),
            characters=[end - start for start, end in pairwise(borders)],
        )

    def _windows(self, parts: list[Part]) -> list[Window]:
        """Return what is read together, as the encoder itself would read it, and the chunks that it owns."""
        if self._pair.contextual:
            windows: list[Window] = self._pair.document.windows([part.tokens for part in parts])
            return windows
        from ..backbone.sequences import Window

        starts = range(0, len(parts), _TOGETHER)
        ends = [min(start + _TOGETHER, len(parts)) for start in starts]
        return [Window(start, end, tuple(range(start, end))) for start, end in zip(starts, ends, strict=True)]

    def _chunks(self, file: TextFile, parts: list[Part]) -> list[Chunk]:
        """Name each chunk after the whole content, on which its vector depends."""
        from ..stores import Chunk

        content = hashlib.sha256(file.text.encode()).hexdigest()
        common = {"folder": self._folder, "source": file.source, "content": content, "chunks": len(parts)}
        chunks, line, counted = [], 1, 0
        for part in parts:
            line += file.text.count("\n", counted, part.start)
            counted = part.start
            identity = "\0".join([self._folder, file.source, content, str(part.start), str(len(part.text))])
            metadata = {**common, "start_index": part.start, **({"line": line} if file.as_is else {})}
            chunks.append(Chunk(str(uuid.uuid5(uuid.NAMESPACE_URL, identity)), part.text, metadata))
        return chunks

    def _encode(self, windows: list[list[str]], sources: list[str]) -> list[Vectors]:
        """Embed windows, each in context if the model can."""
        try:
            if self._pair.contextual:
                return self._pair.encode_documents(windows)
            rows = self._pair.encode_texts([text for texts in windows for text in texts])
            return np.split(rows, list(accumulate(map(len, windows)))[:-1])
        except InputError as error:
            raise InputError(f"in {', '.join(sorted(map(shown, sources)))}: {error}") from error
