"""What the package should reach on a bfloat16-capable CPU, and whether a run shows it.

Knows the targets and where their figures stand in a result; must not know how anything is measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .contenders import BASELINE, OURS, OURS_INT8, OURS_OPENVINO, PUBLISHED

Result = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """A figure that a result should show.

    Attributes:
        name: What is measured.
        wanted: The figure.
        find: Takes it out of a result; raises `LookupError` where it was not measured.
        most: Whether it is the most allowed, not the least wanted.
        unit: Of the figure, as it is printed.
    """

    name: str
    wanted: float
    find: Callable[[Result], float]
    most: bool = False
    unit: str = ""

    def line(self, result: Result) -> str:
        wanted = f"{'at most' if self.most else 'at least'} {self.wanted:g}{self.unit}"
        try:
            found = self.find(result)
        except LookupError:
            return f"{self.name:<64} {wanted:<18} not measured"
        met = found <= self.wanted if self.most else found >= self.wanted
        return f"{self.name:<64} {wanted:<18} {found:.4g}{self.unit:<6} {'met' if met else 'MISSED'}"


def _times_faster(key: str, ours: str, peer: str) -> Callable[[Result], float]:
    def find(result: Result) -> float:
        seconds: dict[str, float] = result["workloads"]["rows"][key]["seconds"]
        return seconds[peer] / seconds[ours]

    return find


def _speed(key: str, against_float32: float, against_bfloat16: float | None, ours: str = OURS) -> list[Target]:
    rows = [(BASELINE, against_float32), (PUBLISHED, against_bfloat16)]
    return [
        Target(f"{key}: {ours} / {peer}", wanted, _times_faster(key, ours, peer), unit=" x")
        for peer, wanted in rows
        if wanted is not None
    ]


def _memory(result: Result) -> float:
    found: float = next(
        each["megabytes"]
        for name, each in result["memory"].items()
        if name.startswith("document of 32768 tokens, ours")
    )
    return found


def _worst(field: str, word: str) -> Callable[[Result], float]:
    def find(result: Result) -> float:
        found = [each[field] for name, each in result["agreement"].items() if word in name and field in each]
        if not found:
            raise LookupError(word)
        return max(found) if field.startswith("queries") else min(found)

    return find


def _cold(result: Result) -> float:
    found = {name: each["seconds"] for name, each in result["cold"].items()}
    ours = [seconds for name, seconds in found.items() if name.startswith("ours") and "float32" in name]
    return max(ours) / found["sentence-transformers, float32"]


def _loading(result: Result) -> float:
    found: float = max(each["peak_over_size"] for name, each in result["memory"].items() if name.startswith("loading"))
    return found


def _lists(field: str) -> Callable[[Result], float]:
    return lambda result: result["hand-over"]["lists_tolist"][field] / result["hand-over"]["lists_ours"][field]


TARGETS = [
    *_speed("mixed", 5.5, 1.8),
    *_speed("tens", 8, 2.8),
    *_speed("chunks", 4.8, 1.6),
    *_speed("chunks", 6.5, None, OURS_INT8),
    *_speed("chunks", 6.5, None, OURS_OPENVINO),
    *_speed("query", 5, 1.8),
    *_speed("query", 10, None, OURS_INT8),
    *_speed("query", 10, None, OURS_OPENVINO),
    *_speed("queries", 8, 4),
    *_speed("document-2048", 4, 2),
    *_speed("document-8192", 3.5, 2.4),
    *_speed("document-16384", 3, 2.5),
    Target(
        "chunks: share of the bfloat16 GEMM peak in the linear layers alone",
        0.7,
        lambda result: result["workloads"]["roofline"][OURS],
    ),
    Target("peak memory beyond the weights, document of 32768 tokens", 1500, _memory, most=True, unit=" MB"),
    Target("peak while loading / size of the model", 1.3, _loading, most=True),
    Target("worst cosine with float32, bfloat16, trained weights", 0.9995, _worst("cosine_worst", "bfloat16 (trained")),
    Target(
        "worst cosine with float32, int8 weights, trained weights",
        0.99,
        _worst("cosine_worst", "int8 weights (trained"),
    ),
    Target(
        "queries whose top 10 changes beyond ties, bfloat16, trained weights",
        0,
        _worst("queries_with_rank_changes_beyond_ties", "bfloat16 (trained"),
        most=True,
    ),
    Target("cold start of the slower adapter / SentenceTransformer, float32", 1, _cold, most=True),
    Target("lists of floats: ndarray.tolist() / ours, seconds", 2.5, _lists("seconds"), unit=" x"),
    Target("lists of floats: ndarray.tolist() / ours, memory", 3, _lists("megabytes_held"), unit=" x"),
]


def lines(result: Result) -> list[str]:
    return [target.line(result) for target in TARGETS]
