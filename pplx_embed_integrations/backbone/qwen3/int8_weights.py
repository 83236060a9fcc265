"""Linear layers that multiply in 8-bit integers: weights rounded once a row, inputs rounded once a token.

Knows oneDNN's integer product through torch's operators, which are private and therefore tried before use; must not
know models, texts or devices other than the CPU.
"""

from __future__ import annotations

import platform
from functools import cache

import torch
from torch import Tensor

from ...errors import InputError
from .prepacking import PostOp

_LARGEST = 127
_ZERO = 128
"""The kernels take inputs as unsigned bytes, in which this stands for zero."""
_FLOATS_AT_ONCE = 2**17
"""Inputs that a thread rounds together: half a megabyte stays in a core's cache between two operations."""
Rounded = tuple[Tensor, Tensor]
"""Codes, `[tokens, in_features]` uint8, and what a code's step is worth in each token, `[tokens, 1]`."""


def round_tokens(hidden: Tensor) -> Rounded:
    """Round the input of linear layers, `[tokens, in_features]` of any float dtype; once for all layers that share it.

    Each token has a step of its own, its largest value divided by 127, so that a loud token costs no other any
    precision (Dettmers et al. 2022, "LLM.int8()", section 2.1: vector-wise quantization).
    """
    peak = hidden.abs().amax(dim=-1, keepdim=True).float()
    # The step is what the result is multiplied by, in the input's dtype: rounded first, it costs no precision later.
    step = (peak / _LARGEST).clamp_min_(torch.finfo(torch.bfloat16).tiny).to(hidden.dtype)
    # A NaN or an infinity makes the step one, and with it the whole token, which is refused in the end.
    factor = step.float().reciprocal()
    codes = torch.empty_like(hidden, dtype=torch.int8)
    rows = max(1, _FLOATS_AT_ONCE * torch.get_num_threads() // hidden.shape[1])
    for start in range(0, len(hidden), rows):
        block = slice(start, start + rows)
        codes[block] = (hidden[block] * factor[block]).round_()
    return codes.view(torch.uint8).bitwise_xor_(_ZERO), step  # flipping the sign bit adds 128


class Int8Linear(torch.nn.Module):
    """A linear layer without bias, weights int8 with a step for each row; for inference.

    Args:
        weight: `[out_features, in_features]` floats on the CPU; rounded to the nearest of 255 steps, never kept.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        weight = weight.detach().float()
        self.out_features, self.in_features = weight.shape
        step = (weight.abs().amax(dim=1) / _LARGEST).clamp_min_(torch.finfo(torch.float32).tiny)
        rows = (weight / step[:, None]).round_().to(torch.int8)
        # No parameters: nothing that walks over a model's tensors could make sense of them.
        self._weight = torch.ops.onednn.qlinear_prepack(rows, None)
        self._step = step
        self._zeros = torch.zeros(self.out_features, dtype=torch.int64)

    def forward(self, hidden: Tensor | Rounded, post: PostOp = "none", other: Tensor | None = None) -> Tensor:
        """Multiply `[tokens, in_features]` to `[tokens, out_features]`, in the dtype that was rounded."""
        codes, step = round_tokens(hidden) if isinstance(hidden, Tensor) else hidden
        product: Tensor = torch.ops.onednn.qlinear_pointwise(
            codes, 1.0, _ZERO, self._weight, self._step, self._zeros, None, 1.0, 0, step.dtype, "none", [], ""
        )
        if post == "add" and other is not None:
            return torch.addcmul(other, product, step)
        product.mul_(step)
        if post == "swish":
            torch.nn.functional.silu(product, inplace=True)
        return product if other is None else product.mul_(other)


def check_int8_weights(device: torch.device) -> None:
    """Make sure that this machine multiplies integers exactly, and has the operators for it.

    Raises:
        InputError: It does not, or the model is to run elsewhere.
    """
    if device.type != "cpu":
        raise InputError(f"weights='int8' runs on the CPU alone, and device is {str(device)!r}; leave weights out")
    reason = "it is no x86-64" if platform.machine() not in ("x86_64", "AMD64") else _failure()
    if reason:
        raise InputError(
            f"weights='int8' needs a processor with exact 8-bit products (AVX-512 VNNI, AVX-VNNI or AMX): {reason}; "
            "leave weights out"
        )


@cache
def _failure() -> str | None:
    """Try a layer against the same sums in float64; return what is wrong.

    The largest codes come first: processors without VNNI add two products in 16 bits, and these overflow there.
    """
    weight = torch.ones(80, 3072)
    weight[1::2] = torch.sin(torch.arange(1.0, 3073.0))
    hidden = torch.ones(5, 3072)
    hidden[1::2] = torch.cos(torch.arange(3072.0) / 7)
    rows, codes = (
        (each.double() / each.double().amax(1, keepdim=True) * _LARGEST).round() for each in (weight, hidden)
    )
    exact = codes @ rows.T * weight.double().amax(1) * hidden.double().amax(1, keepdim=True) / _LARGEST**2
    try:
        with torch.inference_mode():
            apart = (Int8Linear(weight)(hidden).double() - exact).abs().max() / exact.abs().max()
    except (AttributeError, RuntimeError) as error:  # no such operator
        return f"torch {torch.__version__} cannot do it here ({error})"
    return None if apart < 1e-5 else "this one gives other sums"
