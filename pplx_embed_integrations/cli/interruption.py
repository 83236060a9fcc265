"""What one Ctrl-C does to the program: it ends within seconds, whatever it is doing.

Knows signals and how a process ends; must not know what is interrupted.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from typing import NoReturn

INTERRUPTED = 130
_PATIENCE = 5.0
"""Seconds for the command to end by itself; what it stored is stored, as after a power cut."""


def end_soon_after_ctrl_c() -> None:
    """From now on, end the process if Ctrl-C has not ended it after some seconds.

    Python tells of the signal in the main thread alone, between two of its own operations. A library may keep that
    thread busy for long, or catch what is raised there. The system tells this thread at once.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return  # a program in the background of a shell is not meant to hear it
    here, there = socket.socketpair()  # not a pipe: Windows takes nothing else
    there.setblocking(False)
    signal.set_wakeup_fd(there.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(here, there), name="pplx-embed-ctrl-c", daemon=True).start()


def leave_ctrl_c() -> None:
    """Leave Ctrl-C to a command that ends by itself, however long it takes: it finishes what others wait for."""
    with suppress(ValueError):  # only the main thread has a say in signals
        signal.set_wakeup_fd(-1)


def _watch(here: socket.socket, there: socket.socket) -> None:
    while signal.SIGINT not in here.recv(16):
        pass
    time.sleep(_PATIENCE)
    end_now(INTERRUPTED)


def end_now(code: int) -> NoReturn:
    """End the process without waiting for the threads that compute, which nothing else can stop."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # nobody reads it any more
            stream.flush()
    os._exit(code)
