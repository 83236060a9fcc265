"""A server of this package in a thread of the tests' process, at a free port of this machine."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import httpx
import uvicorn
from fastapi import FastAPI

from pplx_embed_integrations import Embedder
from pplx_embed_integrations.remote.server import ServerLimits, create_app
from pplx_embed_integrations.remote.server.running import configured


@dataclass(frozen=True)
class Served:
    """A server that runs."""

    url: str
    app: FastAPI
    server: uvicorn.Server
    thread: threading.Thread
    keys: Sequence[str]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that have these labels."""
        key = next(iter(self.keys), None)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        total = 0.0
        for line in httpx.get(f"{self.url}/metrics", headers=headers).text.splitlines():
            sample, _, value = line.rpartition(" ")
            if sample.partition("{")[0] == name and all(f'{k}="{v}"' in sample for k, v in labels.items()):
                total += float(value)
        return total


@contextlib.contextmanager
def serving(
    models: Mapping[str, Embedder],
    *,
    api_keys: Sequence[str] = (),
    limits: ServerLimits | None = None,
    port: int = 0,
    wait: bool = True,
) -> Iterator[Served]:
    """Serve models until the end of the block.

    Args:
        models: By name.
        api_keys: As for `create_app`.
        limits: As for `create_app`.
        port: By default any that is free.
        wait: Whether the models must be loaded when the block begins.
    """
    app = create_app(models, api_keys=api_keys, limits=limits, wait=wait)
    with socket.create_server(("127.0.0.1", port)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = uvicorn.Server(configured(app, limits))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.01)
            yield Served(url, app, server, thread, api_keys)
        finally:
            server.should_exit = True
            thread.join()
