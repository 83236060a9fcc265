"""RefusedError: why a request is not answered, as a status and a body that clients of both APIs read.

Knows which mistake has which status; must not know how a mistake is found.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi.responses import JSONResponse

from ..protocol import error_answer

_INVALID = "invalid_request_error"


class ClientGoneError(Exception):
    """The client has hung up, and nobody waits for an answer."""


class RefusedError(Exception):
    """An answer that is an error.

    Args:
        status: HTTP status.
        message: What was given, what is allowed, what to do; never a text that was sent.
        kind: OpenAI's class of the error.
        code: Its name, for programs.
        param: The field of the request that is at fault.
        where: Where in the body the mistake is, as in `("input", 3)`: the answer then has Perplexity's `detail`, too.
        headers: Of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = _INVALID,
        code: str | None = None,
        param: str | None = None,
        where: tuple[str | int, ...] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self._headers = dict(headers or {})
        detail: list[dict[str, Any]] | None = None
        if where is not None:
            detail = [{"loc": ["body", *where], "msg": message, "type": code or "value_error"}]
            param = param or next((str(part) for part in where), None)
        self._body = error_answer(message, kind=kind, code=code, param=param, detail=detail)

    def answer(self) -> JSONResponse:
        """Return it as a response."""
        return JSONResponse(self._body, status_code=self.status, headers=self._headers)


def at_fault(message: str, *where: str | int, code: str = "value_error") -> RefusedError:
    """Return what is said to JSON that asks for something impossible: status 422, as the hosted API does."""
    return RefusedError(422, message, code=code, where=where)


def busy(status: int, message: str, *, kind: str, seconds: int) -> RefusedError:
    """Return what is said to a request that may come again in some seconds."""
    return RefusedError(status, message, kind=kind, headers={"Retry-After": str(seconds)})


def unauthorized(message: str) -> RefusedError:
    """Return what is said to a request without a key that fits."""
    return RefusedError(
        401,
        message,
        kind="authentication_error",
        code="invalid_api_key",
        headers={"WWW-Authenticate": "Bearer"},
    )
