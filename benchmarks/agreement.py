"""How far faster arithmetic moves vectors and rankings, on random weights and on the trained miniature pair.

Knows cosines, codes and ranks; must not know clocks.
"""

from pathlib import Path
from typing import Any

import numpy as np

from pplx_embed_integrations import PplxEncoder
from pplx_embed_integrations.evaluation import Collection, load_collection
from pplx_embed_integrations.vectors import quantize

from .contenders import Contender
from .machine import native_bfloat16

TIE = 0.01
"""Documents whose scores are nearer to each other than this, relative to the score, may change places."""
DEPTH = 10


def with_baseline(texts: list[str], reference: Contender, others: dict[str, Contender]) -> dict[str, dict[str, float]]:
    """Return how far each of our own contenders is from a reference that gives int8 codes."""
    codes = np.asarray(reference.texts(texts), dtype=np.float64)
    found = {}
    for name, contender in others.items():
        if not hasattr(contender, "pair"):
            continue
        mine = contender.pair.encode_texts(texts, quantization="int8").astype(np.float64)
        found[name] = _cosines(mine, codes) | _codes(mine, codes)
    return found


def trained(folder: Path) -> dict[str, dict[str, float]]:
    """Return how far bfloat16 and int8 weights move the miniature's vectors, and the top of each query's ranking.

    Args:
        folder: A collection in the BEIR layout.
    """
    found = {}
    collection = load_collection(folder)
    exact = _embed(collection, dtype="float32")
    for name, options in _ways().items():
        try:
            moved = _embed(collection, **options)
        except (TypeError, ValueError):  # what this machine cannot do
            continue
        mine, theirs = np.concatenate(moved), np.concatenate(exact)
        found[f"{name} (trained weights, {folder.name})"] = {
            **_cosines(mine, theirs),
            **_codes(*(_int8(each) for each in (mine, theirs))),
            **_rank_changes(*(_int8(each) for each in (*moved, *exact))),
        }
    return found


def _ways() -> dict[str, dict[str, Any]]:
    ways: dict[str, dict[str, Any]] = {"int8 weights": {"dtype": "float32", "weights": "int8"}}
    if native_bfloat16("cpu"):
        ways = {"bfloat16": {"dtype": "bfloat16"}, "bfloat16, int8 weights": {"dtype": "bfloat16", "weights": "int8"}}
    return ways


def _embed(collection: Collection, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the pooled floats of all queries and of all documents, by the side of the pair that embeds them."""
    query, document = (PplxEncoder(name, **options) for name in ("miniature-v1", "miniature-context-v1"))
    texts = list(collection.documents.values())
    return (
        query.encode(list(collection.queries.values()), quantization=None),
        np.concatenate(document.encode_documents([[text] for text in texts], quantization=None)),
    )


def _int8(pooled: np.ndarray) -> np.ndarray:
    return quantize(pooled).astype(np.float64)


def _unit(rows: np.ndarray) -> np.ndarray:
    floats = rows.astype(np.float64)
    return floats / np.linalg.norm(floats, axis=1, keepdims=True)


def _cosines(mine: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
    cosines = (_unit(mine) * _unit(theirs)).sum(axis=1)
    return {"cosine_mean": float(cosines.mean()), "cosine_worst": float(cosines.min())}


def _codes(mine: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
    apart = np.abs(mine - theirs)
    return {"codes_different": float((apart > 0).mean()), "codes_largest_difference": float(apart.max())}


def _rank_changes(
    queries: np.ndarray, documents: np.ndarray, exact_queries: np.ndarray, exact_documents: np.ndarray
) -> dict[str, float]:
    """Count the queries, of all, in whose top 10 another document stands at some rank, ties aside."""
    scores = _unit(queries) @ _unit(documents).T
    exact = _unit(exact_queries) @ _unit(exact_documents).T
    top, exact_top = (np.argsort(-each, axis=1, kind="stable")[:, :DEPTH] for each in (scores, exact))
    rows = np.arange(len(exact))[:, None]
    apart = np.abs(exact[rows, top] - exact[rows, exact_top]) > TIE * np.abs(exact[rows, exact_top])
    return {
        "queries": float(len(exact)),
        "queries_with_rank_changes": float((top != exact_top).any(axis=1).sum()),
        "queries_with_rank_changes_beyond_ties": float(apart.any(axis=1).sum()),
    }
