"""Documents to vectors on a cluster, with Ray Data: a dataset of chunks, or the quantised store's table.

Knows the public names of this room; must not know how a document is split, embedded or written.
"""

from ..errors import MissingDependencyError

try:
    import ray.data  # noqa: F401 - imported only to name the missing package plainly
except ModuleNotFoundError as error:
    raise MissingDependencyError("ray", extra="ray") from error

from .committing import Indexed
from .embedding import embed_dataset
from .indexing import index_dataset

__all__ = ["Indexed", "embed_dataset", "index_dataset"]
