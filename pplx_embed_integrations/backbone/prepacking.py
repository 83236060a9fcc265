"""Linear layers whose weights lie in memory in the order in which the processor's kernels read them.

Knows oneDNN through torch's operators, which are private and therefore checked before use; must not know models,
texts or devices other than the CPU.
"""

from __future__ import annotations

import logging
import platform

import torch

__all__ = ["PrepackedLinear", "prepack", "unpack"]

logger = logging.getLogger(__name__)

_TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2}
"""Largest difference to the plain product, relative to its largest value: rounding in another order, no more."""


class PrepackedLinear(torch.nn.Module):
    """A linear layer without bias that holds its weight in oneDNN's order only; for inference.

    torch's plain linear brings the weight into that order, or its own, anew in every call, which short inputs pay
    for most: a query needs a third to half less time with it done once.

    Args:
        linear: The layer whose weight is taken over.
    """

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        # No parameter: nothing that walks over a model's tensors could make sense of it.
        self._weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Multiply `[..., in_features]` to `[..., out_features]`."""
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(hidden, self._weight, None, "none", [], "")
        return product

    def plain(self) -> torch.nn.Linear:
        """Return an ordinary layer with the same weight, bit for bit."""
        linear = torch.nn.Linear(self.in_features, self.out_features, bias=False, device="meta")
        linear.weight = torch.nn.Parameter(self._weight.to_dense(), requires_grad=False)
        return linear


def prepack(module: torch.nn.Module) -> int:
    """Replace the linear layers inside a module by prepacked ones, if this machine has them and they are exact.

    The plain weights are given up one by one, so that at no time two copies of the model are held.

    Args:
        module: What to go through; changed in place.

    Returns:
        How many layers were replaced: all without bias, or none.
    """
    layers: list[tuple[torch.nn.Module, str, torch.nn.Linear]] = []
    for parent in module.modules():
        for name, child in parent.named_children():
            if isinstance(child, torch.nn.Linear) and getattr(child, "bias", None) is None:
                layers.append((parent, name, child))
    if not layers or not _works(layers[0][2]):
        return 0
    count = len(layers)
    while layers:  # emptied, so that each plain weight goes when its layer is replaced
        parent, name, child = layers.pop()
        setattr(parent, name, PrepackedLinear(child))
    return count


def unpack(module: torch.nn.Module) -> None:
    """Replace prepacked layers inside a module by ordinary ones, which can be trained, saved and moved."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, PrepackedLinear):
                setattr(parent, name, child.plain())


@torch.inference_mode()
def _works(linear: torch.nn.Linear) -> bool:
    """Try a layer on this processor: operators there, results equal, and the weight comes back unchanged."""
    dtype, weight = linear.weight.dtype, linear.weight
    if weight.device.type != "cpu" or dtype not in _TOLERANCE or platform.machine() not in ("x86_64", "AMD64"):
        return False
    if not torch.backends.mkldnn.is_available() or not torch.backends.mkldnn.enabled:
        return False
    try:
        if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False
        packed = PrepackedLinear(linear)
        hidden = torch.sin(torch.arange(8 * linear.in_features, dtype=torch.float32)).view(8, -1).to(dtype)
        expected = linear(hidden).float()
        difference = (packed(hidden).float() - expected).abs().max()
        exact = bool(difference <= _TOLERANCE[dtype] * expected.abs().max())
        same = torch.equal(packed.plain().weight, weight)
    except (AttributeError, RuntimeError, NotImplementedError) as error:
        logger.debug("prepacked linear layers are not available: %s", error)
        return False
    return exact and same
