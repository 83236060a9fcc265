"""Knows how the contextual branch is trained: chunks of a document in one pass, targets that need the document.

It must not know the earlier stages beyond the student they leave behind, which stays frozen as the anchor.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import losses
import numpy as np
import torch
import train
from sources import CACHE
from student import LAYERS, SINK, WIDTH, Student
from torch import Tensor
from torch.nn import functional
from units import Unit

CONTEXT = CACHE / "context.pt"
SUBJECT = 0.6  # how much of its article's subject a later chunk's target holds, beside its own meaning
NEAR = 13  # this coordinate of a head turns by 0.0037 radians from one token to the next
FOCUS = 1.0  # at first a token's weight is exp(FOCUS * cosine of what the rotary embedding turns it by)
SHARE = 2.0  # what the layer adds at first, in the residual stream's units
STAND_INS = ("it", "It", "this", "they", "the former")
_WORD = re.compile(r"[A-Za-z][A-Za-z-]{3,}")


@dataclass
class Drawn:
    """A document as drawn, one or two articles long; lists of one entry a chunk, but for `titles`."""

    titles: list[str] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)  # the article by its place in `titles`
    later: list[bool] = field(default_factory=list)
    chunks: list[str] = field(default_factory=list)  # as the student reads them
    told: list[str] = field(default_factory=list)  # as they were written
    queries: list[str] = field(default_factory=list)


def draw(texts: list[str], units: list[Unit], rng: np.random.Generator, *, most: int) -> Drawn:
    """Articles one behind the other, each with its subject in its first chunk.

    Later chunks mostly lose the subject's words, as pronouns would have it.  Where there are two articles, what "it"
    means depends on which of them began last: nothing but the order tells.
    """
    drawn = Drawn()
    for unit in units:
        title = texts[unit.title]
        subject = {word.lower() for word in _WORD.findall(title)}
        hide = rng.random() < 0.75
        size = int(rng.integers(1, 4))  # passages to a chunk
        room = size * int(rng.integers(3, most + 1))
        start = int(rng.integers(max(1, len(unit.chunks) - room + 1)))
        for position in range(start, min(start + room, len(unit.chunks)), size):
            text = " ".join(texts[number] for number in unit.chunks[position : position + size])
            heading = unit.headings[position]
            words = [word for word in _WORD.findall(text) if word.lower() not in subject]
            aspect = texts[heading] if heading >= 0 and rng.random() < 0.4 else " ".join(_some(words, rng))
            first = position == start
            told = f"{title}. {text}" if first else text
            drawn.told.append(told)
            drawn.chunks.append(told if first or not hide else _without(text, subject, rng))
            drawn.owners.append(len(drawn.titles))
            drawn.later.append(not first)
            drawn.queries.append(f"{title} {aspect}" if rng.random() < 0.7 else f"{aspect} {title}".lower())
        drawn.titles.append(title)
    return drawn


def _without(text: str, subject: set[str], rng: np.random.Generator) -> str:
    stand_in = STAND_INS[int(rng.integers(len(STAND_INS)))]
    return " ".join(stand_in if word.strip(".,;:()'\"").lower() in subject else word for word in text.split())


def _some(words: list[str], rng: np.random.Generator) -> list[str]:
    start = int(rng.integers(max(1, len(words) - 4)))
    return words[start : start + int(rng.integers(2, 6))]


def blank() -> Student:
    """A student of the branch's shape: one layer more, and as many value dimensions as the network is wide."""
    heads = WIDTH // 64
    return Student(LAYERS + 1, heads, heads)


