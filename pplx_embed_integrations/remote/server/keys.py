"""Who may ask: API keys, compared in constant time.

Knows a header and hashes; must not keep a key that could be shown.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from ...errors import InputError, InputTypeError
from .refusals import unauthorized

_SHORTEST = 8


class Keys:
    """The keys that open the server; without any, everybody may ask.

    Args:
        keys: One or several, so that an old and a new one overlap while clients change over.

    Raises:
        InputError: A key is too short, or no header can hold it.
        InputTypeError: `keys` is a bare string or holds something else than strings.

    Example:
        >>> keys = Keys(["a-long-secret"])
        >>> keys.check(b"Bearer a-long-secret")
        >>> keys
        Keys(1)
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        if isinstance(keys, str):
            raise InputTypeError("the API keys must be a list of strings, not a bare str; put it in a list: [key]")
        # Hashes are of one length, so that comparing takes the same time for any key.
        self._hashes = [hashlib.sha256(_checked(number, key)).digest() for number, key in enumerate(keys)]

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def __repr__(self) -> str:
        return f"Keys({len(self._hashes)})"

    def check(self, authorization: bytes | None) -> None:
        """Refuse a request whose `Authorization` header has no key that fits.

        Raises:
            RefusedError: 401.
        """
        if not self._hashes:
            return
        scheme, _, key = (authorization or b"").partition(b" ")
        if scheme.lower() != b"bearer" or not key.strip():
            raise unauthorized("an API key is needed; send the header: Authorization: Bearer KEY")
        given = hashlib.sha256(key.strip()).digest()
        fits = [hmac.compare_digest(each, given) for each in self._hashes]  # all of them, whichever fits
        if not any(fits):
            raise unauthorized("the API key is wrong")


def _checked(number: int, key: object) -> bytes:
    if not isinstance(key, str):
        raise InputTypeError(f"API key {number} must be a str, not {type(key).__name__}")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise InputError(f"API key {number} has characters that a header cannot hold; use letters, digits and dashes")
    if len(key) < _SHORTEST:
        raise InputError(f"API key {number} has {len(key)} characters; use {_SHORTEST} or more, chosen by chance")
    return key.encode("ascii")
