"""Attention over packed sequences: each token attends to every token of its own sequence, and to no other.

Knows which exact kernel is the fastest on which device, and decides it here alone; must not know models, texts or
pooling.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Literal, cast

import torch
from torch import Tensor
from torch.nn import functional

from ...errors import InputError
from .rows import padded_length
from .varlen import PackedLayout, has_varlen, varlen_attention

Kernel = Literal["sdpa", "blocked", "varlen"]
"""torch's fused attention a sequence, plain matrix products in blocks, or one fused call over all sequences."""

_BLOCKED_FROM = 32
"""Tokens from which blocks beat sdpa in bfloat16 on a CPU; below, the fixed cost of a call decides."""
_MPS_BLOCKED_FROM = 4096
"""On MPS sdpa holds all scores at once; from here on that is gigabytes."""
_CUDA_SDPA_FROM = 16384
"""On Hopper sdpa has a faster kernel than FlashAttention 2; from here on it repays that each new length is planned."""
_SCORES_AT_ONCE = {"cpu": 2**20, "mps": 2**26}
"""Scores in a block. On a CPU 2 MB of bfloat16: they stay in its cache between the two products."""
_FEWEST_ROWS = 256
"""Query rows in a block: each product brings all keys into the processor's order, which fewer rows would not repay."""


def choose_kernel(*, device: torch.device, dtype: torch.dtype, length: int, alone: bool = True) -> Kernel:
    """Return the fastest exact kernel for a sequence; this is the one place where that is decided.

    The choice rests on docs/measurements.md: on CPUs sdpa leads in float32 at every length; in bfloat16 it leads where
    the processor has tile registers (AMX), which torch's kernel uses, and elsewhere blocks do; on CUDA one call takes
    the whole batch, where torch has it, a long sequence alone excepted.

    Args:
        device: Where the model runs.
        dtype: What it computes in.
        length: Tokens of the sequence.
        alone: Whether it is all of the batch.

    Example:
        >>> choose_kernel(device=torch.device("cpu"), dtype=torch.float32, length=500)
        'sdpa'
        >>> choose_kernel(device=torch.device("mps"), dtype=torch.bfloat16, length=10_000)
        'blocked'
    """
    if device.type == "cuda" and has_varlen(device.index or 0, dtype):
        long = alone and length >= _CUDA_SDPA_FROM and dtype == torch.bfloat16
        return "sdpa" if long and _is_hopper(device.index or 0) else "varlen"
    if device.type == "cpu" and dtype == torch.bfloat16 and length >= _BLOCKED_FROM and not _has_tiles():
        return "blocked"
    if device.type == "mps" and length >= _MPS_BLOCKED_FROM:
        return "blocked"
    return "sdpa"


def check_kernel(kernel: str | None, *, device: torch.device, dtype: torch.dtype) -> Kernel | None:
    """Return a kernel that is asked for in place of `choose_kernel`'s, if this device has it.

    Raises:
        InputError: It does not.
    """
    if kernel == "varlen" and choose_kernel(device=device, dtype=dtype, length=1) != "varlen":
        raise InputError(
            f"attention='varlen' needs torch 2.11 and a CUDA card, of capability 8.0 for bfloat16, and the model is on "
            f"{device} in {str(dtype).removeprefix('torch.')}; leave attention out"
        )
    return cast("Kernel | None", kernel)


@cache
def _has_tiles() -> bool:
    """Whether the processor multiplies whole tiles of bfloat16 (AMX), and torch knows."""
    probe = getattr(torch.cpu, "_is_amx_tile_supported", None)  # not public; without it, blocks are right anywhere
    return probe is not None and bool(probe())


@cache
def _is_hopper(index: int) -> bool:
    return torch.cuda.get_device_capability(index)[0] == 9


def packed_attention(
    query: Tensor, key: Tensor, value: Tensor, *, layout: PackedLayout, scaling: float, kernel: Kernel | None = None
) -> Tensor:
    """Attend within each sequence of a packed batch.

    Memory beyond the operands grows with the number of tokens, never with its square.

    Args:
        query: `[1, heads, tokens, head_dim]`.
        key: `[1, kv_heads, tokens, head_dim]`; `heads` is a multiple of `kv_heads`.
        value: Like `key`.
        layout: The sequences.
        scaling: Factor on the scores.
        kernel: How to compute; by default what `choose_kernel` says for each sequence.

    Returns:
        `[1, tokens, heads, head_dim]`.

    Example:
        >>> q = torch.randn(1, 4, 5, 8)
        >>> layout = PackedLayout([2, 3], device=q.device)
        >>> packed_attention(q, q, q, layout=layout, scaling=8**-0.5).shape
        torch.Size([1, 5, 4, 8])
    """

    def chosen(length: int) -> Kernel:
        return kernel or choose_kernel(device=query.device, dtype=query.dtype, length=length, alone=layout.alone)

    if chosen(layout.longest) == "varlen":
        return varlen_attention(query, key, value, layout, scaling)

    def attend(start: int, length: int, count: int) -> Tensor:
        # Neighbours of one length share a call: [1, heads, count * length, d] -> [count, heads, length, d].
        block = slice(start, start + count * length)
        q, k, v = (side[0, :, block].unflatten(1, (count, length)).transpose(0, 1) for side in (query, key, value))
        return _one_length(q, k, v, scaling, chosen(length)).flatten(0, 1)

    if len(layout.runs) == 1:  # sdpa's result lies as the model goes on with it: nothing is copied
        return attend(0, *layout.runs[0])[None]
    output = query.new_empty(1, query.shape[2], query.shape[1], query.shape[3])
    start = 0
    for length, count in layout.runs:
        end = start + length * count
        output[0, start:end] = attend(start, length, count)
        start = end
    return output


