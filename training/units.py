"""Knows the corpus as numbered words and texts: chunks, passages of chunks, and short texts that ask for them.

It must not know tokens, what a teacher or a student makes of a text, or how batches are drawn.
"""

from __future__ import annotations

import random
import re
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import corpus
import numpy as np
import numpy.typing as npt
from sources import CACHE

UNITS = CACHE / "units.npz"
Numbers = npt.NDArray[np.int32]

#: So many of the most widespread words are also read by themselves, so that their pieces learn to add up.
LEXICON = 20_000
#: Short entries of dictionaries: their titles say all that a heading or a crop could.
DICTIONARIES = ("wordnet-base", "dict-gcide")
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
_FRAMES = [frame.strip() for frame in QUESTIONS.split("|") if "{" in frame]
#: One document in so many is never trained on; what is measured while developing is measured on these.
HELD_OUT = 40
_FUNCTION = set(
    "that this with from which have been were will what when then than them they their there these those such some "
    "also only other into your does where would should could about after before being between both each more most "
    "must very just because while until while using used same here over under within without however".split()
)
MOST_CHUNKS = 4  # of one passage
LONG = 3  # chunks from which a document has a context to speak of


@dataclass(frozen=True)
class Units:
    """Everything by number.  Chunks of one document are neighbours among the texts, in reading order.

    Attributes:
        words: Every distinct word, as it stands between two spaces.
        flat: The words of all texts by number, one text behind the other.
        starts: Where in `flat` each text begins; one entry more than there are texts.
        passages: First chunk, the chunk after the last, and the document of each passage, `[n, 3]`.
        queries: Texts that ask for a passage, those of one passage behind those of another.
        asking: Where in `queries` each passage's begin; one entry more than there are passages.
        documents: First chunk, the chunk after the last, title, and the title with a full stop and with a colon behind
            it (-1 where a document is shorter than `LONG`), `[n, 5]`.
        headings: Each text's heading, -1 where it has none.
        held: Whether a document is held out.
        lexicon: Widespread words, the most widespread first.
    """

    words: list[str]
    flat: Numbers
    starts: Numbers
    passages: Numbers
    queries: Numbers
    asking: Numbers
    documents: Numbers
    headings: Numbers
    held: npt.NDArray[np.bool_]
    lexicon: Numbers


class _Writer:
    """Numbers words and texts as they come."""

    def __init__(self) -> None:
        self.words: dict[str, int] = {}
        self.flat: list[int] = []
        self.starts, self.headings, self.known = [0], list[int](), dict[str, int]()

    def add(self, text: str, heading: int = -1) -> int:
        self.flat += [self.words.setdefault(word, len(self.words)) for word in text.split()]
        self.starts.append(len(self.flat))
        self.headings.append(heading)
        return len(self.starts) - 2

    def once(self, text: str) -> int:
        """The number of a short text, which is kept once."""
        if text not in self.known:
            self.known[text] = self.add(text)
        return self.known[text]


def build(*, seed: int = 0) -> None:
    """Reads the corpus into `UNITS`; the same seed gives the same passages and questions."""
    rng, writer, spread = random.Random(seed), _Writer(), Counter[str]()
    passages, queries, asking, documents, held = [], list[int](), [0], [], []
    for document in corpus.load():
        chunks = [chunk for chunk in document.chunks if chunk.strip()]
        if not chunks or len(chunks) < len(document.chunks) or not document.title.strip():
            continue
        spread.update(set(re.findall(r"[a-z]{3,}", " ".join(chunks).lower())))
        title = writer.once(document.title)
        headings = [writer.once(heading) if heading.strip() else -1 for heading in document.headings]
        asked = []  # before the chunks, which are neighbours
        start = 0
        while start < len(chunks):
            stop = min(start + rng.randint(1, MOST_CHUNKS), len(chunks))
            texts, passage = [document.title], " ".join(chunks[start:stop])
            if headings[start] >= 0:
                texts.append(f"{document.title} {document.headings[start]}")
            if document.source not in DICTIONARIES or rng.random() < 0.3:
                texts.append(question(document.title, passage, rng))
            asked.append((start, stop, [writer.once(text) for text in texts]))
            start = stop
        first = len(writer.headings)
        for chunk, heading in zip(chunks, headings, strict=True):
            writer.add(chunk, heading)
        for start, stop, numbers in asked:
            passages.append((first + start, first + stop, len(documents)))
            queries += numbers
            asking.append(len(queries))
        ended = [writer.once(document.title + sign) if len(chunks) >= LONG else -1 for sign in ".:"]
        documents.append((first, first + len(chunks), title, *ended))
        held.append(zlib.crc32(document.title.lower().encode()) // 1000 % HELD_OUT == 0)
    lexicon = [word for word, _ in sorted(spread.items(), key=lambda item: (-item[1], item[0]))[:LEXICON]]
    numbered = [writer.words.setdefault(word, len(writer.words)) for word in lexicon]
    tables = {
        "flat": writer.flat, "starts": writer.starts, "passages": passages, "queries": queries, "asking": asking,
        "documents": documents, "headings": writer.headings, "lexicon": numbered,
    }  # fmt: skip
    arrays = {name: np.asarray(table, dtype=np.int32) for name, table in tables.items()}
    # The most frequent word gets the smallest number: so the file is smaller.
    order = np.argsort(-np.bincount(arrays["flat"], minlength=len(writer.words)), kind="stable")
    ranks = np.empty(len(order), dtype=np.int32)
    ranks[order] = np.arange(len(order))
    arrays["flat"], arrays["lexicon"] = ranks[arrays["flat"]], ranks[arrays["lexicon"]]
    said = list(writer.words)
    words = np.frombuffer("\n".join(said[number] for number in order).encode(), dtype=np.uint8)
    with UNITS.open("wb") as out:
        np.savez_compressed(out, allow_pickle=False, words=words, held=np.asarray(held), **arrays)
    print(len(writer.words), "words,", {name: len(array) for name, array in arrays.items()}, flush=True)


def load() -> Units:
    """What `build` left."""
    with np.load(UNITS) as stored:
        arrays = dict(stored)
    words = arrays.pop("words").tobytes().decode().split("\n")
    return Units(words=words, **arrays)


def question(title: str, text: str, rng: random.Random) -> str:
    """A question, clumsy as it may be, about the title or things that a passage names."""
    frame = rng.choice(_FRAMES)
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


def spans(starts: npt.ArrayLike, lengths: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Every position of several ranges, one range behind the other."""
    first, sizes = np.asarray(starts, dtype=np.int64), np.asarray(lengths, dtype=np.int64)
    ends = np.cumsum(sizes)
    return np.arange(ends[-1]) + np.repeat(first - ends + sizes, sizes)


@dataclass(frozen=True)
class Texts:
    """Texts of a batch: the numbers of their words, one text behind the other, and how many words each has."""

    words: Numbers
    lengths: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.lengths)

    @classmethod
    def of(cls, texts: Sequence[npt.ArrayLike]) -> Texts:
        """From one array of words a text."""
        return cls(np.concatenate(list(texts)).astype(np.int32), np.array([len(np.atleast_1d(text)) for text in texts]))

    def begun(self, most: int) -> Texts:
        """The first words of each."""
        lengths = np.minimum(self.lengths, most)
        return Texts(self.words[spans(np.cumsum(self.lengths) - self.lengths, lengths)], lengths)

    def __add__(self, other: Texts) -> Texts:
        return Texts(np.concatenate([self.words, other.words]), np.concatenate([self.lengths, other.lengths]))
