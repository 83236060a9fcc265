"""An embedder behind HTTP, and the server for it: one protocol, both ends.

Knows no more than that both ends are here; must not import either before it is asked for.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .client import RemoteEncoder

__all__ = ["RemoteEncoder"]


def __getattr__(name: str) -> object:
    if name != "RemoteEncoder":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has RemoteEncoder")
    from .client import RemoteEncoder

    return RemoteEncoder
