"""Knows what a good vector is: near its teacher, near its pair, at every Matryoshka width and quantisation.

It must not know texts, networks or optimisers.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

WIDTHS = (256, 128, 64, 32)
SCALE = 0.55  # wanted root mean square of a pooled vector: tanh keeps it nearly linear, 127 steps resolve it


def int8(x: Tensor) -> Tensor:
    """Tanh rounded to 127 steps, gradient straight through the rounding."""
    soft = torch.tanh(x)
    return soft + (torch.round(soft * 127) / 127 - soft).detach()


def binary(x: Tensor) -> Tensor:
    """Signs (zero counts as positive), gradient of tanh."""
    soft = torch.tanh(2 * x)
    return soft + (torch.where(x >= 0, 1.0, -1.0) - soft).detach()


FORMS = (lambda x: x, int8, binary)


def distil(x: Tensor, target: Tensor) -> Tensor:
    """One minus the cosine to the projected teacher, averaged over widths."""
    return torch.stack([1 - functional.cosine_similarity(x[:, :w], target[:, :w]).mean() for w in WIDTHS]).mean()


def relations(x: Tensor, target: Tensor) -> Tensor:
    """Squared difference of the two matrices of pairwise similarities."""
    a, b = functional.normalize(x, dim=-1), functional.normalize(target, dim=-1)
    return (a @ a.T - b @ b.T).square().mean()


def contrast(queries: Tensor, positives: Tensor, *, temperature: float = 0.05) -> Tensor:
    """In-batch contrastive loss at full width in float, and at a random narrower width in a random form."""
    labels = torch.arange(len(queries))
    total = queries.new_zeros(())
    narrow = int(torch.randint(len(WIDTHS), ()))
    for form, width in ((FORMS[0], WIDTHS[0]), (FORMS[int(torch.randint(1, 3, ()))], WIDTHS[narrow])):
        a = functional.normalize(form(queries[:, :width]), dim=-1)
        b = functional.normalize(form(positives[:, :width]), dim=-1)
        logits = a @ b.T / temperature
        total = total + (functional.cross_entropy(logits, labels) + functional.cross_entropy(logits.T, labels)) / 4
    return total


def scale(x: Tensor) -> Tensor:
    """Keeps the size of pooled values where tanh-int8 resolves them."""
    return (x.square().mean().sqrt().log() - torch.log(torch.tensor(SCALE))).square()
