"""create_app: the routes, and the way of a request from its body to its vectors.

Knows the order of steps; must not know how any of them is done, nor who listens.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import TypeVar

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import Receive

from ... import __version__
from ...embedder import Embedder
from ...errors import PplxEmbedError
from ...vectors import Vectors
from ..encoding import FORMS
from ..protocol import CONTEXTUALIZED, EMBEDDINGS, HEALTH, METRICS, MODELS
from ..usage import Usage
from .answers import VectorsResponse
from .asking import Asked, read_request
from .guard import Guard, notes_of
from .keys import Keys
from .limits import Gate, ServerLimits, read_body
from .metrics import Metrics
from .models import Model, Models, TextForm
from .refusals import ClientGoneError, RefusedError, at_fault, busy

T = TypeVar("T")

_SECONDS_TO_LOAD = 5
"""After which one may ask again whether the models are loaded."""


def create_app(
    models: Mapping[str, Embedder],
    *,
    api_keys: Iterable[str] = (),
    limits: ServerLimits | None = None,
    wait: bool = True,
    loaded: Callable[[BaseException | None], object] = lambda error: None,
) -> FastAPI:
    """Return a server as an ASGI application: Perplexity's embeddings API, and OpenAI's, over embedders of one's own.

    Models load when the application starts. Concurrent requests share forward passes. Each process of a server has its
    own copies of the weights, so run one.

    Args:
        models: Embedders by the name that clients ask for: `PplxEncoder`, `FakeEmbedder`, or anything else that has
            the methods of `Embedder`.
        api_keys: What clients must send as `Authorization: Bearer KEY`; without any, everybody may ask.
        limits: What a request may hold, and how many there may be at a time.
        wait: Whether the application has started only when the models are loaded; otherwise `/health` and all requests
            say 503 until then.
        loaded: Is called when the models are loaded, or with the error that prevents it, which requests and `/health`
            tell from then on.

    Returns:
        The application, for `uvicorn` or any other ASGI server, or as a part of another application.

    Raises:
        InputError: There is no model, two have the same name, or a key cannot be used.
        InputTypeError: A model is no embedder.

    Example:
        >>> from fastapi.testclient import TestClient
        >>> from pplx_embed_integrations import PplxEncoder
        >>> app = create_app({"miniature-v1": PplxEncoder("miniature-v1")})
        >>> with TestClient(app) as client:
        ...     answer = client.post("/v1/embeddings", json={"model": "miniature-v1", "input": "late chunking"})
        >>> len(answer.json()["data"][0]["embedding"])  # 384 codes in base64
        512
    """
    service = _Service(Models(models), limits or ServerLimits(), wait=wait, loaded=loaded)
    gate = Gate(service.limits)
    metrics = Metrics(gate, {each.name: each.batches for each in service.models.all})

    # Swagger's page would load scripts from another host.
    app = FastAPI(title="pplx-embed", version=__version__, docs_url=None, redoc_url=None, lifespan=service.lifespan)
    app.add_middleware(Guard, keys=Keys(api_keys), gate=gate, metrics=metrics)
    app.add_exception_handler(HTTPException, _refused)

    async def embeddings(request: Request) -> Response:
        """Embed texts, each by itself."""
        return await service.embed(request, contextual=False)

    async def contextualized_embeddings(request: Request) -> Response:
        """Embed the chunks of each document together."""
        return await service.embed(request, contextual=True)

    # Starlette's routes: FastAPI's resolve parameters and cookies first, a twentieth of what a query costs.
    app.add_route(EMBEDDINGS, embeddings, methods=["POST"])
    app.add_route(CONTEXTUALIZED, contextualized_embeddings, methods=["POST"])

    @app.get(MODELS)
    async def list_models() -> Response:
        """Say which models are here, and what each can do."""
        service.check_ready()
        return JSONResponse(service.models.cards(service.limits.of_a_request()))

    @app.get(HEALTH)
    async def health() -> Response:
        """Say whether requests are answered."""
        service.check_ready()
        return JSONResponse({"status": "ok"})

    @app.get(METRICS)
    async def prometheus() -> Response:
        """Say what was done so far."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return app


async def _refused(request: Request, error: Exception) -> Response:
    """Answer what the framework refuses in the form of all errors."""
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        routes = ", ".join((EMBEDDINGS, CONTEXTUALIZED, MODELS, HEALTH, METRICS))
        return RefusedError(404, f"there is nothing at this path; there are: {routes}", kind="not_found_error").answer()
    headers = error.headers or {}
    return RefusedError(
        error.status_code, f"{error.detail}; allowed: {headers.get('Allow', '')}", headers=headers
    ).answer()


