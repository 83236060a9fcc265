"""The words that a question and a passage share, after light normalisation.

Knows words, their plural and their case; must not know vectors, nor how a page marks anything.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from functools import lru_cache

Piece = tuple[str, bool]
"""A piece of a text, and whether it is marked."""

# A run of letters and digits; of scripts that write no spaces, each character.
_WORD = re.compile(
    r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]|"
    r"(?:[^\W_\u0e00-\u0eff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff][\u0300-\u036f]*)+"
    r"(?:['’](?:[^\W\d_])+)*"
)
_ENGLISH = frozenset(
    "a about after all also an and any are as at be because been before between both but by can could did do does for "
    "from had has have he her his how i if in into is it its may more most no not of on only or other our out over "
    "she should so some such than that the their them then there these they this those to under up was we were what "
    "when where which while who whom whose why will with would you your".split()
)


@lru_cache(maxsize=65_536)
def normal_form(word: str) -> str:
    """Return what two words must have in common to count as the same: no case, no accents, no English plural.

    The plural is taken off as Harman's S-stemmer does (JASIS 42, 1991), nothing else.

    Example:
        >>> [normal_form(word) for word in ["Études", "studies", "engine's", "gas", "wings"]]
        ['etude', 'study', 'engine', 'gas', 'wing']
    """
    plain = "".join(mark for mark in unicodedata.normalize("NFKD", word.casefold()) if not unicodedata.combining(mark))
    plain = re.sub(r"['’]s?$", "", plain)
    if len(plain) <= 3:
        return plain
    if plain.endswith("ies") and not plain.endswith(("aies", "eies")):
        return f"{plain[:-3]}y"
    if plain.endswith("es") and not plain.endswith(("aes", "ees", "oes")):
        return plain[:-1]
    return plain[:-1] if plain.endswith("s") and not plain.endswith(("us", "ss")) else plain


def frequent(texts: Iterable[str], *, share: float = 0.2) -> frozenset[str]:
    """Return the words that say nothing: English function words, and what stands in so many of the texts.

    With fewer than ten texts the function words alone are left out; what recurs there may be the subject.

    Example:
        >>> "wing" in frequent(["the wing"] * 10), "wing" in frequent(["the wing"] * 9)
        (True, False)
    """
    counts: Counter[str] = Counter()
    total = 0
    for text in texts:
        total += 1
        counts.update({normal_form(word) for word in _WORD.findall(text)})
    often = {word for word, count in counts.items() if count > share * total} if total >= 10 else set()
    return _ENGLISH | often


def marked(text: str, *, question: str, without: frozenset[str] = frozenset()) -> list[Piece]:
    """Cut a passage where words of the question begin and end.

    Args:
        text: The passage.
        question: The question.
        without: Normal forms that do not count, as from `frequent`.

    Returns:
        Pieces that make up the passage, and whether each is a word of the question.

    Example:
        >>> marked("Its wings were long.", question="How long is a wing?", without=frozenset({"is", "a"}))
        [('Its ', False), ('wings', True), (' were ', False), ('long', True), ('.', False)]
    """
    asked = {normal_form(word) for word in _WORD.findall(question)} - without
    return _pieces(text, lambda word: normal_form(word) in asked)


def _pieces(text: str, chosen: Callable[[str], bool]) -> list[Piece]:
    pieces: list[Piece] = []
    end = 0
    for match in _WORD.finditer(text):
        if chosen(match[0]):
            pieces += [(text[end : match.start()], False), (match[0], True)]
            end = match.end()
    pieces.append((text[end:], False))
    return [piece for piece in pieces if piece[0]]
