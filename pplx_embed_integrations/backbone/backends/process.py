"""A worker's process: an interpreter that runs `worker.main`, the pipes to it, and what it says.

Knows how a process is started, killed and reaped on each system; must not know models, batches or when it is needed.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections import deque
from contextlib import suppress
from multiprocessing.spawn import get_executable
from typing import Any

_LINES = 20
"""Of what a worker says last, the lines that are told with its death."""
BROKEN = (EOFError, OSError, ValueError, pickle.UnpicklingError)
"""What reading and writing raise at a pipe whose other end is gone, or that has been closed meanwhile."""

# Finds modules where this process finds them and runs nothing of the user's, whose script may lack a `__main__` guard.
_MAIN = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); sys.path[:] = sys.argv[3:]; "
    "from pplx_embed_integrations.backbone.backends.worker import main; main(*map(int, sys.argv[1:3]))"
)


class Process:
    """An interpreter that runs `worker.main`, pipes of its own to it, and what it says.

    The pipes are none of the standard ones, to which anything that runs when an interpreter starts may write.
    """

    def __init__(self) -> None:
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        try:
            self._popen = _start(theirs_in, theirs_out)
        except BaseException:
            os.close(ours_out)
            os.close(ours_in)
            raise
        finally:
            os.close(theirs_in)
            os.close(theirs_out)
        self.pid = self._popen.pid
        self.messages, self.answers = os.fdopen(ours_out, "wb"), os.fdopen(ours_in, "rb")
        self._tail = deque[str](maxlen=_LINES)
        self._listener = threading.Thread(target=self._listen, name="pplx-embed-worker-says", daemon=True)
        self._listener.start()

    @property
    def ended(self) -> bool:
        """Whether it runs no more."""
        return self._popen.poll() is not None

    def kill(self) -> None:
        """End it."""
        self._popen.kill()

    def reap(self) -> str:
        """Wait for a process that is ending, close its pipes and return its exit code; may be called again."""
        try:
            self._popen.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._popen.kill()
        for pipe in (self.messages, self.answers):
            with suppress(OSError):  # what was not written yet
                pipe.close()
        return _exit_code(self._popen.wait())

    def said(self) -> str:
        """Return the last lines it wrote to standard output or error, after its end."""
        self._listener.join(timeout=1)
        return "\n".join(self._tail)

    def _listen(self) -> None:
        """Pass on what it writes, as if it had written to this process's standard error, and remember the end."""
        assert self._popen.stdout is not None
        with self._popen.stdout as pipe:
            for line in pipe:
                with suppress(OSError):  # a parent without standard error
                    os.write(2, line)
                self._tail.append(line.decode(errors="replace").rstrip())


def _start(messages: int, answers: int) -> subprocess.Popen[bytes]:
    """Start a worker that inherits two pipes."""
    numbers: list[int] = [messages, answers]
    options: dict[str, Any] = {"pass_fds": numbers}
    if sys.platform == "win32":
        import msvcrt

        numbers = [msvcrt.get_osfhandle(each) for each in numbers]
        for number in numbers:
            os.set_handle_inheritable(number, True)
        options = {"startupinfo": subprocess.STARTUPINFO(lpAttributeList={"handle_list": numbers})}
    return subprocess.Popen(
        [get_executable(), "-c", _MAIN, *map(str, numbers), *map(str, sys.path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # a Ctrl-C at the terminal is for this process alone
        **options,
    )


def _exit_code(code: int) -> str:
    with suppress(ValueError):
        return f"{code} ({signal.Signals(-code).name})"
    return str(code)
