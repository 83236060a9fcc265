"""What a worker process of a pool does: load one model, then turn batches into rows until its parent is gone.

Knows the two pipes to its parent; must not know texts, calls or other workers. Started by `workers`, never by hand.

Messages are pickles, one behind the other. In: an `Order`, then lists of token sequences. Out: a `Ready`, then a matrix
for each list; in place of either an exception, after which a worker that has no model yet ends.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
from dataclasses import dataclass
from queue import SimpleQueue
from typing import IO, Any

import torch

from ...errors import EncodingError, PplxEmbedError
from ..devices import release_memory
from .base import Backend, Loading, start_backend


@dataclass(frozen=True)
class Order:
    """The first message: what to load, where, and with how many of the processor's threads."""

    loading: Loading
    device: str
    threads: int


@dataclass(frozen=True)
class Ready:
    """The first answer: the model is loaded; its width, and the tokens of a batch on its device."""

    width: int
    batch_tokens: int


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
