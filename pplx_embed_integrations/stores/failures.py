"""What LanceDB and the file system cannot do, said in one line as an error of ours.

Knows LanceDB's way of failing and where the package is missing; must not know tables or queries.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from ..errors import MissingDependencyError, PplxEmbedError, StoreError

_HINTS = (
    (("no space left", "os error 28", "disk quota"), "the disk is full; free some space and run it again"),
    (("permission denied", "os error 13"), "it may not be written or read by this user"),
    (("read-only file system", "os error 30"), "it lies on a read-only file system"),
    (("commit conflict", "retryable commit", "concurrent"), "other writers were faster, again and again; try again"),
    (
        ("access denied", "accessdenied", "forbidden", "unauthorized"),
        "the object storage refuses: storage_options=",
    ),
    (
        ("connecterror", "error sending request", "retryerror", "timed out", "dns error"),
        "the object storage cannot be reached; see the address, the network and storage_options=",
    ),
    (
        ("not found", "no such file", "whole buffer", "too small", "out of range", "magic", "corrupt"),
        "a file of it is missing or damaged; restore it from a backup, or index again into another folder",
    ),
)
"""What is said in LanceDB's messages, and what it means to users; the first one that fits."""
_PLACE = re.compile(r",? ?(/\S+/)?(\.cargo/registry|rust/|src/)\S*\.rs:\d+:\d+")


def import_lancedb() -> ModuleType:
    """Import LanceDB when it is first needed.

    Raises:
        MissingDependencyError: It is not installed.
    """
    try:
        import lancedb
    except ModuleNotFoundError as error:
        raise MissingDependencyError("lancedb", extra="store") from error
    return lancedb


def import_lance() -> Any:
    """Import Lance's own library, which writes files without committing them, when it is first needed.

    Raises:
        MissingDependencyError: It is not installed.
    """
    try:
        import lance
    except ModuleNotFoundError as error:
        raise MissingDependencyError("pylance", extra="ray") from error
    return lance


def is_conflict(error: BaseException) -> bool:
    """Tell whether another writer committed first."""
    message = str(error).lower()
    return "conflict" in message or "concurrent" in message


@contextmanager
def failures(table: str, doing: str) -> Iterator[None]:
    """Turn what LanceDB raises into a `StoreError`.

    Args:
        table: What errors call the table.
        doing: What was being done, as "reading" or "writing".
    """
    try:
        yield
    except PplxEmbedError:
        raise
    except (RuntimeError, OSError, ValueError) as error:
        raise _said(table, doing, error) from error
    except BaseException as error:
        # LanceDB is written in Rust, and a file torn in the wrong place makes it panic, which is no Exception.
        if type(error).__name__ != "PanicException":
            raise
        raise _said(table, doing, error) from error


def _said(table: str, doing: str, error: BaseException) -> StoreError:
    message = _PLACE.sub("", str(error)).strip().splitlines()
    first = (message[0] if message else type(error).__name__)[:300]
    lower = str(error).lower()
    number = getattr(error, "errno", None)
    known = {errno.ENOSPC: _HINTS[0][1], errno.EACCES: _HINTS[1][1], errno.EROFS: _HINTS[2][1]}
    hint = known.get(number) if isinstance(number, int) else None
    hint = hint or next((hint for signs, hint in _HINTS if any(sign in lower for sign in signs)), None)
    return StoreError(f"{doing} {table} failed: {hint + ' ' if hint else ''}({first})")
