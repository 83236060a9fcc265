"""pplx-embed for LlamaIndex: an embedding model, and indexes whose chunks were read with their whole document.

Knows the public names of this room; must not know LangChain.
"""

from ..errors import MissingDependencyError

try:
    import llama_index.core  # noqa: F401 - imported only to name the missing package plainly
except ModuleNotFoundError as error:
    raise MissingDependencyError("llama_index", extra="llama-index") from error

from .building import acontextual_index, contextual_index, load_contextual_index
from .embedding import PplxEmbedding
from .index import ContextualVectorStoreIndex
from .quantized import QuantizedVectorStore
from .whole import SplitAndEmbed

__all__ = [
    "ContextualVectorStoreIndex",
    "PplxEmbedding",
    "QuantizedVectorStore",
    "SplitAndEmbed",
    "acontextual_index",
    "contextual_index",
    "load_contextual_index",
]
