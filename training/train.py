"""Knows the training stages of the plain student (static, then joint), each resumable and seeded.

It must not know where texts come from or how a checkpoint is written.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import losses
import numpy as np
import student as network
import teacher
import tokenizer as vocabulary
import torch
import units
from batches import Ids, Sampler
from scipy import sparse
from sources import CACHE
from student import Projection, Student
from torch import Tensor, distributed
from torch.nn import functional

WIDEN = 16.0
STATIC, JOINT = CACHE / "static.pt", CACHE / "v1.pt"
SAVE_EVERY = 60.0  # seconds of processor time between two saves of an unfinished stage

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
        self.sampler = Sampler(self.units, self.taught, self.tokenizer, seed=seed)

    def bags(self, count: int = 60_000) -> tuple[sparse.csr_matrix, np.ndarray]:
        """Some taught texts as rows of token shares, beside their targets."""
        texts, rows = self.sampler.lesson(count, longest=32)
        columns = np.concatenate(texts).astype(np.int64)
        owners = np.repeat(np.arange(count), [len(ids) for ids in texts])
        shares = np.repeat([1 / len(ids) for ids in texts], [len(ids) for ids in texts])
        shape = (count, vocabulary.VOCABULARY)
        return sparse.csr_matrix((shares, (owners, columns)), shape, dtype=np.float32), self.targets[rows, :-1].numpy()

    def loss(self, forward: Forward, count: int, *, groups: int, longest: int, extra: int) -> dict[str, Tensor]:
        """Distillation of single texts, and ranking of passages for titles, headings, questions and crops.

        `extra` untaught passages are ranked beside the `count` taught ones, without the teacher's word on the others.
        """
        lesson, about = self.sampler.lesson(count // 2, longest=48)
        queries, crops, passages, asked, told = self.sampler.batch(count, groups=groups, longest=longest)
        wanting, wanted, same = self.sampler.pairs(extra, groups=groups, longest=longest)
        kinds = (lesson, queries, crops, passages, wanting, wanted)
        pooled = forward([ids for kind in kinds for ids in kind])
        single, a, c, p, q, w = pooled.split([len(kind) for kind in kinds])
        known = self.taught[told].float()
        target = self.targets[torch.cat([about, asked, told])]
        direct = torch.cat([single, a, p])
        return {
            "distil": losses.distil(direct, target),
            "relations": 10 * losses.relations(direct, target),
            "asked": losses.ranking(a, p, losses.labels(self.taught[asked].float() @ known.T, certain=0.4)),
            "crop": losses.ranking(c, p, losses.labels(known @ known.T, certain=0.4)),
            "untaught": losses.ranking(q, w, (same, same)),
            "scale": losses.scale(pooled),
        }


def schedule(optimiser: torch.optim.Optimizer, spent: float, *, warmup: float = 0.04) -> None:
    """Linear warm-up, then linear to a fiftieth; `spent` is the share of the stage that is over."""
    factor = spent / warmup if spent < warmup else 0.02 + 0.98 * (1 - spent)
    for group in optimiser.param_groups:
        group["lr"] = group["base"] * factor


def shared(values: Sequence[Tensor]) -> None:
    """Replaces tensors by their means over all workers."""
    if not distributed.is_initialized():
        return
    flat = torch.cat([value.flatten() for value in values])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    for value, mean in zip(values, flat.split([value.numel() for value in values]), strict=True):
        value.copy_(mean.view_as(value))


def optimise(
    student: Student,
    optimiser: torch.optim.Optimizer,
    loss: Callable[[float], dict[str, Tensor]],
    *,
    minutes: float,
    path: Path,
    memory: int = 100,
) -> Student:
    """Runs one stage for so many minutes of each worker's processor time; returns the average over its last steps.

    Every worker draws batches of its own, and their gradients are averaged.  An unfinished stage is saved every so
    often beside `path` and goes on from there; `path` appears at its end.
    """
    partial, average = path.with_suffix(".partial"), copy.deepcopy(student).requires_grad_(False)
    done = step = 0
    if partial.exists():
        saved = torch.load(partial, weights_only=True)
        student.load_state_dict(saved["student"])
        average.load_state_dict(saved["average"])
        optimiser.load_state_dict(saved["optimiser"])
        done, step = saved["seconds"], saved["step"]
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    with torch.no_grad():
        shared([p.data for p in student.parameters()])
    sums: dict[str, float] = {}
    leads = not distributed.is_initialized() or distributed.get_rank() == 0
    saved_at = last = time.process_time()
    seconds = torch.tensor([float(done)])
    while float(seconds) < 60 * minutes:
        spent = float(seconds) / (60 * minutes)
        schedule(optimiser, spent)
        parts = loss(spent)
        optimiser.zero_grad(set_to_none=True)
        torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
        now = time.process_time()
        seconds, last = seconds + (now - last), now
        shared([seconds, *(p.grad for p in parameters if p.grad is not None)])
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        with torch.no_grad():
            rate = 1 / min(step + 1, memory)
            torch._foreach_lerp_(list(average.parameters()), list(student.parameters()), rate)
        for key, value in parts.items():
            sums[key] = 0.95 * sums.get(key, value.item()) + 0.05 * value.item()
        if step % 20 == 0 and leads:
            shown = " ".join(f"{key} {value:.4f}" for key, value in sums.items())
            print(f"{path.stem} {step} ({float(seconds):.0f} s): {shown}", flush=True)
        if now - saved_at > SAVE_EVERY and leads:
            saved_at = now
            state = {"student": student.state_dict(), "average": average.state_dict()}
            torch.save({**state, "optimiser": optimiser.state_dict(), "seconds": float(seconds), "step": step}, partial)
        step += 1
    if leads:
        torch.save(average.state_dict(), path)
        partial.unlink(missing_ok=True)
    return average


def static(material: Material, *, minutes: float, batch: int = 640) -> Student:
    """Embedding table and final norm alone, blocks idle: what a bag of tokens can learn."""
    student = network.initialise(material.tokenizer, material.projection, *material.bags())
    table, norm = student.backbone.embed_tokens.weight, student.backbone.norm.weight
    optimiser = torch.optim.Adam(
        [{"params": [table], "base": 4e-3}, {"params": [norm], "base": 1e-3}], betas=(0.9, 0.98), fused=True
    )

    def loss(spent: float) -> dict[str, Tensor]:
        return material.loss(student.static, batch, groups=3, longest=256, extra=batch)

    material.sampler.group(student.static)
    return optimise(student, optimiser, loss, minutes=minutes, path=STATIC)


def joint(material: Material, student: Student, *, minutes: float, batch: int = 80) -> Student:
    """The whole network: masked denoising fades out while distillation and ranking go on."""
    student.requires_grad_(True)
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

    def forward(texts: Sequence[Ids]) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return student(texts)

    def loss(spent: float) -> dict[str, Tensor]:
        parts = {}
        if spent < 0.1:
            texts, _ = material.sampler.lesson(batch // 2, longest=48)
            parts["denoise"] = 0.2 * denoise(student, texts, material.sampler.mask)
        return parts | material.loss(forward, batch, groups=1, longest=128, extra=batch // 2)

    material.sampler.group(student.static)
    return optimise(student, optimiser, loss, minutes=minutes, path=JOINT)


def denoise(student: Student, texts: Sequence[Ids], hole: int) -> Tensor:
    """Cross-entropy of masked tokens, read off the tied embedding table; a fifth of the tokens is masked."""
    holes = [torch.rand(len(ids)) < 0.2 for ids in texts]
    hidden_away = [np.where(gone, hole, ids) for gone, ids in zip(holes, texts, strict=True)]
    states, wanted = [], []
    for rows, hidden, mask in student.hidden(hidden_away):
        gone = torch.cat([holes[row] for row in rows])
        states.append(hidden[mask][gone])
        wanted.append(torch.from_numpy(np.concatenate([texts[row] for row in rows]).astype(np.int64))[gone])
    table = functional.normalize(student.backbone.embed_tokens.weight, dim=-1)
    logits = 12 * functional.normalize(torch.cat(states), dim=-1) @ table.T
    return functional.cross_entropy(logits, torch.cat(wanted))


def load(path: Path) -> Student:
    """The student saved by a stage."""
    student = Student()
    student.load_state_dict(torch.load(path, weights_only=True))
    return student
