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

from ..biencoder import PplxBiEncoder
from ..evaluation import BM25Searcher, Evaluation, Measurement, Searcher, Study
from ..evaluation.evaluating import searchers, versions
from ..evaluation.report import check_report, write_report
from ..evaluation.writing import check_replaceable, replace_file
from .demo_articles import articles, passages, shown_questions
from .demo_indexes import Index, plans
from .demo_telling import told
from .progress import progress
from .terminal import filled, shown

_MODEL, _PLAIN_MODEL = "miniature", "miniature-v1"


def run(arguments: argparse.Namespace) -> int:
    """Index, ask, count, tell."""
    files = {"--report": arguments.report, "--json": arguments.json_file}
    if arguments.report:
        check_report(arguments.report)
    if arguments.json_file:
        check_replaceable(arguments.json_file, "--json")
    start = time.perf_counter()
    settings = {"command": "pplx-embed demo"}
    study = Study(articles(), split=passages, name="The demo's articles", settings=settings, versions=versions())
    print(
        filled(
            f"{len(study.chunked.documents)} articles in {len(study.chunked.chunks)} passages, most of which do not "
            f'name what they are about, and {len(study.queries)} questions. They are embedded by the "{_MODEL}" pair, '
            "small checkpoints that come with this package and are not the vendor's. No network is used."
        ),
        flush=True,
    )
    evaluation, may_be_shown = measured(study, every_width=any(files.values())), shown_questions()
    print(f"\n{told(evaluation, may_be_shown)}")
    public = _public(evaluation, may_be_shown)
    if arguments.report:
        write_report(public, arguments.report)
    if arguments.json_file:
        replace_file(arguments.json_file, public.to_json().encode("utf-8"))
    written = [shown(file) for file in files.values() if file]
    if written:
        print(f"\nWritten to {' and '.join(written)}")
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
    more: list[Searcher] = [BM25Searcher(study.queries, [chunk.text for chunk in chunks])]
    if every_width:
        more += searchers(study, embedder=PplxBiEncoder(_MODEL), against=())
    for _ in study.measure(more):
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


def _public(evaluation: Evaluation, may_be_shown: set[str]) -> Evaluation:
    """Leave out the questions that are only counted; they stay in every figure."""
    questions = tuple(question for question in evaluation.questions if question.id in may_be_shown)
    note = (
        f"All figures are of {len(evaluation.questions)} questions. Of these, the {len(questions)} that may be shown "
        "are here with their passages; the others are only counted, so that nothing can be fitted to them."
    )
    return replace(evaluation, questions=questions, notes=(*evaluation.notes, note))
