"""Where the two small checkpoints lie that this project trained itself and ships for tests, demos and offline use.

Knows two folders; must not know how a checkpoint is read or run.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["CONTEXT_V1", "V1"]

V1: Path = Path(__file__).parent / "v1"
"""The standalone checkpoint, `miniature-v1`: queries and texts on their own."""

CONTEXT_V1: Path = Path(__file__).parent / "context-v1"
"""The contextual checkpoint, `miniature-context-v1`: the chunks of a document together."""
