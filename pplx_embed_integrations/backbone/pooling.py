"""Hidden states become means over spans of tokens, all spans of a batch at once.

Knows sums and spans; must not know models, texts or what a span stands for.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["span_means"]

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
    # Tokens of no span belong to a row more, which is dropped.
    owner = np.full(len(hidden), len(spans), dtype=np.int64)
    for row, (start, end) in enumerate(spans):
        owner[start:end] = row
    first = np.arange(len(owner)) % _PIECE == 0
    first[1:] |= owner[1:] != owner[:-1]
    pieces = _row_sums(hidden.float(), np.cumsum(first) - 1, rows=int(first.sum()))
    sums = _row_sums(pieces, owner[first], rows=len(spans) + 1)[:-1]
    counts = torch.tensor([end - start for start, end in spans], dtype=torch.float32, device=hidden.device)
    return sums / counts[:, None]


def _row_sums(values: torch.Tensor, owner: npt.NDArray[np.int64], *, rows: int) -> torch.Tensor:
    sums = torch.zeros(rows, values.shape[1], dtype=torch.float32, device=values.device)
    return sums.index_add_(0, torch.from_numpy(owner).to(values.device), values)
