"""Knows the three training stages of the student (static, joint, contextual), each resumable and seeded.

It must not know where texts come from or how a checkpoint is written.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

import losses
import numpy as np
import student as network
import teacher
import tokenizer as vocabulary
import torch
import units
from batches import Sampler
from scipy import sparse
from sources import CACHE
from student import Projection, Student
from torch import Tensor
from torch.nn import functional

WIDEN = 16.0
STATIC, JOINT = CACHE / "static.pt", CACHE / "v1.pt"


class Material:
    """Texts, documents, projected teacher targets and the sampler over them."""

    def __init__(self, *, seed: int = 0) -> None:
        self.texts, documents, order = units.load()
        self.tokenizer = vocabulary.load()
        self.sampler = Sampler(self.texts, documents, self.tokenizer, seed=seed)
        rows = teacher.cached()
        self.taught = order[: len(rows)]
        self.projection = Projection(rows.astype(np.float32), seed=0)
        self.targets = functional.pad(torch.from_numpy(self.projection(rows)), (0, 1))

    def counts(self) -> np.ndarray:
        """How often each vocabulary entry occurs in a sample of the corpus (plus one)."""
        sample = self.texts[: len(self.texts) : 6]
        ids = [i for encoding in self.tokenizer.encode_batch_fast(sample) for i in encoding.ids]
        return 1.0 + np.bincount(ids, minlength=vocabulary.VOCABULARY)

    def bags(self) -> tuple[sparse.csr_matrix, np.ndarray]:
        """Taught texts as rows of token shares, as written and re-cased, beside their targets."""
        rows: list[int] = []
        columns: list[int] = []
        values: list[float] = []
        at = 0
        for form in (str, str.lower, lambda text: " " + text.lower()):
            for ids in self.tokenizer.encode_batch_fast([form(self.texts[number]) for number in self.taught]):
                rows += [at] * len(ids)
                columns += ids.ids
                values += [1 / len(ids)] * len(ids)
                at += 1
        shape = (at, vocabulary.VOCABULARY)
        matrix = sparse.csr_matrix((values, (rows, columns)), shape, dtype=np.float32)
        return matrix, np.tile(self.targets[:, :-1].numpy(), (3, 1))

    def lesson(self, count: int, *, longest: int) -> tuple[Tensor, Tensor, Tensor]:
        """Random taught texts, re-cased: ids, mask and targets."""
        rows = self.sampler.rng.sample(range(len(self.taught)), count)
        texts = [self.sampler.casing(self.texts[self.taught[row]]) for row in rows]
        ids, mask = self.sampler.pad(texts, longest=longest)
        return ids, mask, self.targets[rows]


def schedule(optimiser: torch.optim.Optimizer, spent: float, *, warmup: float = 0.05) -> None:
    """Linear warm-up, then cosine to a twentieth; `spent` is the share of the stage that is over."""
    factor = spent / warmup if spent < warmup else 0.05 + 0.95 * (1 + math.cos(math.pi * min(1.0, spent))) / 2
    for group in optimiser.param_groups:
        group["lr"] = group["base"] * factor


def steps(count: int, minutes: float) -> Iterator[tuple[int, float]]:
    """Step numbers with the share of the stage that is over; ends by count or by the clock, whichever is first."""
    begun = time.monotonic()
    for step in range(count):
        spent = max(step / count, (time.monotonic() - begun) / (60 * minutes))
        if spent >= 1:
            return
        yield step, spent


def optimise(
    optimiser: torch.optim.Optimizer, loss: Callable[[float], dict[str, Tensor]], count: int, minutes: float, name: str
) -> None:
    """Runs one stage; prints a running mean of each part of the loss."""
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    sums: dict[str, float] = {}
    begun = time.monotonic()
    for step, spent in steps(count, minutes):
        schedule(optimiser, spent)
        parts = loss(spent)
        optimiser.zero_grad(set_to_none=True)
        torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        for key, value in parts.items():
            sums[key] = 0.95 * sums.get(key, value.item()) + 0.05 * value.item()
        if step % 20 == 0:
            shown = " ".join(f"{key} {value:.4f}" for key, value in sums.items())
            print(f"{name} {step} ({time.monotonic() - begun:.0f} s): {shown}", flush=True)


def _pooled_pairs(
    forward: Callable[[Tensor, Tensor], Tensor], sampler: Sampler, count: int, longest: int
) -> list[Tensor]:
    pairs = sampler.pairs(count)
    queries = forward(*sampler.pad([a for a, _ in pairs], longest=32))
    passages = forward(*sampler.pad([b for _, b in pairs], longest=longest))
    return [queries, passages]


def static(material: Material, *, count: int = 100_000, minutes: float = 14) -> Student:
    """Embedding table and final norm alone, blocks idle: distillation and contrast of a bag of tokens."""
    student = network.initialise(material.tokenizer, material.projection, material.counts(), *material.bags())
    table, norm = student.backbone.embed_tokens.weight, student.backbone.norm.weight
    optimiser = torch.optim.Adam(
        [{"params": [table], "base": 3e-3}, {"params": [norm], "base": 1e-3}], betas=(0.9, 0.98)
    )

    def loss(spent: float) -> dict[str, Tensor]:
        ids, mask, target = material.lesson(384, longest=32)
        taught = student.static(ids, mask)
        queries, passages = _pooled_pairs(student.static, material.sampler, 768, 64)
        return {
            "distil": 2 * losses.distil(taught, target),
            "relations": 20 * losses.relations(taught, target),
            "contrast": 1.5 * losses.contrast(queries, passages),
            "scale": losses.scale(torch.cat([queries, passages])),
        }

    optimise(optimiser, loss, count, minutes, "static")
    torch.save(student.state_dict(), STATIC)
    return student


def joint(
    material: Material, student: Student, *, count: int = 100_000, minutes: float = 20, batch: int = 96
) -> Student:
    """The whole network: masked denoising fades out while distillation and contrast go on."""
    table = student.backbone.embed_tokens.weight
    with torch.no_grad():
        table.mul_(WIDEN)  # the norms make this a change of nothing but of how gently the blocks set in
    blocks = [p for name, p in student.named_parameters() if "layers." in name]
    optimiser = torch.optim.AdamW(
        [
            {"params": blocks, "base": 1e-3, "weight_decay": 0.01},
            {"params": [student.backbone.norm.weight], "base": 1e-3, "weight_decay": 0.0},
            {"params": [table], "base": 6e-3, "weight_decay": 0.0},
        ],
        betas=(0.9, 0.98),
    )

    def loss(spent: float) -> dict[str, Tensor]:
        ids, mask, target = material.lesson(batch, longest=32)
        parts = {}
        if spent < 0.15:
            parts["denoise"] = 0.1 * denoise(student, ids, mask, material.sampler)
        taught = student(ids, mask)
        queries, passages = _pooled_pairs(student, material.sampler, batch, 44)
        parts["distil"] = 2 * losses.distil(taught, target)
        parts["relations"] = 20 * losses.relations(taught, target)
        parts["contrast"] = 1.0 * losses.contrast(queries, passages)
        parts["scale"] = losses.scale(torch.cat([queries, passages]))
        return parts

    optimise(optimiser, loss, count, minutes, "joint")
    torch.save(student.state_dict(), JOINT)
    return student


def denoise(student: Student, ids: Tensor, mask: Tensor, sampler: Sampler) -> Tensor:
    """Cross-entropy of masked tokens, read off the tied embedding table; a fifth of the tokens is masked."""
    hidden_away = (torch.rand(ids.shape) < 0.2) & mask.bool()
    if not hidden_away.any():
        return ids.new_zeros((), dtype=torch.float32)
    states = student.hidden(ids.masked_fill(hidden_away, sampler.mask), mask)[hidden_away]
    table = functional.normalize(student.backbone.embed_tokens.weight, dim=-1)
    logits = 12 * functional.normalize(states, dim=-1) @ table.T
    return functional.cross_entropy(logits, ids[hidden_away])


def load(path: object) -> Student:
    """The student saved by a stage."""
    student = Student()
    student.load_state_dict(torch.load(str(path), weights_only=True))
    return student
