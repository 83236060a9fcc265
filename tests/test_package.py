"""The package as users get it: what importing it costs, what it exports, what the wheel holds."""

import ast
import importlib
import inspect
import json
import os
import pkgutil
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import pplx_embed_integrations as pplx

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "pplx_embed_integrations"
HEAVY = ["torch", "transformers", "sentence_transformers", "tokenizers", "huggingface_hub", "langchain_core",
         "llama_index", "qdrant_client"]  # fmt: skip

MODULES = [name for _, name, _ in pkgutil.walk_packages(pplx.__path__, "pplx_embed_integrations.")]


def loaded_by(statement: str) -> set[str]:
    script = f"{statement}\nimport json, sys\nprint(json.dumps([name.split('.')[0] for name in sys.modules]))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(run.stdout))


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_by("import pplx_embed_integrations").isdisjoint([*HEAVY, "numpy"])


@pytest.mark.parametrize(
    "statement",
    [
        "from pplx_embed_integrations import list_checkpoints; list_checkpoints()",
        "from pplx_embed_integrations import InputError",
        "from pplx_embed_integrations import PplxBiEncoder; PplxBiEncoder('0.6b')",
        "from pplx_embed_integrations import PplxBiEncoder; PplxBiEncoder('0.6b', base_url='http://gpu:8080')",
        "import pplx_embed_integrations.vectors, pplx_embed_integrations.documents",
    ],
)
def test_the_lower_rooms_load_nothing_heavy(statement: str) -> None:
    assert loaded_by(statement).isdisjoint(HEAVY)


def test_embedding_loads_no_library_that_only_trainers_and_downloads_need() -> None:
    """The model library and torch's compiler take longer to import than a model takes to load."""
    script = "from pplx_embed_integrations import PplxEncoder; PplxEncoder('miniature-v1').encode(['a text'])"
    found = loaded_by(script)
    assert {"torch", "tokenizers"} <= found
    assert found.isdisjoint({"transformers", "sentence_transformers", "huggingface_hub", "sympy"})


@pytest.mark.parametrize(
    ("room", "foreign"), [("langchain", {"llama_index", "torch"}), ("llama_index", {"langchain_core", "torch"})]
)
def test_a_framework_room_loads_its_framework_only(room: str, foreign: set[str]) -> None:
    assert loaded_by(f"import pplx_embed_integrations.{room}").isdisjoint(foreign)


def test_what_is_exported_is_what_is_named() -> None:
    assert pplx.__all__ == sorted(pplx.__all__)
    for name in pplx.__all__:
        assert getattr(pplx, name) is not None
        assert name in dir(pplx)
    with pytest.raises(AttributeError, match="has no attribute 'PplxEncode'; it has CheckpointError"):
        pplx.PplxEncode  # noqa: B018


def test_a_star_import_gives_the_public_names() -> None:
    names: dict[str, object] = {}
    exec("from pplx_embed_integrations import *", names)
    assert set(pplx.__all__) <= set(names)


@pytest.mark.parametrize("name", ["pplx_embed_integrations", *MODULES])
def test_every_module_says_what_it_is(name: str) -> None:
    if name.endswith(".triton"):
        pytest.importorskip("triton")
    module = importlib.import_module(name)
    assert module.__doc__
    for public, value in vars(module).items():
        mine = getattr(value, "__module__", None) == name and not public.startswith("_")
        if mine and (inspect.isclass(value) or inspect.isfunction(value)):
            assert inspect.getdoc(value), f"{name}.{public} has no docstring"


def test_the_type_checker_sees_the_same_names() -> None:
    """The imports under TYPE_CHECKING are the public names and nothing else."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    names = {alias.name for node in ast.walk(guarded) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert names | {"__version__"} == set(pplx.__all__)


def test_the_version_is_in_the_changelog() -> None:
    assert re.search(rf"^## \[{re.escape(pplx.__version__)}\] - ", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_the_changelog_keeps_its_grammar() -> None:
    sections = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    lines = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()
    for line in lines[lines.index(next(line for line in lines if line.startswith("## "))) :]:
        assert (
            not line
            or re.fullmatch(r"## \[\d+\.\d+\.\d+\] - (Unreleased|\d{4}-\d{2}-\d{2})", line)
            or (line.startswith("### ") and line[4:] in sections)
            or re.fullmatch(r"- [A-Z`].*\.", line)
        ), line


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    [built] = out.glob("*.whl")
    return built


def test_the_wheel_holds_all_of_the_package_and_only_that(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {each.filename: each.compress_size for each in archive.infolist()}
    names = packed.keys()
    here = {
        path.relative_to(ROOT).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert here <= names
    assert {name for name in names if ".dist-info/" not in name} == here
    assert {"pplx_embed_integrations/py.typed", "pplx_embed_integrations/reference/v1-0.6b.json"} <= names
    assert wheel.stat().st_size < 20_000_000
    assert 10_000 < sum(packed[name] for name in names if "/miniature/" in name) < 16_000_000


def test_the_wheel_works_without_the_source_tree(wheel: Path, tmp_path: Path) -> None:
    """Unpacked into a fresh environment that borrows only the dependencies."""
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    [site] = (tmp_path / "env" / "lib").glob("python*/site-packages")
    zipfile.ZipFile(wheel).extractall(site)
    [borrowed] = {str(Path(importlib.import_module("numpy").__path__[0]).parent)}
    (site / "dependencies.pth").write_text(borrowed + "\n")
    script = (
        "import pplx_embed_integrations as p; from pplx_embed_integrations.cli import main; "
        "print(p.__file__); raise SystemExit(main(['models']))"
    )
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # it would name the source tree
    run = subprocess.run([python, "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path, env=env)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(str(site))
    assert "context-v1-4b" in run.stdout
