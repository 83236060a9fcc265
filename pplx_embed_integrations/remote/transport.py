"""Requests to one server: its key, its connections, and what is tried again.

Knows HTTP and when a failure passes by itself; must not know what is asked, nor vectors.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import random
import weakref
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from ..errors import ServerError
from ..options import PERPLEXITY
from ..secret import Secret
from .loop import loop
from .protocol import KEY_VARIABLES, PERPLEXITY_URL, message_of

if TYPE_CHECKING:
    import httpx

logger = logging.getLogger(__name__)

OWN_KEY_VARIABLES = ("PPLX_EMBED_API_KEY",)
"""Where the key for a server of one's own is looked for; Perplexity's is sent nowhere else."""

_PASSING = {408, 409, 429}
"""Statuses besides 5xx of a server that may do it later."""
_FIRST, _LONGEST = 0.5, 30.0
"""Seconds before the first further attempt, and the most that doubling them comes to."""
_PATIENCE = 120.0
"""Seconds that a server may ask to wait for; who asks for more is told of rather than waited for."""
_CONNECT = 10.0
_CONNECTIONS = 64

_sleep = asyncio.sleep


class RefusedError(ServerError):
    """The server answered that it will not, and will not later either.

    Attributes:
        status: Its HTTP status.
        body: What it answered, parsed where it is JSON.
        url: The server.
    """

    def __init__(self, message: str, *, status: int, body: object, url: str) -> None:
        super().__init__(message)
        self.status, self.body, self.url = status, body, url

    def __reduce__(self) -> tuple[object, ...]:
        return ServerError, (str(self),)


class Transport:
    """One server, spoken to from the event loop of this package.

    Connections are made at first use, kept until `close`, and made anew in a forked process.

    Args:
        base_url: Its address without the route, or `"perplexity"`.
        key: What it asks for; without one the environment is looked at with every request.
        timeout: Seconds to wait for an answer.
        max_retries: How often a request is sent again.
    """

    def __init__(self, base_url: str, key: Secret, *, timeout: float, max_retries: int) -> None:
        self.hosted = base_url == PERPLEXITY
        address = os.environ.get("PERPLEXITY_BASE_URL") or PERPLEXITY_URL
        self.url = address.rstrip("/").removesuffix("/v1") if self.hosted else base_url
        self._key, self._timeout, self._max_retries = key, timeout, max_retries
        self._client: tuple[asyncio.AbstractEventLoop, httpx.AsyncClient] | None = None

    async def get(self, path: str) -> Any:
        """Ask for something; see `post`."""
        return await self._send("GET", path, None)

    async def post(self, path: str, body: object) -> Any:
        """Send a request until it is answered.

        Args:
            path: The route.
            body: What becomes JSON.

        Returns:
            The answer, parsed.

        Raises:
            RefusedError: The server refuses it.
            ServerError: It cannot be reached, or fails, again and again.
        """
        # Texts are written as UTF-8, not in escapes, which are up to twice as long.
        return await self._send("POST", path, json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode())

    async def close(self) -> None:
        """Close the connections; the next request makes new ones."""
        client, self._client = self._client, None
        if client is not None and client[0] is loop():
            await client[1].aclose()

    async def _send(self, method: str, path: str, content: bytes | None) -> Any:
        import httpx  # a quarter of a second, and only for who asks a server

        attempt = 0
        while True:
            attempt += 1
            wait: float | None = None
            try:
                response = await self._connected().request(method, path, content=content, headers=self._headers())
            except httpx.TimeoutException as error:
                failure = f"did not answer within {self._seconds(error):g} seconds ({type(error).__name__})"
            except httpx.RequestError as error:
                failure = f"cannot be reached ({self._without_key(f'{type(error).__name__}: {error}')})"
            else:
                body = _parsed(response.content)
                if response.is_success and body is not None:
                    return body
                failure = self._failure(response, body, path)
                wait = _retry_after(response.headers)
            if attempt > self._max_retries or (wait is not None and wait > _PATIENCE):
                raise self._given_up(failure, attempt, wait)
            wait = _delay(attempt) if wait is None else wait * random.uniform(1, 1.1)
            logger.warning(
                "%s %s; trying again in %.1f seconds (%d of %d)", self.url, failure, wait, attempt, self._max_retries
            )
            await _sleep(wait)

    def _connected(self) -> httpx.AsyncClient:
        here = loop()
        if self._client is None or self._client[0] is not here:
            import httpx

            client = httpx.AsyncClient(
                base_url=self.url,
                timeout=httpx.Timeout(self._timeout, connect=min(_CONNECT, self._timeout), pool=None),
                limits=httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS),
            )
            self._client = here, client
            weakref.finalize(self, _close_later, here, client).atexit = False
        return self._client[1]

    def _headers(self) -> dict[str, str]:
        key = self._key.get_secret_value() or key_of_environment(hosted=self.hosted)
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        return {**headers, "Authorization": f"Bearer {key}"} if key else headers

    def _failure(self, response: httpx.Response, body: object, path: str) -> str:
        """Return what a failure that may pass is called; raise what will not.

        Raises:
            RefusedError: It will not pass.
        """
        status = response.status_code
        if response.is_success:
            return "answered something that is no JSON, or was cut off"
        said = self._without_key(message_of(body) if body is not None else "")
        answered = f"answered {status} {_phrase(status)}{f': {said}' if said else ''}"
        if status in _PASSING or status >= 500:
            return answered
        message = f"{self.url} {answered}"
        if status in (401, 403):
            names = " or ".join(key_variables(hosted=self.hosted))
            message += f"; pass api_key=, or set {names} in the environment"
        elif status == 404:
            message += f"; it was asked for {path}: is base_url right, and the model's name?"
        elif response.has_redirect_location:
            message += f"; it leads to {response.headers['location'].partition('?')[0]!r}: give that as base_url"
        raise RefusedError(message, status=status, body=body, url=self.url)

    def _given_up(self, failure: str, attempts: int, wait: float | None) -> ServerError:
        times = "once" if attempts == 1 else f"{attempts} times"
        if wait is not None and wait > _PATIENCE:
            return ServerError(f"{self.url} {failure}; it asks to wait {wait:.0f} seconds: go on after that")
        return ServerError(f"{self.url} {failure}; it was asked {times}")

    def _seconds(self, error: httpx.TimeoutException) -> float:
        return min(_CONNECT, self._timeout) if type(error).__name__ == "ConnectTimeout" else self._timeout

    def _without_key(self, text: str) -> str:
        key = self._key.get_secret_value() or key_of_environment(hosted=self.hosted)
        return text.replace(key, "**********") if key else text


def key_variables(*, hosted: bool) -> tuple[str, ...]:
    """Return the environment variables that may hold a server's key."""
    return KEY_VARIABLES if hosted else OWN_KEY_VARIABLES


