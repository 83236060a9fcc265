"""One folder into one collection: what is missing, and how it is embedded and stored a piece at a time.

Knows what makes a file's chunks complete and current, and that what could not be read is never deleted; must not know
options or how chunks are embedded.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .folder import FoundFile, LeftOut, Listing, TextFile, read_file
from .progress import progress
from .splitting import Chunk, Splitter
from .store import Collection
from .terminal import shown

if TYPE_CHECKING:
    from langchain_core.documents import Document

    from ..langchain import PplxEmbeddings

__all__ = ["Found", "Job", "Plan"]

_KEYS = ["folder", "source", "content", "chunks"]
"""Metadata of every chunk that tell whether its file is complete and current."""
_TOGETHER = 64
"""Chunks that are embedded and stored in one go, unless one pass over a long file holds more."""


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
        stored: For each source the ids of its chunks.
        unchanged: How many files need nothing.
        gone: Sources that were deleted.
        kept: Sources that are missing for another reason, with the reason.
        failed: Files that could not be read when their turn came.
    """

    todo: list[Found] = field(default_factory=list)
    stored: dict[str, set[str]] = field(default_factory=dict)
    unchanged: int = 0
    gone: list[str] = field(default_factory=list)
    kept: list[LeftOut] = field(default_factory=list)
    failed: list[LeftOut] = field(default_factory=list)

    @property
    def removed(self) -> int:
        """How many files' chunks are deleted."""
        return len(self.gone)


@dataclass
class _Batch:
    """Chunks that are embedded together, those of them that are stored, and the files that are then complete."""

    together: list[Document] = field(default_factory=list)
    new: list[Document] = field(default_factory=list)
    characters: int = 0
    outdated: list[str] = field(default_factory=list)
    files: int = 0


