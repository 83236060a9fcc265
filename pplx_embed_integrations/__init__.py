"""pplx-embed text embeddings for LangChain and LlamaIndex: the front door.

Knows the public names and the module each one lives in; must not import any of them before it is asked for, so that
`import pplx_embed_integrations` costs nothing.

Example:
    >>> import pplx_embed_integrations as pplx
    >>> [checkpoint.name for checkpoint in pplx.list_checkpoints()][:2]
    ['v1-0.6b', 'v1-4b']
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .backbone.encoder import PplxEncoder
    from .backbone.qwen3.sentence_transformer import register
    from .biencoder import PplxBiEncoder
    from .checkpoints import CheckpointSpec, list_checkpoints
    from .embedder import Embedder
    from .errors import (
        CheckpointError,
        ContextWarning,
        DownloadError,
        EncodingError,
        InputError,
        InputTypeError,
        MissingDependencyError,
        NotContextualError,
        PplxEmbedError,
        PrecisionWarning,
        ServerError,
        StoreError,
    )
    from .fake import FakeEmbedder
    from .remote.client import RemoteEncoder

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "CheckpointSpec",
    "ContextWarning",
    "DownloadError",
    "Embedder",
    "EncodingError",
    "FakeEmbedder",
    "InputError",
    "InputTypeError",
    "MissingDependencyError",
    "NotContextualError",
    "PplxBiEncoder",
    "PplxEmbedError",
    "PplxEncoder",
    "PrecisionWarning",
    "RemoteEncoder",
    "ServerError",
    "StoreError",
    "__version__",
    "list_checkpoints",
    "register",
]

_HOMES = {
    "PplxEncoder": "backbone.encoder",
    "PplxBiEncoder": "biencoder",
    "CheckpointSpec": "checkpoints",
    "list_checkpoints": "checkpoints",
    "Embedder": "embedder",
    "FakeEmbedder": "fake",
    "RemoteEncoder": "remote.client",
    "register": "backbone.qwen3.sentence_transformer",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(import_module(f".{_HOMES.get(name, 'errors')}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
