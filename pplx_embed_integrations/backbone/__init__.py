"""The shared backbone: one checkpoint, loaded and run, with nothing of any framework in it."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .encoder import PplxEncoder

__all__ = ["PplxEncoder"]


def __getattr__(name: str) -> object:
    if name != "PplxEncoder":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has PplxEncoder")
    from .encoder import PplxEncoder  # torch takes seconds to import; tokens and windows need none of it

    return PplxEncoder
