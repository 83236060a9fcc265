"""`pplx-embed index`: a folder into a collection, embedding only what the collection does not hold yet.

Knows in which order things are read, checked, loaded and made, and what is reported; must not know how a file becomes
chunks.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from typing import TYPE_CHECKING

from .folder import LeftOut, Listing, folder_name, list_folder, no_text, read_file
from .interruption import INTERRUPTED
from .job import Found, Job, Plan
from .store import check_name, check_place, collections, local_path, make_collection, open_collection
from .terminal import shown

if TYPE_CHECKING:
    from ..biencoder import PplxBiEncoder
    from ..stores import ChunkTable
    from .recorded import Record

_KEPT = 3
_SHOWN = 20


def run(arguments: argparse.Namespace) -> int:
    """Read, compare, embed, store, report."""
    check_name(arguments.collection)
    check_place(arguments.store, create=True)
    listing = list_folder(arguments.directory, include=arguments.include or (), except_for=local_path(arguments.store))
    files = _survey(listing)
    pair, table, record = _opened(arguments, listing, files)
    job = Job(folder_name(arguments.directory, arguments.name), table, pair, record["chunk_tokens"])
    plan = job.plan(files, listing, allow_removal=arguments.allow_removal)
    _tell_of_other_folders(job.moved())
    if plan.todo:
        print(f"Loading {shown(pair.document.checkpoint.name)} …", file=sys.stderr, flush=True)
        pair.document.load()
    done = job.carry_out(plan)
    return _report(plan, listing, done, arguments)


def _opened(
    arguments: argparse.Namespace, listing: Listing, files: list[Found]
) -> tuple[PplxBiEncoder, ChunkTable, Record]:
    """Open the collection with the models that it records, or make it; what is wrong is said before it is made."""
    from .recorded import check_arithmetic, made_by, pair_of, requested

    there = arguments.collection in collections(arguments.store)
    table = open_collection(arguments.store, arguments.collection) if there else None
    if table is not None and table.count():
        record = requested(arguments, table.record.notes)
        pair = pair_of(record)
        check_arithmetic(table.record.made_by, pair, arguments.collection)
        return pair, table, record
    if not files:
        _list("Left out {}:", listing.left_out)
        raise no_text(arguments.directory, arguments.include or ())
    record = requested(arguments, None)
    pair = pair_of(record)
    pair.document.load()  # a model that cannot be loaded, or downloaded, binds no store
    if table is not None and (table.record.notes, table.record.made_by) != (record, made_by(pair)):
        table.drop()  # made by a run that stored nothing: nothing has to agree with it
    table = make_collection(
        arguments.store,
        arguments.collection,
        made_by=made_by(pair),
        dimensions=pair.dimension,
        keep="both" if record["quantization"] == "int8" else "bits",
        notes=record,
    )
    return pair, table, record


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
    removed = f", {len(plan.gone)} removed" if plan.gone else ""
    print(f"{done} files indexed, {plan.unchanged} unchanged{removed}; collection {shown(arguments.collection)!r}.")
    if missing:
        print(f"Stopped before {missing} files were indexed. Run the same command again to go on.")
        return INTERRUPTED
    elsewhere = "" if arguments.collection == "documents" else f" --collection {shown(arguments.collection)}"
    print(f'Search it with: pplx-embed search "your question" --store {shown(arguments.store)}{elsewhere}')
    unread = any(entry.kind == "unread" for entry in listing.left_out)
    return _KEPT if plan.kept or plan.failed or unread else 0
