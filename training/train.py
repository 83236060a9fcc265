"""Knows the training stages of the plain student (static, then joint), each resumable and seeded.

It must not know where texts come from or how a checkpoint is written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import losses
import numpy as np
import student as network
import teacher
import tokenizer as vocabulary
import torch
import units
from batches import Ids, Sampler, pad
from scipy import sparse
from sources import CACHE
from student import Projection, Student
from torch import Tensor
from torch.nn import functional

WIDEN = 16.0
STATIC, JOINT = CACHE / "static.pt", CACHE / "v1.pt"

Forward = Callable[[Sequence[Ids]], Tensor]


class Material:
    """Texts, documents, the teacher's vectors (as read, and projected to targets) and the sampler over them."""

    def __init__(self, *, seed: int = 0) -> None:
        self.units = units.load()
        self.tokenizer = vocabulary.load()
        rows = teacher.cached()
        self.projection = Projection(rows[::4].astype(np.float32), seed=0)
        self.taught = torch.from_numpy(rows)
        self.targets = functional.pad(torch.from_numpy(self.projection(rows)), (0, 1))
        self.sampler = Sampler(self.units, len(rows), self.taught, self.tokenizer, seed=seed)

    def counts(self) -> np.ndarray:
        """How often each vocabulary entry occurs in what the teacher read (plus one)."""
        return 1.0 + np.bincount(self.sampler.shelf.flat[0], minlength=vocabulary.VOCABULARY)

    def bags(self, count: int = 60_000) -> tuple[sparse.csr_matrix, np.ndarray]:
        """Some taught texts as rows of token shares, beside their targets."""
        texts, rows = self.sampler.lesson(count, longest=32)
        columns = np.concatenate(texts).astype(np.int64)
        owners = np.repeat(np.arange(count), [len(ids) for ids in texts])
        shares = np.repeat([1 / len(ids) for ids in texts], [len(ids) for ids in texts])
        shape = (count, vocabulary.VOCABULARY)
        return sparse.csr_matrix((shares, (owners, columns)), shape, dtype=np.float32), self.targets[rows, :-1].numpy()

    def loss(self, forward: Forward, count: int, *, groups: int, longest: int) -> dict[str, Tensor]:
        """Distillation of single texts and ranking of passages for titles, headings and crops."""
        lesson, about = self.sampler.lesson(count // 2, longest=48)
        queries, crops, passages, asked, told = self.sampler.batch(count, groups=groups, longest=longest)
        pooled = forward([*lesson, *queries, *crops, *passages])
        single, a, c, p = pooled.split([len(lesson), len(queries), len(crops), len(passages)])
        known = self.taught[told].float()
        target = self.targets[torch.cat([about, asked, told])]
        direct = torch.cat([single, a, p])
        return {
            "distil": losses.distil(direct, target),
            "relations": 10 * losses.relations(direct, target),
            "title": losses.ranking(a, p, losses.labels(self.taught[asked].float() @ known.T, certain=0.4)),
            "crop": losses.ranking(c, p, losses.labels(known @ known.T, certain=0.4)),
            "scale": losses.scale(pooled),
        }


def schedule(optimiser: torch.optim.Optimizer, spent: float, *, warmup: float = 0.03) -> None:
    """Linear warm-up, then linear to a fiftieth; `spent` is the share of the stage that is over."""
    factor = spent / warmup if spent < warmup else 0.02 + 0.98 * (1 - spent)
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


def static(material: Material, *, count: int = 100_000, minutes: float = 14, batch: int = 640) -> Student:
    """Embedding table and final norm alone, blocks idle: what a bag of tokens can learn."""
    student = network.initialise(material.tokenizer, material.projection, material.counts(), *material.bags())
    table, norm = student.backbone.embed_tokens.weight, student.backbone.norm.weight
    optimiser = torch.optim.Adam(
        [{"params": [table], "base": 4e-3}, {"params": [norm], "base": 1e-3}], betas=(0.9, 0.98), fused=True
    )

    def loss(spent: float) -> dict[str, Tensor]:
        return material.loss(student.static, batch, groups=3, longest=256)

    optimise(optimiser, loss, count, minutes, "static")
    torch.save(student.state_dict(), STATIC)
    return student


def joint(
    material: Material, student: Student, *, count: int = 100_000, minutes: float = 20, batch: int = 160
) -> Student:
    """The whole network: masked denoising fades out while distillation and ranking go on."""
    table = student.backbone.embed_tokens.weight
    with torch.no_grad():
        table.mul_(WIDEN)  # the norms make this a change of nothing but of how gently the blocks set in
    blocks = [p for name, p in student.named_parameters() if "layers." in name]
    optimiser = torch.optim.AdamW(
        [
            {"params": blocks, "base": 2e-3, "weight_decay": 0.01},
            {"params": [student.backbone.norm.weight], "base": 1e-3, "weight_decay": 0.0},
            {"params": [table], "base": 1e-2, "weight_decay": 0.0},
        ],
        betas=(0.9, 0.98),
        fused=True,
    )

    def loss(spent: float) -> dict[str, Tensor]:
        parts = {}
        if spent < 0.1:
            texts, _ = material.sampler.lesson(batch // 2, longest=48)
            parts["denoise"] = 0.2 * denoise(student, *pad(texts, 0), material.sampler.mask)
        return parts | material.loss(student, batch, groups=1, longest=128)

    optimise(optimiser, loss, count, minutes, "joint")
    torch.save(student.state_dict(), JOINT)
    return student


def denoise(student: Student, ids: Tensor, mask: Tensor, hole: int) -> Tensor:
    """Cross-entropy of masked tokens, read off the tied embedding table; a fifth of the tokens is masked."""
    hidden_away = (torch.rand(ids.shape) < 0.2) & mask.bool()
    if not hidden_away.any():
        return ids.new_zeros((), dtype=torch.float32)
    states = student.hidden(ids.masked_fill(hidden_away, hole), mask)[hidden_away]
    table = functional.normalize(student.backbone.embed_tokens.weight, dim=-1)
    logits = 12 * functional.normalize(states, dim=-1) @ table.T
    return functional.cross_entropy(logits, ids[hidden_away])


def load(path: object) -> Student:
    """The student saved by a stage."""
    student = Student()
    student.load_state_dict(torch.load(str(path), weights_only=True))
    return student
