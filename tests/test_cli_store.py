"""Stores that fail: a first run that binds none, damage, full disks, names that lead elsewhere, and a Ctrl-C."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pplx_embed_integrations import EncodingError, PplxEncoder
from pplx_embed_integrations.cli import main
from pplx_embed_integrations.stores.handle import Handle
from tests.stores.object_storage import object_storage

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


def manifest_is_torn(table: Path) -> None:
    for file in (table / "_versions").iterdir():
        file.write_bytes(file.read_bytes()[:20])


def manifest_is_none(table: Path) -> None:
    for file in (table / "_versions").iterdir():
        file.write_bytes(b"no manifest" * 100)


def data_is_missing(table: Path) -> None:
    for file in (table / "data").iterdir():
        file.unlink()


def data_is_empty(table: Path) -> None:
    for file in (table / "data").iterdir():
        file.write_bytes(b"")


@pytest.mark.parametrize("damage", [manifest_is_torn, manifest_is_none, data_is_missing, data_is_empty])
def test_a_damaged_store_is_told_in_one_line(
    damage: Callable[[Path], None], notes: Path, replica_v1: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = notes.parent / "store"
    index(notes, "--model", replica_v1)
    damage(store / "documents.lance")
    capsys.readouterr()
    for command in (["search", "rivers"], ["index", str(notes)], ["forget", str(notes)]):
        assert main([*command, "--store", str(store)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert f"the table 'documents' in {store} failed: a file of it is missing or damaged" in error


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("LanceError(IO): No space left on device (os error 28)", "the disk is full; free some space"),
        ("LanceError(IO): Permission denied (os error 13)", "it may not be written or read by this user"),
        ("LanceError(IO): Read-only file system (os error 30)", "it lies on a read-only file system"),
    ],
)
def test_a_disk_that_refuses_is_told_in_one_line(
    words: str,
    told: str,
    notes: Path,
    replica_v1: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(self: Handle, rows: object) -> None:
        raise RuntimeError(words)

    with monkeypatch.context() as full:
        full.setattr(Handle, "merge", refuse)
        assert index(notes, "--model", replica_v1) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("pplx-embed: error: writing the table 'documents' in ")
    assert told in error
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


def test_a_collection_on_object_storage(
    notes: Path, replica_v1: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with object_storage() as (options, objects):
        for name, value in options.items():
            monkeypatch.setenv(f"AWS_{name.removeprefix('aws_').upper()}", value)
        index = ["index", str(notes), "--store", "s3://bucket/notes"]
        assert main([*index, "--model", str(replica_v1)]) == 0
        assert main(index) == 0
        assert "0 files indexed, 3 unchanged" in capsys.readouterr().out
        assert main(["search", "rivers", "--store", "s3://bucket/notes"]) == 0
        assert capsys.readouterr().out.count(".txt") == 3
        assert all(key.startswith("notes/documents.lance/") for key in objects.found)


def test_a_ctrl_c_that_python_drops_in_a_callback_is_raised_again() -> None:
    code = """
import signal, time, weakref
from pplx_embed_integrations.cli.interruption import end_soon_after_ctrl_c
class Thing: pass
end_soon_after_ctrl_c()
thing = Thing()
reference = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGINT))
try:
    del thing
    time.sleep(60)
except KeyboardInterrupt:
    print("told")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("told\n", "", 0)


def test_one_ctrl_c_ends_the_program_and_the_next_run_goes_on(
    notes: Path, replica_context_v1: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = notes.parent / "store"
    lines = "".join(f"12:{n % 60:02} worker {n} finished job {n * 7919 % 10007} of the survey\n" for n in range(200))
    (notes / "z.txt").write_text(lines)
    command = [PROGRAM, "index", notes, "--store", store, "--model", replica_context_v1, "--chunk-tokens", "48"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as job:
        while job.poll() is None and not (store / "documents.lance" / "data").exists():  # made with the first chunks
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
