"""The linear layer that some families have between the mean of a chunk's tokens and its vector.

Knows its tensors and a product; must not know networks, backends or what becomes of the result.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..families import Head
from ..files import positive, read_config
from .backends.base import Pooled
from .tensors import read_tensors


class LinearHead:
    """A head in memory, in float32 whatever its network computes in.

    Args:
        folder: The checkpoint's folder.
        head: Where its tensors are.

    Attributes:
        width: Columns of its result.

    Raises:
        CheckpointError: A tensor is missing or damaged, or does not fit the `config.json`.
    """

    def __init__(self, folder: Path, head: Head) -> None:
        config = read_config(folder)
        self.width = positive(config, head.dimension, folder)
        shapes: dict[str, tuple[int, ...]] = {head.weight: (self.width, positive(config, "hidden_size", folder))}
        if head.bias is not None:
            shapes[head.bias] = (self.width,)
        found = {name: tensor.float().numpy().copy() for name, tensor in read_tensors(folder, shapes, head=True)}
        self._weight, self._bias = found[head.weight].T, found.get(head.bias or "", np.float32(0))

    def __call__(self, pooled: Pooled) -> Pooled:
        """Return vectors `[n, width]` of means `[n, hidden_size]`."""
        vectors: Pooled = pooled @ self._weight + self._bias
        return vectors
