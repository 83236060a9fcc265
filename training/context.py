"""Knows how the contextual branch is trained: chunks of a document in one pass, targets that need the document.

It must not know the earlier stages beyond the student they leave behind, which stays frozen as the anchor.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

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


class Shape(NamedTuple):
    """Of a batch of documents: how many, chunks of each, words of a chunk at most, tokens that it has room for."""

    documents: int
    chunks: int
    words: int
    room: int


SHAPES = {"long": Shape(48, 8, 56, 96), "short": Shape(96, 3, 20, 40)}
STAND_INS = ("it", "It", "this", "they", "its", "These")
_EDGES = re.compile(r"^\W+|\W+$")

Words = npt.NDArray[np.int32]


@dataclass
class Drawn:
    """Several documents, each of one or more articles; lists of one entry a chunk."""

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

    def draw(self, shape: Shape) -> Drawn:
        """Documents of one shape."""
        drawn = Drawn()
        for _ in range(shape.documents):
            room = shape.chunks
            while room:
                room -= self._article(drawn, room, shape)
        return drawn

    def _article(self, drawn: Drawn, room: int, shape: Shape) -> int:
        rng = self.rng
        begin, end, title, stopped, colon = (int(n) for n in self.long[rng.integers(len(self.long))])
        subject = set(self.cores[self.text(title)].tolist()) - {-1}
        hide = rng.random() < 0.75
        size = int(rng.integers(1, 3))  # chunks of the corpus to one of these
        wanted = min(room, shape.chunks if rng.random() < 0.5 else int(rng.integers(2, shape.chunks)))
        start = begin + int(rng.integers(max(1, end - begin - size * wanted + 1)))
        positions = range(start, min(start + size * wanted, end), size)
        for position in positions:
            text = np.concatenate([self.text(n) for n in range(position, min(position + size, end))])[: shape.words]
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


def contextual(material: train.Material, anchor: Student, *, minutes: float) -> Student:
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

    def documents(name: str, shape: Shape) -> train.Batch:
        drawn = writer.draw(shape)
        chunks = Texts.of(drawn.chunks)
        forms = np.repeat(sampler.forms(shape.documents), shape.chunks)
        return (
            material.read(chunks, width=shape.room, chosen=cases(chunks, forms)).named(f"{name} chunks")
            | material.padded(Texts.of(drawn.told), width=shape.room).named(f"{name} told")
            | material.padded(Texts.of(drawn.queries), width=48).named(f"{name} queries")
            | material.padded(sampler.texts(drawn.titles), width=16).named(f"{name} titles")
            | {f"{name} later": torch.tensor(drawn.later, dtype=torch.float32)}
        )

    def draw() -> train.Batch:
        few = sampler.told(sampler.draw(128, groups=1), most=train.MOST_OF_PASSAGE)
        batch = material.padded(sampler.lesson(256), width=train.WIDTHS["lesson"]).named("texts")
        batch |= material.padded(few, width=train.WIDTHS["passages"]).named("passages")
        for name, shape in SHAPES.items():
            batch |= documents(name, shape)
        return batch

    def finds(drawn: train.Batch, name: str, shape: Shape) -> dict[str, Tensor]:
        with torch.no_grad():
            own, asked, subjects = (known(Padded.of(drawn, f"{name} {kind}")) for kind in ("told", "queries", "titles"))
        subject = drawn[f"{name} later"][:, None] * functional.normalize(subjects, dim=-1)
        target = functional.normalize(own, dim=-1) + SUBJECT * subject
        with torch.autocast(material.device.type, torch.bfloat16):
            chunks = Padded.of(drawn, f"{name} chunks")
            found = pooled(student, chunks, together=shape.chunks, separator=material.separator)
        certain = losses.labels(torch.eye(len(found), device=found.device), certain=1.0)
        return {
            f"{name} target": 2 * losses.distil(found, target),
            f"{name} find": losses.ranking(asked, found, certain),
            f"{name} scale": losses.scale(found),
        }

    def loss(drawn: train.Batch) -> dict[str, Tensor]:
        alone = [Padded.of(drawn, name) for name in ("texts", "passages")]
        with torch.no_grad():
            wanted = torch.cat([known(texts) for texts in alone])
        parts = {"alone": 10 * losses.distil(torch.cat([trained(texts) for texts in alone]), wanted)}
        for name, shape in SHAPES.items():
            parts |= finds(drawn, name, shape)
        return parts

    return train.optimise(student, optimiser, draw, loss, minutes=minutes, path=CONTEXT)


def load() -> Student:
    """The branch that the stage left."""
    return train.load(CONTEXT, LAYERS + 1)
