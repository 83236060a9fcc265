"""The command line as a whole: help, the table of models, exit codes, and the program in a process of its own."""

import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from pplx_embed_integrations import ContextWarning, PplxEmbedError, __version__, list_checkpoints
from pplx_embed_integrations.cli import main
from pplx_embed_integrations.cli import models as models_command

COMMANDS = ["models", "demo", "index", "search", "forget", "questions", "evaluate", "verify", "serve"]
PROGRAM = Path(sys.executable).with_name("pplx-embed")


def test_models_lists_the_registry(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    header, _, *rows = capsys.readouterr().out.split("\n\n")[0].splitlines()
    assert re.split(r" {2,}", header)[:4] == ["name", "where", "dimension", "smallest"]
    assert len(rows) == len(list_checkpoints())
    for row, spec in zip(rows, list_checkpoints(), strict=True):
        cells = re.split(r" {2,}", row)
        assert cells[0] == spec.name
        assert cells[2:5] == [str(spec.dimension), str(spec.min_dimension), f"{spec.max_tokens} tokens"]
        assert cells[-1] == (spec.revision or "-")[:10]


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--help"])
    assert exit_.value.code == 0
    output = capsys.readouterr().out
    assert all(re.search(rf"\n    {command}\s", output) for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([command, "--help"])
    assert exit_.value.code == 0
    assert f"usage: pplx-embed {command}" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_documentation_names_every_command_and_option(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parent.parent / "docs" / "cli.md").read_text(encoding="utf-8")
    with pytest.raises(SystemExit):
        main([command, "--help"])
    options = set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help"}
    assert f"## pplx-embed {command}" in page
    section = page.split(f"## pplx-embed {command}")[1].split("\n## ")[0]
    assert [option for option in sorted(options) if f"`{option}" not in section] == []


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["teach"], "invalid choice: 'teach'"),
        (["search", "tide"], "the following arguments are required: --store"),
        (["search", "tide", "--store", "s", "--limit", "0"], "'0' is not a whole number above 0"),
        (["evaluate", "d", "--chunk-tokens", "many"], "'many' is not a whole number above 0"),
        (["index", "d", "--store", "s", "--quantization", "int4"], "invalid choice: 'int4'"),
    ],
)
def test_wrong_arguments_are_told(argv: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(argv)
    assert exit_.value.code == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("raised", "code", "told"),
    [
        (PplxEmbedError("what to type"), 2, "pplx-embed: error: what to type\n"),
        (PermissionError(13, "Permission denied", "/root/x"), 2, "pplx-embed: error: Permission denied: /root/x\n"),
        (OSError("disk on fire"), 2, "pplx-embed: error: disk on fire\n"),
        (KeyboardInterrupt(), 130, "pplx-embed: stopped\n"),
    ],
)
def test_failures_are_one_line_and_a_code(
    raised: BaseException, code: int, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(arguments: object) -> int:
        raise raised

    monkeypatch.setattr(models_command, "run", fail)
    assert main(["models"]) == code
    assert capsys.readouterr().err == told


def test_a_warning_is_one_line_without_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def warn(arguments: object) -> int:
        warnings.warn("chunks overlap", ContextWarning, stacklevel=1)
        return 0

    monkeypatch.setattr(models_command, "run", warn)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(["models"]) == 0
    assert capsys.readouterr().err == "pplx-embed: warning: chunks overlap\n"


def test_the_program_runs_in_a_process_of_its_own() -> None:
    run = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True)
    assert run.stdout == f"pplx-embed {__version__}\n"
    run = subprocess.run([PROGRAM, "search", "x", "--store", "nowhere"], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("pplx-embed: error: there is no store nowhere; make one with: ")
    assert run.stderr.count("\n") == 1


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    run = subprocess.run(f"{PROGRAM} models | head -n 1", shell=True, capture_output=True, text=True, check=True)
    assert run.stdout.startswith("name ")
    assert run.stderr == ""


def test_help_needs_no_heavy_import() -> None:
    script = (
        "import sys; from pplx_embed_integrations.cli import main\n"
        "try: main(['index', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'langchain_core', 'lancedb', 'numpy'} & set(sys.modules)\n"
        "sys.exit(str(sorted(heavy)) if heavy else 0)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
