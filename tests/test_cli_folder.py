"""Folders as they are on old shares: what is read, what is left out, and that what cannot be read is never deleted."""

import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lancedb
import pytest

from pplx_embed_integrations.cli import folder as folder_module
from pplx_embed_integrations.cli import main

Run = Callable[..., int]


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    notes = tmp_path / "notes"
    (notes / "deep").mkdir(parents=True)
    for name in ("a", "b", "c", "deep/d", "deep/e"):
        (notes / f"{name}.txt").write_text(f"Note {name} is about rivers.")
    return notes


@pytest.fixture
def index(tmp_path: Path, replica_v1: Path) -> Run:
    def run(directory: Path | str, *options: str) -> int:
        store = tmp_path / "store"
        model = [] if store.exists() else ["--model", str(replica_v1)]
        return main(["index", str(directory), "--store", str(store), *model, *options])

    return run


@pytest.fixture
def sources(tmp_path: Path) -> Callable[[], list[str]]:
    def read() -> list[str]:
        table = lancedb.connect(str(tmp_path / "store")).open_table("documents")
        rows = table.search().where("id IS NOT NULL").select(["metadata"]).to_list()
        return sorted(json.loads(row["metadata"])["source"] for row in rows)

    return read


ALL = ["a.txt", "b.txt", "c.txt", "deep/d.txt", "deep/e.txt"]


def refuse(monkeypatch: pytest.MonkeyPatch, function: str, name: str) -> None:
    """Have the system refuse one path, as it refuses one that somebody else owns; tests may run as root."""
    real = getattr(os, function)

    def faulty(path: Any, *args: Any, **options: Any) -> Any:
        if os.fspath(path).endswith(name):
            raise PermissionError(13, "Permission denied", path)
        return real(path, *args, **options)

    monkeypatch.setattr(folder_module.os, function, faulty)


