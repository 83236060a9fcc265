"""`pplx-embed index`: a folder into a Qdrant collection, embedding only what the collection does not hold yet.

Knows what makes a file's chunks complete and current, and how to stop cleanly; must not know how chunks are embedded.
"""

from __future__ import annotations

import argparse
import hashlib
import signal
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from ..errors import InputError
from .folder import LeftOut, TextFile, read_folder
from .splitting import splitter
from .store import Collection, local_path, open_store, store_exists

if TYPE_CHECKING:
    from langchain_core.documents import Document

    from ..langchain import PplxEmbeddings

__all__ = ["run"]

_KEYS = ["folder", "source", "content", "chunks"]
"""Metadata of every chunk that tell whether its file is complete and current."""
_TOGETHER = 64
"""Chunks that are embedded and stored in one go, if they are of several files: what an interruption can cost."""
_INTERRUPTED = 130
_SHOWN = 20


@dataclass
class _Plan:
    """What is to be done so that the collection holds the folder."""

    todo: list[TextFile] = field(default_factory=list)
    outdated: dict[str, list[str]] = field(default_factory=dict)  # ids of a source's chunks that must go
    unchanged: int = 0
    removed: int = 0


def run(arguments: argparse.Namespace) -> int:
    """Read, compare, embed, store, report."""
    from .recorded import embeddings_of, requested

    files, left_out = read_folder(arguments.directory, except_for=local_path(arguments.store))
    if not store_exists(arguments.store):
        _refuse_nothing(files, left_out, arguments)
        requested(arguments, None)  # what is wrong with the options is said before a folder is made
    with open_store(arguments.store, arguments.collection, create=True) as collection:
        exists = collection.exists()
        record = requested(arguments, collection.record() if exists else None)
        embeddings = embeddings_of(record)
        if not exists:
            _refuse_nothing(files, left_out, arguments)
            collection.create(dimension=embeddings.biencoder.dimension, record=record)
        _list(left_out)
        job = _Job(str(Path(arguments.directory).resolve()), collection, embeddings, record["chunk_tokens"])
        plan = job.plan(files)
        done = job.carry_out(plan)
    return _report(plan, done, arguments)


def _refuse_nothing(files: list[TextFile], left_out: list[LeftOut], arguments: argparse.Namespace) -> None:
    if not files:
        _list(left_out)
        raise InputError(f"{arguments.directory!r} holds no text or Markdown file (.txt, .text, .md, .markdown)")


