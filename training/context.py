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
from student import LAYERS, Student
from torch import Tensor
from torch.nn import functional
from units import Unit

CONTEXT = CACHE / "context.pt"
SUBJECT = 0.6  # how much of its article's subject a later chunk's target holds, beside its own meaning
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


def deepened(anchor: Student) -> Student:
    """The anchor with one more layer, idle at first, for what the rest of a document adds to a chunk."""
    student = Student(LAYERS + 1)
    student.load_state_dict(anchor.state_dict(), strict=False)
    added = student.backbone.layers[-1]
    with torch.no_grad():
        for linear in (added.self_attn.o_proj, added.mlp.down_proj):
            linear.weight.zero_()
        value = added.self_attn.v_proj.weight
        value.copy_(torch.eye(*value.shape))  # the first Matryoshka dimensions, which hold most
    return student


def contextual(material: train.Material, anchor: Student, *, minutes: float, documents: int = 16) -> Student:
    """Trains on from v1 until v1's queries find chunks by what their document adds; the token table stays v1's."""
    anchor = anchor.eval().requires_grad_(False)
    student = deepened(anchor)
    student.backbone.embed_tokens.requires_grad_(False)
    texts, sampler = material.units.texts, material.sampler
    rng, separator = sampler.rng, sampler.separator
    long = [unit for unit in material.units.documents if len(unit.chunks) >= 3]
    added = [p for name, p in student.named_parameters() if f"layers.{LAYERS}." in name]
    others = [p for name, p in student.named_parameters() if p.requires_grad and f"layers.{LAYERS}." not in name]
    optimiser = torch.optim.AdamW(
        [{"params": added, "base": 2e-3}, {"params": others, "base": 5e-4}],
        betas=(0.9, 0.98),
        weight_decay=0.0,
        fused=True,
    )

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
            "single": 5 * losses.distil(again, alone) + 2 * functional.mse_loss(again, alone),
            "scale": losses.scale(pooled),
        }

    return train.optimise(student, optimiser, loss, minutes=minutes, path=CONTEXT)


def load() -> Student:
    """The branch that the stage left."""
    return train.load(CONTEXT, LAYERS + 1)
