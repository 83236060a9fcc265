"""A checkpoint's model on one device of this process: a batch of token sequences becomes a row for each span.

Knows how a model is loaded and run; must not know texts, calls or other processes, one of which may run it.
"""

from __future__ import annotations

import logging
import statistics
from collections import deque
from functools import partial
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
import torch

from ...errors import InputError
from ..devices import default_batch_tokens
from ..pooling import span_means
from ..qwen3.attention import check_kernel
from ..qwen3.forward import Meeting, packed_forward, part_forward
from ..qwen3.network import Network, NetworkConfig, load_network
from ..sequences import TokenSequence, share_out
from .base import Backend, Loading, Pooled
from .cores import Cores, available_cores, busy_elsewhere, openmp_threads

if TYPE_CHECKING:
    from ..qwen3.export import PplxQwen3Model

logger = logging.getLogger(__name__)

Size = Literal["small", "large"]
"""Whether a model's weights stay in the processor's cache."""

_LARGEST_RECYCLED = 31 * 2**20
"""Bytes of an array that is made and dropped once. glibc hands larger blocks than it ever saw freed back to the system,
up to 32 MB; after this one the arrays of a batch are recycled, and some hundred thousand pages need not be cleared."""
_IN_CACHE = 32 * 2**20
"""Bytes of weights that stay in a processor's cache from one batch to the next."""
_GLANCES = 5
"""How often the other processes' threads are counted before one of them counts: some compute for a moment only."""
_ALONE_FROM = {"small": 24, "large": 256}
"""Tokens that are worth a core of their own. With fewer, fetching the weights takes longer than multiplying by them;
where they are in the cache, the threads' meeting each other does."""