class Job:
    """One folder, one collection.

    Args:
        folder: What the folder is called; a collection may hold several.
        collection: Where the chunks go.
        embeddings: What embeds them.
        chunk_tokens: Longest chunk.
    """

    def __init__(self, folder: str, collection: Collection, embeddings: PplxEmbeddings, chunk_tokens: int) -> None:
        self._folder, self._collection, self._embeddings = folder, collection, embeddings
        self._chunk_tokens = chunk_tokens
        self._folders: set[str] = set()

    def plan(self, files: list[Found], listing: Listing, *, allow_removal: bool) -> Plan:
        """Compare files with chunks; a file is current if all chunks of its content are there.

        Args:
            files: What could be read.
            listing: What is in the folder.
            allow_removal: Whether more than half of the files may go, and what was in a folder or file that is empty.
        """
        stored: dict[str, dict[str, dict[str, Any]]] = {}
        for key, metadata in self._collection.points(_KEYS):
            self._folders.add(str(metadata.get("folder")))
            if metadata.get("folder") == self._folder:
                stored.setdefault(str(metadata.get("source")), {})[key] = metadata
        plan = Plan(stored={source: set(chunks) for source, chunks in stored.items()})
        for found in files:
            chunks = stored.pop(found.file.source, {})
            current = [metadata for metadata in chunks.values() if metadata.get("content") == found.content]
            if current and len(current) == len(chunks) == current[0].get("chunks"):
                plan.unchanged += 1
            else:
                plan.todo.append(found)
        self._sort_missing(plan, sorted(stored), listing, allow_removal=allow_removal)
        return plan

    def _sort_missing(self, plan: Plan, missing: list[str], listing: Listing, *, allow_removal: bool) -> None:
        for source, reason in listing.why_missing(missing):
            if reason is None or (allow_removal and reason.kind == "empty"):
                plan.gone.append(source)
            else:
                hint = "; if that is meant, add --allow-removal" if reason.kind == "empty" else ""
                plan.kept.append(LeftOut(source, f"{reason.reason}{hint}", reason.kind))
        if len(plan.gone) * 2 > len(plan.stored) and not allow_removal:
            told = f"gone, and more than half of the {len(plan.stored)} files; if that is meant, add --allow-removal"
            plan.kept += [LeftOut(source, told, "empty") for source in plan.gone]
            plan.gone = []

    def moved(self) -> list[str]:
        """Return folders of the collection that are not there any more, if this one is new to it."""
        if self._folder in self._folders:
            return []
        return sorted(name for name in self._folders if os.path.isabs(name) and not os.path.lexists(name))  # noqa: PTH117

    def carry_out(self, plan: Plan) -> int:
        """Store what is missing, a batch at a time, and return how many files were; fewer if interrupted.

        New chunks are stored before old ones are deleted, so that a file can be found at any time. What is stored when
        Ctrl-C comes stays, a long file's finished part included, and the next run goes on from there.
        """
        self._collection.delete([key for source in plan.gone for key in plan.stored[source]])
        done = 0
        if not plan.todo:
            return done
        with progress(sum(found.characters for found in plan.todo), "Indexing") as bar:
            try:
                for batch in self._batches(plan):
                    self._add(batch)
                    self._collection.delete(batch.outdated)
                    done += batch.files
                    bar.update(batch.characters)
            except KeyboardInterrupt:
                pass
        return done

    def _batches(self, plan: Plan) -> Iterator[_Batch]:
        """Cut files into chunks, gather small files, each whole, and take long ones a window at a time."""
        batch = _Batch()
        for found in plan.todo:
            file = read_file(found.file)
            if isinstance(file, LeftOut):
                plan.failed.append(file)
                continue
            stored = plan.stored.get(file.source, set())
            pieces = self._pieces(file, stored)
            if batch.together and (len(pieces) > 1 or len(batch.together) + len(pieces[0].together) > _TOGETHER):
                yield batch
                batch = _Batch()
            if len(pieces) > 1:
                yield from pieces
                continue
            batch.together += pieces[0].together
            batch.new += pieces[0].new
            batch.characters += pieces[0].characters
            batch.outdated += pieces[0].outdated
            batch.files += 1
        if batch.files:
            yield batch

    def _pieces(self, file: TextFile, stored: set[str]) -> list[_Batch]:
        """Return a file's chunks in the windows in which they are embedded, less the windows that are stored."""
        encoder = self._embeddings.biencoder.document
        splitter = Splitter(chunk_tokens=self._chunk_tokens, count_tokens=encoder.count_tokens, markdown=file.markdown)
        parts = list(splitter.split(file.text))
        chunks = self._documents(file, parts)
        borders = [0, *(part.start for part in parts[1:]), len(file.text)]
        pieces = [
            _Batch(chunks[start:end], [chunks[i] for i in owned], sum(borders[i + 1] - borders[i] for i in owned))
            for start, end, owned in self._windows(parts)
        ]
        missing = [piece for piece in pieces if not {chunk.id for chunk in piece.new} <= stored] or [_Batch()]
        missing[0].characters += len(file.text) - sum(piece.characters for piece in missing)
        missing[-1].files = 1
        missing[-1].outdated = sorted(stored - {str(chunk.id) for chunk in chunks})
        return missing

    def _windows(self, parts: list[Chunk]) -> Iterator[tuple[int, int, tuple[int, ...]]]:
        """Yield what is read together, as the encoder itself would read it, and the chunks that it owns."""
        if not self._embeddings.contextual:
            for start in range(0, len(parts), _TOGETHER):
                end = min(start + _TOGETHER, len(parts))
                yield start, end, tuple(range(start, end))
            return
        from ..backbone.sequences import plan_windows

        lengths = [part.tokens for part in parts]
        document = self._embeddings.biencoder.document
        longest = document.max_tokens or document.checkpoint.max_tokens
        for window in plan_windows(lengths, max_tokens=longest):
            yield window.start, window.end, window.owned

    def _documents(self, file: TextFile, parts: list[Chunk]) -> list[Document]:
        from langchain_core.documents import Document

        content = hashlib.sha256(file.text.encode()).hexdigest()
        common = {"folder": self._folder, "source": file.source, "content": content, "chunks": len(parts)}
        documents, line, counted = [], 1, 0
        for part in parts:
            line += file.text.count("\n", counted, part.start)
            counted = part.start
            identity = "\0".join([self._folder, file.source, content, str(part.start), str(len(part.text))])
            metadata = {**common, "start_index": part.start, **({"line": line} if file.as_is else {})}
            key = str(uuid.uuid5(uuid.NAMESPACE_URL, identity))
            documents.append(Document(part.text, id=key, metadata=metadata))
        return documents

    def _add(self, batch: _Batch) -> None:
        if not batch.new:
            return
        try:
            vectors = self._vectors(batch)
        except InputError as error:
            sources = ", ".join(sorted({shown(chunk.metadata["source"]) for chunk in batch.new}))
            raise InputError(f"in {sources}: {error}") from error
        self._collection.add(batch.new, [vectors[str(chunk.id)] for chunk in batch.new])

    def _vectors(self, batch: _Batch) -> dict[str, list[float]]:
        """Embed a batch; of one file it holds a single window, so that a source is a document."""
        if not self._embeddings.contextual:
            found = self._embeddings.embed_documents([chunk.page_content for chunk in batch.together])
            return {str(chunk.id): vector for chunk, vector in zip(batch.together, found, strict=True)}
        windows: dict[str, list[Document]] = {}
        for chunk in batch.together:
            windows.setdefault(chunk.metadata["source"], []).append(chunk)
        matrices = self._embeddings.embed_document_chunks(
            [[chunk.page_content for chunk in chunks] for chunks in windows.values()]
        )
        return {
            str(chunk.id): vector
            for chunks, matrix in zip(windows.values(), matrices, strict=True)
            for chunk, vector in zip(chunks, matrix, strict=True)
        }
