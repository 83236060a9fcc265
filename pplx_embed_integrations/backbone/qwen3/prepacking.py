"""Linear layers whose weights lie in memory in the order in which the processor's kernels read them.

Knows oneDNN through torch's operators, which are private and therefore tried before use; must not know models, texts
or devices other than the CPU.
"""

from __future__ import annotations

import logging
import platform
from functools import cache
from typing import Literal, cast

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

PostOp = Literal["none", "swish", "mul", "add"]
"""What is done to a product before it is rounded, in oneDNN's words: x · sigmoid(x), times or plus another tensor."""

_TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2}
"""Largest difference to the plain product, relative to its largest value: rounding in another order, no more."""


class PrepackedLinear(torch.nn.Module):
    """A linear layer without bias that holds its weight in oneDNN's order only; for inference.

    torch's plain linear brings the weight into that order, or its own, anew in every call, which short inputs pay
    for most: docs/measurements.md has the figures.

    Args:
        weight: `[out_features, in_features]` on the CPU; copied, never kept.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        # No parameter: nothing that walks over a model's tensors could make sense of it.
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach())

    def forward(self, hidden: Tensor, post: PostOp = "none", other: Tensor | None = None) -> Tensor:
        """Multiply `[..., in_features]` to `[..., out_features]`; of that shape is `other`, for `mul` and `add`."""
        multiply = torch.ops.mkldnn._linear_pointwise
        if other is None:
            return cast("Tensor", multiply(hidden, self._weight, None, post, [], ""))
        return cast("Tensor", multiply.binary(hidden, other, self._weight, None, post))

    def plain(self) -> torch.nn.Linear:
        """Return an ordinary layer with the same weight, bit for bit."""
        linear = torch.nn.Linear(self.in_features, self.out_features, bias=False, device="meta")
        linear.weight = torch.nn.Parameter(self._weight.to_dense(), requires_grad=False)
        return linear


def can_prepack(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether this machine has prepacked layers for a dtype, and they give what ordinary ones give.

    Example:
        >>> can_prepack(torch.device("cpu"), torch.float64)
        False
    """
    if device.type != "cpu" or dtype not in _TOLERANCE or platform.machine() not in ("x86_64", "AMD64"):
        return False
    return bool(torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled and _works(dtype))


def unpack(module: torch.nn.Module) -> None:
    """Replace prepacked layers inside a module by ordinary ones, which can be trained, saved and moved."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, PrepackedLinear):
                setattr(parent, name, child.plain())


@cache
def _works(dtype: torch.dtype) -> bool:
    """Try a layer on this processor: operators there, results equal, and the weight comes back unchanged."""
    try:
        if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False
        weight = torch.sin(torch.arange(96 * 256.0)).view(96, 256).to(dtype)
        packed = PrepackedLinear(weight)
        if not torch.equal(packed.plain().weight, weight):
            return False
        for tokens in (1, 8, 300):
            hidden = torch.cos(torch.arange(tokens * 256.0)).view(tokens, 256).to(dtype)
            other = torch.cos(torch.arange(tokens * 96.0)).view(tokens, 96).to(dtype)
            with torch.inference_mode():
                product = torch.nn.functional.linear(hidden.float(), weight.float())
                for found, expected in (
                    (packed(hidden), product),
                    (packed(hidden, "swish"), torch.nn.functional.silu(product)),
                    (packed(hidden, "mul", other), product * other),
                    (packed(hidden, "add", other), product + other),
                ):
                    if not (found.float() - expected).abs().max() <= _TOLERANCE[dtype] * expected.abs().max():
                        return False
    except (AttributeError, RuntimeError) as error:  # no such operator, or none for this dtype
        logger.debug("prepacked linear layers are not available: %s", error)
        return False
    return True
