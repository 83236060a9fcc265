"""What a backend is: how it is told what to load, what it computes, and how one is started by its name.

Knows the protocol; must not know any one backend.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
import numpy.typing as npt
import torch

from ...errors import EncodingError, InputError
from ...families import PPLX_EMBED, Family
from ...registry import BACKENDS
from ..devices import resolve_device
from ..sequences import TokenSequence

if TYPE_CHECKING:
    from ..qwen3.export import PplxQwen3Model

Pooled = npt.NDArray[np.float32]
"""The mean over each span, `[spans, width]`."""


class WorkerLostError(EncodingError):
    """What computed a batch is gone, perhaps through no fault of the batch: it is worth another attempt."""


@dataclass(frozen=True)
class Loading:
    """How a model is loaded, whichever process and device it goes to; picklable, and without secrets.

    Attributes:
        folder: The checkpoint's files.
        contextual: Whether it embeds chunks in context.
        dtype: `"auto"`, `"float32"` or `"bfloat16"`.
        weights: `"int8"`, or None for the dtype's own.
        backend: A name of the registry.
        attention: A kernel's name, or None for the fastest.
        family: What the family of the checkpoint does before and after.
    """

    folder: Path
    contextual: bool
    dtype: str
    weights: str | None = None
    backend: str = "torch"
    attention: str | None = None
    family: Family = PPLX_EMBED


class Backend(Protocol):
    """A loaded model that turns token sequences into vectors. What is given here fits one without processes of its own.

    Made from a `Loading` and the name of a device, None for the best there is.

    Attributes:
        width: Dimensions of a vector.
        batch_tokens: Tokens of a batch that suit the device.
        parallel: Batches it computes at a time.
        closed: Whether nothing can be computed any more.
    """

    width: int
    batch_tokens: int
    parallel: int = 1
    closed: bool = False

    @classmethod
    def place(cls, device: str | None) -> torch.device:
        """Return where it would run: on the device that is asked for, by default on the best there is.

        Raises:
            InputError: The machine has no such device, or the backend does not run there.
        """
        return resolve_device(device)

    def run(self, sequences: list[TokenSequence]) -> Pooled:
        """Compute the mean over each span of each sequence, in order, from as many threads as are `parallel`."""

    def check_trainable(self) -> None:
        """Make sure that there is a torch model with weights that can be trained and saved.

        Raises:
            InputError: There is none; it says what to do.
        """
        raise InputError("this backend has no torch model; leave backend out to have one")

    def transformers_model(self) -> PplxQwen3Model:
        """Return the model as transformers' own, with which everything is computed from then on.

        Raises:
            InputError: As for `check_trainable`.
        """
        self.check_trainable()
        raise NotImplementedError

    def interrupt(self) -> None:
        """End what is being computed where that is possible, which it is not inside this process."""

    def close(self) -> None:
        """End processes of its own; weights go with the last reference to them."""


def start_backend(loading: Loading, device: str | None) -> Backend:
    """Load a model into this process, with the backend that is asked for.

    Raises:
        CheckpointError: The files are damaged or incomplete.
        InputError: The machine has no such device, or cannot compute with such weights.
        MissingDependencyError: The backend is not installed.
    """
    make = cast("Callable[[Loading, str | None], Backend]", backend_class(loading.backend))
    return make(loading, device)


def backend_class(name: str) -> type[Backend]:
    """Return the backend of a name; loads nothing.

    Raises:
        MissingDependencyError: It is not installed.
    """
    module, _, attribute = BACKENDS[name].partition(":")
    return cast("type[Backend]", getattr(import_module(module), attribute))
