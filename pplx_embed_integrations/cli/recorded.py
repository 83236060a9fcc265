"""What ties a collection's vectors to the models that made them: recorded when it is made, compared ever after.

Knows which options decide a vector and how to tell one checkpoint from another; must not know files or tables.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..backbone.encoder import PplxEncoder
from ..biencoder import PplxBiEncoder
from ..checkpoints import list_checkpoints
from ..embedder import checkpoint_of, differences
from ..errors import CheckpointError, InputError

_MODELS = ("query_model", "query_revision", "document_model", "document_revision")
_DEFAULTS = {"dimensions": None, "quantization": "int8", "chunk_tokens": 256}

Record = dict[str, Any]


def requested(arguments: argparse.Namespace, record: Mapping[str, Any] | None) -> Record:
    """Return what the command line asks for; where it is silent, the collection's record decides, then the defaults.

    Args:
        arguments: Of `pplx-embed index`.
        record: The collection's own, None if it is to be made.

    Returns:
        The record of the collection.

    Raises:
        InputError: The collection was made with something else.
        CheckpointError: A model is unknown, or the files of a local one have changed.
    """
    silent = not (arguments.model or arguments.query_model or arguments.document_model)
    models = {name: record[name] for name in _MODELS} if record and silent else _models(arguments)
    wanted = {**_DEFAULTS, **(record or {}), **models, **_forms(arguments)}
    if record is not None:
        _refuse_other(wanted, record, arguments)
        check_weights(record, "document")
        check_weights(record, "query")
        return dict(record)
    pair = pair_of(wanted)
    longest = pair.document.max_tokens
    if wanted["chunk_tokens"] > longest:
        raise InputError(
            f"--chunk-tokens {wanted['chunk_tokens']} is more than {pair.document.checkpoint.name} reads at a time; "
            f"{longest} is the most, and chunks are found best when they are far shorter"
        )
    wanted["dimensions"] = pair.dimension
    return {**wanted, "weights": {side: _weights(wanted, side) for side in ("query", "document")}}


def pair_of(record: Mapping[str, Any]) -> PplxBiEncoder:
    """Return the two models that a record describes; nothing is loaded."""
    return PplxBiEncoder(**{name: record[name] for name in (*_MODELS, "dimensions", "quantization")})


def made_by(pair: PplxBiEncoder) -> Record:
    """Return what makes a pair's vectors of documents comparable, as a table records it."""
    return dict(json.loads(pair.document.identity()))


def check_weights(record: Mapping[str, Any], side: str) -> None:
    """Refuse a checkpoint whose files have changed since the collection was made.

    Args:
        record: The collection's.
        side: `"query"` or `"document"`.

    Raises:
        CheckpointError: They have.
    """
    if _weights(record, side) != record["weights"][side]:
        raise CheckpointError(
            f"the files of {record[f'{side}_model']} have changed since the collection was made: its vectors and new "
            "ones cannot be compared. Put the old files back, or index into a new --collection"
        )


def check_arithmetic(recorded: Mapping[str, Any], pair: PplxBiEncoder, collection: str) -> None:
    """Refuse to add vectors that this machine computes in another way than those that are there.

    Args:
        recorded: What the collection's vectors were made by.
        pair: What would make the new ones.
        collection: What errors call it.

    Raises:
        InputError: They differ.
    """
    found = differences(json.dumps(dict(recorded)), pair.document.identity())
    if found:
        raise InputError(
            f"the collection {collection!r} was made with {'; '.join(found)}, as this machine has it: it can be "
            "searched here, and not added to. Index where it was made, or into another --collection"
        )


def _models(arguments: argparse.Namespace) -> Record:
    """Resolve names; a checkpoint of this package goes by its name, as its folder differs between machines."""
    pair = PplxBiEncoder(
        arguments.model or "0.6b", query_model=arguments.query_model, document_model=arguments.document_model
    )
    names = {spec.source: spec.name for spec in list_checkpoints() if spec.local}
    found: Record = {name: pair.options[name] for name in _MODELS}
    for side in ("query", "document"):
        source = found[f"{side}_model"]
        if found[f"{side}_revision"] is None:
            found[f"{side}_model"] = names.get(source) or str(Path(source).resolve())
    return found


def _forms(arguments: argparse.Namespace) -> Record:
    return {name: value for name in _DEFAULTS if (value := getattr(arguments, name)) is not None}


def _weights(record: Mapping[str, Any], side: str) -> str:
    model, revision = record[f"{side}_model"], record[f"{side}_revision"]
    return checkpoint_of(PplxEncoder(model, revision=revision).identity())


def _refuse_other(wanted: Record, record: Mapping[str, Any], arguments: argparse.Namespace) -> None:
    differing = [name for name in record if name != "weights" and wanted[name] != record[name]]
    if differing:
        told = "; ".join(f"{name.replace('_', ' ')} {record[name]}, not {wanted[name]}" for name in differing)
        raise InputError(
            f"the collection {arguments.collection!r} in {arguments.store} was made with {told}. Leave the option out "
            "to go on with it, or give another --collection"
        )
