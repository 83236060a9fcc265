"""Knows how the contextual branch is trained: chunks of one document in one pass, targets that need the document.

It must not know the earlier stages beyond the student they leave behind, which stays frozen as the anchor.
"""

from __future__ import annotations

import copy
import random
import re
from dataclasses import dataclass

import losses
import torch
import train
from batches import pad_ids
from sources import CACHE
from student import Student
from torch import Tensor
from torch.nn import functional
from units import Unit

CONTEXT = CACHE / "context.pt"
SUBJECT = 0.6  # how much of the document's subject a later chunk's target holds, beside its own meaning
_WORD = re.compile(r"[A-Za-z][A-Za-z-]{3,}")


@dataclass
class Drawn:
    """A document as drawn: chunks as the student reads them, what they say alone, and a query for each."""

    title: str
    chunks: list[str]
    queries: list[str]


def draw(texts: list[str], unit: Unit, rng: random.Random, *, most: int = 5) -> Drawn:
    """The subject stands in the first chunk; later chunks mostly lose its words, as pronouns would have it."""
    title = texts[unit.title]
    start = rng.randrange(max(1, len(unit.chunks) - most + 1))
    numbers = range(start, min(start + rng.randint(3, most), len(unit.chunks)))
    subject = {word.lower() for word in _WORD.findall(title)}
    chunks, queries = [], []
    hide = rng.random() < 0.7
    for position, number in enumerate(numbers):
        text = " ".join(texts[unit.chunks[number]].split()[:32])
        words = [word for word in _WORD.findall(text) if word.lower() not in subject]
        heading = unit.headings[number]
        aspect = texts[heading] if heading >= 0 and rng.random() < 0.4 else " ".join(_some(words, rng))
        if position == 0:
            text = f"{title}. {text}"
        elif hide:
            text = " ".join(_plain(word, subject) for word in text.split())
        chunks.append(text if position == 0 else " " + text)
        queries.append(f"{title} {aspect}" if rng.random() < 0.7 else f"{aspect} {title}".lower())
    return Drawn(title, chunks, queries)


def _plain(word: str, subject: set[str]) -> str:
    return "it" if word.strip(".,;:()'\"").lower() in subject else word


def _some(words: list[str], rng: random.Random) -> list[str]:
    start = rng.randrange(max(1, len(words) - 4))
    return words[start : start + rng.randint(2, 5)]


def embed_documents(student: Student, documents: list[list[list[int]]], separator: int) -> list[Tensor]:
    """Token ids per chunk in, one float32 [chunks, width] per document out (late chunking)."""
    joined, spans = [], []
    for chunks in documents:
        ids: list[int] = []
        places = []
        for chunk in chunks:
            if ids:
                ids.append(separator)
            places.append((len(ids), len(ids) + len(chunk)))
            ids += chunk
        joined.append(ids)
        spans.append(places)
    hidden = student.hidden(*pad_ids(joined, separator))
    return [torch.stack([row[a:b].mean(0) for a, b in places]) for row, places in zip(hidden, spans, strict=True)]


def share(anchor: Student, gamma: float = 1.5) -> Student:
    """A copy whose attention is near uniform: each layer adds the document's mean, in half of the dimensions.

    The queries' gains are so small that every token attends to all alike; the values are read off one half of the
    dimensions each (the last layer the leading half) and added `gamma` times.  A document of one chunk keeps its
    direction; a chunk of a longer one leans towards what the whole document is about.
    """
    student = copy.deepcopy(anchor)
    half = student.backbone.layers[0].self_attn.v_proj.weight.shape[0]
    with torch.no_grad():
        for layer, start in zip(student.backbone.layers, (half, 0), strict=True):
            attention, gain = layer.self_attn, layer.input_layernorm.weight
            attention.q_norm.weight.fill_(0.02)
            attention.v_proj.weight.zero_()
            attention.o_proj.weight.zero_()
            for i in range(half):
                group, place = divmod(i, attention.head_dim)
                attention.v_proj.weight[i, start + i] = 1 / gain[start + i]
                for head in (2 * group, 2 * group + 1):
                    attention.o_proj.weight[start + i, head * attention.head_dim + place] = gamma / 2
        student.backbone.layers[0].self_attn.v_proj.weight[half - 1].zero_()  # the sink is not shared
    return student


def contextual(
    material: train.Material, anchor: Student, *, count: int = 100_000, minutes: float = 0, documents: int = 20
) -> Student:
    """Starts from `share` and trains on so that v1's queries find chunks by what their document adds (or not: 0)."""
    anchor = anchor.eval().requires_grad_(False)
    student = share(anchor).requires_grad_(True)
    if minutes == 0:
        torch.save(student.state_dict(), CONTEXT)
        return student
    sampler, rng = material.sampler, material.sampler.rng
    table = student.backbone.embed_tokens.weight
    others = [p for name, p in student.named_parameters() if "embed_tokens" not in name]
    optimiser = torch.optim.AdamW(
        [{"params": others, "base": 5e-4, "weight_decay": 0.0}, {"params": [table], "base": 5e-4, "weight_decay": 0.0}],
        betas=(0.9, 0.98),
    )

    def ids(texts: list[str], longest: int = 48) -> list[list[int]]:
        return [e.ids[:longest] or [sampler.separator] for e in material.tokenizer.encode_batch(texts)]

    def loss(spent: float) -> dict[str, Tensor]:
        drawn = [draw(material.texts, rng.choice(sampler.long), rng) for _ in range(documents)]
        chunk_ids = [ids(document.chunks) for document in drawn]
        flat = [chunk for document in chunk_ids for chunk in document]
        with torch.no_grad():
            own = anchor(*pad_ids(flat, sampler.separator))
            queries = anchor(*pad_ids(ids([q for d in drawn for q in d.queries], 32), sampler.separator))
            titles = anchor(*pad_ids(ids([document.title for document in drawn], 24), sampler.separator))
            owner = torch.tensor([i for i, d in enumerate(drawn) for _ in d.chunks])
            later = torch.tensor([float(j > 0) for d in drawn for j in range(len(d.chunks))])
            subject = functional.normalize(titles, dim=-1)[owner]
            target = functional.normalize(own, dim=-1) + SUBJECT * later[:, None] * subject
        pooled = torch.cat(embed_documents(student, chunk_ids, sampler.separator))
        single = [sampler.casing(text) for text in rng.sample(material.texts, 64)]
        single += [query for document in drawn[:8] for query in document.queries]
        single_ids = pad_ids(ids(single), sampler.separator)
        with torch.no_grad():
            alone = anchor(*single_ids)
        again = student(*single_ids)
        return {
            "target": 2 * losses.distil(pooled, target),
            "contrast": 1.0 * losses.contrast(queries, pooled),
            "single": 6 * losses.distil(again, alone) + 2 * functional.mse_loss(again, alone),
        }

    train.optimise(optimiser, loss, count, minutes, "context")
    torch.save(student.state_dict(), CONTEXT)
    return student
