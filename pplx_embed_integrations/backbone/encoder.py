"""PplxEncoder: one checkpoint that turns texts, and documents of chunks, into vectors.

Knows the way from text to vector and its options; must not know frameworks, stores or pairs of models.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch
from tqdm.auto import tqdm

from ..checkpoints import CheckpointSpec, resolve
from ..errors import CheckpointError, InputError, NotContextualError
from ..inputs import check_documents, check_dtype, check_positive, check_texts
from ..vectors import Quantization, Vectors, check_dimensions, check_quantization, quantize, vector_dtype
from .devices import default_batch_tokens, resolve_device
from .hub import checkpoint_folder
from .lane import Pooled, Receive
from .loaded import LoadedCheckpoint
from .packing import TokenSequence

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["PplxEncoder"]


@dataclass(frozen=True)
class _Options:
    """What is done to pooled vectors, checked."""

    dimensions: int
    quantization: Quantization | None
    normalize: bool

    @property
    def width(self) -> int:
        return -(-self.dimensions // 8) if self.quantization == "ubinary" else self.dimensions

    def empty(self, rows: int) -> Vectors:
        return np.empty((rows, self.width), dtype=vector_dtype(self.quantization, normalize=self.normalize))


_Build = Callable[[LoadedCheckpoint], list[TokenSequence]]


class PplxEncoder:
    """One pplx-embed checkpoint, loaded at first use.

    Objects are safe to share between threads and tasks; concurrent calls are gathered into shared forward passes.
    Pickles carry the settings, never the weights.

    Args:
        model: Name, hub id, or path of a local folder; see `list_checkpoints`.
        device: `"cpu"`, `"cuda"`, `"cuda:1"`, `"mps"`; by default the best there is.
        dtype: `"float32"`, `"bfloat16"`, or `"auto"`: bfloat16 where the processor computes in it natively and the
            model is large, else float32. float16 is refused: it overflows.
        max_tokens: Longest sequence, at most the checkpoint's. A longer document is read in overlapping windows.
        batch_tokens: Tokens in a forward pass; bounds memory. A longer sequence goes alone.
        truncate: Cut a text or chunk of more than `max_tokens` tokens instead of refusing it.
        revision: Commit, tag or branch on the hub in place of the pinned one.
        cache_folder: The hub's cache folder.
        local_files_only: Never touch the network.
        token: Access token for the hub.

    Raises:
        CheckpointError: There is no such checkpoint.
        InputError: An option is out of range.

    Example:
        >>> encoder = PplxEncoder("miniature-context-v1")
        >>> encoder.encode(["Marie Curie was born in Warsaw."]).shape
        (1, 256)
        >>> [chunks] = encoder.encode_documents([["Marie Curie was born in Warsaw.", "She moved to Paris in 1891."]])
        >>> chunks.shape, chunks.dtype
        ((2, 256), dtype('int8'))
    """

    def __init__(
        self,
        model: str | Path,
        *,
        device: str | None = None,
        dtype: str | torch.dtype = "auto",
        max_tokens: int | None = None,
        batch_tokens: int | None = None,
        truncate: bool = False,
        revision: str | None = None,
        cache_folder: str | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
    ) -> None:
        self.checkpoint: CheckpointSpec = resolve(model, revision=revision)
        limit = self.checkpoint.max_tokens
        self.max_tokens = limit if max_tokens is None else check_positive("max_tokens", max_tokens, largest=limit)
        self.batch_tokens = None if batch_tokens is None else check_positive("batch_tokens", batch_tokens)
        self.dtype = check_dtype(dtype)
        self.device = device
        self.truncate = truncate
        self._hub: dict[str, Any] = {
            "cache_folder": cache_folder,
            "local_files_only": local_files_only,
            "token": token,
        }
        self._reset()

    def _reset(self) -> None:
        self._loading = threading.RLock()
        self._loaded: LoadedCheckpoint | None = None
        self._sentence_transformer: SentenceTransformer | None = None

    def __getstate__(self) -> dict[str, Any]:
        unpicklable = ("_loading", "_loaded", "_sentence_transformer")
        return {name: value for name, value in self.__dict__.items() if name not in unpicklable}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def __repr__(self) -> str:
        return f"PplxEncoder({self.checkpoint.name!r}, device={self.device!r}, dtype={self.dtype!r})"

    @property
    def dimension(self) -> int:
        """Width of the full vector; loads nothing."""
        return self.checkpoint.dimension

    @property
    def sentence_transformer(self) -> SentenceTransformer:
        """The same weights as a `SentenceTransformer`, for trainers, evaluators and MTEB; loads the model.

        The weights are shared: what a trainer changes, `encode` uses. Train with `dtype="float32"`.
        """
        loaded = self._load()
        with self._loading:
            if self._sentence_transformer is None:
                from .modules import compose  # sentence-transformers alone takes seconds to import

                self._sentence_transformer = compose(loaded.folder, loaded.plain_model(), max_tokens=self.max_tokens)
            return self._sentence_transformer

    def load(self) -> PplxEncoder:
        """Load the checkpoint now instead of at first use, downloading it if needed.

        Returns:
            The encoder itself.

        Raises:
            CheckpointError: The files are damaged or incomplete.
            DownloadError: The hub cannot be reached.
            InputError: The machine has no such device.
        """
        self._load()
        return self

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens each text has; loads the checkpoint.

        Example:
            >>> PplxEncoder("miniature-v1").count_tokens(["a", "a b"])
            [1, 2]
        """
        return [len(ids) for ids in self._load().tokenizer.encode(check_texts(texts), name="text {}".format)]

    def encode(
        self,
        texts: Sequence[str],
        *,
        quantization: Quantization | None = "int8",
        dimensions: int | None = None,
        normalize: bool = False,
        show_progress: bool = False,
    ) -> Vectors:
        """Embed texts, each by itself.

        Args:
            texts: Non-empty strings; never altered, cut (unless `truncate`) or prefixed.
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
            (1, 32)
        """
        options = self._options(quantization, dimensions, normalize)
        checked = check_texts(texts)
        return self._run(partial(LoadedCheckpoint.text_sequences, texts=checked), len(checked), options, show_progress)

    def encode_documents(
        self,
        documents: Sequence[Sequence[str]],
        *,
        quantization: Quantization | None = "int8",
        dimensions: int | None = None,
        normalize: bool = False,
        show_progress: bool = False,
    ) -> list[Vectors]:
        """Embed the chunks of each document together, so that every chunk's vector knows its neighbours.

        The published late chunking: chunks are joined by the separator token, read in one forward pass, and each
        vector is the mean over its own chunk's tokens. A document of more than `max_tokens` tokens is read in
        overlapping windows cut at chunk borders.

        Args:
            documents: Documents, each a list of its chunks in reading order, without overlap.
            quantization: As for `encode`.
            dimensions: As for `encode`.
            normalize: As for `encode`.
            show_progress: As for `encode`.

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
            [(2, 256), (1, 256)]
        """
        options = self._options(quantization, dimensions, normalize)
        checked = self._check_documents(documents)
        build = partial(LoadedCheckpoint.document_sequences, documents=checked)
        return _split(self._run(build, sum(map(len, checked)), options, show_progress), checked)

    async def aencode(
        self,
        texts: Sequence[str],
        *,
        quantization: Quantization | None = "int8",
        dimensions: int | None = None,
        normalize: bool = False,
        show_progress: bool = False,
    ) -> Vectors:
        """`encode` without blocking the event loop; concurrent calls share forward passes.

        Example:
            >>> asyncio.run(PplxEncoder("miniature-v1").aencode(["late chunking"])).shape
            (1, 256)
        """
        options = self._options(quantization, dimensions, normalize)
        checked = check_texts(texts)
        return await self._arun(
            partial(LoadedCheckpoint.text_sequences, texts=checked), len(checked), options, show_progress
        )

    async def aencode_documents(
        self,
        documents: Sequence[Sequence[str]],
        *,
        quantization: Quantization | None = "int8",
        dimensions: int | None = None,
        normalize: bool = False,
        show_progress: bool = False,
    ) -> list[Vectors]:
        """`encode_documents` without blocking the event loop; concurrent calls share forward passes.

        Example:
            >>> encoder = PplxEncoder("miniature-context-v1")
            >>> len(asyncio.run(encoder.aencode_documents([["one", "two"], ["three"]])))
            2
        """
        options = self._options(quantization, dimensions, normalize)
        checked = self._check_documents(documents)
        build = partial(LoadedCheckpoint.document_sequences, documents=checked)
        return _split(await self._arun(build, sum(map(len, checked)), options, show_progress), checked)

    def _load(self) -> LoadedCheckpoint:
        if self._loaded is None:
            with self._loading:
                if self._loaded is None:
                    device = resolve_device(self.device)
                    loaded = LoadedCheckpoint(
                        checkpoint_folder(self.checkpoint, **self._hub),
                        contextual=self.checkpoint.contextual,
                        device=device,
                        dtype=self.dtype,
                        max_tokens=self.max_tokens,
                        batch_tokens=self.batch_tokens or default_batch_tokens(device),
                        truncate=self.truncate,
                    )
                    _check_width(self.checkpoint, loaded.model.config.hidden_size)
                    self._loaded = loaded
        return self._loaded

    def _options(self, quantization: Quantization | None, dimensions: int | None, normalize: bool) -> _Options:
        spec = self.checkpoint
        if quantization == "ubinary" and normalize:
            raise InputError('normalize=True has no meaning for packed bits; use quantization="binary"')
        return _Options(
            check_dimensions(dimensions, smallest=spec.min_dimension, largest=spec.dimension),
            check_quantization(quantization),
            normalize,
        )

    def _check_documents(self, documents: Sequence[Sequence[str]]) -> list[list[str]]:
        if not self.checkpoint.contextual:
            raise NotContextualError(
                f"{self.checkpoint.name} was trained for single texts, not for chunks in context; use a contextual "
                'checkpoint such as "context-v1-0.6b", or encode() for each chunk by itself'
            )
        return check_documents(documents)

    def _prepare(self, build: _Build) -> tuple[LoadedCheckpoint, list[TokenSequence]]:
        loaded = self._load()
        return loaded, build(loaded)

    def _run(self, build: _Build, rows: int, options: _Options, show_progress: bool) -> Vectors:
        out = options.empty(rows)
        if rows:
            loaded, sequences = self._prepare(build)
            with _progress(sequences, show_progress) as bar:
                loaded.lane.run(sequences, _receiver(out, options, bar))
        return out

    async def _arun(self, build: _Build, rows: int, options: _Options, show_progress: bool) -> Vectors:
        out = options.empty(rows)
        if rows:
            loaded, sequences = await asyncio.to_thread(self._prepare, build)
            with _progress(sequences, show_progress) as bar:
                await loaded.lane.arun(sequences, _receiver(out, options, bar))
        return out


