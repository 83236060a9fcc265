"""RemoteEncoder: a model behind HTTP, used like one in this process.

Knows the way from texts to requests and from answers to vectors; must not know frameworks or pairs of models.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from tqdm.auto import tqdm

from ..embedder import Form, OutputForm, check_contextual, split
from ..errors import CheckpointError, InputError, NotContextualError
from ..flow import Flow, Step, arun, either, in_worker, run
from ..inputs import Role, check_documents, check_role, check_texts, refuse_chunks
from ..options import RemoteOptions
from ..schema import documented, values_of
from ..secret import Secret
from ..vectors import Vectors
from . import loop
from .asking import request_vectors
from .packing import Lengths, Part, document_parts, pack, problems, text_parts
from .served import Served, ask, hosted, known
from .transport import Transport, key_of_environment, key_variables
from .usage import Usage

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

_Plan = Callable[[Served], list[Part]]


@documented(RemoteOptions)
class RemoteEncoder(RemoteOptions):
    """A pplx-embed model on a server: one's own, Perplexity's, or one that speaks OpenAI's embeddings API.

    It takes, gives and refuses what `PplxEncoder` does, to the code, and stands wherever an embedder may. Texts are
    packed into requests within the server's limits; a request that meets a failing connection or a server without time
    is sent again, and no other is. Nothing is sent before the first vector, except for a model that only its server
    knows: it is asked for its width.

    Objects are safe to share between threads, tasks and event loops. A key is in no repr, log, error or pickle: a copy
    in another process takes its own from the environment, `PERPLEXITY_API_KEY` or `PPLX_API_KEY` for Perplexity,
    `PPLX_EMBED_API_KEY` for any other server.

    Args:
        **options: By name; `base_url` and `api_key` are those of `PplxEmbeddings(..., base_url=)`, too.

    Attributes:
        checkpoint: What is known of the model by its name; None for one that only its server knows.

    Raises:
        CheckpointError: The server does not have the model.
        InputError: An option is out of range, or there is no key for Perplexity.
        InputTypeError: There is no such option, or its value has the wrong type.
        ServerError: The server cannot be asked for the width of a model.

    Example:
        >>> encoder = RemoteEncoder("v1-0.6b", base_url="http://gpu:8080", api_key="a key")
        >>> encoder, encoder.dimension
        (RemoteEncoder('v1-0.6b', base_url='http://gpu:8080'), 1024)
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self._transport = Transport(
            self.base_url, _key(self.api_key), timeout=self.timeout, max_retries=self.max_retries
        )
        if self._transport.hosted and self.api_key is None and not key_of_environment(hosted=True):
            raise InputError(
                f"Perplexity's API asks for a key; pass api_key=, or set {' or '.join(key_variables(hosted=True))} in "
                "the environment"
            )
        self.checkpoint = known(self.model)
        self._lengths = Lengths(self.checkpoint)
        self._served = hosted(self.model, self.checkpoint) if self._transport.hosted else None
        self._usage = Usage()

    def __repr__(self) -> str:
        return f"RemoteEncoder({self.model!r}, base_url={self.base_url!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemoteEncoder) and _values(self) == _values(other)

    def __hash__(self) -> int:
        return hash((self.model, self.base_url))

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return partial(type(self), **{**_values(self), "api_key": Secret()}), ()

    def __copy__(self) -> Self:
        return self  # immutable, and the connections are worth sharing

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    @property
    def dimension(self) -> int:
        """Width of the full vector; the server is asked where it alone knows the model."""
        return self._ask().dimension if self.checkpoint is None else self.checkpoint.dimension

    @property
    def min_dimension(self) -> int:
        """Smallest width to which a vector may be cut."""
        return self._ask().min_dimension if self.checkpoint is None else self.checkpoint.min_dimension

    @property
    def contextual(self) -> bool:
        """Whether the model embeds the chunks of a document together."""
        return self._ask().contextual if self.checkpoint is None else self.checkpoint.contextual

    @property
    def usage(self) -> Usage:
        """Tokens, and cost where the server tells it, of all answers so far.

        Example:
            >>> RemoteEncoder("v1-0.6b", base_url="http://gpu:8080").usage.total_tokens
            0
        """
        return self._usage

    def identity(self) -> str:
        """Return what decides a full vector besides the text; see `PplxEncoder.identity`.

        A server of this package says it of its model, so vectors made there and here under one identity are comparable;
        it is asked once, until `close`. Of Perplexity's models and of other servers the name is all that is known.

        Raises:
            CheckpointError: The server does not have the model.
            ServerError: It cannot be asked.
        """
        return self._ask().identity

    def close(self) -> None:
        """Close the connections and forget what the server said of its model; the next call asks anew."""
        self._served = self._served if self._transport.hosted else None
        loop.run(self._transport.close())

    def check_documents(self, documents: Sequence[Sequence[str]], *, names: Sequence[str] | None = None) -> None:
        """Raise one error for everything that `encode_documents` would refuse.

        Whether a text is too long is known where the model's tokenizer is on this machine; else the server says it.

        Args:
            documents: Documents, each a list of its chunks.
            names: How the error calls each document, by default `document 0` and so on.

        Raises:
            NotContextualError: The model was not trained for this, or the server has no route for it.
            InputError: Chunks are empty, too long or not Unicode: the error lists them.
            InputTypeError: `documents` is no list of lists of strings.
            ServerError: The server cannot be asked for its limits.
        """
        self._check_documents(self._documents(documents, names, allow_empty=True), names, self._ask())

    def encode(self, texts: Sequence[str], *, role: Role | None = None, **form: Unpack[Form]) -> Vectors:
        """Embed texts, each by itself; see `PplxEncoder.encode`.

        Raises:
            InputError: A text is empty, too long or not Unicode, or an option is out of range.
            InputTypeError: `texts` is no list of strings.
            EncodingError: The server answered with what are no vectors of these texts.
            ServerError: It cannot be reached, or fails, again and again, or refuses.
        """
        return run(self._embed_texts(texts, role, OutputForm.of(self, **form)))

    def encode_documents(
        self, documents: Sequence[Sequence[str]], *, names: Sequence[str] | None = None, **form: Unpack[Form]
    ) -> list[Vectors]:
        """Embed the chunks of each document together; see `PplxEncoder.encode_documents`.

        Raises:
            NotContextualError: The model was not trained for this, or the server has no route for it.
            InputError: A chunk is empty, too long or not Unicode, or an option is out of range.
            InputTypeError: `documents` is no list of lists of strings.
            EncodingError: The server answered with what are no vectors of these documents.
            ServerError: It cannot be reached, or fails, again and again, or refuses.

        Warns:
            ContextWarning: A document may be too long, and the tokenizer that could tell is not on this machine.
        """
        output = OutputForm.of(self, **form)
        checked = self._documents(documents, names)
        return split(run(self._embed_documents(checked, names, output)), checked)

    async def aencode(self, texts: Sequence[str], *, role: Role | None = None, **form: Unpack[Form]) -> Vectors:
        """`encode` without blocking the event loop."""
        return await arun(self._embed_texts(texts, role, OutputForm.of(self, **form)))

    async def aencode_documents(
        self, documents: Sequence[Sequence[str]], *, names: Sequence[str] | None = None, **form: Unpack[Form]
    ) -> list[Vectors]:
        """`encode_documents` without blocking the event loop."""
        output = OutputForm.of(self, **form)
        checked = self._documents(documents, names)
        return split(await arun(self._embed_documents(checked, names, output)), checked)

    def _ask(self) -> Served:
        if self._served is None:
            self._served = loop.run(ask(self._transport, self.model, self.checkpoint))
        return self._served

    async def _aask(self) -> Served:
        if self._served is None:
            self._served = await loop.arun(ask(self._transport, self.model, self.checkpoint))
        return self._served

    def _documents(
        self, documents: Sequence[Sequence[str]], names: Sequence[str] | None, *, allow_empty: bool = False
    ) -> list[list[str]]:
        check_contextual(self, name=self.model)
        return check_documents(documents, names=names, allow_empty=allow_empty)

    def _check_documents(self, documents: list[list[str]], names: Sequence[str] | None, served: Served) -> None:
        if served.api == "openai":
            raise NotContextualError(
                f"{self._transport.url} speaks OpenAI's embeddings API, which has no documents of chunks: run "
                'pplx-embed serve there, use base_url="perplexity", or take a document_model in this process'
            )
        refuse_chunks(documents, problems(self._lengths, served.longest_text), names=names)

    def _embed_texts(self, texts: Sequence[str], role: Role | None, form: OutputForm) -> Flow[Vectors]:
        check_role(role)
        checked = check_texts(texts)

        def plan(served: Served) -> list[Part]:
            refuse_chunks([checked], problems(self._lengths, served.longest_text), call=lambda _, row: f"text {row}")
            return text_parts(checked, self._lengths, enough=served.limits.tokens)

        return self._embed(plan, len(checked), form, role)

    def _embed_documents(
        self, documents: list[list[str]], names: Sequence[str] | None, form: OutputForm
    ) -> Flow[Vectors]:
        def plan(served: Served) -> list[Part]:
            self._check_documents(documents, names, served)
            return document_parts(
                documents,
                self._lengths,
                names=names,
                max_tokens=served.max_tokens or served.longest,
                longest=served.longest,
                enough=served.limits.tokens,
            )

        return self._embed(plan, sum(map(len, documents)), form, "document")

    def _embed(self, plan: _Plan, rows: int, form: OutputForm, role: Role | None) -> Flow[Vectors]:
        vectors: Vectors = np.empty((rows, form.width), dtype=form.dtype)
        if rows:
            served = yield either(self._ask, self._aask)
            parts = (yield in_worker(plan, served)) if rows > 1 else plan(served)  # one query is planned at once
            fill = partial(self._fill, vectors, parts, served, form, role)
            yield Step(lambda: loop.run(fill()), lambda: loop.arun(fill()))
        return vectors

    def _spend(self, usage: Usage) -> None:
        self._usage += usage

    async def _fill(
        self, vectors: Vectors, parts: list[Part], served: Served, form: OutputForm, role: Role | None
    ) -> None:
        waiting = pack(parts, served.limits)
        total = sum(part.tokens for part in parts)
        bar_of = partial(tqdm, total=total, unit="tok", unit_scale=True, desc="Embedding")

        async def work(bar: tqdm[NoReturn] | None) -> None:
            for request in waiting:  # shared by all who work
                try:
                    found = await request_vectors(self._transport, request, served, form, role, spent=self._spend)
                except CheckpointError:
                    self._served = None  # what the server has now is asked for by the next call
                    raise
                vectors[[row for part in request for row in part.rows]] = found
                if bar is not None:
                    bar.update(sum(part.tokens for part in request))

        with bar_of() if form.show_progress else nullcontext() as bar:
            working = [asyncio.ensure_future(work(bar)) for _ in range(min(self.concurrency, len(parts)))]
            try:
                await asyncio.gather(*working)
            finally:
                for each in working:
                    each.cancel()
                await asyncio.gather(*working, return_exceptions=True)


def _key(given: object) -> Secret:
    return given if isinstance(given, Secret) else Secret()


def _values(encoder: RemoteEncoder) -> dict[str, Any]:
    return values_of(encoder, RemoteOptions)
