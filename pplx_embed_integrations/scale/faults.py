"""How an error of this package comes back from a worker as what it is: Ray keeps the text of an error and little else.

Knows Ray's errors as texts; must not know what went wrong.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from .. import errors
from ..errors import PplxEmbedError

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
            text = base64.b64encode(json.dumps([type(error).__name__, str(error)]).encode()).decode()
            raise WorkerError(f"{type(error).__name__}: {error} [pplx-embed error {text}]") from error

    return guarded  # type: ignore[return-value]


def carried(error: BaseException) -> BaseException:
    """Return the error of this package that a worker raised, where there was one; else what was given."""
    marks = _MARK.findall(str(error))
    if not marks:
        return error
    # The last one is ours: a message may repeat what a user's data looks like, and none of it is ever run.
    name, message = json.loads(base64.b64decode(marks[-1]))
    kind = getattr(errors, name, None)
    if not (isinstance(kind, type) and issubclass(kind, PplxEmbedError)):
        kind = PplxEmbedError  # one that a user's embedder has derived
    return kind.__new__(kind, message)  # without __init__, which asks for other things than the message
