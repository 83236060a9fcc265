"""Hidden states become means over spans of tokens, all spans of a batch at once.

Knows sums and spans; must not know models, texts or what a span stands for.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

_PIECE = 64
"""Tokens that are added up one by one; sums of pieces are added then, which keeps rounding from growing with length."""


def span_means(hidden: torch.Tensor, spans: Sequence[tuple[int, int]]) -> torch.Tensor:
    """Return the float32 mean over each span of tokens.

    A handful of operations whatever the number of spans; a NaN stays in the span it stands in.

    Args:
        hidden: `[tokens, width]`, of any float dtype.
        spans: Half-open ranges `(start, end)`, disjoint, none empty, in any order; tokens may lie in none.

    Returns:
        `[spans, width]` float32.

    Example:
        >>> span_means(torch.tensor([[1.0], [3.0], [9.0], [5.0]]), [(3, 4), (0, 2)]).tolist()
        [[5.0], [2.0]]
    """
    # Tokens of no span belong to none of them: number -1.
    owner = np.full(len(hidden), -1, dtype=np.int64)
    for row, (start, end) in enumerate(spans):
        owner[start:end] = row
    first = np.arange(len(owner)) % _PIECE == 0
    first[1:] |= owner[1:] != owner[:-1]
    pieces = _sums_of_runs(hidden.float(), first)
    owner = owner[first]
    begins = np.ones(len(owner), dtype=bool)
    begins[1:] = owner[1:] != owner[:-1]
    sums = _sums_of_runs(pieces, begins)
    run_of = np.empty(len(spans) + 1, dtype=np.int64)
    run_of[owner[begins]] = np.arange(len(sums))
    counts = torch.tensor([end - start for start, end in spans], dtype=torch.float32, device=hidden.device)
    return sums[torch.from_numpy(run_of[:-1]).to(hidden.device)] / counts[:, None]


def _sums_of_runs(values: torch.Tensor, begins: npt.NDArray[np.bool_]) -> torch.Tensor:
    """Add up neighbouring rows; a run begins where it is said to. Without atomics, whose order would change."""
    runs = int(begins.sum())
    if values.is_cuda:
        lengths = np.diff(np.flatnonzero(begins), append=len(begins))
        return torch.segment_reduce(values, "sum", lengths=torch.from_numpy(lengths).to(values.device), unsafe=True)
    sums = torch.zeros(runs, values.shape[1], dtype=torch.float32, device=values.device)
    return sums.index_add_(0, torch.from_numpy(np.cumsum(begins) - 1).to(values.device), values)
