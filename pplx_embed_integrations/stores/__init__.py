"""Codes and bits kept as they are: one LanceDB table of chunks, whichever framework they come from.

Knows the public names of this room; must not know LangChain, LlamaIndex or any model.
"""

from .documents import Chunk, Hit, StoredDocument
from .filters import Where
from .handle import list_tables
from .record import Keep, Record
from .staging import Committed, Held, Staged
from .table import ChunkTable
from .upkeep import Stats
from .writing import Comparison, Written

__all__ = [
    "Chunk",
    "ChunkTable",
    "Committed",
    "Comparison",
    "Held",
    "Hit",
    "Keep",
    "Record",
    "Staged",
    "Stats",
    "StoredDocument",
    "Where",
    "Written",
    "list_tables",
]
