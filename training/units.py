"""Knows the corpus as numbered texts: passages with the titles, headings and crops that ask for them, and documents.

It must not know what a teacher or a student makes of them.
"""

from __future__ import annotations

import random
import re
import zlib
from collections import Counter
from dataclasses import dataclass, field

import corpus

#: The teacher reads this many single words, the most widespread first, so that their pieces learn to add up.
LEXICON = 20_000
#: Of the dictionaries' many short entries, this share is used.
DICTIONARIES = {"wordnet-base": 0.5, "dict-gcide": 0.4}
#: Frames of questions, so that the words of a question are learned to weigh little.
QUESTIONS = """
what is {}? | what are {}? | what is known about {} | what is the effect of {} on {} | what are the effects of {} and {}
what is the relation between {} and {} | what are the properties of {} in {} | what causes {} | what does {} mean
how is {} affected by {} | how does {} work? | how do i {} | how can {} be determined for {} | how to {} with {}
how is {} measured | how large is {} compared with {}
why is {} used in {} | why does {} depend on {} | when is {} used
which {} are used for {} | which methods are there for {}
is there any information on {} and {} | can {} be used for {}
has anyone investigated {} for {} | have studies of {} been made | are there results on {} | do {} influence {}
does {} reduce the risk of {} | is it possible to find {} for {} | who uses {} | where is {} found | papers on {} in {}
what problems arise in {} | what must be considered for {} of {} | find work that describes {} | {} and {} | {} in {}
""".replace("\n", "|")
#: One document in so many is never trained on; what is measured while developing is measured on these.
HELD_OUT = 40
_FUNCTION = set(
    "that this with from which have been were will what when then than them they their there these those such some "
    "also only other into your does where would should could about after before being between both each more most "
    "must very just because while until used using same here over under within without however".split()
)
MOST_CHUNKS = 4  # of one passage


@dataclass(frozen=True)
class Passage:
    """A passage by the number of its text, its document's title, and texts that ask for it."""

    text: int
    title: int
    queries: tuple[int, ...]


@dataclass(frozen=True)
class Unit:
    """A document by the numbers of its texts; `headings[i]` is -1 where a chunk has none."""

    title: int
    chunks: list[int]
    headings: list[int]


@dataclass
class Units:
    """Everything numbered: `order` is what the teacher reads, so that any prefix of it holds whole passages."""

    texts: list[str] = field(default_factory=list)
    passages: list[Passage] = field(default_factory=list)
    documents: list[Unit] = field(default_factory=list)
    held_out: list[Passage] = field(default_factory=list)
    held_out_documents: list[Unit] = field(default_factory=list)
    order: list[int] = field(default_factory=list)


def load(*, seed: int = 0) -> Units:
    """Reads the corpus; the same seed gives the same passages and crops."""
    found, numbers, rng = Units(), dict[str, int](), random.Random(seed)
    spread: Counter[str] = Counter()

    def number(text: str) -> int:
        return numbers.setdefault(text, len(numbers))

    for document in corpus.load():
        spread.update(set(re.findall(r"[a-z]{3,}", " ".join(document.chunks).lower())))
        draw = zlib.crc32(document.title.lower().encode())
        if not document.chunks or draw % 1000 >= 1000 * DICTIONARIES.get(document.source, 1):
            continue
        kept = draw // 1000 % HELD_OUT > 0
        headings = [number(heading) if heading else -1 for heading in document.headings]
        unit = Unit(number(document.title), [number(chunk) for chunk in document.chunks], headings)
        (found.documents if kept else found.held_out_documents).append(unit)
        passages = found.passages if kept else found.held_out
        start = 0
        while start < len(unit.chunks):
            stop = start + rng.randint(1, MOST_CHUNKS)
            text = " ".join(document.chunks[start:stop])
            queries = [unit.title]
            if headings[start] >= 0:
                queries.append(number(f"{document.title} {document.headings[start]}"))
            if document.source not in DICTIONARIES:
                queries.append(number(crop(text, rng)))
            if document.source not in DICTIONARIES or rng.random() < 0.3:
                queries.append(number(question(document.title, text, rng)))
            passages.append(Passage(number(text), unit.title, tuple(queries)))
            start = stop
    words = [number(word) for word, _ in sorted(spread.items(), key=lambda item: (-item[1], item[0]))[:LEXICON]]
    rng.shuffle(found.passages)
    read = [*words, *(one for passage in found.passages for one in (passage.text, *passage.queries))]
    found.order = list(dict.fromkeys(read))
    found.texts = list(numbers)
    return found


def crop(text: str, rng: random.Random, *, shortest: int = 4, longest: int = 12) -> str:
    """A few words in a row."""
    words = text.split()
    size = min(len(words), rng.randint(shortest, longest))
    start = rng.randrange(len(words) - size + 1)
    return " ".join(words[start : start + size])


def question(title: str, text: str, rng: random.Random) -> str:
    """A question, clumsy as it may be, about the title or things that a passage names."""
    frame = rng.choice([frame.strip() for frame in QUESTIONS.split("|") if "{" in frame])
    things = [phrase(text, rng) for _ in range(frame.count("{}"))]
    if rng.random() < 0.4:
        things[rng.randrange(len(things))] = title
    return frame.format(*things)


def phrase(text: str, rng: random.Random) -> str:
    """One to four words in a row that neither begin nor end with a short one."""
    words = [word.strip(".,;:()[]\"'?!") for word in text.split()]
    long = [i for i, word in enumerate(words) if len(word) > 3 and word.lower() not in _FUNCTION]
    if not long:
        return text
    first = rng.choice(long)
    last = rng.choice([i for i in long if first <= i < first + 4])
    return " ".join(words[first : last + 1]).lower()