def key_of_environment(*, hosted: bool) -> str:
    """Return a server's key as the environment has it, empty if it has none."""
    return next(filter(None, (os.environ.get(name, "").strip() for name in key_variables(hosted=hosted))), "")


def _parsed(content: bytes) -> Any:
    """Return what JSON says, None where it is none; an answer of `null` is none to us either."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _phrase(status: int) -> str:
    with contextlib.suppress(ValueError):
        return HTTPStatus(status).phrase
    return "(no known status)"


def _delay(attempt: int) -> float:
    """Return seconds that grow with each attempt, and differ, so that many clients do not come back at once."""
    return float(min(_LONGEST, _FIRST * 2 ** (attempt - 1)) * random.uniform(0.5, 1))


def _retry_after(headers: httpx.Headers) -> float | None:
    """Return the seconds that a server asks to wait, which it gives as a number or as a date."""
    given = headers.get("retry-after", "")
    try:
        seconds = float(given)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(given) - datetime.now(timezone.utc)).total_seconds()
        except (TypeError, ValueError):
            return None
    return seconds if 0 <= seconds < float("inf") else 0.0


def _close_later(there: asyncio.AbstractEventLoop, client: httpx.AsyncClient) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended
        there.call_soon_threadsafe(lambda: there.create_task(client.aclose()))
