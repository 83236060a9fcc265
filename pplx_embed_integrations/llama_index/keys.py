"""How an ingestion cache identifies a pair of models: by their weights, not by names and paths.

Knows the identities of both sides and how a dictionary spells them; must not know LlamaIndex.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..biencoder import PplxBiEncoder
from ..checkpoints import list_checkpoints
from ..embedder import checkpoint_of
from ..errors import CheckpointError, DownloadError, InputError

if TYPE_CHECKING:
    from ..backbone.encoder import PplxEncoder

_CONTENT = "sha256:"


def spelled_out(pair: PplxBiEncoder) -> dict[str, Any]:
    """Return the models of a pair, and the options whose defaults depend on them, as what they came to mean.

    A checkpoint on the hub goes by its name and commit, one of this package by its name and content, a local folder by
    its content alone: a copy of it is the same; another embedder goes by its identity. Loads no weights.

    Raises:
        CheckpointError: The files of a checkpoint have changed since it was loaded, or are damaged.
    """
    sides = {
        name: _side(embedder) if isinstance(pair.options[f"{name}_model"], str) else {"model": embedder.identity()}
        for name, embedder in (("query", pair.query), ("document", pair.document))
    }
    data = {f"{name}_{part}": side.get(part) for name, side in sides.items() for part in ("model", "revision")}
    # Where the sides differ, the default stands for both; an embedder has these in its identity.
    for option, default in (("dtype", "auto"), ("max_tokens", None)):
        found = {side[option] for side in sides.values() if option in side}
        data[option] = found.pop() if len(found) == 1 else default
    return data


def located(data: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Replace content in a dictionary by the names and folders that it stands for.

    Args:
        data: What `spelled_out` gave, among other options.
        given: Options in place of those in it.

    Raises:
        CheckpointError: A checkpoint is another one now, or its folder is not known.
    """
    found = dict(data)
    for side in ("query", "document"):
        model, revision = str(data.get(f"{side}_model")), str(data.get(f"{side}_revision"))
        if given.get(f"{side}_model") is not None:
            found.pop(f"{side}_revision", None)
        elif model.startswith("{"):
            raise CheckpointError(
                f"{model} stands for an embedder that is no checkpoint; give it: from_dict(data, {side}_model=...)"
            )
        elif model.startswith(_CONTENT):
            found[f"{side}_model"] = _folder(model, side)
        elif revision.startswith(_CONTENT):
            _check_content(model, revision)
            found[f"{side}_revision"] = None
    return found | dict(given)


def _folder(content: str, side: str) -> str:
    from ..backbone.identity import known_folder  # torch takes seconds to import

    folder = known_folder(content)
    if folder is None:
        raise CheckpointError(
            f"{content} stands for the files of a local folder, which no object of this process has read, or which "
            f"have changed since; name the folder: from_dict(data, {side}_model=...)"
        )
    return str(folder)


def _check_content(model: str, content: str) -> None:
    from ..backbone.encoder import PplxEncoder  # torch takes seconds to import

    if checkpoint_of(PplxEncoder(model, dtype="float32").identity()) != content:
        raise CheckpointError(
            f"{model!r} has other weights now than when the dictionary was made; make a new object with "
            f"PplxEmbedding(...), and embed anew what was embedded with the old weights"
        )


def _side(encoder: PplxEncoder) -> dict[str, Any]:
    spec = encoder.checkpoint
    found = {"revision": spec.revision, "dtype": encoder.dtype, "max_tokens": encoder.max_tokens}
    try:
        identity = encoder.identity()
    except (DownloadError, InputError):  # a hub or a device out of reach: no vector can be had here either
        return {**found, "model": spec.source if spec.local else spec.name}
    checkpoint = checkpoint_of(identity)
    named = not spec.local or spec in list_checkpoints()
    return {
        **found,
        "model": spec.name if named else checkpoint,
        "revision": (checkpoint if spec.local else checkpoint.rpartition("@")[2]) if named else None,
        "dtype": json.loads(identity)["dtype"],
    }
