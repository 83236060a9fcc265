"""Arguments in, one command run, an exit code out.

Knows how a failure is shown; must not know how any command works: each one's module is imported when it runs.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import TextIO

from ..errors import PplxEmbedError
from .arguments import parser
from .interruption import INTERRUPTED, end_now, end_soon_after_ctrl_c
from .terminal import guarded, shown

_FAILED = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run `pplx-embed`.

    Args:
        argv: The arguments after the program's name; those of the process by default, which then is this program's
            alone: after a Ctrl-C it ends at once.

    Returns:
        The exit code: 0 done, 1 `verify` found a difference, 2 it could not be done (one line on standard error says
        why), 3 done but for files that could not be read or seem to be gone, whose chunks were kept, 130 interrupted.

    Example:
        >>> main(["search", "tides", "--store", "nowhere"])
        2
    """
    if argv is None:
        end_soon_after_ctrl_c()
    with guarded():
        code = _told(argv)
        if argv is None and code == INTERRUPTED:
            end_now(code)
    return code


def _told(argv: Sequence[str] | None) -> int:
    """Run a command; what goes wrong is one line."""
    try:
        code = _run(argv)
        sys.stdout.flush()  # here a full disk can still be told
        return code
    except PplxEmbedError as error:
        return _fail(str(error))
    except OSError as error:
        named = f"{error.strerror}: {error.filename}" if error.strerror and error.filename else str(error)
        return _fail(named)
    except MemoryError:
        return _fail("there is not enough memory")
    except KeyboardInterrupt:
        print("pplx-embed: stopped", file=sys.stderr)
        return INTERRUPTED


def _run(argv: Sequence[str] | None) -> int:
    arguments = parser().parse_args(argv)
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # its retries are noise: the last failure is told
    with warnings.catch_warnings():
        warnings.showwarning = _warn
        return int(import_module(f".{arguments.module}", __package__).run(arguments))


def _warn(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Show a warning without the line of code that it was raised on, which tells a user nothing."""
    print(f"pplx-embed: warning: {shown(str(message))}", file=sys.stderr)


def _fail(message: str) -> int:
    print(f"pplx-embed: error: {shown(message)}", file=sys.stderr)
    return _FAILED
