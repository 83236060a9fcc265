"""A hub on this machine that speaks as much of its protocol as downloads need: real requests, real answers."""

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Repository:
    """Commits of a repository, each a folder, and what its branches mean."""

    commits: dict[str, Path]
    branches: dict[str, str] = field(default_factory=dict)
    token: str | None = None
    gated: bool = False


@dataclass
class Hub:
    """What there is, how the hub behaves, and what was asked of it."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, revision and file of each request."""
    silent: bool = False
    status: int | None = None
    url: str = ""

    def downloaded(self) -> set[str]:
        return {file for method, _, file in self.asked if method == "GET"}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, *arguments: object) -> None:
        pass

    def _answer(self) -> None:
        source, _, rest = self.path.lstrip("/").partition("/resolve/")
        revision, _, file = rest.partition("/")
        if file:  # the library asks for other things, too, once a process
            self.hub.asked.append((self.command, revision, file))
        while self.hub.silent:
            time.sleep(0.05)
        repository = self.hub.repositories.get(source)
        if self.hub.status is not None:
            return self._send(self.hub.status)
        if repository is None:
            return self._send(401, error="RepoNotFound")
        if repository.gated:
            return self._send(403, error="GatedRepo")
        if repository.token and self.headers.get("authorization") != f"Bearer {repository.token}":
            return self._send(401, error="RepoNotFound")
        commit = repository.branches.get(revision, revision)
        folder = repository.commits.get(commit)
        if folder is None:
            return self._send(404, error="RevisionNotFound")
        path = folder / file
        if not path.is_file():
            return self._send(404, error="EntryNotFound", commit=commit)
        return self._send(200, path.read_bytes(), commit=commit)

    def _send(self, status: int, body: bytes = b"", *, error: str | None = None, commit: str | None = None) -> None:
        self.send_response(status)
        if error:
            self.send_header("X-Error-Code", error)
        if commit:
            self.send_header("X-Repo-Commit", commit)
            self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@contextmanager
def serve() -> Iterator[Hub]:
    """Run a hub until the block ends."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield hub
    finally:
        hub.silent = False
        server.shutdown()
        server.server_close()
