"""A folder's text and Markdown files, and what was left out and why.

Knows files, encodings and what is no text; must not know chunks, models or stores.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError

__all__ = ["LeftOut", "TextFile", "read_folder"]

MARKDOWN = {".md", ".markdown"}
SUFFIXES = {".txt", ".text", *MARKDOWN}


@dataclass(frozen=True)
class TextFile:
    """A file that was read.

    Attributes:
        source: Its path below the folder, with forward slashes.
        text: Its content.
        markdown: Whether it is Markdown.
    """

    source: str
    text: str
    markdown: bool


@dataclass(frozen=True)
class LeftOut:
    """A file or folder that was not read.

    Attributes:
        source: Its path below the folder.
        reason: Why.
    """

    source: str
    reason: str


def read_folder(directory: str | Path, *, except_for: Path | None = None) -> tuple[list[TextFile], list[LeftOut]]:
    """Read every text and Markdown file below a folder.

    Args:
        directory: The folder.
        except_for: A folder below it that is passed over in silence: the store that is written.

    Returns:
        The files in alphabetical order of their paths, and all that was left out.

    Raises:
        InputError: There is no such folder, or nothing in it can be indexed.

    Example:
        >>> read_folder("nowhere")
        Traceback (most recent call last):
        pplx_embed_integrations.errors.InputError: there is no folder 'nowhere'
    """
    root = Path(directory)
    if root.is_file():
        raise InputError(f"{str(directory)!r} is a file; give the folder that holds it, {str(root.parent)!r}")
    if not root.is_dir():
        raise InputError(f"there is no folder {str(directory)!r}")
    found = [_read(root, path) for path in _walk(root, except_for)]
    files = [entry for entry in found if isinstance(entry, TextFile)]
    left_out = [entry for entry in found if isinstance(entry, LeftOut)]
    return files, left_out


def _walk(root: Path, except_for: Path | None) -> Iterator[Path]:
    """Yield every file, and every hidden folder instead of what is in it."""
    for parent, folders, names in os.walk(root):
        here = Path(parent)
        folders.sort()
        yield from (here / name for name in folders if name.startswith("."))
        folders[:] = [name for name in folders if not name.startswith(".") and (here / name).resolve() != except_for]
        yield from (here / name for name in sorted(names))


def _read(root: Path, path: Path) -> TextFile | LeftOut:
    source = path.relative_to(root).as_posix()
    if path.name.startswith("."):
        return LeftOut(source, "hidden")
    if path.suffix.lower() not in SUFFIXES:
        return LeftOut(source, "neither text nor Markdown by its name")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return LeftOut(source, f"not UTF-8 text (byte {error.start}); convert it first")
    except OSError as error:
        return LeftOut(source, f"cannot be read: {error.strerror}")
    if "\0" in text:
        return LeftOut(source, "binary: it holds NUL characters")
    if not text.strip():
        return LeftOut(source, "empty")
    return TextFile(source, text.replace("\r\n", "\n"), path.suffix.lower() in MARKDOWN)
