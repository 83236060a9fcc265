"""`pplx-embed demo`: forty articles indexed plain and in context, and what context, int8 and bits are worth there.

Knows the order of what is done and said; must not know how anything is embedded, ranked, judged or laid out.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from ..errors import InputError
from ..evaluation.evaluating import searchers, versions
from ..evaluation.results import Evaluation, Measurement
from ..evaluation.study import Study
from .demo_articles import articles, passages, shown_questions
from .demo_indexes import Index, plans
from .demo_telling import told
from .progress import progress
from .terminal import shown, terminal_width, wrapped

__all__ = ["ask", "measured", "run"]

_MODEL, _PLAIN_MODEL = "miniature", "miniature-v1"


def run(arguments: argparse.Namespace) -> int:
    """Index, ask, count, tell."""
    if arguments.json_file and not Path(arguments.json_file).absolute().parent.is_dir():
        raise InputError(f"there is no folder for --json {arguments.json_file}; make it first")
    start = time.perf_counter()
    study = Study(articles(), split=passages, name="The demo's articles", versions=versions())
    print(
        _filled(
            f"{len(study.chunked.documents)} articles in {len(study.chunked.chunks)} passages, most of which do not "
            f'name what they are about, and {len(study.queries)} questions. They are embedded by the "{_MODEL}" pair, '
            "small checkpoints that come with this package and are not the vendor's. No network is used."
        ),
        flush=True,
    )
    evaluation = measured(study, every_width=bool(arguments.json_file))
    print(told(evaluation, shown_questions()))
    if arguments.json_file:
        Path(arguments.json_file).write_text(evaluation.to_json(), encoding="utf-8")
        print(f"\nWritten to {shown(arguments.json_file)}")
    print(f"\nDone in {time.perf_counter() - start:.0f} s. Your own documents: pplx-embed index DIR --store ./store")
    print("Your own questions: pplx-embed evaluate DIR (docs/evaluate.md)")
    return 0


def measured(study: Study, *, every_width: bool = False) -> Evaluation:
    """Index the collection in every way there is, and ask all of its questions.

    Args:
        study: The collection; its rows are added to.
        every_width: Also measure every pairing, width and form, by exact search over the vectors.
    """
    chunks = study.chunked.chunks
    characters = sum(len(chunk.text) for chunk in chunks)
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        makers = plans(chunks, model=_MODEL, plain_model=_PLAIN_MODEL, folder=Path(folder))
        with progress(len(makers) * characters, "Indexing and asking") as bar:
            for make in makers:
                ask(study, make())
                bar.update(characters)
    if every_width:
        from ..biencoder import PplxBiEncoder

        for _ in study.measure(searchers(study, embedder=PplxBiEncoder(_MODEL), against=())):
            pass
    return study.evaluation()


def ask(study: Study, index: Index) -> Measurement:
    """Ask all questions of one index, each timed, and add the row to the study."""
    queries = study.collection.queries
    index.ask(next(iter(queries.values())))  # what is loaded at first use is no part of a question's time
    rankings, times = {}, []
    for query, text in queries.items():
        started = time.perf_counter()
        rankings[query] = index.ask(text)
        times.append(1000 * (time.perf_counter() - started))
    return study.rank(replace(index.row, latency_ms=median(times)), rankings)


def _filled(text: str) -> str:
    return "\n".join(wrapped(text, terminal_width()))
