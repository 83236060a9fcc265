"""A checkpoint that is loaded at first use: what it is by name, by content and in memory, from then until `close`.

Knows files, weights and when they are there; must not know what becomes of texts.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from typing_extensions import Self

from ..checkpoints import CheckpointSpec, resolve
from ..embedder import identify
from ..errors import CheckpointError, InputError
from ..families import PPLX_EMBED
from ..inputs import check_positive, check_texts
from ..options import EncoderOptions, HubOptions, SideOptions
from ..schema import values_of
from .backends.base import Loading, backend_class
from .hub import checkpoint_folder, config_folder
from .identity import Origin, arithmetic
from .scheduler import Batches
from .sequences import Window, plan_windows
from .tokenizer import Limits, TextTokenizer
from .weights import Weights, acquire, release, withdraw

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer


class LazyCheckpoint(EncoderOptions):
    """What an encoder is besides its way from texts to vectors; see `PplxEncoder`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._hub = values_of(self, HubOptions)
        fetch = partial(config_folder, **self._hub)
        self.checkpoint: CheckpointSpec = resolve(self.model, revision=self.revision, fetch=fetch)
        self.dimension, self.min_dimension = self.checkpoint.dimension, self.checkpoint.min_dimension
        self.contextual = self.checkpoint.contextual
        longest = self.checkpoint.max_tokens
        wanted = longest if self.max_tokens is None else self.max_tokens
        self.max_tokens = self._longest = check_positive("max_tokens", wanted, largest=longest)
        self._reset()

    def _reset(self) -> None:
        self._loading = threading.RLock()
        self._origin: Origin | None = None
        self._identity: str | None = None
        self._limits: Limits
        self._loaded: Weights | None = None
        self._held: Weights | None = None
        self._trained: tuple[str, torch.nn.Module, int] | None = None
        self._tokenizer: TextTokenizer | None = None
        self._sentence_transformer: SentenceTransformer | None = None

    def __getstate__(self) -> dict[str, Any]:
        fresh = (
            "_loading",
            "_origin",
            "_identity",
            "_loaded",
            "_held",
            "_trained",
            "_tokenizer",
            "_sentence_transformer",
        )
        return {name: value for name, value in self.__dict__.items() if name not in fresh}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def identity(self) -> str:
        """Return everything besides the text that decides a full vector, as a line of JSON; loads no weights.

        Two encoders with equal identities give equal vectors. In it are the checkpoint (the commit on the hub; of a
        folder a hash of the files that are read, so a copy is equal, and a note beside them changes nothing), what
        `dtype` came to mean, `weights`, `backend`, `max_tokens` and `truncate`. What decides where and how fast an
        encoder runs is not. It is found out once; later changes of the files are refused, not mixed in.

        Raises:
            CheckpointError: The files have changed since they were loaded, or are damaged.
            DownloadError: A branch on the hub is followed, and neither the hub nor the cache says where it stands.
            InputError: `dtype` is `"auto"` and the machine has no such device.

        Example:
            >>> import json
            >>> from pplx_embed_integrations import PplxEncoder
            >>> identity = json.loads(PplxEncoder("v1-0.6b", dtype="float32").identity())
            >>> identity["checkpoint"], identity["max_tokens"]
            ('perplexity-ai/pplx-embed-v1-0.6b@2c4d510dd4a732063c31a0f70193e35067b51fd8', 32768)
        """
        with self._loading:
            if self._identity is None:
                origin = self._find_origin()
                devices = [self.device] if self.devices is None else self.devices
                places = map(backend_class(self.backend).place, devices)
                decisive = values_of(self, SideOptions, decisive=True)
                decisive["dtype"] = arithmetic(str(self.dtype), origin=origin, places=places, hub=self._hub)
                self._identity = identify(origin.name(), **decisive)
            if self._trained is not None:
                name, model, before = self._trained
                if (now := _versions(model)) != before:  # weights that no file holds are like no others
                    return identify(**{**json.loads(self._identity), "changed_in_memory": f"{name}-{now}"})
            return self._identity

    def hold(self, other: LazyCheckpoint) -> None:
        """Keep what an encoder of the same checkpoint has loaded until this one loads, which then takes no time."""
        if other.checkpoint == self.checkpoint and self._loaded is None:
            self._origin, self._held = other._origin, other._loaded or other._held

    def _find_origin(self) -> Origin:
        if self._origin is None:
            self._origin = Origin(self.checkpoint, self._hub)
        return self._origin

    @property
    def sentence_transformer(self) -> SentenceTransformer:
        """The same weights as a `SentenceTransformer`, for trainers, evaluators and MTEB; loads the model.

        The weights are shared: what a trainer changes, `encode` uses, under an `identity()` of its own. Other encoders
        never see the change: if some use the same weights, they are loaded once more for this one. Train with
        `dtype="float32"`.

        Raises:
            InputError: The weights are in the processes of several `devices`, rounded to int8, or OpenVINO's.
        """
        with self._loading:
            loaded = self._load()
            if self._sentence_transformer is None:
                family = self.checkpoint.family
                if family != PPLX_EMBED:
                    raise InputError(f"{family.name} has no form as a SentenceTransformer here; use encode")
                loaded.backend.check_trainable()
                if not withdraw(loaded):
                    again = loaded.again()
                    again.users.add(self)
                    release(loaded, self)
                    self._loaded = loaded = again
                model = loaded.backend.transformers_model()
                self._trained = uuid.uuid4().hex, model, _versions(model)
                from .qwen3.sentence_transformer import compose  # sentence-transformers alone takes seconds to import

                self._sentence_transformer = compose(loaded.loading.folder, model, max_tokens=self._longest)
            return self._sentence_transformer

    def load(self) -> Self:
        """Load the checkpoint now instead of at first use, downloading it if needed.

        Returns:
            The encoder itself.

        Raises:
            CheckpointError: The files are damaged or incomplete.
            DownloadError: The hub cannot be reached.
            EncodingError: No worker process lives long enough.
            InputError: The machine has no such device, or cannot compute with such weights.
        """
        self._load()
        return self

    def close(self) -> None:
        """Release the weights, and end the worker processes of several `devices`; the next call loads anew.

        What equal encoders use stays theirs. Otherwise calls that worker processes are computing in other threads fail
        with an `EncodingError`. Without `close` the
        same comes about with the last reference to the encoder, or at the end of the program.

        Example:
            >>> from pplx_embed_integrations import PplxEncoder
            >>> encoder = PplxEncoder("miniature-v1").load()
            >>> encoder.close()
        """
        with self._loading:
            loaded = self._loaded
            self._origin = self._identity = self._loaded = self._held = self._trained = None
            self._tokenizer = self._sentence_transformer = None
        if loaded is not None:
            release(loaded, self)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens each text has; loads the tokenizer, not the weights.

        Example:
            >>> from pplx_embed_integrations import PplxEncoder
            >>> PplxEncoder("miniature-v1").count_tokens(["a", "a b"])
            [1, 2]
        """
        return [len(ids) for ids in self._load_tokenizer().encode(check_texts(texts), name="text {}".format)]

    def batches(self) -> Batches:
        """Return how many forward passes there have been since the weights were loaded, and what was in them.

        Equal encoders share forward passes, and count them together.

        Example:
            >>> from pplx_embed_integrations import PplxEncoder
            >>> PplxEncoder("miniature-v1").batches()
            Batches(passes=0, sequences=0, tokens=0)
        """
        loaded = self._loaded
        return Batches() if loaded is None else loaded.scheduler.batches

    def windows(self, lengths: Sequence[int]) -> list[Window]:
        """Return in which passes a document is read whose chunks have so many tokens; loads the tokenizer at most.

        Example:
            >>> from pplx_embed_integrations import PplxEncoder
            >>> PplxEncoder("miniature-context-v1", max_tokens=14).windows([4, 4, 4, 4])
            [Window(start=0, end=3, owned=(0, 1)), Window(start=1, end=4, owned=(2, 3))]
        """
        prompt = self._load_tokenizer().prompts["document"]
        return plan_windows(lengths, max_tokens=self._longest - len(prompt))

    def _load(self) -> Weights:
        with self._loading:
            if self._loaded is not None and not self._loaded.backend.closed:
                self._loaded.scheduler.check_process()
                return self._loaded
            if self._identity is None and self._held is None:
                self._origin = None  # nobody relies on what a failed attempt found
            origin = self._find_origin()
            origin.check()
            checkpoint, folder = self.checkpoint, checkpoint_folder(origin.spec, **self._hub)
            how = str(self.dtype), self.weights, self.backend, self.attention
            loading = Loading(folder, checkpoint.contextual, *how, checkpoint.family)
            device, devices, batch_tokens = self.device, self.devices, self.batch_tokens
            load = partial(Weights, checkpoint, loading, device=device, devices=devices, batch_tokens=batch_tokens)
            place = backend_class(self.backend).place(device) if devices is None else None
            loaded = acquire((origin.stamps, loading, place, devices, batch_tokens), load, self)
            try:
                origin.check()
            except CheckpointError:
                release(loaded, self)
                raise
            self._limits = Limits(self._longest, self.truncate, loaded.characters)
            self._loaded, self._held, self._trained = loaded, None, None
            return loaded

    def _load_tokenizer(self) -> TextTokenizer:
        with self._loading:
            if self._loaded is not None:
                return self._loaded.tokenizer
            if self._tokenizer is None:
                folder = checkpoint_folder(self._find_origin().spec, **self._hub)
                self._tokenizer = TextTokenizer(folder, family=self.checkpoint.family)
            return self._tokenizer


def _versions(model: torch.nn.Module) -> int:
    return sum(parameter._version for parameter in model.parameters())  # torch counts changes in place
