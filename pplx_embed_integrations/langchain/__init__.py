"""LangChain: an embedding model, and contextual indexing through any vector store.

Knows the public names of this room; must not know LlamaIndex.
"""

from ..errors import MissingDependencyError

try:
    import langchain_core  # noqa: F401  # asked for here, to say how to install it
except ModuleNotFoundError as error:
    raise MissingDependencyError("langchain_core", extra="langchain") from error

from .adding import aadd_documents, add_documents, afrom_documents, from_documents
from .deleting import adelete_documents, delete_documents
from .embeddings import PplxEmbeddings
from .indexing import aindex_documents, index_documents
from .quantized import QuantizedVectorStore
from .splitting import split_documents

__all__ = [
    "PplxEmbeddings",
    "QuantizedVectorStore",
    "aadd_documents",
    "add_documents",
    "adelete_documents",
    "afrom_documents",
    "aindex_documents",
    "delete_documents",
    "from_documents",
    "index_documents",
    "split_documents",
]
