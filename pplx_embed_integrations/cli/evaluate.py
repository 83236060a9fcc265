"""`pplx-embed evaluate`: retrieval quality on a judged collection, by document and by chunk.

Knows arguments and the files that are written; must not know how anything is measured or laid out.
"""

from __future__ import annotations

import argparse
import shlex
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ..biencoder import PplxBiEncoder
from ..errors import InputError
from ..evaluation import BM25Searcher, Collection, LangChainSearcher, Study, load_collection, named
from ..evaluation.evaluating import Rival, searchers, versions
from ..evaluation.report import LeaveOneOut, check_report, write_report
from ..evaluation.rivals import label_of
from ..evaluation.writing import check_replaceable, replace_file
from .ranked import ranked
from .splitting import Splitter
from .terminal import shown, wrapped

_CHUNK_TOKENS = 128
_WIDTH = 79


def run(arguments: argparse.Namespace) -> int:
    """Load, measure, print, write."""
    if arguments.json_file:
        check_replaceable(arguments.json_file, "--json")
    if arguments.report:
        check_report(arguments.report)
    collection = load_collection(arguments.directory, split=arguments.split)
    if collection.chunks is not None and arguments.chunk_tokens:
        raise InputError(
            f"--chunk-tokens {arguments.chunk_tokens}: {arguments.directory} brings its chunks, which are what is "
            "judged; leave it out"
        )
    if arguments.limit:
        collection = collection.first(arguments.limit)
    embedder = PplxBiEncoder(
        arguments.model or "0.6b", query_model=arguments.query_model, document_model=arguments.document_model
    )
    if arguments.explain and not (arguments.report and embedder.contextual):
        raise InputError("--explain is for --report and a document model that reads chunks in context; leave it out")
    chunk_tokens = arguments.chunk_tokens or _CHUNK_TOKENS
    settings = {"command": _command(arguments), "split": arguments.split, "limit": arguments.limit}
    if collection.chunks is None:
        settings["chunk_tokens"] = chunk_tokens
    rivals = [named.parse(text) for text in arguments.against]
    others = [rival.make(wanted=("embed_documents", "embed_query")) for rival in rivals]  # a mistake is told at once
    print(*wrapped(_heading(collection, arguments, chunk_tokens), _WIDTH), sep="\n", flush=True)
    splitter = Splitter(chunk_tokens=chunk_tokens, count_tokens=embedder.document.count_tokens)
    study = Study(
        collection,
        split=splitter.spans if collection.chunks is None else None,
        name=Path(arguments.directory).resolve().name,
        settings=settings,
    )
    for note in (*collection.notes, *study.chunked.notes):
        print(*(f"  {line}" for line in wrapped(shown(note), _WIDTH - 2)), sep="\n", flush=True)
    against: list[Rival] = [BM25Searcher]
    against += [
        partial(LangChainSearcher, other, label=label, show_progress=True)
        for other, label in zip(others, _labels(others), strict=True)
    ]
    measured, complete = 0, False
    try:
        for _ in study.measure(searchers(study, embedder=embedder, against=against, show_progress=True)):
            measured += 1
        complete = True
    finally:  # an interruption keeps what is measured
        if measured:
            _report(study, embedder, arguments, complete=complete)
    return 0


def _report(study: Study, embedder: PplxBiEncoder, arguments: argparse.Namespace, *, complete: bool) -> None:
    evaluation = replace(study.evaluation(), versions=versions(embedder))
    if not complete:
        evaluation = replace(evaluation, notes=(*evaluation.notes, "It was stopped before all rows were measured."))
    print(f"\n{ranked(evaluation)}")
    if arguments.json_file:
        replace_file(arguments.json_file, evaluation.to_json().encode("utf-8"))
        print(f"Written to {shown(arguments.json_file)}")
    if arguments.report:
        lent = LeaveOneOut(study.chunked.chunks, embedder) if complete and arguments.explain else None
        path = write_report(evaluation, arguments.report, explain=lent)
        print(f"Written to {shown(str(path))}; open it in a browser")


def _command(arguments: argparse.Namespace) -> str:
    """Return what was typed, but for what an `Embeddings` was called with: that may be a key."""
    parts = ["pplx-embed", "evaluate", arguments.directory]
    for name in ("model", "query_model", "document_model", "split", "chunk_tokens", "limit"):
        value = getattr(arguments, name)
        if value is not None and (name, value) != ("split", "test"):
            parts += [f"--{name.replace('_', '-')}", str(value)]
    for text in arguments.against:
        parts += ["--against", text if "(" not in text else f"{text.partition('(')[0]}(…)"]
    return shlex.join([*parts, *(["--explain"] if arguments.explain else [])])


def _labels(others: list[Any]) -> list[str]:
    """Return a name for each, no two alike."""
    names = list(map(label_of, others))
    return [
        name if names.count(name) == 1 else f"{name} ({names[: place + 1].count(name)})"
        for place, name in enumerate(names)
    ]


def _heading(collection: Collection, arguments: argparse.Namespace, chunk_tokens: int) -> str:
    left_out = f" ({len(collection.empty)} without text are left out)" if collection.empty else ""
    passages = f" ({len(collection.passages)} with passages)" if collection.passages else ""
    limited = f", the first {arguments.limit} queries only" if arguments.limit else ""
    chunks = f"chunks of at most {chunk_tokens} tokens" if collection.chunks is None else "chunks as they come"
    return (
        f"{shown(arguments.directory)}: {len(collection.documents)} documents{left_out}, {len(collection.queries)} "
        f"judged queries{passages}{limited}; {chunks}"
    )
