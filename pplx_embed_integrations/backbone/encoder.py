"""PplxEncoder: one checkpoint that turns texts, and documents of chunks, into vectors.

Knows the way from text to vector and its options; must not know frameworks, stores or pairs of models.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from ..checkpoints import CheckpointSpec, resolve
from ..embedder import Form, OutputForm, check_contextual, identify
from ..errors import EncodingError, InputError
from ..inputs import Role, check_documents, check_positive, check_role, check_texts, refuse_chunks
from ..options import EncoderOptions, HubOptions, SideOptions
from ..schema import documented, values_of
from ..threads import in_own_thread
from ..vectors import Quantization, Vectors
from .backends.base import backend_class
from .hub import checkpoint_folder, config_folder
from .identity import Origin, arithmetic
from .loaded import LoadedCheckpoint
from .results import Result, split
from .scheduler import Batches
from .sequences import TokenSequence, Window, plan_windows
from .tokenizer import Limits, TextTokenizer

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from typing_extensions import Unpack

__all__ = ["PplxEncoder"]


_Slices = Callable[[TextTokenizer, Limits], Iterator[list[TokenSequence]]]
"""Tokenises what a call was given."""


@documented(EncoderOptions)
class PplxEncoder(EncoderOptions):
    """One pplx-embed checkpoint, loaded at first use.

    Objects are safe to share between threads and tasks; concurrent calls are gathered into shared forward passes.
    Pickles carry the settings, never the weights.

    Args:
        **options: By name; every one is in the tables of options on the pages of both frameworks.

    Attributes:
        dimension: Width of the full vector.
        min_dimension: Smallest width to which a vector may be cut.
        contextual: Whether the chunks of a document can be embedded together.

    Raises:
        CheckpointError: There is no such checkpoint.
        DownloadError: The `config.json` of a repository outside the list, which is read at once, is out of reach.
        InputError: An option is out of range.
        InputTypeError: There is no such option, or its value has the wrong type.

    Example:
        >>> encoder = PplxEncoder("miniature-context-v1")
        >>> encoder.encode(["Marie Curie was born in Warsaw."]).shape
        (1, 384)
        >>> [chunks] = encoder.encode_documents([["Marie Curie was born in Warsaw.", "She moved to Paris in 1891."]])
        >>> chunks.shape, chunks.dtype
        ((2, 384), dtype('int8'))
    """

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
        self._loaded: LoadedCheckpoint | None = None
        self._held: LoadedCheckpoint | None = None
        self._tokenizer: TextTokenizer | None = None
        self._sentence_transformer: SentenceTransformer | None = None

    def __getstate__(self) -> dict[str, Any]:
        unpicklable = ("_loading", "_origin", "_identity", "_loaded", "_held", "_tokenizer", "_sentence_transformer")
        return {name: value for name, value in self.__dict__.items() if name not in unpicklable}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def __repr__(self) -> str:
        where = f"device={self.device!r}" if self.devices is None else f"devices={list(self.devices)}"
        weights = "" if self.weights is None else f", weights={self.weights!r}"
        backend = "" if self.backend == "torch" else f", backend={self.backend!r}"
        return f"PplxEncoder({self.checkpoint.name!r}, {where}, dtype={self.dtype!r}{weights}{backend})"

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
            changes = self._loaded.changes() if self._loaded is not None else None
            if changes is not None:  # weights that no file holds are like no others
                return identify(**{**json.loads(self._identity), "changed_in_memory": changes})
            return self._identity

    def hold(self, other: PplxEncoder) -> None:
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
                from .qwen3.sentence_transformer import compose  # sentence-transformers alone takes seconds to import

                self._sentence_transformer = compose(
                    loaded.loading.folder, loaded.transformers_model(), max_tokens=self._longest
                )
            return self._sentence_transformer

    def load(self) -> PplxEncoder:
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
            >>> encoder = PplxEncoder("miniature-v1").load()
            >>> encoder.close()
        """
        with self._loading:
            loaded = self._loaded
            self._origin = self._identity = self._loaded = self._held = None
            self._tokenizer = self._sentence_transformer = None
        if loaded is not None:
            loaded.close()

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens each text has; loads the tokenizer, not the weights.

        Example:
            >>> PplxEncoder("miniature-v1").count_tokens(["a", "a b"])
            [1, 2]
        """
        return [len(ids) for ids in self._load_tokenizer().encode(check_texts(texts), name="text {}".format)]

    def batches(self) -> Batches:
        """Return how many forward passes there have been since the weights were loaded, and what was in them.

        Equal encoders share forward passes, and count them together.

        Example:
            >>> PplxEncoder("miniature-v1").batches()
            Batches(passes=0, sequences=0, tokens=0)
        """
        loaded = self._loaded
        return Batches() if loaded is None else loaded.scheduler.batches

    def windows(self, lengths: Sequence[int]) -> list[Window]:
        """Return in which passes a document is read whose chunks have so many tokens; loads the tokenizer at most.

        Example:
            >>> PplxEncoder("miniature-context-v1", max_tokens=14).windows([4, 4, 4, 4])
            [Window(start=0, end=3, owned=(0, 1)), Window(start=1, end=4, owned=(2, 3))]
        """
        prompt = self._load_tokenizer().prompts["document"]
        return plan_windows(lengths, max_tokens=self._longest - len(prompt))

    def check_documents(self, documents: Sequence[Sequence[str]], *, names: Sequence[str] | None = None) -> None:
        """Raise one error for everything that `encode_documents` would refuse; loads the tokenizer, not the weights.

        Args:
            documents: Documents, each a list of its chunks.
            names: How the error calls each document, by default `document 0` and so on.

        Raises:
            NotContextualError: The checkpoint was not trained for this.
            InputError: Chunks are empty, too long or not Unicode: the error lists them. Or there are not as many names
                as documents.
            InputTypeError: `documents` is no list of lists of strings.

        Example:
            >>> from pplx_embed_integrations.errors import InputError
            >>> encoder = PplxEncoder("miniature-context-v1")
            >>> try:
            ...     encoder.check_documents([["Fine."], ["Fine, too.", ""]], names=["a.txt", "b.txt"])
            ... except InputError as error:
            ...     print(error)
            chunk 1 of b.txt is empty; an empty text has no vector: leave it out
        """
        checked = self._check_documents(documents, names, allow_empty=True)
        tokenizer = self._load_tokenizer()
        limit = None if self.truncate else self._longest - len(tokenizer.prompts["document"])
        find = partial(tokenizer.problems, max_tokens=limit)
        refuse_chunks(checked, find, names=names)

    def encode(
        self,
        texts: Sequence[str],
        *,
        role: Role | None = None,
        quantization: Quantization | None = "int8",
        dimensions: int | None = None,
        normalize: bool = False,
        show_progress: bool = False,
    ) -> Vectors:
        """Embed texts, each by itself.

        Args:
            texts: Non-empty strings; never altered, or cut (unless `truncate`).
            role: `"query"` or `"document"`. Models that read both alike, as pplx-embed v1 does, need none; of others it
                is asked for. As a document a text has the vector of a document of one chunk.
            quantization: `"int8"` codes, `"binary"` (±1 as int8), `"ubinary"` (bits packed into uint8, most
                significant first) or `None` (float32).
            dimensions: Keep the first so many dimensions (Matryoshka).
            normalize: Scale the quantised values to unit length; the result is float32.
            show_progress: Show a bar that counts tokens.

        Returns:
            `[len(texts), dimensions]`, for `"ubinary"` `[len(texts), ceil(dimensions / 8)]`.

        Raises:
            InputError: A text is empty, too long or not Unicode, or an option is out of range.
            InputTypeError: `texts` is no list of strings.
            EncodingError: The model gave something that is no vector.

        Example:
            >>> encoder = PplxEncoder("miniature-v1")
            >>> encoder.encode(["late chunking"], quantization="ubinary").shape
            (1, 48)
        """
        form = OutputForm.of(self, quantization, dimensions, normalize, show_progress)
        return self._run(*self._texts(texts, role, form))

    def encode_documents(
        self, documents: Sequence[Sequence[str]], *, names: Sequence[str] | None = None, **form: Unpack[Form]
    ) -> list[Vectors]:
        """Embed the chunks of each document together, so that every chunk's vector knows its neighbours.

        The published late chunking: chunks are joined by the separator token, read in one forward pass, and each
        vector is the mean over its own chunk's tokens. A document of more than `max_tokens` tokens is read in
        overlapping windows cut at chunk borders.

        Args:
            documents: Documents, each a list of its chunks in reading order, without overlap.
            names: How an error calls each document, by default `document 0` and so on.
            **form: `quantization`, `dimensions`, `normalize` and `show_progress`, as for `encode`.

        Returns:
            A matrix for each document, with a row for each of its chunks.

        Raises:
            NotContextualError: The checkpoint was not trained for this.
            InputError: A chunk is empty, too long or not Unicode, or an option is out of range.
            InputTypeError: `documents` is no list of lists of strings.
            EncodingError: The model gave something that is no vector.

        Example:
            >>> encoder = PplxEncoder("miniature-context-v1")
            >>> [matrix.shape for matrix in encoder.encode_documents([["one", "two"], ["three"]])]
            [(2, 384), (1, 384)]
        """
        checked = self._check_documents(documents, names)
        return split(self._run(*self._documents(checked, names, OutputForm.of(self, **form))), checked)

    async def aencode(self, texts: Sequence[str], *, role: Role | None = None, **form: Unpack[Form]) -> Vectors:
        """`encode` without blocking the event loop; concurrent calls share forward passes.

        Example:
            >>> import asyncio
            >>> asyncio.run(PplxEncoder("miniature-v1").aencode(["late chunking"])).shape
            (1, 384)
        """
        return await self._arun(*self._texts(texts, role, OutputForm.of(self, **form)))

    async def aencode_documents(
        self, documents: Sequence[Sequence[str]], *, names: Sequence[str] | None = None, **form: Unpack[Form]
    ) -> list[Vectors]:
        """`encode_documents` without blocking the event loop; concurrent calls share forward passes.

        Example:
            >>> import asyncio
            >>> encoder = PplxEncoder("miniature-context-v1")
            >>> len(asyncio.run(encoder.aencode_documents([["one", "two"], ["three"]])))
            2
        """
        checked = self._check_documents(documents, names)
        return split(await self._arun(*self._documents(checked, names, OutputForm.of(self, **form))), checked)

    def _texts(self, texts: Sequence[str], role: Role | None, form: OutputForm) -> tuple[_Slices, Result]:
        family = self.checkpoint.family
        check_role(role)
        if role is None and family.prompts is not None:
            raise InputError(f'{family.name} reads queries and documents differently; use role="query" or "document"')
        checked = check_texts(texts)
        slices = partial(TextTokenizer.text_slices, texts=checked, role=role)
        return slices, Result(len(checked), form, quantizer=family.quantizer)

    def _check_documents(
        self, documents: Sequence[Sequence[str]], names: Sequence[str] | None, *, allow_empty: bool = False
    ) -> list[list[str]]:
        check_contextual(self, name=self.checkpoint.name)
        return check_documents(documents, names=names, allow_empty=allow_empty)

    def _documents(
        self, documents: list[list[str]], names: Sequence[str] | None, form: OutputForm
    ) -> tuple[_Slices, Result]:
        slices = partial(TextTokenizer.document_slices, documents=documents, names=names)
        return slices, Result(sum(map(len, documents)), form, quantizer=self.checkpoint.family.quantizer)

    def _run(self, tokenize: _Slices, result: Result) -> Vectors:
        if len(result.vectors):
            loaded = self._ready() or self._load()
            slices = tokenize(loaded.tokenizer, loaded.limits)
            try:
                with result.progress or nullcontext():
                    loaded.scheduler.run(result.progress.counted(slices) if result.progress else slices, result.receive)
            except KeyboardInterrupt:
                loaded.backend.interrupt()
                raise
        return result.vectors

    async def _arun(self, tokenize: _Slices, result: Result) -> Vectors:
        if len(result.vectors):
            if (loaded := self._ready()) is None:
                loaded = await asyncio.wrap_future(in_own_thread(self._load))
            slices = tokenize(loaded.tokenizer, loaded.limits)
            with result.progress or nullcontext():
                counted = result.progress.counted(slices) if result.progress else slices
                await loaded.scheduler.arun(counted, result.receive)
        return result.vectors

    def _ready(self) -> LoadedCheckpoint | None:
        loaded = self._loaded
        if loaded is None or loaded.backend.closed:
            return None
        if loaded.process != os.getpid():
            raise EncodingError(
                "this process was forked from one that had loaded the model, whose threads are not here; start "
                'processes with multiprocessing.get_context("spawn"), or load the model after the fork'
            )
        return loaded

    def _load(self) -> LoadedCheckpoint:
        with self._loading:
            if (loaded := self._ready()) is not None:
                return loaded
            if self._identity is None and self._held is None:
                self._origin = None  # nobody relies on what a failed attempt found
            origin = self._find_origin()
            origin.check()
            folder = checkpoint_folder(origin.spec, **self._hub)
            self._loaded = LoadedCheckpoint(self.checkpoint, folder, key=origin.stamps, options=self)
            origin.check()
            self._held = None
            return self._loaded

    def _load_tokenizer(self) -> TextTokenizer:
        with self._loading:
            if self._loaded is not None:
                return self._loaded.tokenizer
            if self._tokenizer is None:
                folder = checkpoint_folder(self._find_origin().spec, **self._hub)
                self._tokenizer = TextTokenizer(folder, family=self.checkpoint.family)
            return self._tokenizer
