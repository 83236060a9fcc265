"""How an error of this package comes back from a worker as what it is: Ray keeps the text of an error and little else.

Knows Ray's errors as texts; must not know what went wrong.
"""

from __future__ import annotations

import base64
import pickle
import re
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from ..errors import PplxEmbedError

__all__ = ["WorkerError", "carried", "carrying"]

Function = TypeVar("Function", bound=Callable[..., Any])

_MARK = re.compile(r"\[pplx-embed error ([A-Za-z0-9+/=]+)\]")


class WorkerError(Exception):
    """An error of this package on its way from a worker: readable, and to be made again from its text."""

    def __init__(self, message: str) -> None:
        super().__init__(message)


def carrying(function: Function) -> Function:
    """Let a worker's function raise errors of this package in a form that `carried` finds again.

    Example:
        >>> from pplx_embed_integrations import InputError
        >>> def work():
        ...     raise InputError("nothing to do")
        >>> try:
        ...     carrying(work)()
        ... except WorkerError as error:
        ...     carried(RuntimeError(f"somewhere in a cluster: {error}"))
        InputError('nothing to do')
    """

    @wraps(function)
    def guarded(*arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        except PplxEmbedError as error:
            text = base64.b64encode(pickle.dumps(error)).decode()
            raise WorkerError(f"{type(error).__name__}: {error} [pplx-embed error {text}]") from error

    return guarded  # type: ignore[return-value]


def carried(error: BaseException) -> BaseException:
    """Return the error of this package that a worker raised, where there was one; else what was given."""
    found = _MARK.search(str(error))
    if found is None:
        return error
    made: BaseException = pickle.loads(base64.b64decode(found[1]))
    return made
