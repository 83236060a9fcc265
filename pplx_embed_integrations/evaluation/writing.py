"""Results as files: what is there stays until the new content is complete.

Knows paths; must not know what is written.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from ..errors import InputError


def check_replaceable(path: str | Path, what: str) -> None:
    """Refuse a path that `replace_file` could not write to, before anything is measured.

    Args:
        path: The file.
        what: What an error calls it.

    Raises:
        InputError: The folder is not there or may not be written to, or the path is no file that could be replaced.

    Example:
        >>> check_replaceable("nowhere/out.json", "--json")
        Traceback (most recent call last):
        pplx_embed_integrations.errors.InputError: there is no folder for --json 'nowhere/out.json'; make it first
    """
    target = Path(path)
    if target.is_dir():
        raise InputError(f"{str(target)!r} is a folder; name a file in it for {what}")
    if target.exists() and not target.is_file():
        raise InputError(f"{str(target)!r} is no file that could be replaced; name another for {what}")
    folder = target.resolve().parent
    if not folder.is_dir():
        raise InputError(f"there is no folder for {what} {str(target)!r}; make it first")
    if not os.access(folder, os.W_OK):
        raise InputError(f"the folder of {what} {str(target)!r} may not be written to; name a file elsewhere")


def replace_file(path: str | Path, content: bytes) -> None:
    """Write beside a file and move over it, which is one step; a link is followed, so that it stays one.

    Raises:
        OSError: It cannot be written; a file that was there is as it was.
    """
    target = Path(path)
    place = target.resolve()
    temporary = place.with_name(f".{place.name[:40]}-{secrets.token_hex(6)}.new")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if place.exists():
            temporary.chmod(place.stat().st_mode & 0o7777)
        temporary.replace(place)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):  # names the file that was asked for
            raise type(error)(error.errno, error.strerror, str(target)) from error
        raise