def _check_width(checkpoint: CheckpointSpec, width: int) -> None:
    # Another revision than the pinned one, or a folder changed since it was looked at.
    if width != checkpoint.dimension:
        raise CheckpointError(
            f"{checkpoint.source} at revision {checkpoint.revision} gives {width} dimensions, not the "
            f"{checkpoint.dimension} of {checkpoint.name}; leave revision out for the known-good one"
        )


def _progress(sequences: list[TokenSequence], shown: bool) -> tqdm[NoReturn]:
    total = sum(map(len, sequences))
    return tqdm(total=total, unit="tok", unit_scale=True, desc="Embedding", disable=not shown)


def _receiver(out: Vectors, options: _Options, bar: tqdm[NoReturn]) -> Receive:
    def receive(sequences: list[TokenSequence], pooled: Pooled) -> None:
        rows = [row for sequence in sequences for row in sequence.rows]
        out[rows] = quantize(
            pooled,
            dimensions=options.dimensions,
            quantization=options.quantization,
            normalize=options.normalize,
            rows=rows,
        )
        bar.update(sum(map(len, sequences)))

    return receive


def _split(matrix: Vectors, documents: list[list[str]]) -> list[Vectors]:
    borders = accumulate(map(len, documents), initial=0)
    return [matrix[start:end] for start, end in pairwise(borders)]