class _Service:
    """The way of a request."""

    def __init__(
        self,
        models: Models,
        limits: ServerLimits,
        *,
        wait: bool,
        loaded: Callable[[BaseException | None], object],
    ) -> None:
        self.models, self.limits, self._wait, self._tell = models, limits, wait, loaded
        self._loading: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """Load at the start, release at the end."""
        self._loading = asyncio.create_task(self.models.load())
        self._loading.add_done_callback(self._loaded)
        if self._wait:
            await self._loading
        yield
        self._loading.cancel()
        self.models.close()

    def _loaded(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            self._tell(task.exception())

    def check_ready(self) -> None:
        """Refuse what comes before the models are loaded."""
        if self._loading is None or not self._loading.done():
            raise busy(503, "the models are being loaded", kind="server_error", seconds=_SECONDS_TO_LOAD)
        if self._loading.cancelled() or (error := self._loading.exception()) is None:
            return
        said = str(error) if isinstance(error, PplxEmbedError) else type(error).__name__
        raise RefusedError(503, f"the models could not be loaded: {said}", kind="server_error")

    async def embed(self, request: Request, *, contextual: bool) -> Response:
        """Answer a request for vectors."""
        notes = notes_of(request.scope)
        assert notes.place is not None
        self.check_ready()
        body = await read_body(request.headers, request.receive, notes.place, self.limits)
        asked = read_request(body, self.limits, contextual=contextual)
        del body
        model = self.models.find(asked.model)
        notes.model = model.name
        self._check(asked, model)
        # Codes, the floats behind them and their JSON are never there all at once; four bytes a number bound the first.
        notes.place.hold(len(asked.texts) * (asked.dimensions or model.embedder.dimension) * 4)
        tokens, vectors = await _unless_gone(request.receive, self._compute(asked, model))
        notes.texts, notes.tokens = len(asked.texts), tokens
        return VectorsResponse(
            model.name,
            vectors,
            fingerprint=model.fingerprint,
            chunks=asked.chunks,
            encoding_format=asked.encoding_format,
            usage=Usage(tokens, tokens),
            seconds=self.limits.seconds,
        )

    def _check(self, asked: Asked, model: Model) -> None:
        embedder = model.embedder
        least, most = embedder.min_dimension, embedder.dimension
        if asked.dimensions is not None and not least <= asked.dimensions <= most:
            message = f"dimensions={asked.dimensions} is out of range; {model.name} gives {least} to {most}"
            raise at_fault(message, "dimensions")
        if asked.chunks is not None and not embedder.contextual:
            there = [each.name for each in self.models.all if each.embedder.contextual]
            instead = (
                f"use {' or '.join(there)}, or send texts to {EMBEDDINGS}" if there else f"send texts to {EMBEDDINGS}"
            )
            raise at_fault(f"{model.name} was trained for single texts, not for chunks in context; {instead}", "model")

    async def _compute(self, asked: Asked, model: Model) -> tuple[int, Vectors]:
        counts = await model.count_tokens(asked.texts)
        if sum(counts) > self.limits.tokens:
            message = f"the input has {sum(counts)} tokens and the limit is {self.limits.tokens}"
            raise at_fault(f"{message}; send it in several requests", "input")
        for number, count in enumerate(counts):
            if model.longest is not None and count > model.longest:
                message = f"{asked.called(number)} has {count} tokens and the limit is {model.longest}; split it"
                raise at_fault(message, *asked.place(number))
        quantization, normalize = FORMS[asked.encoding_format]
        if asked.chunks is None:
            form = TextForm(asked.role, quantization, asked.dimensions, normalize)
            return sum(counts), await model.encode(asked.texts, form)
        matrices = await model.embedder.aencode_documents(
            asked.documents(), quantization=quantization, normalize=normalize, dimensions=asked.dimensions
        )
        return sum(counts), np.concatenate(matrices)


async def _unless_gone(receive: Receive, work: Awaitable[T]) -> T:
    """Return what work gives, which is given up when the client hangs up.

    Raises:
        ClientGoneError: It has.
    """
    here = asyncio.current_task()
    assert here is not None
    gone = False

    async def watch() -> None:
        nonlocal gone
        await receive()  # after the body there is nothing else to come
        gone = True
        here.cancel()

    watching = asyncio.ensure_future(watch())
    try:
        return await work
    except asyncio.CancelledError:
        if gone:
            raise ClientGoneError from None
        raise
    finally:
        watching.cancel()
