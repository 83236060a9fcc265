"""Knows what a good vector is: near its teacher and ranked as the teacher ranks, at every width and quantisation.

It must not know texts, networks or optimisers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

SCALE = 0.55  # wanted root mean square of a pooled vector: tanh keeps it nearly linear, 127 steps resolve it
TEMPERATURE = 0.05


def widths(full: int) -> tuple[int, ...]:
    """The Matryoshka widths: full, half, quarter, eighth."""
    return full, full // 2, full // 4, full // 8


def int8(x: Tensor) -> Tensor:
    """Tanh rounded to 127 steps, gradient straight through the rounding."""
    soft = torch.tanh(x)
    return soft + (torch.round(soft * 127) / 127 - soft).detach()


def binary(x: Tensor) -> Tensor:
    """Signs (zero counts as positive), gradient of tanh."""
    soft = torch.tanh(2 * x)
    return soft + (torch.where(x >= 0, 1.0, -1.0) - soft).detach()


def forms(x: Tensor, y: Tensor) -> Iterator[tuple[float, Tensor, Tensor]]:
    """Both sides as users compare them, with a weight: float, binary, and int8 cut to narrower widths."""
    yield 1.0, x, y
    yield 0.6, binary(x), binary(y)
    for weight, cut in zip((0.3, 0.2, 0.1), widths(x.shape[1])[1:], strict=True):
        yield weight, int8(x[:, :cut]), int8(y[:, :cut])


def distil(x: Tensor, target: Tensor) -> Tensor:
    """One minus the cosine to the projected teacher, averaged over widths."""
    cut = widths(x.shape[1])
    return torch.stack([1 - functional.cosine_similarity(x[:, :w], target[:, :w]).mean() for w in cut]).mean()


def relations(x: Tensor, target: Tensor) -> Tensor:
    """Squared difference of the two matrices of pairwise similarities."""
    a, b = functional.normalize(x, dim=-1), functional.normalize(target, dim=-1)
    return (a @ a.T - b @ b.T).square().mean()


def labels(similarities: Tensor, *, certain: float) -> tuple[Tensor, Tensor]:
    """What each row and each column should find: its own partner, and what the teacher holds for as good."""
    own = certain * torch.eye(len(similarities), device=similarities.device)
    rows, columns = ((s / TEMPERATURE).softmax(1) for s in (similarities, similarities.T))
    return own + (1 - certain) * rows, own + (1 - certain) * columns


def ranking(a: Tensor, b: Tensor, wanted: tuple[Tensor, Tensor]) -> Tensor:
    """Listwise cross-entropy between in-batch similarities and `labels`, in every form."""
    total = a.new_zeros(())
    for weight, x, y in forms(a, b):
        logits = functional.normalize(x, dim=-1) @ functional.normalize(y, dim=-1).T / TEMPERATURE
        for side, target in zip((logits, logits.T), wanted, strict=True):
            total = total - weight / 2 * (target * side.log_softmax(1)).sum(1).mean()
    return total


def scale(x: Tensor) -> Tensor:
    """Keeps the size of pooled values where tanh-int8 resolves them."""
    return (x.square().mean().sqrt().log() - math.log(SCALE)).square()
