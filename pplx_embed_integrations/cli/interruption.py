"""What one Ctrl-C does to the program: it ends within seconds, whatever it is doing.

Knows signals and how a process ends; must not know what is interrupted.
"""

from __future__ import annotations

import _thread
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
    thread busy for long, or catch what is raised there. The system tells this thread at once. Where Python itself drops
    an exception, in a finaliser or a weak reference's callback, it is raised once more.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return  # a program in the background of a shell is not meant to hear it
    here, there = socket.socketpair()  # not a pipe: Windows takes nothing else
    there.setblocking(False)
    signal.set_wakeup_fd(there.fileno(), warn_on_full_buffer=False)
    dropped = threading.Event()

    def note(lost: sys.UnraisableHookArgs) -> None:
        if lost.exc_type is KeyboardInterrupt:
            dropped.set()
        else:
            sys.__unraisablehook__(lost)

    sys.unraisablehook = note
    threading.Thread(target=_watch, args=(here, there, dropped), name="pplx-embed-ctrl-c", daemon=True).start()


def leave_ctrl_c() -> None:
    """Leave Ctrl-C to a command that ends by itself, however long it takes: it finishes what others wait for."""
    with suppress(ValueError):  # only the main thread has a say in signals
        signal.set_wakeup_fd(-1)


def _watch(here: socket.socket, there: socket.socket, dropped: threading.Event) -> None:
    while signal.SIGINT not in here.recv(16):
        pass
    end = time.monotonic() + _PATIENCE
    while (left := end - time.monotonic()) > 0:
        if dropped.wait(left):
            dropped.clear()
            _interrupt_main()
    end_now(INTERRUPTED)


def _interrupt_main() -> None:
    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:
        signal.pthread_kill(main, signal.SIGINT)  # which also ends what that thread waits for
    else:
        _thread.interrupt_main()


def end_now(code: int) -> NoReturn:
    """End the process without waiting for the threads that compute, which nothing else can stop."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # nobody reads it any more
            stream.flush()
    os._exit(code)
