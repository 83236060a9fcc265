# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
# A kernel's arguments have no types that Python knows.
"""What a layer does between its matrix products, each as one pass over a GPU's memory.

Knows Triton, whose import is the price of this module; must not know when it is worth it: `fused` decides.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

_NUMBERS = 2048
"""Numbers that a program of four warps takes: sixteen a thread, loaded 16 bytes at a time."""


def norm_and_rotate(
    heads: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    weight: torch.Tensor,
    other_weight: torch.Tensor,
    *,
    epsilon: float,
    first: int,
) -> None:
    """Norm each head and turn it by its token's angles, in place.

    Args:
        heads: `[tokens, heads, head_dim]`, the heads of a token one behind the other; tokens may lie apart.
        cos: Cosine of each token's angles, `[tokens, head_dim / 2]` float32, contiguous.
        sin: Like `cos`.
        weight: Of the norm of the first heads, `[head_dim]`.
        other_weight: Of the norm of the others.
        epsilon: What is added to a mean square before its root is taken.
        first: How many heads are the first ones.
    """
    tokens, count, width = heads.shape
    padded = triton.next_power_of_2(width // 2)
    rows = max(1, _NUMBERS // padded)
    _norm_and_rotate[(triton.cdiv(tokens * count, rows),)](
        heads, cos, sin, weight, other_weight, tokens * count, heads.stride(0), epsilon,
        COUNT=count, FIRST=first, HALF=width // 2, PADDED=padded, ROWS=rows,
    )  # fmt: skip


@triton.jit(do_not_specialize=["rows"])
def _norm_and_rotate(
    heads,
    cos,
    sin,
    weight,
    other_weight,
    rows,
    stride,
    epsilon,
    COUNT: tl.constexpr,
    FIRST: tl.constexpr,
    HALF: tl.constexpr,
    PADDED: tl.constexpr,
    ROWS: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, PADDED)
    token = (row // COUNT).to(tl.int64)
    head = row % COUNT
    known = column < HALF
    inside = (row < rows)[:, None] & known[None, :]
    place = heads + token[:, None] * stride + head[:, None] * (2 * HALF) + column[None, :]
    left = tl.load(place, mask=inside, other=0.0).to(tl.float32)
    right = tl.load(place + HALF, mask=inside, other=0.0).to(tl.float32)
    square = tl.sum(left * left, axis=1) + tl.sum(right * right, axis=1)
    unit = tl.rsqrt(square / (2 * HALF) + epsilon)[:, None]
    is_first = (head < FIRST)[:, None]
    left_weight = tl.where(
        is_first,
        tl.load(weight + column, mask=known, other=0.0).to(tl.float32)[None, :],
        tl.load(other_weight + column, mask=known, other=0.0).to(tl.float32)[None, :],
    )
    right_weight = tl.where(
        is_first,
        tl.load(weight + HALF + column, mask=known, other=0.0).to(tl.float32)[None, :],
        tl.load(other_weight + HALF + column, mask=known, other=0.0).to(tl.float32)[None, :],
    )
    left = left * unit * left_weight
    right = right * unit * right_weight
    angle = token[:, None] * HALF + column[None, :]
    cosine = tl.load(cos + angle, mask=inside, other=0.0)
    sine = tl.load(sin + angle, mask=inside, other=0.0)
    tl.store(place, (left * cosine - right * sine).to(heads.dtype.element_ty), mask=inside)
    tl.store(place + HALF, (right * cosine + left * sine).to(heads.dtype.element_ty), mask=inside)


def silu_times(gate: torch.Tensor, up: torch.Tensor) -> None:
    """Put silu(gate) · up in the place of `gate`.

    Args:
        gate: `[tokens, width]`, the numbers of a token one behind the other; tokens may lie apart.
        up: Like `gate`.
    """
    tokens, width = gate.shape
    _silu_times[(tokens, triton.cdiv(width, _NUMBERS // 2))](
        gate, up, gate.stride(0), up.stride(0), WIDTH=width, NUMBERS=_NUMBERS // 2
    )


@triton.jit
def _silu_times(gate, up, gate_stride, up_stride, WIDTH: tl.constexpr, NUMBERS: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * NUMBERS + tl.arange(0, NUMBERS)
    inside = column < WIDTH
    place = gate + token * gate_stride + column
    opening = tl.load(place, mask=inside, other=0.0).to(tl.float32)
    factor = tl.load(up + token * up_stride + column, mask=inside, other=0.0).to(tl.float32)
    product = opening * tl.sigmoid(opening) * factor
    tl.store(place, product.to(gate.dtype.element_ty), mask=inside)