def part_attention(
    query: Tensor, key: Tensor, value: Tensor, *, scaling: float, kernel: Kernel | None = None
) -> Tensor:
    """Attend from some tokens of a sequence to all of it, on a CPU.

    Args:
        query: `[1, heads, some tokens, head_dim]`.
        key: `[1, kv_heads, tokens, head_dim]`; `heads` is a multiple of `kv_heads`.
        value: Like `key`.
        scaling: Factor on the scores.
        kernel: How to compute; by default what `choose_kernel` says.

    Returns:
        `[some tokens, heads, head_dim]`.

    Example:
        >>> q = torch.randn(1, 4, 5, 8)
        >>> part_attention(q[:, :, :2], q, q, scaling=8**-0.5).shape
        torch.Size([2, 4, 8])
    """
    kernel = kernel or choose_kernel(device=query.device, dtype=query.dtype, length=key.shape[2])
    return _one_length(query, key, value, scaling, kernel)[0]


def _one_length(query: Tensor, key: Tensor, value: Tensor, scaling: float, kernel: Kernel) -> Tensor:
    """Attend within each of several sequences of one length: `[count, heads, n, d]` to `[count, n, heads, d]`."""
    attend = _blocked if kernel == "blocked" else _sdpa
    tokens, length = query.shape[2], key.shape[2]
    if query.device.type != "cpu" or query.dtype != torch.bfloat16:
        return attend(query, key, value, scaling, length).transpose(1, 2)
    # oneDNN, which has bfloat16 on CPUs, plans for each shape and keeps the plans: a few lengths in place of all there
    # are. What is added is attended to by nobody, and left out of the result.
    query, key, value = (
        functional.pad(side, (0, 0, 0, padded_length(side.shape[2]) - side.shape[2])) for side in (query, key, value)
    )
    return attend(query, key, value, scaling, length)[:, :, :tokens].transpose(1, 2)


def _sdpa(query: Tensor, key: Tensor, value: Tensor, scaling: float, length: int) -> Tensor:
    """Torch's fused attention to the first `length` keys."""
    groups = query.shape[1] // key.shape[1]
    shared = groups > 1 and query.device.type == "cpu"  # elsewhere only some of its kernels can share heads
    if groups > 1 and not shared:
        key, value = (side.repeat_interleave(groups, dim=1) for side in (key, value))
    mask: Tensor | None = None
    if length < key.shape[2]:
        mask = (torch.arange(key.shape[2]) < length)[None, None, None]  # one row for all queries
    attention = functional.scaled_dot_product_attention
    return attention(query, key, value, attn_mask=mask, scale=scaling, enable_gqa=shared)


def _blocked(query: Tensor, key: Tensor, value: Tensor, scaling: float, length: int) -> Tensor:
    """Two matrix products with a float32 softmax between, over blocks of query rows against the first `length` keys."""
    count, _, _, width = query.shape
    padded = key.shape[2]
    pairs = count * key.shape[1]
    # Query heads that share a key head stand below each other: one product serves them all.
    q = (query * scaling).reshape(pairs, -1, width)
    # Rows one behind the other: with other heads' between them, products take twice as long.
    k, v = (side.contiguous().view(pairs, padded, width) for side in (key, value))
    # On a CPU the kernel computes in float32 whatever it is given, and rounds once.
    precision = None if query.device.type == "cpu" else torch.float32
    room = _SCORES_AT_ONCE.get(query.device.type, 2**26)
    rows = min(q.shape[1], max(_FEWEST_ROWS, room // padded))
    together = max(1, room // (rows * padded))
    output = torch.empty_like(q)
    whole = pairs // together * together  # what is left over goes by sequences: two shapes, however many there are
    starts = [*range(0, whole, together), *range(whole, pairs, key.shape[1])]
    for pair, end in pairwise([*starts, pairs]):
        keys, values = k[pair:end].transpose(1, 2), v[pair:end]
        for row in range(0, q.shape[1], rows):
            block = slice(pair, end), slice(row, row + rows)
            scores = torch.bmm(q[block], keys)
            scores[..., length:] = -torch.inf
            weights = torch.softmax(scores, dim=-1, dtype=precision)
            torch.bmm(weights.to(v.dtype), values, out=output[block])
    return output.view(query.shape)
