"""`pplx-embed forget`: one folder's chunks out of a collection.

Knows what a folder is called in a collection; must not know files, models or vectors.
"""

from __future__ import annotations

import argparse
from collections import defaultdict

from ..errors import InputError
from .index import folder_name
from .store import check_name, open_store
from .terminal import shown

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> int:
    """Find the folder's chunks, delete them, report."""
    check_name(arguments.collection)
    with open_store(arguments.store, arguments.collection, create=False) as collection:
        collection.record()  # or it is somebody else's
        ids: dict[str, list[str]] = defaultdict(list)
        sources: dict[str, set[str]] = defaultdict(set)
        for key, metadata in collection.points(["folder", "source"]):
            ids[str(metadata.get("folder"))].append(key)
            sources[str(metadata.get("folder"))].add(str(metadata.get("source")))
        names = [name for name in (arguments.name, folder_name(arguments.name)) if name in ids]
        if not names:
            there = ", ".join(sorted(map(shown, ids))) or "none"
            raise InputError(
                f"the collection {arguments.collection!r} holds no folder {arguments.name!r}; it holds: {there}"
            )
        collection.delete(ids[names[0]])
    print(f"{len(sources[names[0]])} files of {shown(names[0])} forgotten; collection {shown(arguments.collection)!r}.")
    return 0
