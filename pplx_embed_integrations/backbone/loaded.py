"""A loaded checkpoint as one encoder uses it: weights that others use, too, within limits of its own.

Knows who shares weights, and when a trainer may have changed them; must not know texts, quantisation or frameworks.
"""

from __future__ import annotations

import uuid
from collections.abc import Hashable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..checkpoints import CheckpointSpec
from ..errors import InputError
from ..families import PPLX_EMBED
from ..options import EncoderOptions
from .backends.base import Loading, backend_class
from .tokenizer import Limits
from .weights import Weights, acquire, release, withdraw

if TYPE_CHECKING:
    from .qwen3.export import PplxQwen3Model

_BATCHES = 8
"""Batches that are tokenised at a time: enough to sort well in, few enough for the first to be soon under way."""
_CHARACTERS = 4
"""Characters in a token, roughly."""


class LoadedCheckpoint:
    """A checkpoint's weights as one encoder uses them, perhaps together with others.

    Args:
        checkpoint: What it should be.
        folder: Its files.
        key: What tells these files from what may be at their place later.
        options: Where and how it runs, and what it refuses.

    Raises:
        CheckpointError: The files are damaged or incomplete, or not what the checkpoint should be.
        EncodingError: No worker process lives long enough.
        InputError: The machine has no such device.
    """

    def __init__(self, checkpoint: CheckpointSpec, folder: Path, *, key: Hashable, options: EncoderOptions) -> None:
        self.loading = loading = Loading(
            folder,
            checkpoint.contextual,
            str(options.dtype),
            options.weights,
            options.backend,
            options.attention,
            checkpoint.family,
        )
        device, devices, batch_tokens = options.device, options.devices, options.batch_tokens
        self._load = partial(Weights, checkpoint, loading, device=device, devices=devices, batch_tokens=batch_tokens)
        place = backend_class(loading.backend).place(device) if devices is None else None
        self._use(acquire((key, loading, place, devices, batch_tokens), self._load, self))
        characters = max(65_536, _BATCHES * _CHARACTERS * self.scheduler.budget * self.backend.parallel)
        self.limits = Limits(options.max_tokens or checkpoint.max_tokens, options.truncate, characters)
        self._trained: tuple[str, PplxQwen3Model, int] | None = None

    def _use(self, weights: Weights) -> None:
        self._weights = weights
        self.tokenizer, self.backend, self.scheduler = weights.tokenizer, weights.backend, weights.scheduler

    def close(self) -> None:
        """Use the weights no more; with their last user they go."""
        release(self._weights, self)

    def transformers_model(self) -> PplxQwen3Model:
        """Return the model as transformers' own, for trainers and for saving; from then on it is what computes.

        What a trainer may change is nobody else's: where other encoders use these weights, they are loaded once more.

        Raises:
            InputError: It is in other processes, its weights are rounded, or it is not torch's.
        """
        if self.loading.family != PPLX_EMBED:
            raise InputError(f"{self.loading.family.name} has no form as a SentenceTransformer here; use encode")
        self.backend.check_trainable()
        if not withdraw(self._weights):
            weights = self._load()
            weights.users.add(self)
            self.close()
            self._use(weights)
        model = self.backend.transformers_model()
        self._trained = uuid.uuid4().hex, model, _versions(model)
        return model

    def changes(self) -> str | None:
        """Name the state of weights that a trainer has changed in memory; None where they are the checkpoint's."""
        if self._trained is None:
            return None
        name, model, before = self._trained
        now = _versions(model)
        return None if now == before else f"{name}-{now}"


def _versions(model: torch.nn.Module) -> int:
    return sum(parameter._version for parameter in model.parameters())  # torch counts changes in place
