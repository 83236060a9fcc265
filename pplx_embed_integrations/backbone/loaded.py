"""A loaded checkpoint as one encoder uses it: texts and documents become token sequences within its limits.

Knows tokenizer, scheduler and limits; must not know quantisation, frameworks or where the folder came from.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import partial
from itertools import accumulate, chain, pairwise
from typing import TYPE_CHECKING

import torch

from ..checkpoints import CheckpointSpec
from ..embedder import Role
from ..errors import InputError
from ..families import PPLX_EMBED
from ..inputs import chunk_name, document_name, too_long
from .backends.base import Loading
from .devices import resolve_device
from .sequences import TokenSequence, document_sequences, text_sequence
from .weights import Weights, acquire, release, withdraw

if TYPE_CHECKING:
    from .qwen3.export import PplxQwen3Model

__all__ = ["LoadedCheckpoint"]

logger = logging.getLogger(__name__)

_BATCHES = 8
"""Batches that are tokenised at a time: enough to sort well in, few enough for the first to be soon under way."""
_CHARACTERS = 4
"""Characters in a token, roughly."""


class LoadedCheckpoint:
    """A checkpoint's weights as one encoder uses them, perhaps together with others.

    Args:
        checkpoint: What it should be.
        loading: What is loaded.
        key: What tells these files from what may be at their place later.
        device: Where it runs, by default the best there is; without meaning where there are `devices`.
        devices: Where worker processes run it in place of this one.
        max_tokens: Longest sequence.
        batch_tokens: Most tokens in a forward pass, unless one sequence alone is longer; by default what suits the
            device.
        truncate: Cut what is longer than `max_tokens` instead of refusing it.

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
        key: Hashable,
        device: str | None,
        devices: Sequence[str] | None,
        max_tokens: int,
        batch_tokens: int | None,
        truncate: bool,
    ) -> None:
        self.loading = loading
        self.max_tokens = max_tokens
        self.truncate = truncate
        self._load = partial(Weights, checkpoint, loading, device=device, devices=devices, batch_tokens=batch_tokens)
        place = device if loading.backend == "openvino" or devices is not None else str(resolve_device(device))
        self._use(acquire((key, loading, place, devices, batch_tokens), self._load, self))
        self._slice = max(65_536, _BATCHES * _CHARACTERS * self.scheduler.budget * self.backend.parallel)
        self._trained: tuple[str, PplxQwen3Model, int] | None = None

    def _use(self, weights: Weights) -> None:
        self._weights = weights
        self.tokenizer, self.backend, self.scheduler = weights.tokenizer, weights.backend, weights.scheduler
        self.check_process = weights.check_process

    def close(self) -> None:
        """Use the weights no more; with their last user they go."""
        release(self._weights, self)

    def text_slices(self, texts: list[str], *, role: Role | None = None) -> Iterator[list[TokenSequence]]:
        """Tokenise texts, a sequence each, in slices of many batches, each when it is asked for.

        Raises:
            InputError: A text is too long or not Unicode.
        """
        for start, end in _slices(map(len, texts), self._slice):
            yield self.text_sequences(texts[start:end], role=role, first=start)

    def document_slices(
        self, documents: list[list[str]], names: Sequence[str] | None = None
    ) -> Iterator[list[TokenSequence]]:
        """Tokenise documents in slices of many batches, each when it is asked for; see `document_sequences`.

        Raises:
            InputError: A chunk is too long or not Unicode.
        """
        rows = 0
        for start, end in _slices((sum(map(len, chunks)) for chunks in documents), self._slice):
            called = [document_name(number, names) for number in range(start, end)]
            yield self.document_sequences(documents[start:end], names=called, first_row=rows)
            rows += sum(map(len, documents[start:end]))

    def text_sequences(self, texts: list[str], *, role: Role | None = None, first: int = 0) -> list[TokenSequence]:
        """Tokenise texts, a sequence each; `first` is the number of the first."""
        prompt = self.tokenizer.prompts[role]
        ids = self._tokenize(texts, lambda row: f"text {first + row}", self.max_tokens - len(prompt))
        return [text_sequence(tokens, row=first + row, prompt=prompt) for row, tokens in enumerate(ids)]

    def document_sequences(
        self, documents: list[list[str]], *, names: Sequence[str] | None = None, first_row: int = 0
    ) -> list[TokenSequence]:
        """Tokenise documents, a sequence each, or several windows where one is too long.

        Args:
            documents: Chunks of each.
            names: How an error calls each, by default `document 0` and so on.
            first_row: Row of the result for its first chunk.
        """
        borders = list(accumulate(map(len, documents), initial=0))
        called = [document_name(number, names) for number in range(len(documents))]
        places = [(name, chunk) for name, chunks in zip(called, documents, strict=True) for chunk in range(len(chunks))]
        prompt = self.tokenizer.prompts["document"]
        limit = self.max_tokens - len(prompt)
        ids = self._tokenize(list(chain.from_iterable(documents)), lambda row: chunk_name(*places[row]), limit)
        sequences: list[TokenSequence] = []
        for name, (start, end) in zip(called, pairwise(borders), strict=True):
            windows = document_sequences(
                ids[start:end],
                separator=self.tokenizer.separator,
                max_tokens=self.max_tokens,
                first_row=first_row + start,
                prompt=prompt,
            )
            if len(windows) > 1:
                logger.info(
                    "%s is longer than %d tokens and is read in %d overlapping windows",
                    name,
                    self.max_tokens,
                    len(windows),
                )
            sequences += windows
        return sequences

    def _tokenize(self, texts: list[str], name: Callable[[int], str], limit: int) -> list[list[int]]:
        ids = self.tokenizer.encode(texts, name=name)
        for row, tokens in enumerate(ids):
            if len(tokens) > limit:
                if not self.truncate:
                    raise InputError(f"{name(row)} {too_long(len(tokens), limit)}")
                ids[row] = tokens[:limit]
        return ids

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


def _slices(lengths: Iterable[int], most: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of neighbours that together reach `most`, the last one excepted."""
    start = end = total = 0
    for length in lengths:
        end += 1
        total += length
        if total >= most:
            yield start, end
            start, total = end, 0
    if end > start:
        yield start, end
