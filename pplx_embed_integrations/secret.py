"""A string that is shown, pickled and dumped nowhere.

Knows how objects are shown, copied and pickled; must not know what the string is for.
"""

from __future__ import annotations

from typing import Any

from .errors import InputTypeError


class Secret:
    """A key in a wrapping: no repr, log or pickle holds it.

    A copy in the same process has it; one that was pickled is empty, so that what uses it falls back to the environment
    of its own process.

    Args:
        value: The string, an object with `get_secret_value()` such as pydantic's `SecretStr`, or nothing.

    Raises:
        InputTypeError: It is something else.

    Example:
        >>> import pickle
        >>> secret = Secret("pplx-1234")
        >>> secret, secret.get_secret_value(), pickle.loads(pickle.dumps(secret)).get_secret_value()
        (Secret('**********'), 'pplx-1234', '')
    """

    __slots__ = ("_value",)

    def __init__(self, value: object = "") -> None:
        found: Any = value.get_secret_value() if hasattr(value, "get_secret_value") else value
        if not isinstance(found, str):
            raise InputTypeError(f"a key must be a string, not {type(found).__name__}")
        self._value = found.strip()

    def get_secret_value(self) -> str:
        """Return the string, empty if there is none."""
        return self._value

    def __repr__(self) -> str:
        return "Secret('**********')" if self._value else "Secret('')"

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> tuple[type[Secret], tuple[()]]:
        return Secret, ()

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Secret:
        return self
