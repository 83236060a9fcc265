"""Stores that fail: a first run that binds none, damage, full disks, names that lead elsewhere, and a Ctrl-C."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from qdrant_client.local.persistence import CollectionPersistence

from pplx_embed_integrations import EncodingError, PplxEncoder
from pplx_embed_integrations.cli import main

PROGRAM = str(Path(sys.executable).with_name("pplx-embed"))


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    notes = tmp_path / "notes"
    notes.mkdir()
    for number in range(3):
        (notes / f"{number}.txt").write_text(f"Note {number} is about rivers and lakes.")
    return notes


def index(notes: Path, *options: object) -> int:
    return main(["index", str(notes), "--store", str(notes.parent / "store"), *map(str, options)])


def test_a_model_that_cannot_be_had_binds_no_store(
    notes: Path, replica_v1: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert index(notes, "--model", "0.6b") == 2
    assert "offline mode is enabled" in capsys.readouterr().err
    assert not (notes.parent / "store").exists()
    assert index(notes, "--model", replica_v1) == 0


def test_a_first_run_that_stored_nothing_binds_no_store(
    notes: Path, replica_v1: Path, replica_context_v1: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: PplxEncoder, texts: list[str], **options: object) -> None:
        raise EncodingError("the device is lost")

    with monkeypatch.context() as broken:
        broken.setattr(PplxEncoder, "encode", fail)
        assert index(notes, "--model", replica_v1) == 2
    assert (notes.parent / "store").exists()
    assert index(notes, "--model", replica_context_v1, "--dimensions", 16, "--chunk-tokens", 20) == 0
    assert index(notes, "--model", replica_v1) == 2


def test_limits_are_checked_before_the_store_is_made(
    notes: Path, replica_v1: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert index(notes, "--model", replica_v1, "--chunk-tokens", 10**6) == 2
    assert "--chunk-tokens 1000000 is more than replica-v1 reads at a time" in capsys.readouterr().err
    assert not (notes.parent / "store").exists()


def meta_is_no_json(store: Path) -> None:
    (store / "meta.json").write_text("{")


def meta_is_another(store: Path) -> None:
    (store / "meta.json").write_text('{"collections": {"documents": {"vectors": 7}}, "aliases": {}}')


def meta_is_empty(store: Path) -> None:
    (store / "meta.json").write_bytes(b"")


def database_is_none(store: Path) -> None:
    (store / "collection" / "documents" / "storage.sqlite").write_bytes(b"no database" * 1000)


def point_is_none(store: Path) -> None:
    with sqlite3.connect(store / "collection" / "documents" / "storage.sqlite") as database:
        database.execute("UPDATE points SET point = x'80'")
    database.close()


@pytest.mark.parametrize("damage", [meta_is_no_json, meta_is_another, meta_is_empty, database_is_none, point_is_none])
def test_a_damaged_store_is_told_in_one_line(
    damage: Callable[[Path], None], notes: Path, replica_v1: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = notes.parent / "store"
    index(notes, "--model", replica_v1)
    damage(store)
    capsys.readouterr()
    for command in (["search", "rivers"], ["index", str(notes)], ["forget", str(notes)]):
        assert main([*command, "--store", str(store)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert f"the store {store} is damaged" in error


@pytest.mark.parametrize(
    "words", ["database or disk is full", "attempt to write a readonly database", "disk I/O error"]
)
def test_a_disk_that_refuses_is_told_in_one_line(
    words: str, notes: Path, replica_v1: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(self: CollectionPersistence, point: object) -> None:
        raise sqlite3.OperationalError(words)

    with monkeypatch.context() as full:
        full.setattr(CollectionPersistence, "persist", refuse)
        assert index(notes, "--model", replica_v1) == 2
    assert f"failed: {words}; look at its disk" in capsys.readouterr().err
    assert index(notes, "--model", replica_v1) == 0


@pytest.mark.parametrize(
    "name", ["", "..", "../elsewhere", "a/b", "a\\b", "a\nb", "\x1b[1m", "x" * 300, "caf\udce9", "a:b"]
)
def test_a_bad_name_of_a_collection_is_refused(
    name: str, notes: Path, replica_v1: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = str(notes.parent / "store")
    for command in (["index", str(notes), "--model", str(replica_v1)], ["search", "rivers"], ["forget", "notes"]):
        assert main([*command, "--store", store, "--collection", name]) == 2
        error = capsys.readouterr().err
        assert "is no name for a collection" in error
        assert error.count("\n") == 1
    assert not Path(store).exists()


def test_a_store_at_an_odd_place_is_told(notes: Path, replica_v1: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (notes.parent / "loop").symlink_to(notes.parent / "loop")
    for place in (notes / "0.txt" / "store", "/proc/store", notes.parent / "loop", "y" * 300, "/dev/null"):
        assert main(["index", str(notes), "--store", str(place), "--model", str(replica_v1)]) == 2
        assert capsys.readouterr().err.splitlines()[-1].startswith("pplx-embed: error: ")


def test_one_ctrl_c_ends_the_program_and_the_next_run_goes_on(
    notes: Path, replica_context_v1: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = notes.parent / "store"
    lines = "".join(f"12:{n % 60:02} worker {n} finished job {n * 7919 % 10007} of the survey\n" for n in range(200))
    (notes / "z.txt").write_text(lines)
    command = [PROGRAM, "index", notes, "--store", store, "--model", replica_context_v1, "--chunk-tokens", "48"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as job:
        database = store / "collection" / "documents" / "storage.sqlite"
        while job.poll() is None and not database.exists():
            time.sleep(0.05)
        job.send_signal(signal.SIGINT)
        assert job.wait(60) == 130
    assert main(list(map(str, command[1:]))) == 0
    capsys.readouterr()
    assert main(list(map(str, command[1:]))) == 0
    assert capsys.readouterr().out.startswith("0 files indexed, 4 unchanged")


def test_a_ctrl_c_that_a_library_swallows_ends_the_program_all_the_same() -> None:
    script = (
        "import sys, time; from pplx_embed_integrations.cli import interruption\n"
        "interruption._PATIENCE = 0.2\n"
        "interruption.end_soon_after_ctrl_c()\n"
        "words = ['ready']\n"
        "while True:\n"
        "    try:\n"
        "        if words: print(words.pop(), flush=True)\n"
        "        time.sleep(60)\n"
        "    except KeyboardInterrupt: pass\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == b"ready\n"
        os.kill(job.pid, signal.SIGINT)
        assert job.wait(30) == 130
