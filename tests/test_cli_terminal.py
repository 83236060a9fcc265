"""What reaches a terminal: nothing that steers it, nothing it cannot write, and no failure for want of a reader."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from pplx_embed_integrations.cli import main
from pplx_embed_integrations.cli.terminal import guarded, shown, text_width, wrapped

PROGRAM = str(Path(sys.executable).with_name("pplx-embed"))


@pytest.mark.parametrize(
    "character", ["\x00", "\x07", "\x1b", "\x7f", "\x9b", "\r", "\n", "\u202e", "\u2066", "\u2028"]
)
def test_what_steers_a_terminal_is_shown_as_an_escape(character: str) -> None:
    text = shown(f"a{character}b")
    assert text.isascii()
    assert text.isprintable()
    assert text.encode().decode("unicode_escape") == f"a{character}b"


def test_letters_of_any_script_stay() -> None:
    text = "Fluß Œuvre 川 می‌خواهم שלום 👩‍👩‍👧‍👦"
    assert shown(text) == text


@pytest.mark.parametrize("width", [1, 2, 7, 40])
def test_wrapped_lines_fit_and_hold_everything(width: int) -> None:
    text = "Ebb and flow 川流不息的河水 a-very-long-word-without-any-space"
    lines = wrapped(text, width)
    assert all(text_width(line) <= max(width, 2) for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


def test_the_guard_leaves_bars_alone_and_escapes_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    with guarded():
        assert isinstance(sys.stdout.errors, str)  # or `input` would not let one edit the line
        print("name \x1b]0;title\x07\ttab")
        print("\r50%", end="", file=sys.stderr)
        print("\n\x1b[A", end="", file=sys.stderr)
        print("\x1b[31mred", end="", file=sys.stderr)
    output = capsys.readouterr()
    assert output.out == "name \\x1b]0;title\\x07\ttab\n"
    assert output.err == "\r50%\n\x1b[A\\x1b[31mred"


def run(command: str, **environment: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        ["bash", "-c", command],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1", "COLUMNS": "4"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "COLUMNS": "1"},
        {"TERM": "dumb", "COLUMNS": "0"},
    ],
)
def test_odd_terminals_get_an_answer(environment: dict[str, str], tmp_path: Path) -> None:
    script = (
        "import os, sys; from pplx_embed_integrations.cli import main\n"
        "typed = [os.fsdecode(word.encode()) for word in ('Fluß 川', '/nowhere/Œ川\\x1b[31m')]  # as from a shell\n"
        "print(main(['search', typed[0], '--store', typed[1]]), main(['models']))\n"
        "try: main(['index', '--help'])\n"
        "except SystemExit as end: sys.exit(end.code)"
    )
    (tmp_path / "script.py").write_text(script, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py"],
        env={**os.environ, **environment},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(b"pplx-embed: error: there is no store /nowhere/")
    assert b"Traceback" not in done.stderr
    assert b"\x1b" not in done.stderr + done.stdout
    assert b"2 0" in done.stdout


@pytest.mark.parametrize(
    ("ending", "code"),
    [(">&-", 0), ("2>&-", 0), (">&- 2>&- <&-", 0), ("| true", 0), (">/dev/full", 2)],
)
def test_streams_that_are_closed_or_full(ending: str, code: int) -> None:
    done = run(f"set -o pipefail; {PROGRAM} models {ending}")
    assert done.returncode == code
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr
    assert (b"No space left on device" in done.stderr) == (code == 2)


def test_a_narrow_terminal_gets_a_bar_and_a_reader_that_leaves_stops_nothing(
    tmp_path: Path, replica_v1: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("One note.")
    (tmp_path / "notes" / "b.png").write_text("")
    index = ["index", f"{tmp_path}/notes", "--store", f"{tmp_path}/store", "--model", str(replica_v1)]
    here, there = pty.openpty()
    command = f"set -o pipefail; {PROGRAM} {' '.join(index)} | true"
    with subprocess.Popen(
        ["bash", "-c", command], stdin=there, stderr=there, env={**os.environ, "COLUMNS": "4"}
    ) as job:
        os.close(there)
        drawn = b""
        try:
            while block := os.read(here, 4096):
                drawn += block
        except OSError:
            pass  # the other end is closed
        os.close(here)
    assert job.returncode == 0
    assert b"Traceback" not in drawn
    assert b"\r" in drawn
    assert main(index) == 0
    assert "0 files indexed, 1 unchanged" in capsys.readouterr().out


def test_a_failure_is_one_line_whatever_was_typed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "no\nwhere\x1b[1m"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "\x1b" not in error
    with pytest.raises(SystemExit):
        main(["models", "\x1b[31m"])
    assert "\x1b" not in capsys.readouterr().err
