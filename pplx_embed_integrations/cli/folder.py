"""A folder's text files, and what was left out and why: the difference between a file that is gone and one unread.

Knows files, encodings and what is no text; must not know chunks, models or stores.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

from ..errors import InputError
from .markup import HTML, html_text
from .terminal import shown

MARKDOWN = {".md", ".markdown"}
SUFFIXES = {".txt", ".text", *MARKDOWN}
LARGEST = 64 << 20
"""Bytes of the largest file that is read."""


@dataclass(frozen=True)
class FoundFile:
    """A file that is there and should be text.

    Attributes:
        source: Its path below the folder, with forward slashes; bytes that are no UTF-8 stand in it as escapes.
        path: Where it is.
    """

    source: str
    path: str


@dataclass(frozen=True)
class TextFile:
    """A file that was read.

    Attributes:
        source: As in `FoundFile`.
        text: Its content.
        markdown: Whether it is Markdown.
        as_is: Whether the text is the file's own, so that its lines can be counted.
    """

    source: str
    text: str
    markdown: bool
    as_is: bool = True


@dataclass(frozen=True)
class LeftOut:
    """A file or folder that was not read.

    Attributes:
        source: Its path below the folder.
        reason: Why.
        kind: `"unread"` if it should have been read and could not be, `"empty"` if there is nothing in it, `"other"`
            if it is not for us.
    """

    source: str
    reason: str
    kind: Literal["unread", "empty", "other"] = "other"


@dataclass
class Listing:
    """What is in a folder.

    Attributes:
        files: The files that should be text, in alphabetical order of their sources.
        left_out: Everything else.
        entries: For each folder that could be listed, how many entries it has; that of the folder itself is `""`.
    """

    files: list[FoundFile] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    entries: dict[str, int] = field(default_factory=dict)

    def why_missing(self, sources: Iterable[str]) -> Iterator[tuple[str, LeftOut | None]]:
        """Tell why files that were there before are not among the files; None for one that was deleted.

        Deleted is what is missing from a folder that was listed and has other things in it. An empty folder may be a
        disk that is not mounted.

        Example:
            >>> listing = Listing(left_out=[LeftOut("a", "cannot be read", "unread")], entries={"": 1})
            >>> [why and why.reason for _, why in listing.why_missing(["a/one.txt", "b/two.txt"])]
            ['cannot be read', None]
        """
        left_out = {entry.source: entry for entry in self.left_out}
        files = {file.source for file in self.files}
        for source in sources:
            yield source, self._why(source, left_out, files)

    def _why(self, source: str, left_out: dict[str, LeftOut], files: set[str]) -> LeftOut | None:
        parts = source.split("/")
        for depth in range(len(parts)):
            above = "/".join(parts[:depth])
            if above in left_out:
                return left_out[above]
            if above in files:
                return LeftOut(source, "where its folder was there is a file now")
            if above not in self.entries:
                return None
            if self.entries[above] == 0:
                return LeftOut(source, "its folder is empty now", "empty")
        return left_out.get(source)


def list_folder(directory: str | Path, *, include: Sequence[str] = (), except_for: Path | None = None) -> Listing:
    """List every file below a folder that should be text by its name; nothing is read yet.

    Links to files are followed, links to folders are not: they may lead anywhere, or back.

    Args:
        directory: The folder.
        include: Patterns of names, such as `*.rst`, beside those of text and Markdown.
        except_for: A folder below it that is passed over in silence: the store that is written.

    Raises:
        InputError: There is no such folder, or it cannot be listed.

    Example:
        >>> list_folder("nowhere")
        Traceback (most recent call last):
        pplx_embed_integrations.errors.InputError: there is no folder 'nowhere'
    """
    root, named = os.fspath(directory), shown(repr(os.fspath(directory)))
    if Path(root).is_file():
        raise InputError(f"{named} is a file; give the folder that holds it, {str(Path(root).parent)!r}")
    listing = Listing()
    waiting = [("", root)]
    while waiting:
        below, path = waiting.pop()
        try:
            with os.scandir(path) as entries:
                inside = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            if not below:
                absent = isinstance(error, (FileNotFoundError, NotADirectoryError))
                told = f"there is no folder {named}" if absent else f"the folder {named} {_cannot(error)}"
                raise InputError(told) from error
            listing.left_out.append(LeftOut(below, _cannot(error), "unread"))
            continue
        listing.entries[below] = len(inside)
        for entry in inside:
            folder = _sort(entry, f"{below}/" if below else "", listing, include, except_for)
            if folder is not None:
                waiting.append(folder)
    _tell_apart(listing)
    return listing


def _sort(
    entry: os.DirEntry[str], above: str, listing: Listing, include: Sequence[str], except_for: Path | None
) -> tuple[str, str] | None:
    """Put an entry where it belongs, or return it, if it is a folder to go on with."""
    source = above + os.fsencode(entry.name).decode("utf-8", "backslashreplace")
    if entry.name.startswith("."):
        listing.left_out.append(LeftOut(source, "hidden"))
        return None
    try:
        if entry.is_dir(follow_symlinks=False):
            if except_for is not None and os.path.realpath(entry.path) == str(except_for):
                return None
            return source, entry.path
        if entry.is_symlink() and not Path(entry.path).exists():
            left_out = LeftOut(source, "a link that leads nowhere")
        elif entry.is_dir():
            left_out = LeftOut(source, "a link to a folder; index that folder by itself")
        elif not _is_wanted(source, include):
            left_out = LeftOut(source, "neither text nor Markdown by its name, nor among --include")
        elif not stat.S_ISREG(entry.stat().st_mode):
            left_out = LeftOut(source, "a pipe, a socket or a device")
        else:
            listing.files.append(FoundFile(source, entry.path))
            return None
    except OSError as error:
        left_out = LeftOut(source, _cannot(error), "unread")
    listing.left_out.append(left_out)
    return None


def _is_wanted(source: str, include: Sequence[str]) -> bool:
    name = source.rpartition("/")[2].lower()
    if Path(name).suffix in SUFFIXES:
        return True
    return any(fnmatch(source.lower() if "/" in pattern else name, pattern.lower()) for pattern in include)


def _tell_apart(listing: Listing) -> None:
    """Sort the files; of two whose sources read the same, because one is written in escapes, keep the first."""
    files: dict[str, FoundFile] = {}
    for file in listing.files:
        if files.setdefault(file.source, file) is not file:
            listing.left_out.append(LeftOut(file.source, "its name reads like that of another file; rename it"))
    listing.files = [files[source] for source in sorted(files)]


def read_file(file: FoundFile) -> TextFile | LeftOut:
    """Read a file, if it is text."""
    try:
        data = _bytes(file.path)
    except OSError as error:
        return LeftOut(file.source, _cannot(error), "unread")
    if data is None:
        return LeftOut(file.source, "a pipe, a socket or a device")
    if len(data) > LARGEST:
        return LeftOut(file.source, f"larger than {LARGEST >> 20} MB; cut it into several files")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return LeftOut(file.source, f"not UTF-8 text (byte {error.start}); convert it first")
    if "\0" in text:
        return LeftOut(file.source, "binary: it holds NUL characters")
    suffix = Path(file.source).suffix.lower()
    if suffix in HTML:
        text = html_text(text)
    if not text.strip():
        return LeftOut(file.source, "empty", "empty")
    return TextFile(file.source, text.replace("\r\n", "\n"), suffix in MARKDOWN | HTML, suffix not in HTML)


def _bytes(path: str) -> bytes | None:
    # Without waiting: between listing and opening, what was a file may have become a pipe.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(descriptor, "rb") as opened:  # noqa: PTH123  (a descriptor is no path)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None
        data = opened.read(LARGEST + 1)
    if len(data) < min(status.st_size, LARGEST):
        raise OSError(errno.EIO, f"it ends after {len(data)} of {status.st_size} bytes")
    return data


def _cannot(error: OSError) -> str:
    return f"cannot be read: {error.strerror or error}"


def read_folder(
    directory: str | Path, *, include: Sequence[str] = (), except_for: Path | None = None
) -> tuple[list[TextFile], list[LeftOut]]:
    """Read every file below a folder that should be text, at once; the arguments are those of `list_folder`.

    Returns:
        The files in alphabetical order of their sources, and all that was left out.

    Raises:
        InputError: There is no such folder, or no text in it.
    """
    listing = list_folder(directory, include=include, except_for=except_for)
    found = [read_file(file) for file in listing.files]
    files = [entry for entry in found if isinstance(entry, TextFile)]
    if not files:
        raise no_text(directory, include)
    return files, listing.left_out + [entry for entry in found if isinstance(entry, LeftOut)]


def no_text(directory: str | Path, include: Sequence[str]) -> InputError:
    """Return what to raise for a folder without any text.

    Example:
        >>> print(no_text("notes", ["*.rst"]))
        'notes' holds no text or Markdown file (.txt, .text, .md, .markdown), nor one of *.rst; name other kinds of ...
    """
    more = f", nor one of {' '.join(include)}" if include else ""
    return InputError(
        f"{os.fspath(directory)!r} holds no text or Markdown file (.txt, .text, .md, .markdown){more}; name other "
        'kinds of text with --include, as in --include "*.rst" "*.html"'
    )


def folder_name(directory: str, name: str | None = None) -> str:
    """Return what a folder is called: the name that it was given, else its absolute path."""
    called = name or str(Path(directory).resolve())
    return called.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
