"""PplxEncoder: one checkpoint that turns texts, and documents of chunks, into vectors.

Knows the way from text to vector and its options; must not know frameworks, stores or pairs of models.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial

import numpy as np
from typing_extensions import Unpack

from ..embedder import Form, OutputForm, check_contextual, split
from ..errors import InputError
from ..flow import in_own_thread
from ..inputs import Role, check_documents, check_role, check_texts, refuse_chunks
from ..options import EncoderOptions
from ..schema import documented
from ..vectors import Quantization, Quantizer, Vectors
from .backends.base import Pooled
from .lazy import LazyCheckpoint
from .progress import Progress
from .sequences import TokenSequence
from .tokenizer import Limits, TextTokenizer

_Slices = Callable[[TextTokenizer, Limits], Iterator[list[TokenSequence]]]
"""Tokenises what a call was given."""


class Result:
    """A matrix that fills as batches come in, in any order and from any thread.

    Args:
        rows: How many vectors there will be.
        form: What they will look like.
        quantizer: What makes int8 codes.

    Attributes:
        vectors: The matrix, `[rows, width]`.
        progress: A bar, None where none is wanted.
    """

    def __init__(self, rows: int, form: OutputForm, *, quantizer: Quantizer) -> None:
        self.vectors: Vectors = np.empty((rows, form.width), dtype=form.dtype)
        self.progress = Progress(rows) if form.show_progress else None
        self._form, self._quantizer = form, quantizer

    def receive(self, sequences: list[TokenSequence], pooled: Pooled) -> None:
        """Put the rows of some sequences where they belong.

        Raises:
            EncodingError: A row is not finite.
        """
        rows = [row for sequence in sequences for row in sequence.rows]
        self.vectors[rows] = self._form.vectors(pooled, rows=rows, quantizer=self._quantizer)
        if self.progress is not None:
            self.progress.advance(sum(len(sequence.ids) for sequence in sequences))


@documented(EncoderOptions)
class PplxEncoder(LazyCheckpoint):
    """One pplx-embed checkpoint, loaded at first use.

    Objects are safe to share between threads and tasks; concurrent calls are gathered into shared forward passes.
    Pickles carry the settings, never the weights.

    Args:
        **options: By name; every one is in the tables of options on the pages of both frameworks.

    Attributes:
        checkpoint: What is known of it.
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

    def __repr__(self) -> str:
        where = f"device={self.device!r}" if self.devices is None else f"devices={list(self.devices)}"
        weights = "" if self.weights is None else f", weights={self.weights!r}"
        backend = "" if self.backend == "torch" else f", backend={self.backend!r}"
        return f"PplxEncoder({self.checkpoint.name!r}, {where}, dtype={self.dtype!r}{weights}{backend})"

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
            loaded = self._loaded
            if loaded is None or loaded.backend.closed:
                loaded = self._load()
            slices = tokenize(loaded.tokenizer, self._limits)
            try:
                with result.progress or nullcontext():
                    loaded.scheduler.run(result.progress.counted(slices) if result.progress else slices, result.receive)
            except KeyboardInterrupt:
                loaded.backend.interrupt()
                raise
        return result.vectors

    async def _arun(self, tokenize: _Slices, result: Result) -> Vectors:
        if len(result.vectors):
            loaded = self._loaded
            if loaded is None or loaded.backend.closed:
                loaded = await asyncio.wrap_future(in_own_thread(self._load))
            slices = tokenize(loaded.tokenizer, self._limits)
            with result.progress or nullcontext():
                counted = result.progress.counted(slices) if result.progress else slices
                await loaded.scheduler.arun(counted, result.receive)
        return result.vectors
