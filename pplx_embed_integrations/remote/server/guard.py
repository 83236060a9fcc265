"""What stands before every route: the key, a place, and an answer to whatever goes wrong behind it.

Knows ASGI; must not know what a route does.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...errors import EncodingError, InputError, InputTypeError, NotContextualError, PplxEmbedError
from ..protocol import CONTEXTUALIZED, EMBEDDINGS, HEALTH, METRICS, MODELS
from .keys import Keys
from .limits import Gate, Place
from .metrics import Metrics
from .refusals import ClientGoneError, RefusedError, at_fault

logger = logging.getLogger(__name__)

_COMPUTED = (EMBEDDINGS, CONTEXTUALIZED)
_ROUTES = (*_COMPUTED, MODELS, HEALTH, METRICS)
_GONE = 499
"""The status under which requests are counted whose client hung up: nginx's."""
_STATE = "pplx_embed"


@dataclass
class Notes:
    """What is known of a request while it is answered.

    Attributes:
        place: Its place, on routes that compute.
        model: The model's name, once it is known that there is one.
        texts: How many texts it has.
        tokens: How many tokens they have.
    """

    place: Place | None = None
    model: str = ""
    texts: int = 0
    tokens: int = 0


def notes_of(scope: Scope) -> Notes:
    """Return a request's notes."""
    notes: Notes = scope[_STATE]
    return notes


class Guard:
    """Middleware around all routes.

    Args:
        app: What is behind it.
        keys: Who may ask; everybody may ask for `/health`.
        gate: Where requests that compute take a place.
        metrics: What counts them.
    """

    def __init__(self, app: ASGIApp, *, keys: Keys, gate: Gate, metrics: Metrics) -> None:
        self._app, self._keys, self._gate, self._metrics = app, keys, gate, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        notes = scope[_STATE] = Notes()
        sent = _Sent(send)
        status = 500
        try:
            status = await self._answer(scope, receive, sent, notes)
        finally:
            path = scope["path"]
            route = path if path in _ROUTES else "other"
            seconds = time.perf_counter() - started
            self._metrics.answered(route=route, model=notes.model, status=status, seconds=seconds)
            if notes.texts and status == 200:
                self._gate.took(seconds)
                self._metrics.embedded(model=notes.model, texts=notes.texts, tokens=notes.tokens)
            logger.info(
                "%s %s %d: %d texts, %d tokens, %.0f ms",
                scope["method"],
                route,
                status,
                notes.texts,
                notes.tokens,
                1000 * seconds,
            )

    async def _answer(self, scope: Scope, receive: Receive, sent: _Sent, notes: Notes) -> int:
        try:
            if scope["path"] != HEALTH:
                headers = dict(scope["headers"])
                self._keys.check(headers.get(b"authorization"))
            if scope["path"] in _COMPUTED and scope["method"] == "POST":
                with self._gate.place() as notes.place:
                    await self._app(scope, receive, sent)
            else:
                await self._app(scope, receive, sent)
        except ClientGoneError:
            return _GONE
        except Exception as error:  # noqa: BLE001  (it is answered, and told in the log)
            refusal = _refusal_of(error)
            if sent.status is not None:
                raise ConnectionAbortedError("the answer could not be sent to its end") from None
            await refusal.answer()(scope, receive, sent)
        return sent.status or _GONE


class _Sent:
    """`send`, and the status that went through it."""

    def __init__(self, send: Callable[[Message], object]) -> None:
        self._send = send
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)  # type: ignore[misc]


def _refusal_of(error: Exception) -> RefusedError:
    if isinstance(error, RefusedError):
        return error
    if isinstance(error, (InputError, InputTypeError, NotContextualError)):
        # The way one says it in Python, as it is said on the wire.
        return at_fault(str(error).replace("role=", "input_type="), "input")
    if isinstance(error, PplxEmbedError):
        logger.error("%s: %s", type(error).__name__, error)
        said = str(error) if isinstance(error, EncodingError) else "the model cannot be used; the server's log says why"
        return RefusedError(500, said, kind="server_error")
    # Where it happened, without its message: that may repeat what was sent.
    where = "".join(traceback.format_tb(error.__traceback__))
    logger.error("%s while a request was answered\n%s", type(error).__name__, where)
    return RefusedError(500, "the server failed; its log says where", kind="server_error")