class TorchBackend(Backend):
    """A model that is loaded, with what a batch should measure on its device.

    Args:
        loading: What is loaded.
        device: Where it goes; by default the best there is.

    Raises:
        CheckpointError: The files are damaged or incomplete.
        InputError: The machine has no such device, or cannot compute with such weights or such a kernel.
    """

    def __init__(self, loading: Loading, device: str | None) -> None:
        self._loading = loading
        place = self.place(device)
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
        numbers = loading.weights or str(self.model.dtype).removeprefix("torch.")
        logger.info("loaded %s on %s in %s", loading.folder, place, numbers)
        self.width: int = self.model.config.hidden_size
        self.batch_tokens = default_batch_tokens(place, self.width)
        self.size: Size = "small" if _weight_bytes(self.model, loading.weights) <= _IN_CACHE else "large"
        self._cores = Cores()
        self._busy: deque[int] = deque(maxlen=_GLANCES)

    def run(self, sequences: list[TokenSequence]) -> Pooled:
        """Run sequences through the model and return the float32 mean over each span, `[spans, width]`.

        On a CPU each core computes sequences of its own, where there are enough, or a part of a long one: then none
        waits for the others after each of some hundred operations. What is too little for that one core computes, or,
        of a large model, all that are free together.
        """
        if self.model.embed_tokens.weight.device.type != "cpu":
            return self._pool(sequences)
        tokens = sum(len(sequence.ids) for sequence in sequences)
        worth = tokens // _ALONE_FROM[self.size]
        return self._share(sequences, worth) if worth > 1 else self._little(sequences)

    def _share(self, sequences: list[TokenSequence], worth: int) -> Pooled:
        """Compute what is worth several cores."""
        cores = min(torch.get_num_threads(), available_cores())
        # All cores or one: some of them would read all weights, too, and of a large model that takes the longest.
        cores = self._cores.hire(min(cores, worth) if self.size == "small" or worth >= cores else 1)
        at_least, lengths = _ALONE_FROM[self.size], [len(sequence.ids) for sequence in sequences]
        groups = share_out(lengths, cores, at_least=at_least)
        if len(groups) > 1:
            tasks = [partial(self._pool, [sequences[index] for index in group]) for group in groups]
            pooled = self._cores.at_once(tasks)
        else:
            long = [index for index, length in enumerate(lengths) if cores > 1 and length >= cores * at_least]
            short = [index for index in range(len(lengths)) if index not in long]
            groups = [[index] for index in long] + ([short] if short else [])
            pooled = [self._divide(sequences[index], cores) for index in long]
            pooled += [self._little([sequences[index] for index in short])] if short else []
        # Rows stand group by group; bring them into the order of the sequences.
        owners = np.concatenate([np.repeat(index, len(sequences[index].spans)) for group in groups for index in group])
        rows: Pooled = np.concatenate(pooled)[np.argsort(owners, kind="stable")]
        return rows

    def _little(self, sequences: list[TokenSequence]) -> Pooled:
        """Compute what cannot be divided.

        OpenMP divides single products, and its threads wait for each other without sleep: that pays for a large model,
        and only while no other process wants their cores.
        """
        threads = torch.get_num_threads()
        if self.size == "large" and threads > 1:
            cores = available_cores()
            self._busy.append(busy_elsewhere())
            free = cores - statistics.median_low(self._busy)
            team = threads if free >= threads else 2 ** (max(1, free).bit_length() - 1)  # few numbers: each is planned
            if team > 1:
                with openmp_threads(team):
                    return self._pool(sequences)
        [pooled] = self._cores.at_once([partial(self._pool, sequences)])
        return pooled

    def _divide(self, sequence: TokenSequence, cores: int) -> Pooled:
        """Compute a long sequence in parts of equal length, one a core."""
        ids, tokens = torch.from_numpy(sequence.ids), len(sequence.ids)
        meeting = Meeting(self.model, tokens, cores)
        borders = [tokens * core // cores for core in range(cores + 1)]

        def compute(part: slice) -> torch.Tensor:
            with torch.inference_mode():
                return part_forward(self.model, ids, part, meeting, kernel=self.attention)

        def finish() -> Pooled:
            return span_means(torch.cat(parts), sequence.spans).numpy()

        parts = self._cores.at_once([partial(compute, slice(start, end)) for start, end in pairwise(borders)])
        return self._cores.at_once([finish])[0]  # in this thread OpenMP would join in

    @torch.inference_mode()
    def _pool(self, sequences: list[TokenSequence]) -> Pooled:
        # Gathered from several calls they are in no order, and equal lengths share a kernel call.
        order = sorted(range(len(sequences)), key=lambda index: len(sequences[index].ids))
        ids = [torch.from_numpy(sequences[index].ids) for index in order]
        hidden = packed_forward(self.model, ids, kernel=self.attention)
        offsets = dict(zip(order, accumulate(map(len, ids), initial=0), strict=False))
        spans = [
            (offsets[index] + start, offsets[index] + end)
            for index, sequence in enumerate(sequences)
            for start, end in sequence.spans
        ]
        return span_means(hidden, spans).cpu().numpy()

    def check_trainable(self) -> None:
        """Refuse weights that are rounded.

        Raises:
            InputError: They are.
        """
        if self._loading.weights is not None:
            raise InputError(
                f"with weights={self._loading.weights!r} the weights are rounded, of no use to a trainer or in a file; "
                "leave weights out to have a SentenceTransformer"
            )

    def transformers_model(self) -> PplxQwen3Model:
        """Return the model as transformers' own, with which everything is computed from then on.

        Raises:
            InputError: The weights are rounded.
        """
        self.check_trainable()
        if isinstance(self.model, Network):
            from ..qwen3.export import as_transformers  # transformers alone takes seconds to import

            self.model.separate()
            self.model = as_transformers(self.model, self._loading.folder, contextual=self._loading.contextual)
        return self.model


def _weight_bytes(model: Network | PplxQwen3Model, weights: str | None) -> int:
    """Return what of the weights every token is multiplied by: all but the embedding table."""
    config = cast("NetworkConfig", model.config)
    heads = config.head_dim * (config.num_attention_heads + config.num_key_value_heads)
    rows = config.num_hidden_layers * (2 * heads + 3 * config.intermediate_size)
    return rows * config.hidden_size * (1 if weights == "int8" else model.dtype.itemsize)
