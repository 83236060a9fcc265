"""What may be written to a terminal, and how wide it is.

Knows control characters, encodings, broken pipes and columns; must not know what is said.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import TextIO

_NARROWEST, _WIDEST = 24, 120

# Controls, what separates lines or turns the direction of writing, invisible tags, and halves of pairs.
_UNSAFE = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2060-\u206f\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f"
)
_IN_A_LINE = re.compile(f"[\t\n{_UNSAFE}]")
_IN_A_STREAM = re.compile(f"[{_UNSAFE}]")
_IN_A_BAR = re.compile(f"[{_UNSAFE}]".replace("\x0b-\x1f", "\x0b\x0c\x0e-\x1f"))
_BAR_MOVES = re.compile("\n*(?:\x1b\\[A)*")


def shown(text: str) -> str:
    r"""Return a name or a text on one line, what would steer a terminal written as an escape.

    Example:
        >>> print(shown("a\x1b[31mred\nb"))
        a\x1b[31mred\nb
        >>> print(shown("caf\udce9.txt"))  # a name that is no UTF-8, as Python holds it
        caf\xe9.txt
    """
    return _IN_A_LINE.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def terminal_width() -> int:
    """Return the columns to write in: the terminal's, within reason."""
    return min(max(shutil.get_terminal_size().columns, _NARROWEST), _WIDEST)


def text_width(text: str) -> int:
    """Return the columns that a text takes.

    Example:
        >>> text_width("川 river")
        8
    """
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def wrapped(text: str, width: int) -> list[str]:
    """Break a text into lines of at most so many columns, at spaces where there are any.

    Example:
        >>> wrapped("one two  three 川川川川川", 9)
        ['one two', 'three', '川川川川', '川']
    """
    lines: list[str] = []
    room = 0
    for word in text.split():
        size = text_width(word)
        if size < room:
            lines[-1] += f" {word}"
            room -= size + 1
        else:
            lines += _cut(word, width)
            room = width - text_width(lines[-1])
    return lines


def filled(text: str) -> str:
    """Return a text broken into the terminal's lines."""
    return "\n".join(wrapped(text, terminal_width()))


def _cut(word: str, width: int) -> list[str]:
    pieces, used = [""], 0
    for character in word:
        size = text_width(character)
        if used and used + size > width:
            pieces.append("")
            used = 0
        pieces[-1] += character
        used += size
    return pieces


class _Guarded(io.TextIOBase):
    """A stream through which nothing reaches the terminal that could steer it, or that it cannot write.

    Args:
        stream: Where it goes.
        bars: Whether progress bars are drawn here, which return the carriage and move up by a line.
    """

    def __init__(self, stream: TextIO, *, bars: bool) -> None:
        self._stream = stream
        self._bars = bars

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding or "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        return self._stream.errors or "strict"  # without it `input` would not let one edit the line

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if not (self._bars and _BAR_MOVES.fullmatch(text)):
            safe = (_IN_A_BAR if self._bars else _IN_A_STREAM).sub(_escaped, text)
            text = safe.encode(self.encoding, "backslashreplace").decode(self.encoding)
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, work: Callable[[], object]) -> None:
        try:
            work()
        except BrokenPipeError:  # the reader, such as `head`, has seen enough; the work goes on
            self._to_nowhere()
        except OSError:
            self._to_nowhere()  # or the interpreter would fail once more when it ends
            raise

    def _to_nowhere(self) -> None:
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
            os.dup2(nowhere.fileno(), self._stream.fileno())


@contextmanager
def guarded() -> Iterator[None]:
    """Guard standard output and standard error; one that is closed goes nowhere."""
    with (
        open(os.devnull, "w", encoding="utf-8") as nowhere,  # noqa: PTH123
        redirect_stdout(_Guarded(sys.stdout or nowhere, bars=False)),
        redirect_stderr(_Guarded(sys.stderr or nowhere, bars=True)),
    ):
        yield
