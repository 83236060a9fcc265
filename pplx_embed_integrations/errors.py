"""Every exception and warning of the package, and the line of the user's code that a warning points to.

Knows the tree below; must not know what raises it, nor import anything of the package.

::

    PplxEmbedError
    ├── InputError              (ValueError)    a value that cannot be embedded: empty text, dimension out of range
    ├── InputTypeError          (TypeError)     a value of the wrong type: None, bytes, a bare str where a list belongs
    ├── CheckpointError         (ValueError)    an unknown, foreign, incomplete or corrupt checkpoint
    │   └── NotContextualError                  chunks in context asked of a checkpoint trained for single texts
    ├── DownloadError           (OSError)       the hub, the repository or the revision cannot be reached
    ├── MissingDependencyError  (ImportError)   an optional package is not installed
    ├── EncodingError           (RuntimeError)  the model ran, and what it gave cannot be a vector
    ├── ServerError             (OSError)       a server that embeds cannot be reached, fails, or refuses
    └── StoreError              (OSError)       a store of vectors cannot be read or written, or refuses a document

    ContextWarning              (UserWarning)   vectors are right, but carry less context than they could
    PrecisionWarning            (UserWarning)   a result is near what was asked for, and not exactly it
"""

import sys
import warnings
from functools import partial
from types import FrameType


class PplxEmbedError(Exception):
    """Root of every exception this package raises on purpose.

    Example:
        >>> try:
        ...     raise InputError("text 3 is empty")
        ... except PplxEmbedError as error:
        ...     print(error)
        text 3 is empty
    """


class InputError(PplxEmbedError, ValueError):
    """A value that cannot be embedded; the message names its position and what is allowed.

    Example:
        >>> issubclass(InputError, ValueError)
        True
    """


class InputTypeError(PplxEmbedError, TypeError):
    """A value of the wrong type; the message names its position, its type and the type that is wanted.

    Example:
        >>> issubclass(InputTypeError, TypeError)
        True
    """


class CheckpointError(PplxEmbedError, ValueError):
    """An unknown, foreign, incomplete or corrupt checkpoint; the message names the ones there are.

    Example:
        >>> issubclass(CheckpointError, ValueError)
        True
    """


class NotContextualError(CheckpointError):
    """Chunks in context were asked of a checkpoint that was trained for single texts.

    Example:
        >>> issubclass(NotContextualError, CheckpointError)
        True
    """


class DownloadError(PplxEmbedError, OSError):
    """The hub, the repository or the revision cannot be reached.

    Example:
        >>> issubclass(DownloadError, OSError)
        True
    """


class MissingDependencyError(PplxEmbedError, ImportError):
    """An optional package is not installed; the message is the command that installs it.

    Args:
        package: What is missing, as it is imported.
        extra: The extra of this package that brings it.

    Example:
        >>> print(MissingDependencyError("langchain_core", extra="langchain"))
        langchain_core is not installed; type: pip install "pplx-embed-integrations[langchain]"
    """

    def __init__(self, package: str, *, extra: str) -> None:
        super().__init__(f'{package} is not installed; type: pip install "pplx-embed-integrations[{extra}]"')
        self._package, self._extra = package, extra

    def __reduce__(self) -> tuple[object, ...]:
        # By default an exception is unpickled from its message alone, which is not what `__init__` takes.
        return partial(type(self), extra=self._extra), (self._package,)


class EncodingError(PplxEmbedError, RuntimeError):
    """The model ran and gave something that cannot be a vector, or the device failed for good.

    Example:
        >>> issubclass(EncodingError, RuntimeError)
        True
    """


class ServerError(PplxEmbedError, OSError):
    """A server that embeds cannot be reached, fails again and again, or refuses; what was stored before stays.

    Example:
        >>> issubclass(ServerError, OSError)
        True
    """


class StoreError(PplxEmbedError, OSError):
    """A store of vectors cannot be opened, read or written, or refuses a document; what it holds is as it was.

    Example:
        >>> issubclass(StoreError, OSError)
        True
    """


class ContextWarning(UserWarning):
    """The vectors are right but carry less context than they could; the message says what to change.

    Example:
        >>> issubclass(ContextWarning, UserWarning)
        True
    """


class PrecisionWarning(UserWarning):
    """A result is near what was asked for and not exactly it; the message says how to have it exactly.

    Example:
        >>> issubclass(PrecisionWarning, UserWarning)
        True
    """


_BETWEEN = ("pplx_embed_integrations", "langchain", "llama_index", "contextlib")
"""How modules begin that stand between a user's line and what it made us say."""


def warn(*messages: str, category: type[Warning] = ContextWarning) -> None:
    """Warn at the line outside this package and the frameworks from which they were called.

    Args:
        *messages: A warning each.
        category: Their class.

    Example:
        >>> with warnings.catch_warnings(record=True) as seen:
        ...     warnings.simplefilter("always")
        ...     warn("one chunk of three is here")
        >>> [str(warning.message) for warning in seen]
        ['one chunk of three is here']
    """
    level, _ = _outside()
    for message in messages:
        warnings.warn(message, category, stacklevel=level - 1)


def calling_line() -> tuple[str, int]:
    """Return file and number of the line that `warn` would warn at.

    Example:
        >>> isinstance(calling_line()[1], int)
        True
    """
    _, frame = _outside()
    return frame.f_code.co_filename, frame.f_lineno


def _outside() -> tuple[int, FrameType]:
    level, frame = 1, sys._getframe(0)
    while frame.f_back and str(frame.f_globals.get("__name__")).startswith(_BETWEEN):
        level, frame = level + 1, frame.f_back
    return level, frame
