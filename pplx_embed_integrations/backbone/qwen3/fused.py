"""Whether this machine has kernels that do in one pass over a GPU's memory what torch's operators do in several.

Knows how they are tried before they are used; must not know models, batches or how a kernel works.

Between the matrix products of a layer lie norms, a rotation and a gated product: in torch's operators some thirty
passes over memory, which on a GPU take longer than the products themselves.
"""

from __future__ import annotations

import logging
import threading
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

_finding = threading.Lock()
_TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def fused_kernels(device: torch.device, dtype: torch.dtype) -> ModuleType | None:
    """Return the module `triton` where they run and give what torch's operators give, else None.

    They need Triton, which comes with torch's builds for CUDA on Linux, and a C compiler, which Triton needs.

    Args:
        device: Where the model runs, with its index.
        dtype: What it computes in.

    Example:
        >>> fused_kernels(torch.device("cpu"), torch.float32) is None
        True
    """
    if device.type != "cuda" or dtype not in _TOLERANCE:
        return None
    with _finding:
        return _try(device, dtype)


@cache
def _try(device: torch.device, dtype: torch.dtype) -> ModuleType | None:
    try:
        from . import triton as kernels

        with torch.inference_mode(), torch.cuda.device(device):
            pairs = _trials(kernels, device, dtype)
            if all(torch.allclose(*pair, rtol=0, atol=_TOLERANCE[dtype]) for pair in pairs):
                return kernels
        logger.warning("Triton's kernels give other results on %s than torch's; going on without them", device)
    except Exception as error:  # noqa: BLE001  (no Triton, no compiler, no such card: there is another way)
        logger.debug("Triton's kernels are not available on %s: %s", device, error)
    return None


def _trials(kernels: ModuleType, device: torch.device, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    """Return pairs of float32 results, a kernel's and what it should be, of numbers between -1 and 1."""

    def numbers(*shape: int, step: float) -> Tensor:
        count = torch.Size(shape).numel()
        return torch.sin(torch.arange(count, device=device) * step).view(shape).to(dtype)

    rows = numbers(5, 3 * 128, step=0.37)
    heads = rows.view(5, 3, 128)
    weights = numbers(2, 128, step=0.73)
    angles = torch.outer(torch.arange(5.0, device=device), torch.linspace(0, 1, 64, device=device))
    expected = torch.nn.functional.rms_norm(heads.float(), (128,), eps=1e-6) * weights[[0, 0, 1]].float()
    left, right = expected.chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    turned = torch.cat([left * cos[:, None] - right * sin[:, None], right * cos[:, None] + left * sin[:, None]], dim=-1)
    kernels.norm_and_rotate(heads, cos, sin, weights[0], weights[1], epsilon=1e-6, first=2)
    gates = numbers(5, 600, step=0.91)
    gate, up = gates.split(300, dim=1)
    product = torch.nn.functional.silu(gate.float()) * up.float()
    kernels.silu_times(gate, up)
    return [(heads.float(), turned), (gate.float(), product)]
