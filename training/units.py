"""Knows the corpus as numbered texts: every title, heading and chunk once, and which of them belong together.

It must not know what a teacher or a student makes of them.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

import corpus

#: The teacher reads texts of at most so many words: most meaning for the compute, and pairs teach the long ones.
BRIEF = 18
#: The teacher reads this many single words, the most widespread first, so that their pieces learn to add up.
LEXICON = 12_000
#: Of WordNet's many short entries, the teacher reads this share.
WORDNET = 0.6


@dataclass(frozen=True)
class Unit:
    """A document by the numbers of its texts; `headings[i]` is -1 where a chunk has none."""

    title: int
    chunks: list[int]
    headings: list[int]


def load() -> tuple[list[str], list[Unit], list[int]]:
    """All texts, the documents over them, and the numbers of the texts the teacher reads, in its order."""
    numbers: dict[str, int] = {}
    units, brief = [], []
    spread: Counter[str] = Counter()
    for position, document in enumerate(corpus.load()):
        title = numbers.setdefault(document.title, len(numbers))
        chunks = [numbers.setdefault(chunk, len(numbers)) for chunk in document.chunks]
        headings = [numbers.setdefault(heading, len(numbers)) if heading else -1 for heading in document.headings]
        units.append(Unit(title, chunks, headings))
        spread.update(set(re.findall(r"[a-z]{3,}", " ".join(document.chunks).lower())))
        if document.source != "wordnet-base" or position % 10 < 10 * WORDNET:
            brief += [title, *chunks, *(heading for heading in headings if heading >= 0)]
    words = [numbers.setdefault(word, len(numbers)) for word, _ in spread.most_common(LEXICON)]
    texts = list(numbers)
    short = [number for number in dict.fromkeys(brief) if len(texts[number].split()) <= BRIEF]
    mixed = [*words[:4000], *short[:16_000], *words[4000:], *short[16_000:]]
    return texts, units, list(dict.fromkeys(mixed))
