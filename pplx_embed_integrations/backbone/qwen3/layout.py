"""Where each sequence of a packed batch lies.

Knows lengths only; must not know what is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch

__all__ = ["PackedLayout"]


class PackedLayout:
    """Where each sequence of a packed batch begins and ends.

    Args:
        lengths: Tokens of each sequence, in order.
        device: Where the batch lies.

    Example:
        >>> PackedLayout([2, 2, 3], device=torch.device("cpu")).runs
        [(2, 2), (3, 1)]
    """

    def __init__(self, lengths: Sequence[int], *, device: torch.device) -> None:
        self.longest = max(lengths)
        self.alone = len(lengths) == 1
        self.borders = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32).to(device, non_blocking=True)
        self.runs: list[tuple[int, int]] = []
        """Neighbours of one length, `(length, count)`: they share a call."""
        for length in lengths:
            if self.runs and self.runs[-1][0] == length:
                self.runs[-1] = (length, self.runs[-1][1] + 1)
            else:
                self.runs.append((length, 1))