@torch.no_grad()
def deepened(anchor: Student) -> Student:
    """The anchor with one more layer, which begins as a mean over the document where near tokens count for more.

    So a document of one chunk keeps its direction.  The sink dimension, large in every token, serves as the bias by
    which queries and keys depend on nothing but their place.  Training goes on from there.
    """
    student = blank()
    state = student.state_dict()
    for name, old in anchor.state_dict().items():
        if name.endswith(("k_proj.weight", "v_proj.weight")):  # each key and value once for each of its two queries
            old = old.view(-1, 1, 64, WIDTH).expand(-1, 2, -1, -1).reshape(-1, WIDTH)
        new = state[name].zero_() if old.shape != state[name].shape else state[name]
        new[tuple(slice(size) for size in old.shape)] = old
    attention = student.backbone.layers[-1].self_attn
    student.backbone.layers[-1].mlp.down_proj.weight.zero_()
    attention.v_proj.weight.copy_(torch.eye(WIDTH))
    attention.v_proj.weight[SINK] = 0  # nothing is made of it, and it would drown the rest where values are rounded
    attention.o_proj.weight.copy_(SHARE * torch.eye(WIDTH))
    attention.o_proj.weight[SINK] = 0
    for projection, norm in ((attention.q_proj, attention.q_norm), (attention.k_proj, attention.k_norm)):
        projection.weight[NEAR::64, SINK] = 1
        norm.weight.fill_((FOCUS / 8) ** 0.5)
    return student


def contextual(material: train.Material, anchor: Student, *, minutes: float, documents: int = 16) -> Student:
    """Trains the added layer until v1's queries find chunks by what their document adds; the rest stays v1's."""
    anchor = anchor.eval().requires_grad_(False)
    student = deepened(anchor).requires_grad_(False)
    added = list(student.backbone.layers[-1].requires_grad_(True).parameters())
    texts, sampler = material.units.texts, material.sampler
    rng, separator = sampler.rng, sampler.separator
    long = [unit for unit in material.units.documents if len(unit.chunks) >= 3]
    optimiser = torch.optim.AdamW([{"params": added, "base": 1e-3}], betas=(0.9, 0.98), weight_decay=0.0, fused=True)

    ids = sampler.encode

    def loss(spent: float) -> dict[str, Tensor]:
        drawn = []
        for _ in range(documents):
            chosen = rng.integers(len(long), size=1 + int(rng.random() < 0.5))
            most = 8 if len(chosen) == 1 else 5
            drawn.append(draw(texts, [long[int(one)] for one in chosen], rng, most=most))
        flat = [chunk for one in drawn for chunk in one.told]
        queries = [query for one in drawn for query in one.queries]
        titles = [title for one in drawn for title in one.titles]
        single, _ = sampler.lesson(32, longest=96)
        single += ids(queries[:16], 32)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            known = anchor([*ids(flat, 128), *ids(queries, 32), *ids(titles, 24), *single])
        own, asked, subjects, alone = known.split([len(flat), len(queries), len(titles), len(single)])
        starts = np.cumsum([0, *(len(one.titles) for one in drawn)])
        owner = torch.tensor([int(at) + i for at, one in zip(starts, drawn, strict=False) for i in one.owners])
        later = torch.tensor([float(flag) for one in drawn for flag in one.later])
        subject = functional.normalize(subjects, dim=-1)[owner]
        target = functional.normalize(own, dim=-1) + SUBJECT * later[:, None] * subject
        cut, at = ids([chunk for one in drawn for chunk in one.chunks], 128), 0
        parts = []
        for one in drawn:
            parts.append(cut[at : at + len(one.chunks)])
            at += len(one.chunks)
        with torch.autocast("cpu", torch.bfloat16):
            pooled = torch.cat(student.chunks(parts, separator))
            again = student(single)
        return {
            "target": 2 * losses.distil(pooled, target),
            "find": losses.ranking(asked, pooled, losses.labels(torch.eye(len(pooled)), certain=1.0)),
            "single": 10 * losses.distil(again, alone),
        }

    return train.optimise(student, optimiser, loss, minutes=minutes, path=CONTEXT)


def load() -> Student:
    """The branch that the stage left."""
    student = blank()
    student.load_state_dict(torch.load(CONTEXT, weights_only=True))
    return student
