"""A server that speaks Perplexity's and OpenAI's embeddings APIs, for any embedder: FastAPI, and uvicorn to run it.

Knows the public names of this room; must not know where the vectors come from.
"""

from ...errors import MissingDependencyError

try:
    import fastapi  # noqa: F401  # asked for here, to say how to install it
    import prometheus_client  # noqa: F401
    import uvicorn  # noqa: F401
except ModuleNotFoundError as error:
    raise MissingDependencyError(error.name or "fastapi", extra="serve") from error

from .app import create_app
from .limits import ServerLimits
from .running import check_open, run

__all__ = ["ServerLimits", "check_open", "create_app", "run"]
