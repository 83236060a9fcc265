"""A place for collections: what --store and --collection may be, and the table of codes that they mean.

Knows where tables lie, how a collection's name looks and what an earlier version left; must not know files or models.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, StoreError

if TYPE_CHECKING:
    from ..stores import ChunkTable, Keep

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,200}", re.ASCII)
_SCHEMES = ("s3", "s3+ddb", "gs", "az", "abfss", "hf", "file")


def local_path(store: str) -> Path | None:
    """Return the folder that `--store` means, or None for object storage.

    Example:
        >>> local_path("s3://bucket/notes") is None
        True
    """
    # Not by `resolve`, which fails where links go round in a circle.
    return None if "://" in store else Path(os.path.realpath(Path(store).expanduser()))


def check_name(collection: str) -> None:
    """Refuse a name that a table could not have, or that would lead out of the store's folder.

    Raises:
        InputError: It is one.

    Example:
        >>> check_name("../notes")
        Traceback (most recent call last):
        pplx_embed_integrations.errors.InputError: --collection '../notes' is no name for a collection: ...
    """
    if not _NAME.fullmatch(collection) or collection.strip(".") == "":
        raise InputError(
            f"--collection {collection!r} is no name for a collection: it has from 1 to 200 letters from a to z, "
            "digits, dots, dashes and underscores"
        )


def check_place(store: str, *, create: bool) -> None:
    """Refuse a place where there is no store, or where none can be made.

    Args:
        store: What the user gave.
        create: Whether a store may be made there.

    Raises:
        StoreError: It is one.
    """
    path = local_path(store)
    if path is None:
        _check_scheme(store)
    elif path.is_file():
        raise StoreError(f"--store {store} is a file; give a folder, or object storage such as s3://bucket/folder")
    elif (path / "meta.json").is_file() and (path / "collection").is_dir():
        raise StoreError(
            f"the store {store} is in Qdrant's format, which earlier versions wrote and this one does not read; index "
            "again into a new folder: pplx-embed index DIR --store NEW"
        )
    elif not _holds_tables(path):
        if path.is_dir() and any(path.iterdir()):
            raise StoreError(f"--store {store} is a folder with other things in it; give a new one, or an empty one")
        if not create:
            raise StoreError(f"there is no store {store}; make one with: pplx-embed index DIR --store {store}")


def _check_scheme(store: str) -> None:
    scheme = store.partition("://")[0].lower()
    if scheme in ("http", "https"):
        raise StoreError(
            f"--store {store} is the address of a server; earlier versions kept collections in Qdrant, and this one "
            "keeps them in a folder, or on object storage such as s3://bucket/folder"
        )
    if scheme not in _SCHEMES:
        raise StoreError(f"--store {store} is no place that is known; give a folder, or s3://, gs:// or az://")


def _holds_tables(path: Path) -> bool:
    return path.is_dir() and any(entry.suffix == ".lance" for entry in path.iterdir())


def collections(store: str) -> list[str]:
    """Return the names of the collections in a store; makes nothing.

    Raises:
        MissingDependencyError: LanceDB is not installed.
        StoreError: The store cannot be read.
    """
    from ..stores import list_tables

    return list_tables(_uri(store))


def open_collection(store: str, name: str) -> ChunkTable:
    """Open a collection that `pplx-embed index` made.

    Raises:
        MissingDependencyError: LanceDB is not installed.
        InputError: There cannot be one of this name.
        StoreError: There is none of this name, it cannot be read, or something else made it.
    """
    check_name(name)
    check_place(store, create=False)
    from ..stores import ChunkTable

    names = collections(store)
    if name not in names:
        there = f"there are: {', '.join(names)}" if names else "it holds none"
        raise StoreError(
            f"the store {store} has no collection {name!r}; {there}. "
            f"Make it with: pplx-embed index DIR --store {store} --collection {name}"
        )
    table = ChunkTable(_uri(store), name=name)
    if not table.record.notes:
        raise StoreError(
            f"the collection {name!r} in {store} was not made by `pplx-embed index`, so nothing says which model its "
            "queries want; use another --collection"
        )
    return table


def make_collection(
    store: str, name: str, *, made_by: Mapping[str, Any], dimensions: int, keep: Keep, notes: Mapping[str, Any]
) -> ChunkTable:
    """Make a collection, or open it ready to be written to; the arguments are those of `ChunkTable`."""
    from ..stores import ChunkTable

    return ChunkTable(_uri(store), name=name, made_by=made_by, dimensions=dimensions, keep=keep, notes=notes)


def _uri(store: str) -> str:
    path = local_path(store)
    return store if path is None else str(path)
