"""Run a server: listen, tell when it is ready, and end without cutting off what is being answered.

Knows uvicorn, addresses and signals; must not know routes.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from ...embedder import Embedder
from ...errors import InputError
from .app import create_app
from .limits import ServerLimits

_BACKLOG = 2048


def run(
    models: Mapping[str, Embedder],
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    api_keys: Sequence[str] = (),
    allow_no_key: bool = False,
    limits: ServerLimits | None = None,
    listening: Callable[[str], object] = lambda url: None,
    ready: Callable[[], object] = lambda: None,
) -> None:
    """Serve models until SIGTERM or Ctrl-C; what is being answered then is finished.

    Args:
        models: As for `create_app`.
        host: Address to listen at; by default this machine alone can ask.
        port: By default 8080; 0 takes a free one.
        api_keys: As for `create_app`.
        allow_no_key: Listen for other machines though there is no key.
        limits: As for `create_app`.
        listening: Is told the server's URL; from then on it says that it is not ready.
        ready: Is called when the models are loaded.

    Raises:
        InputError: Other machines could ask without a key, and it was not said that they may.
        OSError: The address cannot be had.
        PplxEmbedError: A model cannot be loaded.
    """
    check_open(host, api_keys, allow_no_key=allow_no_key)
    failures: list[BaseException] = []

    def loaded(error: BaseException | None) -> None:
        if error is None:
            ready()
        else:
            failures.append(error)
            server.should_exit = True

    app = create_app(models, api_keys=api_keys, limits=limits, wait=False, loaded=loaded)
    server = uvicorn.Server(configured(app, limits))
    with _listen(host, port) as listener:
        listening(_url(listener))
        server.run(sockets=[listener])
    if failures:
        raise failures[0]


class _Connection(H11Protocol):
    """HTTP/1.1 with a deadline for a request's headers; uvicorn itself waits for ever.

    It is h11, as httptools takes headers of any size, and they are read before anybody knows of a key.
    """

    def __init__(self, *arguments: Any, seconds: float, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.access_log = False  # whatever handlers there are
        self._seconds = seconds
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait_for_headers()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._wait_for_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._forget_deadline()

    def _wait_for_headers(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._forget_deadline()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self._seconds, self.transport.close)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def configured(app: FastAPI, limits: ServerLimits | None = None) -> uvicorn.Config:
    """Return how uvicorn runs an application of `create_app`."""
    http: Any = partial(_Connection, seconds=(limits or ServerLimits()).seconds)
    return uvicorn.Config(app, http=http, ws="none", log_config=None, server_header=False, proxy_headers=False)


def check_open(host: str, api_keys: Sequence[str], *, allow_no_key: bool) -> None:
    """Refuse to listen for other machines without a key.

    Raises:
        InputError: That is what was asked for.

    Example:
        >>> check_open("127.0.0.1", [], allow_no_key=False)
    """
    if not api_keys and not allow_no_key and not _is_loopback(host):
        raise InputError(
            f"at {host} everybody who reaches this machine could use the models; give an API key (--api-key, or "
            "PPLX_EMBED_API_KEY), or say that none is wanted (--no-key)"
        )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        raise OSError(error.errno, f"cannot listen at {host}, port {port}: {error.strerror}") from error


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
