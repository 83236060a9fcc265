"""A checkpoint's model on one device of this process: a batch of token sequences becomes a row for each span.

Knows how a model is loaded and run; must not know texts, calls or other processes, one of which may run it.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from .attention import check_kernel
from .devices import default_batch_tokens, resolve_device
from .lane import Pooled
from .network import Network, load_network
from .packing import TokenSequence, share_out
from .pooling import span_means

if TYPE_CHECKING:
    from .modeling import PplxQwen3Model
    from .openvino_engine import OpenVinoEngine

__all__ = ["Engine", "Loading", "start_engine"]


_LARGEST_RECYCLED = 31 * 2**20
"""Bytes of an array that is made and dropped once. glibc hands larger blocks than it ever saw freed back to the system,
up to 32 MB; after this one the arrays of a batch are recycled, and some hundred thousand pages need not be cleared."""
_ALONE_FROM = 256
"""Tokens that are worth a core of their own: with fewer, fetching the weights takes longer than multiplying by them."""


@dataclass(frozen=True)
class Loading:
    """How a model is loaded, whichever process and device it goes to; picklable, and without secrets.

    Attributes:
        folder: The checkpoint's files.
        contextual: Whether it embeds chunks in context.
        dtype: `"auto"`, `"float32"` or `"bfloat16"`.
        weights: `"int8"`, or None for the dtype's own.
        backend: `"torch"` or `"openvino"`.
        attention: A kernel's name, or None for the fastest.
    """

    folder: Path
    contextual: bool
    dtype: str
    weights: str | None = None
    backend: str = "torch"
    attention: str | None = None


class Engine:
    """A model that is loaded, with what a batch should measure on its device.

    Args:
        loading: What is loaded.
        device: Where it goes; by default the best there is.

    Raises:
        CheckpointError: The files are damaged or incomplete.
        InputError: The machine has no such device, or cannot compute with such weights or such a kernel.
    """

    parallel = 1
    """Batches it computes at a time."""
    closed = False
    """Whether nothing can be computed any more."""

    def __init__(self, loading: Loading, device: str | None) -> None:
        place = resolve_device(device)
        if place.type == "cpu":
            torch.empty(_LARGEST_RECYCLED, dtype=torch.uint8)
        self.model: Network | PplxQwen3Model = load_network(
            loading.folder,
            dtype=loading.dtype,
            device=place,
            prepacked=True,
            weights=loading.weights,
        )
        self.attention = check_kernel(loading.attention, device=place, dtype=self.model.dtype)
        self.batch_tokens = default_batch_tokens(place)
        self.width: int = self.model.config.hidden_size
        self._cores: ThreadPoolExecutor | None = None

    def run(self, sequences: list[TokenSequence]) -> Pooled:
        """Run sequences through the model and return the float32 mean over each span, `[spans, width]`.

        On a CPU each core computes sequences of its own, where there are enough: then none waits for the others after
        each of some hundred operations. A few, or a long one, are computed by all cores together.
        """
        threads = torch.get_num_threads() if self.model.device.type == "cpu" else 1
        shares = share_out([len(sequence) for sequence in sequences], threads, at_least=_ALONE_FROM)
        if len(shares) == 1:
            return self._pool(sequences)
        if self._cores is None:
            self._cores = ThreadPoolExecutor(os.cpu_count(), "pplx-embed-core", initializer=_compute_alone)
        pending = [self._cores.submit(self._pool, [sequences[index] for index in share]) for share in shares]
        wait(pending)
        pooled = np.concatenate([each.result() for each in pending])
        # Rows stand share by share; bring them into the order of the sequences.
        owners = np.concatenate([np.repeat(index, len(sequences[index].spans)) for share in shares for index in share])
        return pooled[np.argsort(owners, kind="stable")]

    @torch.inference_mode()
    def _pool(self, sequences: list[TokenSequence]) -> Pooled:
        # Gathered from several calls they are in no order, and equal lengths share a kernel call.
        order = sorted(range(len(sequences)), key=lambda index: len(sequences[index]))
        ids = [torch.from_numpy(sequences[index].ids) for index in order]
        hidden = self.model.forward_packed(ids, kernel=self.attention)
        offsets = dict(zip(order, accumulate((len(sequences[index]) for index in order), initial=0), strict=False))
        spans = [
            (offsets[index] + start, offsets[index] + end)
            for index, sequence in enumerate(sequences)
            for start, end in sequence.spans
        ]
        return span_means(hidden, spans).cpu().numpy()

    def interrupt(self) -> None:
        """Do nothing: what is being computed in this process cannot be stopped."""

    def close(self) -> None:
        """Do nothing: the weights go with the last reference to them."""


def _compute_alone() -> None:
    """Have this thread compute without the help of others; the setting is its own."""
    torch.get_num_threads()  # torch sets a thread up when it first needs to, which would undo the next line
    threadpool_limits(1, user_api="openmp")


def start_engine(loading: Loading, device: str | None) -> Engine | OpenVinoEngine:
    """Load a model into this process, for the backend that is asked for.

    Raises:
        CheckpointError: The files are damaged or incomplete.
        InputError: The machine has no such device, or cannot compute with such weights.
        MissingDependencyError: The backend is not installed.
    """
    if loading.backend == "torch":
        return Engine(loading, device)
    from .openvino_engine import OpenVinoEngine

    return OpenVinoEngine(loading, device)
