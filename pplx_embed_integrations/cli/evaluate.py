"""`pplx-embed evaluate`: retrieval quality on a judged collection, as one table.

Knows arguments, layout and the JSON file; must not know how anything is measured.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from .. import __version__
from ..biencoder import PplxBiEncoder
from ..errors import InputError
from ..evaluation import Collection, Measurement, evaluate, load_collection
from .splitting import Splitter
from .table import table
from .terminal import shown

__all__ = ["run"]

_HEADER = ["queries", "documents", "chunks", "dimensions", "form", "bytes", "nDCG@10", "recall@10"]
_FORMS = {"int8": "int8", "ubinary": "binary", None: "float32"}


def run(arguments: argparse.Namespace) -> int:
    """Load, measure, print."""
    if arguments.json_file and not Path(arguments.json_file).absolute().parent.is_dir():
        raise InputError(f"there is no folder for --json {arguments.json_file}; make it first")
    collection = load_collection(arguments.directory, split=arguments.split)
    if arguments.limit:
        collection = collection.first(arguments.limit)
    embedder = PplxBiEncoder(
        arguments.model or "0.6b", query_model=arguments.query_model, document_model=arguments.document_model
    )
    print(_heading(collection, arguments))
    for note in collection.notes:
        print(f"  {note}")
    sys.stdout.flush()
    split = _splitter(embedder, arguments.chunk_tokens)
    measurements: list[Measurement] = []
    try:
        for measurement in evaluate(collection, embedder=embedder, split=split, show_progress=True):
            measurements.append(measurement)  # noqa: PERF402 - so that an interruption keeps what is measured
    finally:
        if measurements:
            _report(measurements)
            if arguments.json_file:
                _write(Path(arguments.json_file), collection, arguments, measurements)
    return 0


def _report(measurements: list[Measurement]) -> None:
    rows = [_row(measurement) for measurement in measurements]
    print(f"\n{table(_HEADER, rows, right='dimensions,bytes,nDCG@10,recall@10')}\n")
    print("bytes: of one stored vector. A document's score is that of its best chunk; the search is exact.")


def _splitter(embedder: PplxBiEncoder, chunk_tokens: int) -> Callable[[str], list[str]]:
    splitter = Splitter(chunk_tokens=chunk_tokens, count_tokens=embedder.document.count_tokens)
    return lambda text: [chunk.text for chunk in splitter.split(text)]


def _heading(collection: Collection, arguments: argparse.Namespace) -> str:
    left_out = f" ({len(collection.empty)} without text are left out)" if collection.empty else ""
    limited = f", the first {arguments.limit} queries only" if arguments.limit else ""
    return (
        f"{shown(arguments.directory)}: {len(collection.documents)} documents{left_out}, {len(collection.queries)} "
        f"judged queries{limited}; chunks of at most {arguments.chunk_tokens} tokens"
    )


def _row(measurement: Measurement) -> list[object]:
    return [
        measurement.query_model,
        measurement.document_model,
        "in context" if measurement.contextual else "alone",
        measurement.dimensions,
        _FORMS[measurement.quantization],
        measurement.bytes_per_vector,
        f"{measurement.ndcg_at_10:.4f}",
        f"{measurement.recall_at_10:.4f}",
    ]


def _write(path: Path, collection: Collection, arguments: argparse.Namespace, measurements: list[Measurement]) -> None:
    content = {
        "version": __version__,
        "collection": Path(arguments.directory).resolve().name,
        "split": arguments.split,
        "documents": len(collection.documents),
        "queries": len(collection.queries),
        "notes": list(collection.notes),
        "chunk_tokens": arguments.chunk_tokens,
        "measurements": [asdict(measurement) for measurement in measurements],
    }
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(f"Written to {shown(str(path))}")
