"""A collection, a pair of models and what to compare it with, in; an evaluation out.

Knows in which order rows are measured and what took part; must not know files or how a result is shown.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from ..embedder import checkpoint_of
from .chunking import Split
from .collection import Collection
from .lexical import BM25Searcher
from .results import Evaluation
from .searching import Searcher, names_of, pplx_searchers
from .study import Study

if TYPE_CHECKING:
    from ..biencoder import PplxBiEncoder

Rival = Callable[[Sequence[str], Sequence[str]], Searcher]
"""Makes a way to search from queries and chunks, such as `BM25Searcher`."""
_NAMED = ("numpy", "torch", "transformers", "ir-measures", "bm25s")


def evaluate(
    collection: Collection,
    *,
    embedder: PplxBiEncoder,
    split: Split | None = None,
    against: Iterable[Rival] = (BM25Searcher,),
    name: str = "collection",
    show_progress: bool = False,
) -> Evaluation:
    """Measure plain and contextual indexing, the pairings of two models, widths and forms, and what else is given.

    The search is exact: by cosine, for packed bits by Hamming distance. A document's score is that of its best chunk.
    The metrics are those of `ir_measures`; intervals and comparisons are described in `statistics`.

    Args:
        collection: The documents, queries and judgements.
        embedder: The query model and the document model.
        split: Returns start and end of a text's chunks, in reading order; None where the collection brings chunks.
        against: What to compare with: makes a searcher from queries and chunks.
        name: What a report calls the collection.
        show_progress: Show a bar for each pass.

    Returns:
        First the pairings at full width in int8, the embedder's own first; then its widths and forms; then the rest.

    Raises:
        InputError: No document has a chunk. One that has none is never found.
        MissingDependencyError: `ir_measures` is not installed, or `bm25s`, unless `against` is given without it.

    Example:
        >>> from pplx_embed_integrations import PplxBiEncoder
        >>> tides = Collection({"a": "The moon makes tides.", "b": "Ships sail."}, {"q": "tides"}, {"q": {"a": 1}})
        >>> found = evaluate(tides, embedder=PplxBiEncoder("miniature"), split=lambda text: [(0, len(text))])
        >>> found.measurements[0].means["documents"]["hit@1"]
        1.0
    """
    study = Study(collection, split=split, name=name)
    for _ in study.measure(searchers(study, embedder=embedder, against=against, show_progress=show_progress)):
        pass
    return replace(study.evaluation(), versions=versions(embedder))


def searchers(
    study: Study, *, embedder: PplxBiEncoder, against: Iterable[Rival], show_progress: bool = False
) -> Iterator[Searcher]:
    """Yield what `evaluate` measures, one after the other."""
    rivals = list(against)
    if BM25Searcher in rivals:
        BM25Searcher.library()
    nested = study.chunked.nested
    yield from pplx_searchers(embedder, queries=study.queries, documents=nested, show_progress=show_progress)
    chunks = list(chain.from_iterable(nested))
    for rival in rivals:
        yield rival(study.queries, chunks)


def versions(embedder: PplxBiEncoder | None = None) -> dict[str, str]:
    """Return the versions of what decides figures: packages, the models' revisions or hashes, and the processor."""
    from .. import __version__

    found = {"pplx-embed-integrations": __version__, "Python": platform.python_version()}
    for distribution in _NAMED:
        try:
            found[distribution] = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    names = names_of(embedder) if embedder else {}
    for side in (embedder.query, embedder.document) if embedder else ():
        found[names[id(side)]] = checkpoint_of(side.identity())
    return {**found, "processor": _processor()}


def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
