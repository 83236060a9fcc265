"""A small cache of query vectors: the least recently used goes first.

Knows texts and lists of floats; must not know models, nor what made a vector.
"""

from __future__ import annotations

import threading
from collections import OrderedDict


class QueryCache:
    """Keeps the vectors of the most recently used texts, up to a given number.

    Safe to share between threads. Pickles carry the size, never a vector.

    Args:
        size: How many vectors it keeps; 0 for none.

    Example:
        >>> cache = QueryCache(1)
        >>> cache.put("a", [0.6, 0.8])
        >>> cache.put("b", [1.0, 0.0])
        >>> cache.get("a"), cache.get("b")
        (None, [1.0, 0.0])
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._vectors: OrderedDict[str, list[float]] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[QueryCache], tuple[int]]:
        return type(self), (self.size,)

    def get(self, text: str) -> list[float] | None:
        """Return a copy, which is the caller's to change, of the vector that was put there for a text."""
        with self._lock:
            vector = self._vectors.get(text)
            if vector is None:
                return None
            self._vectors.move_to_end(text)
            return vector.copy()

    def put(self, text: str, vector: list[float]) -> None:
        """Keep a copy of a text's vector."""
        with self._lock:
            self._vectors[text] = vector.copy()
            self._vectors.move_to_end(text)
            while len(self._vectors) > self.size:
                self._vectors.popitem(last=False)

    def clear(self) -> None:
        """Drop every vector."""
        with self._lock:
            self._vectors.clear()
