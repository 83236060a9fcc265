"""`pplx-embed forget`: one folder's chunks out of a collection.

Knows what a folder is called in a collection; must not know files, models or vectors.
"""

from __future__ import annotations

import argparse

from ..errors import InputError
from .folder import folder_name
from .job import files_of
from .store import open_collection
from .terminal import shown


def run(arguments: argparse.Namespace) -> int:
    """Find the folder's chunks, delete them, report."""
    table = open_collection(arguments.store, arguments.collection)
    folders = files_of(table.documents())
    names = [name for name in (arguments.name, folder_name(arguments.name)) if name in folders]
    if not names:
        there = ", ".join(sorted(map(shown, folders))) or "none"
        raise InputError(
            f"the collection {arguments.collection!r} holds no folder {arguments.name!r}; it holds: {there}"
        )
    files = folders[names[0]]
    table.delete(documents=list(files.values()))
    print(f"{len(files)} files of {shown(names[0])} forgotten; collection {shown(arguments.collection)!r}.")
    return 0