class _Job:
    """One folder, one collection.

    Args:
        folder: Absolute path of the folder; a collection may hold several.
        collection: Where the chunks go.
        embeddings: What embeds them.
        chunk_tokens: Longest chunk.
    """

    def __init__(self, folder: str, collection: Collection, embeddings: PplxEmbeddings, chunk_tokens: int) -> None:
        self._folder, self._collection, self._embeddings = folder, collection, embeddings
        self._store = collection.vector_store(embeddings)
        self._chunk_tokens = chunk_tokens

    def plan(self, files: list[TextFile]) -> _Plan:
        """Compare files with chunks; a file is current if all chunks of its content are there, and complete."""
        stored: dict[str, dict[str, dict[str, Any]]] = {}
        for key, metadata in self._collection.points(_KEYS):
            if metadata.get("folder") == self._folder:
                stored.setdefault(metadata["source"], {})[key] = metadata
        plan = _Plan()
        for file in files:
            chunks = stored.pop(file.source, {})
            current = {key: m for key, m in chunks.items() if m["content"] == _hash(file.text)}
            complete = bool(current) and len(current) == next(iter(current.values()))["chunks"]
            plan.outdated[file.source] = [key for key in chunks if key not in current]
            if complete:
                plan.unchanged += 1
            else:
                plan.todo.append(file)
        plan.removed = len(stored)
        plan.outdated.update({source: list(chunks) for source, chunks in stored.items()})
        return plan

    def carry_out(self, plan: _Plan) -> int:
        """Store what is missing, a batch of files at a time, and return how many files were; fewer if interrupted.

        A file's new chunks are stored before its old ones go, so that it can be found at any time.
        """
        waiting = {file.source for file in plan.todo}
        self._collection.delete([key for source, ids in plan.outdated.items() if source not in waiting for key in ids])
        if not plan.todo:
            return 0
        print(f"Loading {self._embeddings.biencoder.document.checkpoint.name} …", file=sys.stderr)
        self._embeddings.biencoder.document.load()
        done = 0
        total = sum(len(file.text) for file in plan.todo)
        with (
            _stop_asked() as stop,
            tqdm(total=total, unit="char", unit_scale=True, desc="Indexing", disable=None) as bar,
        ):
            for batch in self._batches(plan.todo):
                self._add([chunk for chunks in batch.values() for chunk in chunks])
                self._collection.delete([key for source in batch for key in plan.outdated[source]])
                done += len(batch)
                bar.update(sum(len(file.text) for file in plan.todo[done - len(batch) : done]))
                if stop() and done < len(plan.todo):
                    break
        return done

    def _batches(self, files: list[TextFile]) -> Iterator[dict[str, list[Document]]]:
        """Cut files into chunks, and gather small files, each whole."""
        batch: dict[str, list[Document]] = {}
        for file in files:
            chunks = self._chunks(file)
            if batch and sum(map(len, batch.values())) + len(chunks) > _TOGETHER:
                yield batch
                batch = {}
            batch[file.source] = chunks
        yield batch

    def _chunks(self, file: TextFile) -> list[Document]:
        count = self._embeddings.biencoder.document.count_tokens
        pieces = splitter(chunk_tokens=self._chunk_tokens, count_tokens=count, markdown=file.markdown)
        metadata = {"folder": self._folder, "source": file.source, "content": _hash(file.text)}
        chunks = pieces.create_documents([file.text], [metadata])
        for number, chunk in enumerate(chunks):
            start = chunk.metadata["start_index"]
            line = file.text.count("\n", 0, start) + 1
            identity = "\0".join([*metadata.values(), str(number)])
            chunk.id = str(uuid.uuid5(uuid.NAMESPACE_URL, identity))
            chunk.metadata |= {"chunks": len(chunks), "line": line}
        return chunks

    def _add(self, chunks: list[Document]) -> None:
        from ..langchain import add_documents

        ids = [chunk.id for chunk in chunks]
        try:
            if self._embeddings.contextual:
                add_documents(self._store, chunks, embeddings=self._embeddings, group_by=_source, ids=ids)
            else:
                self._store.add_documents(chunks, ids=ids)
        except InputError as error:
            sources = ", ".join(sorted({chunk.metadata["source"] for chunk in chunks}))
            raise InputError(f"in {sources}: {error}") from error


def _source(chunk: Document) -> str:
    return str(chunk.metadata["source"])


@contextmanager
def _stop_asked() -> Iterator[Callable[[], bool]]:
    """Let the first Ctrl-C wait for the batch to end; the second one ends at once."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def ask(number: int, frame: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        tqdm.write("Stopping when this batch is stored; press Ctrl-C again to stop at once.", file=sys.stderr)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _list(left_out: list[LeftOut]) -> None:
    if not left_out:
        return
    print(f"Left out {len(left_out)}:")
    for reason, count in Counter(entry.reason for entry in left_out).items():
        names = [entry.source for entry in left_out if entry.reason == reason]
        more = f" and {count - _SHOWN} more" if count > _SHOWN else ""
        print(f"  {reason}: {', '.join(names[:_SHOWN])}{more}")


def _report(plan: _Plan, done: int, arguments: argparse.Namespace) -> int:
    missing = len(plan.todo) - done
    removed = f", {plan.removed} removed" if plan.removed else ""
    print(f"{done} files indexed, {plan.unchanged} unchanged{removed}; collection {arguments.collection!r}.")
    if missing:
        print(f"Stopped before {missing} files were indexed. Run the same command again to go on.")
        return _INTERRUPTED
    elsewhere = "" if arguments.collection == "documents" else f" --collection {arguments.collection}"
    print(f'Search it with: pplx-embed search "your question" --store {arguments.store}{elsewhere}')
    return 0
