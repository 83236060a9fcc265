"""Print constraints.txt: the version in this environment of everything that pyproject.toml asks for, directly or not.

Knows pyproject.toml and the installed packages' own metadata; must not know the project's code.
Run it with `make pins` in an environment in which the tests pass.
"""

import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import tomllib
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

OLDEST = "3.10"
HEADER = f"""\
# The versions that development and CI use; written by `make pins`, not by hand.
# A pin with a marker has no release for Python {OLDEST}; there pip takes the newest that has one.
"""


def wanted(project: dict) -> list[Requirement]:
    """Return every requirement of the project itself: base, extras, groups and build system."""
    lines = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    for table in (project["project"]["optional-dependencies"], project["dependency-groups"]):
        lines += [line for group in table.values() for line in group if isinstance(line, str)]
    return [Requirement(line) for line in lines]


def closure(start: list[Requirement], *, skip: str) -> dict[str, str]:
    """Walk the installed metadata from `start` and return the pin of each package reached, by name."""
    pins: dict[str, str] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    queue = list(start)
    while queue:
        requirement = queue.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if name == skip or (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            found = distribution(name)
        except PackageNotFoundError:
            sys.exit(f"{name} is not installed here; type: make install test check bench, then make pins")
        pins[name] = pin(name, found.version, found.metadata.get("Requires-Python"))
        for line in found.requires or []:
            child = Requirement(line)
            if child.marker is None or any(child.marker.evaluate({"extra": e}) for e in ("", *extras)):
                queue.append(child)
    return pins


def pin(name: str, version: str, requires_python: str | None) -> str:
    """Return one line: no local version (`+cpu`), and a marker where the oldest supported Python has no release."""
    line = f"{name}=={Version(version).public}"
    newer_only = requires_python and not SpecifierSet(requires_python).contains(f"{OLDEST}.99")
    return f'{line} ; python_version > "{OLDEST}"' if newer_only else line


if __name__ == "__main__":
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))
    pins = closure(wanted(project), skip=canonicalize_name(project["project"]["name"]))
    print(HEADER + "\n".join(pins[name] for name in sorted(pins)))
