"""`pplx-embed verify`: a published checkpoint, run on this machine, against figures published for it.

Knows the reference figures, their tolerances and how to compare; must not know how vectors are made.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checkpoints import list_checkpoints, resolve
from ..errors import CheckpointError, DownloadError
from ..vectors import cosine_similarity
from .table import table

if TYPE_CHECKING:
    from ..backbone.encoder import PplxEncoder

FLOAT_TOLERANCE = 1e-3
"""Between float32 runs on different processors; one step of the int8 code is 8e-3."""
CODE_TOLERANCE = 1
COSINE_TOLERANCE = 0.01
"""Relative; the published cosines were computed in bfloat16."""


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        subject: What was embedded.
        figure: What was compared.
        difference: The largest difference, or why nothing was compared.
        allowed: The tolerance.
        passed: The verdict; `None` if nothing was compared.
    """

    subject: str
    figure: str
    difference: str
    allowed: str
    passed: bool | None


def run(arguments: argparse.Namespace) -> int:
    """Load the checkpoint, compare, print the table."""
    from ..backbone.encoder import PplxEncoder

    spec = resolve(arguments.model)
    figures = _figures(spec.name)
    encoder = PplxEncoder(arguments.folder or spec.source, dtype="float32")
    if (encoder.checkpoint.contextual, encoder.dimension) != (spec.contextual, spec.dimension):
        raise CheckpointError(f"the folder {arguments.folder!r} is no copy of {spec.name}: its config.json differs")
    where = f"the folder {arguments.folder}" if arguments.folder else f"{spec.source} at revision {spec.revision}"
    download = "" if arguments.folder else ", which is downloaded (2.4 GB) if it is not in the cache"
    print(f"Running {spec.name} in float32 from {where}{download}.", flush=True)
    try:
        encoder.load()
    except DownloadError as error:
        raise DownloadError(f"{error}: pplx-embed verify {spec.name} --folder PATH") from error
    checks = list(check_documents(encoder, figures) if spec.contextual else check_pairs(encoder, figures))
    rows = [(c.subject, c.figure, c.difference, c.allowed, _verdict(c)) for c in checks]
    print(f"\n{table(['text', 'figure', 'largest difference', 'allowed', 'result'], rows)}\n")
    failed = sum(check.passed is False for check in checks)
    compared = sum(check.passed is not None for check in checks)
    print(f"{failed} of {compared} figures differ." if failed else f"All {compared} figures agree.")
    print(f"Source of the figures: {_source(figures)}")
    return 1 if failed else 0


def check_documents(encoder: PplxEncoder, figures: dict[str, Any]) -> Iterator[Check]:
    """Compare token ids, pooled floats and int8 codes of documents of chunks.

    Args:
        encoder: A contextual checkpoint.
        figures: As in `reference/context-v1-0.6b.json`.

    Yields:
        The comparisons, three a document.
    """
    for document in figures["documents"]:
        name, chunks = document["name"], document["chunks"]
        if not all(chunks):
            yield Check(name, "all", "not compared: has an empty chunk, which is refused here", "", None)
            continue
        ids = _joined_ids(encoder, chunks)
        yield Check(name, "token ids", f"{_mismatches(ids, document['input_ids'])} ids", "0 ids",
                    ids == document["input_ids"])  # fmt: skip
        expected = np.array([np.frombuffer(bytes.fromhex(row), "<f4") for row in document["pooled_first16_hex"]])
        [pooled] = encoder.encode_documents([chunks], quantization=None)
        yield _compare(name, "pooled floats", pooled, expected, FLOAT_TOLERANCE)
        [codes] = encoder.encode_documents([chunks], quantization="int8")
        yield _compare(name, "int8 codes", codes, np.array(document["int8_first32"]), CODE_TOLERANCE)


def check_pairs(encoder: PplxEncoder, figures: dict[str, Any]) -> Iterator[Check]:
    """Compare the cosines between a query and documents, of int8 codes.

    Args:
        encoder: Any checkpoint.
        figures: As in `reference/v1-0.6b.json`.

    Yields:
        The comparisons, one a document.
    """
    vectors = encoder.encode([figures["query"], *figures["documents"]])
    found = cosine_similarity(vectors[:1], vectors[1:]).ravel()
    for text, cosine, expected in zip(figures["documents"], found, figures["cosines"], strict=True):
        relative = abs(float(cosine) - expected) / abs(expected)
        yield Check(
            f"{text[:40]}…",
            "cosine with the query",
            f"{relative:.1%} ({cosine:.4f} for {expected})",
            f"{COSINE_TOLERANCE:.0%}",
            relative <= COSINE_TOLERANCE,
        )


def _figures(name: str) -> dict[str, Any]:
    folder = resources.files("pplx_embed_integrations") / "reference"
    file = folder / f"{name}.json"
    if not file.is_file():
        known = [spec.name for spec in list_checkpoints() if (folder / f"{spec.name}.json").is_file()]
        raise CheckpointError(
            f"there are no published figures for {name}; there are for {' and '.join(known)}. "
            f"Type: pplx-embed verify {known[0]}"
        )
    return dict(json.loads(file.read_text(encoding="utf-8")))


def _joined_ids(encoder: PplxEncoder, chunks: list[str]) -> list[int]:
    from ..backbone.hub import checkpoint_folder
    from ..backbone.tokenizer import TextTokenizer

    folder = checkpoint_folder(encoder.checkpoint, cache_folder=None, local_files_only=False, token=None)
    tokenizer = TextTokenizer(Path(folder))
    each = tokenizer.encode(chunks, name="chunk {}".format)
    return [*chain.from_iterable([*ids, tokenizer.separator] for ids in each[:-1]), *each[-1]]


def _mismatches(found: list[int], expected: list[int]) -> int:
    return sum(a != b for a, b in zip(found, expected, strict=False)) + abs(len(found) - len(expected))


def _compare(name: str, figure: str, found: np.ndarray, expected: np.ndarray, tolerance: float) -> Check:
    if len(found) != len(expected):
        return Check(name, figure, f"{len(found)} rows for {len(expected)}", f"{tolerance:g}", False)
    worst = float(np.abs(found[:, : expected.shape[1]].astype(np.float64) - expected).max())
    return Check(name, figure, f"{worst:.2g}", f"{tolerance:g}", worst <= tolerance)


def _verdict(check: Check) -> str:
    return {True: "pass", False: "FAIL", None: "-"}[check.passed]


def _source(figures: dict[str, Any]) -> str:
    if "source" in figures:
        return str(figures["source"])
    return f"output of the published code for {figures['model_id']}, revision {figures['revision']}, float32 on CPU"
