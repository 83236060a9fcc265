"""A worker process of a pool, from both ends: how it is started and reaped, and what it does until its parent is gone.

Knows the two pipes between them on each system; must not know texts, calls or other workers.

Messages are pickles, one behind the other. To the worker: an `Order`, then lists of token sequences. From it: a
`Ready`, then a matrix for each list; in place of either an exception, after which a worker without a model ends.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.spawn import get_executable
from queue import SimpleQueue
from typing import IO, Any, NamedTuple

import torch

from ...errors import EncodingError, PplxEmbedError
from ..devices import release_memory
from .base import Backend, Loading, start_backend

_LINES = 20
"""Of what a worker says last, the lines that are told with its death."""
BROKEN = (EOFError, OSError, ValueError, pickle.UnpicklingError)
"""What reading and writing raise at a pipe whose other end is gone, or that has been closed meanwhile."""

# Finds modules where this process finds them and runs nothing of the user's, whose script may lack a `__main__` guard.
_MAIN = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); sys.path[:] = sys.argv[3:]; "
    "from pplx_embed_integrations.backbone.backends.worker import main; main(*map(int, sys.argv[1:3]))"
)


class Order(NamedTuple):
    """The first message: what to load, where, and with how many of the processor's threads."""

    loading: Loading
    device: str
    threads: int


class Ready(NamedTuple):
    """The first answer: the model is loaded; its width, and the tokens of a batch on its device."""

    width: int
    batch_tokens: int


class Process(subprocess.Popen[bytes]):
    """An interpreter that runs `main`, pipes of its own to it, and what it says.

    The pipes are none of the standard ones, to which anything that runs when an interpreter starts may write.
    """

    def __init__(self) -> None:
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        try:
            numbers, options = _inherited(theirs_in, theirs_out)
            super().__init__(
                [get_executable(), "-c", _MAIN, *map(str, numbers), *map(str, sys.path)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C at the terminal is for this process alone
                **options,
            )
        except BaseException:
            os.close(ours_out)
            os.close(ours_in)
            raise
        finally:
            os.close(theirs_in)
            os.close(theirs_out)
        self.messages, self.answers = os.fdopen(ours_out, "wb"), os.fdopen(ours_in, "rb")
        self._tail = deque[str](maxlen=_LINES)
        self._listener = threading.Thread(target=self._listen, name="pplx-embed-worker-says", daemon=True)
        self._listener.start()

    def reap(self) -> str:
        """Wait for a process that is ending, close its pipes and return its exit code; may be called again."""
        try:
            self.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.kill()
        for pipe in (self.messages, self.answers):
            with suppress(OSError):  # what was not written yet
                pipe.close()
        code = self.wait()
        with suppress(ValueError):
            return f"{code} ({signal.Signals(-code).name})"
        return str(code)

    def said(self) -> str:
        """Return the last lines it wrote to standard output or error, after its end."""
        self._listener.join(timeout=1)
        return "\n".join(self._tail)

    def _listen(self) -> None:
        """Pass on what it writes, as if it had written to this process's standard error, and remember the end."""
        assert self.stdout is not None
        with self.stdout as pipe:
            for line in pipe:
                with suppress(OSError):  # a parent without standard error
                    os.write(2, line)
                self._tail.append(line.decode(errors="replace").rstrip())


def _inherited(*descriptors: int) -> tuple[Sequence[int], dict[str, Any]]:
    """Return what a new process calls descriptors of this one, and how it is told to inherit them."""
    numbers: Sequence[int] = descriptors
    options: dict[str, Any] = {"pass_fds": numbers}
    if sys.platform == "win32":
        import msvcrt

        numbers = [msvcrt.get_osfhandle(each) for each in descriptors]
        for number in numbers:
            os.set_handle_inheritable(number, True)
        options = {"startupinfo": subprocess.STARTUPINFO(lpAttributeList={"handle_list": numbers})}
    return numbers, options


def send(pipe: IO[bytes], message: object) -> None:
    """Write a message; arrays go as they are, without a copy in between."""
    pickle.dump(message, pipe, protocol=5)
    pipe.flush()


def receive(pipe: IO[bytes]) -> Any:
    """Read a message.

    Raises:
        EOFError: The other side is gone.
    """
    return pickle.load(pipe)


def main(incoming: int, outgoing: int) -> None:
    """Work until the parent closes the pipe, however it came to that.

    Args:
        incoming: Descriptor of the pipe for messages, on Windows the handle.
        outgoing: That of the pipe for answers.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the parent's to handle
    messages, answers = _open(incoming, "rb"), _open(outgoing, "wb")
    queue: SimpleQueue[Any] = SimpleQueue()
    threading.Thread(target=_watch, args=(messages, queue), daemon=True).start()
    order: Order = queue.get()
    torch.set_num_threads(order.threads)
    try:
        backend = start_backend(order.loading, order.device)
    except PplxEmbedError as error:
        return send(answers, error)
    except Exception as error:  # noqa: BLE001  (the parent says it to the caller)
        return send(answers, EncodingError(f"the model could not be loaded on {order.device}: {_describe(error)}"))
    send(answers, Ready(backend.width, backend.batch_tokens))
    while True:
        answer = _answer(backend, queue.get())
        if isinstance(answer, Exception):
            release_memory()  # the parent tries less at a time where memory ran out
        send(answers, answer)


def _answer(backend: Backend, sequences: Any) -> object:
    try:
        return backend.run(sequences)
    except Exception as error:  # noqa: BLE001  (the parent says it to the caller)
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # noqa: BLE001  (an exception that cannot travel)
            return RuntimeError(_describe(error))
        return error.with_traceback(None)


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _open(number: int, mode: str) -> IO[bytes]:
    if sys.platform == "win32":
        import msvcrt

        number = msvcrt.open_osfhandle(number, os.O_RDONLY if mode == "rb" else os.O_WRONLY)
    os.set_inheritable(number, False)  # no process that this one starts should hold the pipe open
    return os.fdopen(number, mode)


def _watch(messages: IO[bytes], queue: SimpleQueue[Any]) -> None:
    """Pass messages on; end the process with the parent, even in the middle of a batch."""
    try:
        while True:
            queue.put(receive(messages))
    finally:
        os._exit(0)
