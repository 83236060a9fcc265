"""Texts of unknown origin as a page may hold them, and numbers as a page says them.

Knows characters that HTML cannot carry and how long a quotation may be; must not know what the texts are about.
"""

from __future__ import annotations

import re

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Controls but tab and line feed, what Unicode reserves as no character, and halves of pairs, which UTF-8 cannot write.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef"
    + "".join(chr(plane << 16 | 0xFFFE) + chr(plane << 16 | 0xFFFF) for plane in range(17))
    + "]"
)


def printable(text: str) -> str:
    r"""Return the text with control characters as pictures of themselves, so that none is lost and none acts.

    Marks that turn the direction of writing stay: the page isolates each text, and they end with it.

    Example:
        >>> printable("a\x00b\x85c\ud800")
        'a␀b�c�'
    """
    return _UNPRINTABLE.sub(_picture, text)


def _picture(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\N{SYMBOL FOR DELETE}" if code == 0x7F else _REPLACEMENT


def signed(value: float, digits: int = 3) -> str:
    """Return a difference with its sign, a true minus, and no sign where it rounds to nothing.

    Example:
        >>> signed(0.0424), signed(-0.1), signed(-0.0001)
        ('+0.042', '−0.100', '0.000')
    """
    shown = f"{value:+.{digits}f}"
    return shown.replace("-", "\N{MINUS SIGN}") if float(shown) else shown[1:]


def span(low: float, high: float, digits: int = 3) -> str:
    """Return an interval.

    Example:
        >>> span(-0.02, 0.1)
        '−0.020 to 0.100'
    """
    return " to ".join(signed(end, digits).removeprefix("+") for end in (low, high))


def byte_count(size: float) -> str:
    """Return a size as it is said.

    Example:
        >>> byte_count(48), byte_count(1536), byte_count(537_600), byte_count(3_000_000_000)
        ('48 B', '1.5 kB', '538 kB', '3 GB')
    """
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{float(f'{size / scale:.2g}' if size < 100 * scale else f'{size / scale:.0f}'):g} {unit}"
    return f"{size:.0f} B"
