"""`pplx-embed models`: the checkpoints that are known by name.

Knows how to lay out the registry; must not know what is in it.
"""

from __future__ import annotations

import argparse

from ..checkpoints import CheckpointSpec, list_checkpoints
from .table import table

_HEADER = ["name", "where", "dimension", "smallest", "longest input", "for", "revision"]


def run(arguments: argparse.Namespace) -> int:
    """Print the table."""
    print(table(_HEADER, [_row(spec) for spec in list_checkpoints()], right="dimension,smallest,longest input"))
    print(
        "\nPairs, a query model and a document model that share one space: 0.6b, 4b, miniature."
        "\nA local folder's path works in place of a name; hub ids work in any letter case."
    )
    return 0


def _row(spec: CheckpointSpec) -> list[object]:
    return [
        spec.name,
        "in this package" if spec.local else spec.source,
        spec.dimension,
        spec.min_dimension,
        f"{spec.max_tokens} tokens",
        "chunks of documents" if spec.contextual else "queries, single texts",
        (spec.revision or "-")[:10],
    ]
