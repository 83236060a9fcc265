"""`pplx-embed index`: a folder into a Qdrant collection, embedding only what the collection does not hold yet.

Knows in which order things are read, checked, loaded and made, and what is reported; must not know how a file becomes
chunks.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .folder import LeftOut, Listing, list_folder, read_file
from .job import Found, Job, Plan
from .store import Collection, check_name, check_place, local_path, open_store, store_exists
from .terminal import shown

if TYPE_CHECKING:
    from ..langchain import PplxEmbeddings

__all__ = ["run"]

_KEPT = 3
_INTERRUPTED = 130
_SHOWN = 20


def run(arguments: argparse.Namespace) -> int:
    """Read, compare, embed, store, report."""
    check_name(arguments.collection)
    check_place(arguments.store, create=True)
    listing = list_folder(arguments.directory, include=arguments.include or (), except_for=local_path(arguments.store))
    files = _survey(listing)
    embeddings = None
    if not store_exists(arguments.store):  # what is wrong is said before a folder is made
        _refuse_nothing(files, listing, arguments)
        embeddings = _loaded(arguments)
    with open_store(arguments.store, arguments.collection, create=True) as collection:
        return _index(arguments, collection, listing, files, embeddings)


def _index(
    arguments: argparse.Namespace,
    collection: Collection,
    listing: Listing,
    files: list[Found],
    embeddings: PplxEmbeddings | None,
) -> int:
    from .recorded import embeddings_of, requested

    bound = collection.record() if collection.exists() else None
    if bound is not None and collection.is_empty():
        bound = None  # by a run that stored nothing: nothing has to agree with it
    if bound is None:
        _refuse_nothing(files, listing, arguments)
        embeddings = embeddings or _loaded(arguments)
    record = requested(arguments, bound)
    embeddings = embeddings or embeddings_of(record)
    if bound is None:
        collection.create(dimension=embeddings.biencoder.dimension, record=record)
    folder = arguments.name or folder_name(arguments.directory)
    job = Job(folder, collection, embeddings, record["chunk_tokens"])
    plan = job.plan(files, listing, allow_removal=arguments.allow_removal)
    _tell_of_other_folders(job.moved())
    if plan.todo:
        print(f"Loading {shown(embeddings.biencoder.document.checkpoint.name)} …", file=sys.stderr, flush=True)
        embeddings.biencoder.document.load()
    done = job.carry_out(plan)
    return _report(plan, listing, done, arguments)


def folder_name(directory: str) -> str:
    """Return what a folder is called in a collection, unless it is given a name: its absolute path."""
    path = Path(directory).resolve()
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _survey(listing: Listing) -> list[Found]:
    """Read every file once, for its hash and its length; what is no text goes to what is left out."""
    found = []
    for file in listing.files:
        content = read_file(file)
        if isinstance(content, LeftOut):
            listing.left_out.append(content)
        else:
            found.append(Found(file, hashlib.sha256(content.text.encode()).hexdigest(), len(content.text)))
    return found


def _loaded(arguments: argparse.Namespace) -> PplxEmbeddings:
    """Load what a new collection is to be made with: one that cannot be loaded, or downloaded, binds no store."""
    from .recorded import embeddings_of, requested

    embeddings = embeddings_of(requested(arguments, None))
    embeddings.biencoder.document.load()
    return embeddings


def _refuse_nothing(files: list[Found], listing: Listing, arguments: argparse.Namespace) -> None:
    if not files:
        _list("Left out {}:", listing.left_out)
        more = f", nor one of {' '.join(arguments.include)}" if arguments.include else ""
        raise InputError(
            f"{arguments.directory!r} holds no text or Markdown file (.txt, .text, .md, .markdown){more}; name other "
            'kinds of text with --include, as in --include "*.rst" "*.html"'
        )


def _tell_of_other_folders(moved: list[str]) -> None:
    for name in map(shown, moved):
        print(
            f"The collection holds chunks of {name}, which is not there any more. If this is that folder under a new "
            f"path, stop and add: --as {name!r}. If it is gone for good: pplx-embed forget {name!r}",
            file=sys.stderr,
        )


def _list(title: str, entries: list[LeftOut]) -> None:
    if not entries:
        return
    print(title.format(len(entries)))
    for reason in dict.fromkeys(entry.reason for entry in entries):
        names = [shown(entry.source) for entry in entries if entry.reason == reason]
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        print(f"  {shown(reason)}: {', '.join(names[:_SHOWN])}{more}")


def _report(plan: Plan, listing: Listing, done: int, arguments: argparse.Namespace) -> int:
    missing = len(plan.todo) - done - len(plan.failed)
    kept = {entry.source for entry in plan.kept}
    _list("Left out {}:", [entry for entry in listing.left_out + plan.failed if entry.source not in kept])
    _list("Kept what the collection holds of {} files:", plan.kept)
    removed = f", {plan.removed} removed" if plan.removed else ""
    print(f"{done} files indexed, {plan.unchanged} unchanged{removed}; collection {shown(arguments.collection)!r}.")
    if missing:
        print(f"Stopped before {missing} files were indexed. Run the same command again to go on.")
        return _INTERRUPTED
    elsewhere = "" if arguments.collection == "documents" else f" --collection {shown(arguments.collection)}"
    print(f'Search it with: pplx-embed search "your question" --store {shown(arguments.store)}{elsewhere}')
    unread = any(entry.kind == "unread" for entry in listing.left_out)
    return _KEPT if plan.kept or plan.failed or unread else 0
