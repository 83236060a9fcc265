"""Weights in memory, loaded once a process for all who ask for the same, and released with the last of them.

Knows who uses which weights; must not know texts, options of a call, or where the files came from.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from weakref import WeakSet, WeakValueDictionary

from ..checkpoints import CheckpointSpec
from ..errors import CheckpointError
from ..flow import in_own_thread
from .backends.base import Backend, Loading, start_backend
from .backends.workers import WorkerPool
from .head import LinearHead
from .scheduler import Scheduler
from .tokenizer import TextTokenizer

_BATCHES = 8
"""Batches that are tokenised at a time: enough to sort well in, few enough for the first to be soon under way."""
_CHARACTERS = 4
"""Characters in a token, roughly."""


class Weights:
    """Tokenizer, backend and scheduler of a checkpoint.

    Args:
        checkpoint: What it should be.
        loading: What is loaded.
        device: Where it runs, by default the best there is; without meaning where there are `devices`.
        devices: Where worker processes run it in place of this one.
        batch_tokens: Most tokens in a forward pass; by default what suits the device.

    Attributes:
        again: Loads the same once more, for one who is going to change it.
        users: Who uses them.
        shared: Whether others may have them, too.
        characters: Characters that are worth tokenising at a time.

    Raises:
        CheckpointError: The files are damaged or incomplete, or not what the checkpoint should be.
        EncodingError: No worker process lives long enough.
        InputError: The machine has no such device.
    """

    def __init__(
        self,
        checkpoint: CheckpointSpec,
        loading: Loading,
        *,
        device: str | None,
        devices: Sequence[str] | None,
        batch_tokens: int | None,
    ) -> None:
        self.loading = loading
        self.again = partial(Weights, checkpoint, loading, device=device, devices=devices, batch_tokens=batch_tokens)
        self.users: WeakSet[object] = WeakSet()
        self.shared = True
        self.tokenizer = TextTokenizer(loading.folder, contextual=loading.contextual, family=loading.family)
        # In a thread that ends, so that the OpenMP threads which loading needs do not stay (see `Scheduler`).
        self.backend: Backend = (
            in_own_thread(start_backend, loading, device).result() if devices is None else WorkerPool(loading, devices)
        )
        layer = loading.family.head
        head = None if layer is None else LinearHead(loading.folder, layer)
        width = head.width if head else self.backend.width
        # Another revision than the pinned one, or a folder changed since it was looked at.
        if width != checkpoint.dimension:
            raise CheckpointError(
                f"{checkpoint.source} at revision {checkpoint.revision} gives {width} dimensions, not the "
                f"{checkpoint.dimension} of {checkpoint.name}; leave revision out for the known-good one"
            )
        run = self.backend.run
        self.scheduler = Scheduler(
            run if head is None else lambda sequences: head(run(sequences)),
            budget=batch_tokens or self.backend.batch_tokens,
            parallel=self.backend.parallel,
        )
        self.characters = max(65_536, _BATCHES * _CHARACTERS * self.scheduler.budget * self.backend.parallel)


_lock = threading.Lock()
_known: WeakValueDictionary[Hashable, Weights] = WeakValueDictionary()
_gates: dict[Hashable, threading.Lock] = {}


def acquire(key: Hashable, load: Callable[[], Weights], user: object) -> Weights:
    """Return the weights that were loaded under a key and are still in use, else load them.

    Args:
        key: What is loaded and where; of several that ask for it at once, one loads, and the others wait.
        load: Loads them.
        user: Who will use them, until `release` or its end.
    """
    with _lock:
        gate = _gates.setdefault(key, threading.Lock())
    with gate:
        with _lock:
            found = _known.get(key)
            if found is not None and found.shared and not found.backend.closed:
                found.users.add(user)
                return found
        loaded = load()
        with _lock:
            loaded.users.add(user)
            _known[key] = loaded
        return loaded


def release(weights: Weights, user: object) -> None:
    """Say that a user is done; with the last one the weights go, and worker processes end."""
    with _lock:
        weights.users.discard(user)
        if len(weights.users):
            return
        weights.shared = False
    weights.backend.close()


def withdraw(weights: Weights) -> bool:
    """Let nobody else have these weights from now on, since they may change; return False if somebody has them."""
    with _lock:
        if len(weights.users) > 1:
            return False
        weights.shared = False
        return True


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()
    _known.clear()  # they cannot compute here
    _gates.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
