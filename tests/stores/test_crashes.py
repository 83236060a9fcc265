"""Killed processes, writers at the same time, full disks, torn files, folders that may not be written."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from pplx_embed_integrations import StoreError
from pplx_embed_integrations.stores import ChunkTable

from .rows import DIMENSIONS, MADE_BY, codes_of, document, update

WORKER = """
import sys, time
sys.path[:0] = [{tests!r}]
from rows import DIMENSIONS, MADE_BY, codes_of, document, update
from pplx_embed_integrations.stores import ChunkTable

table = ChunkTable({folder!r}, made_by=MADE_BY, dimensions=DIMENSIONS)
print("ready", flush=True)
sys.stdin.readline()
"""
UPDATE = (
    WORKER
    + """
update(table, {version}, {count}, batch={batch})
print("done", flush=True)
"""
)
KILLS = int(os.environ.get("KILLS", "3"))
DOCUMENTS = int(os.environ.get("DOCUMENTS", "200"))


@contextmanager
def process(code: str, **values: object) -> Iterator[subprocess.Popen[str]]:
    """A process that has opened the table and waits to be told to go on."""
    script = textwrap.dedent(code).format(tests=str(Path(__file__).parent), **values)
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        try:
            assert running.stdout is not None
            assert running.stdout.readline() == "ready\n"
            yield running
        finally:
            running.kill()


def go(running: subprocess.Popen[str]) -> None:
    assert running.stdin is not None
    running.stdin.write("go\n")
    running.stdin.flush()


def versions_of(table: ChunkTable) -> dict[str, set[int]]:
    """Which version each document is of; a document that is not whole fails."""
    found: dict[str, set[int]] = {}
    counts: dict[str, int] = {}
    for hit in table.get(with_vectors=True):
        _, number, _, version, _, part = hit.text.split()
        assert (hit.document, hit.position) == (f"doc-{number}", int(part))
        chunks = 1 + (int(number) + int(version)) % 4
        assert hit.vector is not None
        np.testing.assert_array_equal(hit.vector, codes_of(1000 * int(version) + int(number), chunks)[hit.position])
        found.setdefault(hit.document, set()).add(int(version))
        counts[hit.document] = counts.get(hit.document, 0) + 1
    for name, versions in found.items():
        assert len(versions) == 1, f"{name} is mixed of versions {versions}"
        assert counts[name] == 1 + (int(name[4:]) + next(iter(versions))) % 4, f"{name} is in part"
    return found


def fill(table: ChunkTable, count: int) -> None:
    documents = [document(n, chunks=1 + n % 4) for n in range(count)]
    table.replace(documents, [codes_of(n, len(each.chunks)) for n, each in enumerate(documents)])


@pytest.mark.slow
def test_killed_at_any_moment_every_document_is_old_or_new(make: Callable[..., ChunkTable]) -> None:
    table, chance = make(), random.Random(3)
    fill(table, DOCUMENTS)
    for kill in range(1, KILLS + 1):
        with process(UPDATE, folder=table.uri, version=kill, count=DOCUMENTS, batch=20) as running:
            go(running)
            time.sleep(chance.uniform(0.0, 0.003 * DOCUMENTS))
            running.send_signal(signal.SIGKILL)
            running.wait()
        found = versions_of(ChunkTable(table.uri))
        assert len(found) == DOCUMENTS
    update(ChunkTable(table.uri), KILLS, DOCUMENTS, batch=20)
    assert versions_of(table) == {f"doc-{n}": {KILLS} for n in range(DOCUMENTS)}


@pytest.mark.slow
def test_two_processes_writing_the_same_documents(make: Callable[..., ChunkTable]) -> None:
    table = make()
    fill(table, 60)
    with process(UPDATE, folder=table.uri, version=1, count=60, batch=10) as other:
        go(other)
        update(table, 2, 60, batch=10)
        assert other.stdout is not None
        assert other.stdout.readline() == "done\n"
    found = versions_of(table)
    assert len(found) == 60
    assert set().union(*found.values()) <= {1, 2}


@pytest.mark.slow
def test_two_processes_writing_different_documents_lose_nothing(make: Callable[..., ChunkTable]) -> None:
    table = make()
    code = (
        WORKER
        + """
for n in range(10):
    table.replace([document(n, chunks=1 + n % 4)], [codes_of(n, 1 + n % 4)])
