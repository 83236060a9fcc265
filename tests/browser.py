"""One headless Chromium, spoken to in its DevTools protocol.

Knows how the browser starts, listens and ends; must not know what its pages should look like.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
_FLAGS = [
    "--headless",
    "--no-sandbox",  # CI runs as root, for whom Chromium has none; the pages are our own
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
]
_START_SECONDS = 30


def executable() -> str | None:
    """Return where the browser is, or None."""
    named = os.environ.get("CHROMIUM")
    return named or next((path for name in _NAMES if (path := shutil.which(name))), None)


class Browser:
    """A page in a browser: it goes somewhere, runs JavaScript, and remembers what it asked for and complained of."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)
        self._events: list[dict[str, Any]] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command of the protocol and return its result."""
        number = next(self._numbers)
        self._connection.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while (message := json.loads(self._connection.recv(timeout=60))).get("id") != number:
            self._events.append(message)
        if "error" in message:
            raise RuntimeError(f"{method}: {message['error']}")
        return dict(message["result"])

    def show(self, path: Path, *, width: int, height: int = 900, dark: bool = False, paper: bool = False) -> None:
        """Open a file in a window of this size and scheme; what was noted before is forgotten."""
        self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self("Emulation.setEmulatedMedia", media="print" if paper else "", features=features)
        self._events.clear()
        self("Page.navigate", url=path.absolute().as_uri())
        while not self._seen("Page.loadEventFired"):
            self._events.append(json.loads(self._connection.recv(timeout=60)))
        self.run("document.fonts.ready.then(() => 1)")

    def run(self, script: str) -> Any:
        """Evaluate an expression in the page; a promise is waited for."""
        result = self("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(json.dumps(result["exceptionDetails"]))
        return result["result"].get("value")

    def press(self, key: str) -> None:
        """Press a key and let it go."""
        code = {"Tab": 9, "Enter": 13}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    def requests(self) -> list[str]:
        """Return every address asked for since `show`."""
        return [event["params"]["request"]["url"] for event in self._seen("Network.requestWillBeSent")]

    def complaints(self) -> list[dict[str, Any]]:
        """Return what came to the console since `show`: messages, exceptions, and the browser's own warnings."""
        kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [event["params"] for kind in kinds for event in self._seen(kind)]

    def picture(self, path: Path, *, whole: bool = True) -> None:
        """Write the page as PNG, the whole of it or what the window shows."""
        taken = self("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(taken["data"]))

    def pdf(self) -> bytes:
        """Return the page as it would be printed."""
        return base64.b64decode(self("Page.printToPDF", printBackground=False)["data"])

    def _seen(self, method: str) -> list[dict[str, Any]]:
        return [event for event in self._events if event.get("method") == method]


@contextmanager
def running(program: str) -> Iterator[Browser]:
    """Start a browser with a profile of its own, and end it."""
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [program, *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            with connect(_address(Path(profile), process), max_size=None, compression=None) as connection:
                yield Browser(connection)
        finally:
            process.terminate()
            process.wait(timeout=30)


def _address(profile: Path, process: subprocess.Popen[bytes]) -> str:
    """Wait until the browser has written its port, and return the address of its first page."""
    written = profile / "DevToolsActivePort"
    deadline = time.monotonic() + _START_SECONDS
    while not (written.is_file() and "\n" in written.read_text()):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the browser did not start (exit status {process.poll()})")
        time.sleep(0.02)
    port = int(written.read_text().split()[0])
    with httpx.Client(trust_env=False) as client:
        pages = client.get(f"http://127.0.0.1:{port}/json/list").raise_for_status().json()
    return str(next(page for page in pages if page["type"] == "page")["webSocketDebuggerUrl"])
