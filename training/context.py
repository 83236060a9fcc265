"""Knows how the contextual branch is trained: chunks of a document in one pass, targets that need the document.

It must not know the earlier stages beyond the student they leave behind, which stays frozen as the anchor.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import losses
import numpy as np
import numpy.typing as npt
import torch
import train
from batches import Padded, cases
from sources import CACHE
from student import LAYERS, Student
from torch import Tensor
from torch.nn import functional
from units import LONG, Texts, Units

CONTEXT = CACHE / "context.pt"
SUBJECT = 0.8  # how much of its article's subject a later chunk's target holds, beside its own meaning
CHUNKS = 8  # of a document
MOST_WORDS, ROOM = 56, 96  # of a chunk; tokens of it at most
STAND_INS = ("it", "It", "this", "they", "its", "These")
_EDGES = re.compile(r"^\W+|\W+$")

Words = npt.NDArray[np.int32]


@dataclass
class Drawn:
    """Several documents of `CHUNKS` chunks each, by one or more articles; lists of one entry a chunk."""

    titles: list[int] = field(default_factory=list)  # texts
    later: list[bool] = field(default_factory=list)
    chunks: list[Words] = field(default_factory=list)  # as the student reads them
    told: list[Words] = field(default_factory=list)  # as they were written
    queries: list[Words] = field(default_factory=list)


class Writer:
    """Puts documents together whose later chunks need the earlier ones.

    Each article names its subject in its first chunk.  Later chunks mostly lose the subject's words, as pronouns would
    have it.  Where there are several articles, what "it" means depends on which of them began last: nothing but the
    order tells.
    """

    def __init__(self, units: Units, rng: np.random.Generator) -> None:
        self.units, self.rng = units, rng
        sizes = units.documents[:, 1] - units.documents[:, 0]
        self.long = units.documents[(sizes >= LONG) & ~units.held]
        numbers: dict[str, int] = {}
        cores = (_EDGES.sub("", word).lower()[:6] for word in units.words)  # six letters stand for a word's forms
        self.cores = np.array([numbers.setdefault(c, len(numbers)) if len(c) > 3 else -1 for c in cores])
        known = {word: number for number, word in enumerate(units.words)}
        self.stand_ins = np.array([known[word] for word in STAND_INS if word in known], dtype=np.int32)

    def text(self, number: int) -> Words:
        """The words of a text."""
        return self.units.flat[self.units.starts[number] : self.units.starts[number + 1]]

    def draw(self, documents: int) -> Drawn:
        """So many documents."""
        drawn = Drawn()
        for _ in range(documents):
            room = CHUNKS
            while room:
                room -= self._article(drawn, room)
        return drawn

    def _article(self, drawn: Drawn, room: int) -> int:
        rng = self.rng
        begin, end, title, stopped, colon = (int(n) for n in self.long[rng.integers(len(self.long))])
        subject = set(self.cores[self.text(title)].tolist()) - {-1}
        hide = rng.random() < 0.75
        size = int(rng.integers(1, 3))  # chunks of the corpus to one of these
        wanted = min(room, CHUNKS if rng.random() < 0.5 else int(rng.integers(2, CHUNKS)))
        start = begin + int(rng.integers(max(1, end - begin - size * wanted + 1)))
        positions = range(start, min(start + size * wanted, end), size)
        for position in positions:
            text = np.concatenate([self.text(n) for n in range(position, min(position + size, end))])[:MOST_WORDS]
            named = np.isin(self.cores[text], list(subject))
            own = text[(self.cores[text] >= 0) & ~named]
            heading = int(self.units.headings[position])
            aspect = self.text(heading) if heading >= 0 and rng.random() < 0.4 else self._some(own)
            first = position == start
            told = np.concatenate([self.text(stopped), text]) if first else text
            drawn.told.append(told)
            drawn.chunks.append(np.where(named, rng.choice(self.stand_ins), text) if hide and not first else told)
            draw = rng.random()
            parts = (self.text(colon), aspect) if draw < 0.4 else (self.text(title), aspect)
            drawn.queries.append(np.concatenate(parts if draw < 0.7 else parts[::-1])[:24])
            drawn.titles.append(title)
            drawn.later.append(not first)
        return len(positions)

    def _some(self, words: Words) -> Words:
        if self.rng.random() < 0.5 and len(words):
            return self.rng.choice(words, size=min(len(words), int(self.rng.integers(2, 5))), replace=False)
        start = int(self.rng.integers(max(1, len(words) - 4)))
        return words[start : start + int(self.rng.integers(2, 6))]


@torch.no_grad()
def deepened(anchor: Student) -> Student:
    """The anchor with one more layer, idle at first: a document begins as its chunks, each in plain surroundings."""
    student = Student(LAYERS + 1)
    student.load_state_dict(anchor.state_dict(), strict=False)
    return student


def pooled(student: Student, chunks: Padded, *, together: int, separator: int) -> Tensor:
    """Documents of `together` chunks, each in one pass with separators between them; a chunk is pooled by itself."""
    room = chunks.ids.shape[1]
    sizes = chunks.mask.sum(1).view(-1, together)
    documents = len(sizes)
    starts = (sizes + 1).cumsum(1) - sizes - 1  # a separator stands behind each chunk; a document's last is not read
    width = -(-together * (room + 1) // 8) * 8
    places = starts[..., None] + torch.arange(room, device=sizes.device)
    real = chunks.mask.view(documents, together, room)
    places = places.where(real, width).flatten(1)  # what is no token goes behind the document
    joined = torch.full((documents, width + 1), separator, dtype=chunks.ids.dtype, device=sizes.device)
    joined.scatter_(1, places, chunks.ids.view(documents, -1))
    seen = torch.arange(width, device=sizes.device) < (starts[:, -1:] + sizes[:, -1:])
    states = student.states(Padded(joined[:, :width], seen)).float()
    sums = functional.pad(states.cumsum(1), (0, 0, 1, 0))
    rows = torch.arange(documents, device=sizes.device)[:, None]
    return ((sums[rows, starts + sizes] - sums[rows, starts]) / sizes[..., None]).flatten(0, 1)


def contextual(material: train.Material, anchor: Student, *, minutes: float, documents: int = 48) -> Student:
    """Trains the branch until v1's queries find chunks by what their document adds; v1 stays as it is."""
    anchor = anchor.eval().requires_grad_(False)
    student = deepened(anchor).to(material.device)
    writer, sampler = Writer(material.units, material.sampler.rng), material.sampler
    added = [p for name, p in student.named_parameters() if f"layers.{LAYERS}." in name]
    kept = [p for name, p in student.named_parameters() if "layers." in name and f"layers.{LAYERS}." not in name]
    optimiser = torch.optim.AdamW(
        [
            {"params": added, "base": 2e-3},
            {"params": kept, "base": 5e-4},
            {"params": [student.backbone.embed_tokens.weight], "base": 1e-3},
        ],
        betas=(0.9, 0.98),
        weight_decay=0.0,
        fused=True,
    )
    known, trained = train.halved(anchor), train.halved(student)

    def draw() -> train.Batch:
        drawn = writer.draw(documents)
        chunks = Texts.of(drawn.chunks)
        forms = np.repeat(sampler.forms(documents), CHUNKS)
        few = sampler.told(sampler.draw(128, groups=1), most=train.MOST_OF_PASSAGE)
        return (
            material.read(chunks, width=ROOM, chosen=cases(chunks, forms)).named("chunks")
            | material.padded(Texts.of(drawn.told), width=ROOM).named("told")
            | material.padded(Texts.of(drawn.queries), width=48).named("queries")
            | material.padded(sampler.texts(drawn.titles), width=16).named("titles")
            | material.padded(sampler.lesson(256), width=train.WIDTHS["lesson"]).named("short")
            | material.padded(few, width=train.WIDTHS["passages"]).named("long")
            | {"later": torch.tensor(drawn.later, dtype=torch.float32)}
        )

    def loss(drawn: train.Batch) -> dict[str, Tensor]:
        read = {name: Padded.of(drawn, name) for name in ("chunks", "told", "queries", "titles", "short", "long")}
        with torch.no_grad():
            own, asked, subjects, short, long = (known(texts) for name, texts in read.items() if name != "chunks")
        subject = drawn["later"][:, None] * functional.normalize(subjects, dim=-1)
        target = functional.normalize(own, dim=-1) + SUBJECT * subject
        with torch.autocast(material.device.type, torch.bfloat16):
            found = pooled(student, read["chunks"], together=CHUNKS, separator=material.separator)
        alone = torch.cat([trained(read["short"]), trained(read["long"])])
        certain = losses.labels(torch.eye(len(found), device=found.device), certain=1.0)
        return {
            "target": 2 * losses.distil(found, target),
            "find": losses.ranking(asked, found, certain),
            "alone": 10 * losses.distil(alone, torch.cat([short, long])),
            "scale": losses.scale(found),
        }

    return train.optimise(student, optimiser, draw, loss, minutes=minutes, path=CONTEXT)


def load() -> Student:
    """The branch that the stage left."""
    return train.load(CONTEXT, LAYERS + 1)
