"""The `config.json` of a checkpoint's folder: read, and judged by the family that it names.

Knows families and how an error names a folder; must not know names, the hub or weights.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import CheckpointError
from .families import FAMILIES, Family
from .files import read_json


def read_config(folder: Path) -> dict[str, Any]:
    """Read a checkpoint folder's `config.json`.

    Raises:
        CheckpointError: It is missing or damaged, or of another kind of model.
    """
    path = folder / "config.json"
    if not os.path.lexists(path):
        raise CheckpointError(
            f"the folder {str(folder)!r} has no config.json; give the folder that holds config.json, tokenizer.json "
            "and model.safetensors"
        )
    config = read_json(path)
    found = config.get("model_type")
    if not isinstance(found, str) or found not in FAMILIES:
        known = " or ".join(f"a {each.name} checkpoint has {each.model_type!r}" for each in FAMILIES.values())
        raise CheckpointError(
            f"{str(path)!r} has model_type {found!r}; {known}. Other models are used through their own integrations"
        )
    return config


def positive(config: dict[str, Any], key: str, folder: Path) -> int:
    """Return a value of a folder's `config.json` that must be a positive integer.

    Raises:
        CheckpointError: It is missing, or something else.
    """
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise CheckpointError(f"config.json in {str(folder)!r} has {key}={value!r}; a positive integer is needed")
    return value


def family_of(config: Mapping[str, Any]) -> Family:
    """Return the family of a checkpoint whose `config.json` `read_config` has read."""
    return FAMILIES[config["model_type"]]