print("done", flush=True)
"""
    )
    with process(code, folder=table.uri) as other:
        go(other)
        for n in range(10, 20):
            table.replace([document(n, chunks=1 + n % 4)], [codes_of(n, 1 + n % 4)])
        assert other.stdout is not None
        assert other.stdout.readline() == "done\n"
    assert versions_of(table) == {f"doc-{n}": {0} for n in range(20)}


def test_threads_writing_and_reading_see_whole_documents(make: Callable[..., ChunkTable]) -> None:
    import threading

    table, other = make(), make()
    fill(table, 20)
    errors: list[BaseException] = []

    def guarded(work: Callable[[], object]) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001  # an assertion of a thread is shown by the test
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def write(into: ChunkTable, version: int) -> None:
        documents = [document(n, chunks=1 + (n + version) % 4, version=version) for n in range(20)]
        into.replace(documents, [codes_of(1000 * version + n, len(d.chunks)) for n, d in enumerate(documents)])

    def read() -> None:
        for _ in range(10):
            assert len(versions_of(other)) == 20

    threads = [guarded(lambda v=v: write(table, v)) for v in (1, 2, 3)] + [guarded(read), guarded(read)]
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(set().union(*versions_of(table).values())) == 1


def test_a_full_disk_is_an_error_and_nothing_is_lost(make: Callable[..., ChunkTable], tmp_path: Path) -> None:
    """A limit on the size of a file stands for the full disk: the same system call fails, with another number."""
    table = make()
    fill(table, 20)
    code = (
        WORKER
        + """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
documents = [document(n, chunks=1000, version=1) for n in range(20)]
try:
    table.replace(documents, [codes_of(n, 1000) for n in range(20)])
except BaseException as error:
    print(type(error).__name__, error, flush=True)
"""
    )
    with process(code, folder=table.uri) as running:
        go(running)
        assert running.stdout is not None
        said = running.stdout.readline()
    assert said.startswith(f"StoreError writing the table 'chunks' in {table.uri} failed")
    assert versions_of(table) == {f"doc-{n}": {0} for n in range(20)}
    fill(table, 25)
    assert len(versions_of(table)) == 25


@pytest.mark.parametrize("kind", ["data", "manifest"])
def test_a_torn_file_is_an_error(make: Callable[..., ChunkTable], kind: str) -> None:
    table = make()
    fill(table, 40)
    folder = Path(table.uri) / "chunks.lance"
    files = sorted(folder.rglob("*.lance" if kind == "data" else "*.manifest"), key=lambda path: path.stat().st_mtime)
    for file in files:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(StoreError, match="failed: a file of it is missing or damaged"):
        ChunkTable(table.uri, made_by=MADE_BY, dimensions=DIMENSIONS).search(codes_of(1, 1)[0])


def test_a_missing_file_is_an_error(make: Callable[..., ChunkTable]) -> None:
    table = make()
    fill(table, 40)
    for file in (Path(table.uri) / "chunks.lance" / "data").iterdir():
        file.unlink()
    with pytest.raises(StoreError, match="missing or damaged"):
        ChunkTable(table.uri).search(codes_of(1, 1)[0])


def test_a_folder_that_may_not_be_written_can_be_read(make: Callable[..., ChunkTable]) -> None:
    code = """
import os, sys
sys.path[:0] = [{tests!r}]
from rows import DIMENSIONS, MADE_BY, codes_of, document
from pplx_embed_integrations.stores import ChunkTable
import lancedb
os.getuid() or os.setuid(65534)  # root may write anywhere
print("ready", flush=True)
sys.stdin.readline()
table = ChunkTable({folder!r}, made_by=MADE_BY, dimensions=DIMENSIONS)
print(len(table.search(codes_of(1, 1)[0], k=3)), flush=True)
try:
    table.replace([document(1, version=1)], [codes_of(1, 3)])
except Exception as error:
    print(type(error).__name__, error, flush=True)
"""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to other users
        table = make(Path(folder) / "store")
        fill(table, 5)
        places = [Path(folder), *Path(folder).rglob("*")]
        for place in places:
            place.chmod(0o555 if place.is_dir() else 0o444)
        try:
            with process(code, folder=table.uri) as running:
                go(running)
                assert running.stdout is not None
                assert running.stdout.readline() == "3\n"
                said = running.stdout.readline()
        finally:
            for place in places:
                place.chmod(0o755 if place.is_dir() else 0o644)
        assert said.startswith(f"StoreError writing the table 'chunks' in {table.uri} failed: it may not be written")
        assert versions_of(table) == {f"doc-{n}": {0} for n in range(5)}