def empty_mount(notes: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    shutil.rmtree(notes)
    notes.mkdir()
    return "its folder is empty now; if that is meant, add --allow-removal: a.txt, b.txt"


def empty_mount_below(notes: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    shutil.rmtree(notes / "deep")
    (notes / "deep").mkdir()
    return "its folder is empty now; if that is meant, add --allow-removal: deep/d.txt"


def unlistable(notes: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    refuse(monkeypatch, "scandir", "deep")
    return "cannot be read: Permission denied: deep/d.txt, deep/e.txt"


def unreadable(notes: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    refuse(monkeypatch, "open", "b.txt")
    return "cannot be read: Permission denied: b.txt"


def cut_short(notes: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    real = os.fstat

    def longer(descriptor: int) -> Any:
        status = list(real(descriptor))
        status[6] += 100 if Path(f"/proc/self/fd/{descriptor}").readlink().name == "b.txt" else 0
        return os.stat_result(status)

    monkeypatch.setattr(folder_module.os, "fstat", longer)
    return "cannot be read: it ends after 23 of 123 bytes: b.txt"


def emptied(notes: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (notes / "b.txt").write_bytes(b"")
    return "empty; if that is meant, add --allow-removal: b.txt"


def became_binary(notes: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (notes / "b.txt").write_bytes(b"\0\1")
    return "binary: it holds NUL characters: b.txt"


def became_huge(notes: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(folder_module, "LARGEST", 1 << 20)
    (notes / "b.txt").write_bytes(b"a " * (1 << 20))
    return "larger than 1 MB; cut it into several files: b.txt"


def became_latin_1(notes: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (notes / "b.txt").write_bytes("Flüsse".encode("latin-1"))
    return "not UTF-8 text (byte 2); convert it first: b.txt"


def became_a_pipe(notes: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (notes / "b.txt").unlink()
    os.mkfifo(notes / "b.txt")
    return "a pipe, a socket or a device: b.txt"


def folder_became_a_file(notes: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    shutil.rmtree(notes / "deep")
    (notes / "deep").write_text("moved")
    return "nor among --include: deep/d.txt, deep/e.txt"


def folder_became_a_dead_link(notes: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    shutil.rmtree(notes / "deep")
    (notes / "deep").symlink_to("/nowhere/at/all")
    return "a link that leads nowhere: deep/d.txt, deep/e.txt"


def mostly_gone(notes: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in ("a", "b", "c"):
        (notes / f"{name}.txt").unlink()
    return "gone, and more than half of the 5 files; if that is meant, add --allow-removal: a.txt, b.txt, c.txt"


@pytest.mark.parametrize(
    "happens",
    [
        empty_mount,
        empty_mount_below,
        unlistable,
        unreadable,
        cut_short,
        emptied,
        became_binary,
        became_huge,
        became_latin_1,
        became_a_pipe,
        folder_became_a_file,
        folder_became_a_dead_link,
        mostly_gone,
    ],
)
def test_what_could_not_be_read_keeps_its_chunks(
    happens: Callable[[Path, pytest.MonkeyPatch], str],
    notes: Path,
    index: Run,
    sources: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert index(notes) == 0
    told = happens(notes, monkeypatch)
    capsys.readouterr()
    assert index(notes) == 3
    output = capsys.readouterr().out
    assert "Kept what the collection holds of " in output
    assert told in output
    monkeypatch.undo()
    assert sources() == ALL


def test_a_folder_that_cannot_be_listed_changes_nothing(
    notes: Path,
    index: Run,
    sources: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert index(notes) == 0
    refuse(monkeypatch, "scandir", "notes")
    assert index(notes) == 2
    assert f"the folder '{notes}' cannot be read: Permission denied" in capsys.readouterr().err
    monkeypatch.undo()
    assert sources() == ALL


def test_removal_is_done_where_it_is_meant(notes: Path, index: Run, sources: Callable[[], list[str]]) -> None:
    index(notes)
    (notes / "a.txt").unlink()
    shutil.rmtree(notes / "deep")
    assert index(notes) == 3
    assert sources() == ALL
    assert index(notes, "--allow-removal") == 0
    assert sources() == ["b.txt", "c.txt"]
    shutil.rmtree(notes)
    notes.mkdir()
    assert index(notes, "--allow-removal") == 0
    assert sources() == []


def test_what_is_new_is_indexed_beside_what_is_kept(
    notes: Path, index: Run, sources: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    index(notes)
    mostly_gone(notes, monkeypatch)
    (notes / "f.txt").write_text("A new note.")
    assert index(notes) == 3
    assert sources() == [*ALL, "f.txt"]


@pytest.fixture
def odd(notes: Path) -> Iterator[Path]:
    """Everything that a folder can hold and that is no file to read, beside files with odd names."""
    (Path(os.fsdecode(os.fsencode(notes) + b"/caf\xe9.txt"))).write_text("Coffee by the river.")
    (notes / "two\nlines.txt").write_text("A name of two lines.")
    (notes / "\x1b[31mred\u202e.txt").write_text("A name that would colour and turn the terminal.")
    (notes / "A.TXT").write_text("The same name in capitals.")
    os.mkfifo(notes / "pipe.txt")
    server = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    os.chdir(notes)  # the path of a socket may be short only
    server.bind("socket.txt")
    os.chdir(here)
    (notes / "zero.txt").symlink_to("/dev/zero")
    (notes / "loop.txt").symlink_to("loop.txt")
    (notes / "again").symlink_to(notes)
    (notes / "linked.txt").symlink_to(notes / "a.txt")
    yield notes
    server.close()


def test_odd_entries_stop_nothing(
    odd: Path, index: Run, sources: Callable[[], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert index(odd) == 0
    output = capsys.readouterr().out
    assert "a pipe, a socket or a device: pipe.txt, socket.txt, zero.txt" in output
    assert "a link that leads nowhere: loop.txt" in output
    assert "a link to a folder; index that folder by itself: again" in output
    found = sources()
    assert found == sorted([*ALL, "A.TXT", "linked.txt", "caf\\xe9.txt", "two\nlines.txt", "\x1b[31mred\u202e.txt"])
    assert index(odd) == 0
    assert f"0 files indexed, {len(found)} unchanged" in capsys.readouterr().out


def test_no_name_and_no_text_steers_the_terminal(
    odd: Path, index: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (odd / "colours.txt").write_text(
        "\x1b[31mred\x1b[0m \x1b]8;;http://evil\x07link\x1b]8;;\x07 \u202eturned\u202c \x9b1m"
    )
    (odd / "\x1b[2J.png").write_bytes(b"")
    index(odd)
    main(["search", "red", "--store", str(tmp_path / "store"), "--limit", "50"])
    main(["search", "red", "--store", f"{tmp_path}/\x1b[2Jnone"])
    output = "".join(capsys.readouterr())
    assert r"\x1b[31mred\x1b[0m" in output
    assert r"/two\nlines.txt:1" in output
    assert r"/caf\xe9.txt:1" in output
    assert not {character for character in output if character in "\x1b\x07\x9b\u202e\u202c\r"}


def test_other_kinds_of_file_are_read_on_demand(
    notes: Path, index: Run, sources: Callable[[], list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (notes / "guide.RST").write_text("Guide\n=====\n\nAbout lakes.")
    (notes / "app.log").write_text("12:00 started")
    (notes / "page.html").write_text(
        "<html><style>p {}</style><h1>Tides</h1><p>A <b>spring</b> tide &amp; more.</p></html>"
    )
    assert index(notes, "--include", "*.rst", "*.html") == 0
    assert "neither text nor Markdown by its name, nor among --include: app.log" in capsys.readouterr().out
    assert sources() == [*ALL, "guide.RST", "page.html"]
    main(["search", "tide", "--store", str(tmp_path / "store"), "--limit", "9"])
    output = capsys.readouterr().out
    assert f"{notes}/page.html  (" in output  # a line of the page's text is no line of the file
    assert "# Tides A spring tide & more." in output
    assert index(notes) == 3  # what an earlier run was told to read is not removed by one that was not
    assert sources() == [*ALL, "guide.RST", "page.html"]


def test_a_moved_folder_keeps_its_name_and_a_lost_one_is_forgotten(
    notes: Path, index: Run, tmp_path: Path, sources: Callable[[], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    store = str(tmp_path / "store")
    assert index(notes) == 0
    moved = notes.rename(tmp_path / "moved")
    capsys.readouterr()
    assert index(moved, "--as", str(notes)) == 0
    assert "0 files indexed, 5 unchanged" in capsys.readouterr().out
    assert index(moved) == 0
    assert f"holds chunks of {notes}, which is not there any more" in capsys.readouterr().err
    assert sources() == sorted(ALL * 2)
    assert index(moved, "--as", "team") == 0
    main(["search", "rivers", "--store", store, "--limit", "50"])
    output = capsys.readouterr().out
    assert all(f" {name}/a.txt:1  (" in output for name in (notes, moved, "team"))
    assert main(["forget", "team", "--store", store]) == 0
    assert main(["forget", str(notes), "--store", store]) == 0
    assert "5 files of team forgotten" in capsys.readouterr().out
    assert sources() == ALL
    assert main(["forget", "team", "--store", store]) == 2
    assert f"holds no folder 'team'; it holds: {moved}" in capsys.readouterr().err


def test_a_listing_survives_names_that_are_too_long_and_folders_that_are_too_deep(tmp_path: Path, index: Run) -> None:
    here = Path.cwd()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("One note.")
    try:
        os.chdir(tmp_path / "notes")
        for _ in range(40):
            os.mkdir("d" * 200)  # noqa: PTH102
            os.chdir("d" * 200)
    finally:
        os.chdir(here)
    assert index(tmp_path / "notes") == 3
    assert index("x" * 5000) == 2
