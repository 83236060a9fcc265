"""How sure a mean and a difference are: paired bootstrap, and questions won, lost and tied.

Knows numbers by question; must not know what was measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

from .results import Comparison, Level

RESAMPLES = 10_000
"""How often the questions are drawn anew."""
SEED = 0
"""Of numpy's default generator; each call begins with it, so that figures reproduce."""
CONFIDENCE = 0.95
"""Share of the resamples that an interval holds."""
_DRAWN_AT_ONCE = 4_000_000
"""Questions drawn at once: bounds memory to some 100 MB."""
_SAME = 1e-12
"""Values nearer than this are equal."""

Floats = npt.NDArray[np.float64]


def interval(values: Floats) -> tuple[Floats, Floats]:
    """Return the percentile bootstrap interval of each column's mean (Efron 1979).

    All columns see the same resamples of the rows, which makes the interval of a difference a paired one.

    Args:
        values: Float matrix `[questions, columns]`.

    Returns:
        Lower and upper ends, `[columns]` each.

    Example:
        >>> low, high = interval(np.array([[0.0], [1.0]] * 50))
        >>> float(low[0]) < 0.5 < float(high[0])
        True
    """
    generator = np.random.default_rng(SEED)
    questions = len(values)
    block = max(1, _DRAWN_AT_ONCE // questions)
    means = np.empty((RESAMPLES, values.shape[1]))
    for start in range(0, RESAMPLES, block):
        size = min(block, RESAMPLES - start)
        drawn = generator.integers(0, questions, size=(size, questions))
        drawn += np.arange(size)[:, None] * questions
        counts = np.bincount(drawn.ravel(), minlength=size * questions).reshape(size, questions)
        means[start : start + size] = counts @ values / questions
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    return low, high


def compare(
    values: Mapping[str, Mapping[str, Sequence[float]]], *, level: Level
) -> tuple[dict[str, dict[str, tuple[float, float]]], list[Comparison]]:
    """Compare every pair of rows by every metric, on the same questions.

    Args:
        values: By row and metric, the values by question, in the same order everywhere.
        level: What was ranked.

    Returns:
        The interval of each row's mean by metric, and the comparisons.

    Example:
        >>> _, [found] = compare({"a": {"hit@1": [1, 1, 0]}, "b": {"hit@1": [0, 1, 0]}}, level="chunks")
        >>> round(found.difference, 3), found.won, found.lost, found.tied
        (0.333, 1, 0, 2)
    """
    labels = list(values)
    metrics = list(values[labels[0]]) if labels else []
    pairs = list(combinations(range(len(labels)), 2))
    columns: list[Floats] = []
    for metric in metrics:
        rows = np.array([values[label][metric] for label in labels], dtype=np.float64)
        columns += [rows, np.array([rows[left] - rows[right] for left, right in pairs]).reshape(-1, rows.shape[1])]
    if not columns or not columns[0].shape[1]:
        return {}, []
    matrix = np.concatenate(columns).T
    low, high = (ends.reshape(len(metrics), -1) for ends in interval(matrix))
    by_metric = matrix.T.reshape(len(metrics), -1, len(matrix))
    intervals: dict[str, dict[str, tuple[float, float]]] = {label: {} for label in labels}
    comparisons = []
    for metric, differences, lows, highs in zip(metrics, by_metric, low, high, strict=True):
        for place, label in enumerate(labels):
            intervals[label][metric] = (float(lows[place]), float(highs[place]))
        for place, (left, right) in enumerate(pairs, len(labels)):
            each = differences[place]
            won, lost = int((each > _SAME).sum()), int((each < -_SAME).sum())
            comparisons.append(
                Comparison(
                    left=labels[left],
                    right=labels[right],
                    level=level,
                    metric=metric,
                    difference=float(each.mean()),
                    low=float(lows[place]),
                    high=float(highs[place]),
                    won=won,
                    lost=lost,
                    tied=len(each) - won - lost,
                )
            )
    return intervals, comparisons
