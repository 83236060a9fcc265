"""The files of a checkpoint's folder: its `config.json`, which hold the weights, and what an error says of a bad one.

Knows JSON, families, the index of a checkpoint in several files and the links of the hub's cache; must not know the
names of checkpoints, how the files got there, or what a tensor means.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import CheckpointError
from .families import FAMILIES, Family

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


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


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that holds a JSON object.

    Raises:
        CheckpointError: It cannot be read, or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise unreadable(path, error, "cannot be read as JSON") from error
    if not isinstance(content, dict):
        raise unreadable(path, f"no object but a {type(content).__name__}", "cannot be read as JSON")
    return content


def weight_names(folder: Path) -> list[str]:
    """Return the names of the files that should hold a folder's weights: one, or those that its index names.

    Raises:
        CheckpointError: The index is damaged, or names something other than safetensors files of the folder.
    """
    index = folder / INDEX
    if os.path.lexists(folder / WEIGHTS) or not index.exists():
        return [WEIGHTS]
    files = read_json(index).get("weight_map")
    if not isinstance(files, dict) or not files:
        raise unreadable(index, f"weight_map={files!r:.60} names no files", "cannot be read")
    names = sorted({name for name in files.values() if isinstance(name, str)})
    for name in files.values():
        # Anything but a bare name could lead out of the folder.
        if not isinstance(name, str) or not name.endswith(".safetensors") or {"/", "\\", ":", "\0"} & {*name}:
            raise unreadable(index, f"{name!r:.60} is no safetensors file of this folder", "cannot be read")
    return names


def unreadable(path: Path, reason: object, what: str = "is damaged or incomplete") -> CheckpointError:
    """Return the error for a file that cannot be used: what is wrong with it, and what to type.

    A file in the hub's cache is a link to a blob, and deleting the link alone brings the same blob back; so the error
    names the blob.

    Args:
        path: The file.
        reason: What was found, or the exception that reading it raised.
        what: What is wrong, in the words that come behind the file's name.
    """
    shown = f"{str(path)!r}"
    if path.is_dir():
        return CheckpointError(f"{shown} is a folder, and a file is needed; move it away and put the file in its place")
    if isinstance(reason, PermissionError):
        return CheckpointError(
            f"{shown} may not be read by this user ({reason.strerror}); change its owner or its permissions, of the "
            "folders above it, too"
        )
    blob = path.resolve() if path.is_symlink() else path
    if "blobs" not in (blob.parent.name, path.readlink().parent.name if path.is_symlink() else ""):
        return CheckpointError(f"{shown} {what} ({reason}); delete it and download it again")
    command = f'del "{blob}"' if os.name == "nt" else f"rm {shlex.quote(str(blob))}"
    return CheckpointError(
        f"{shown} {what} ({reason}). It is a link into the hub's cache: delete what it leads to, and the next load "
        f"downloads it again: {command}"
    )
