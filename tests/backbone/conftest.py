"""What the published algorithm gives on the replicas, and copies of the replicas that a test may damage."""

import base64
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@dataclass(frozen=True)
class Expected:
    """One `expected-*.json`: inputs, and what the published code made of them."""

    inputs: list[Any]
    input_ids: list[list[int]]
    pooled: np.ndarray
    int8: np.ndarray
    binary: np.ndarray
    ubinary: np.ndarray

    @classmethod
    def read(cls, path: Path) -> "Expected":
        content = json.loads(path.read_text(encoding="utf-8"))
        for name, value in content.items():
            if isinstance(value, dict):
                flat = np.frombuffer(base64.b64decode(value["base64"]), dtype=value["dtype"])
                content[name] = flat.reshape(value["shape"])
        return cls(**{name: content[name] for name in cls.__dataclass_fields__})


@pytest.fixture(scope="session")
def expected_v1(golden: Path) -> Expected:
    """Texts, and the rows they give under the v1 replica."""
    return Expected.read(golden / "expected-v1.json")


@pytest.fixture(scope="session")
def expected_context_v1(golden: Path) -> Expected:
    """Documents of chunks, and the rows of all chunks under the context-v1 replica."""
    return Expected.read(golden / "expected-context-v1.json")


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[..., Path]:
    """Copy a checkpoint, without the files named, with entries of its config.json changed."""

    def copy(folder: Path, *, without: tuple[str, ...] = (), **config: object) -> Path:
        target = tmp_path / f"copy-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(folder, target, ignore=shutil.ignore_patterns(*without))
        path = target / "config.json"
        if config:
            path.write_text(json.dumps(json.loads(path.read_text()) | config))
        return target

    return copy
