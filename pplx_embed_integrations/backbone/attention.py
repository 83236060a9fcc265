"""Attention over packed sequences: each token attends to every token of its own sequence, and to no other.

Knows which exact kernel is the fastest on which device, and decides it here alone; must not know models, texts or
pooling.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

__all__ = ["PACKED", "packed_attention", "register"]

PACKED = "pplx_packed"
"""Name under which this attention is registered with transformers."""


def packed_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, lengths: list[int], scaling: float
) -> torch.Tensor:
    """Attend within each sequence of a packed batch.

    Args:
        query: `[1, heads, tokens, head_dim]`.
        key: `[1, kv_heads, tokens, head_dim]`; `heads` is a multiple of `kv_heads`.
        value: Like `key`.
        lengths: Tokens of each sequence, in order; their sum is `tokens`.
        scaling: Factor on the scores.

    Returns:
        `[1, tokens, heads, head_dim]`.
    """
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (side.repeat_interleave(groups, dim=1) for side in (key, value))
    output = torch.empty_like(query)
    start = 0
    for length, count in _runs(lengths):
        end = start + length * count
        # Neighbours of one length share a call: [1, heads, count * length, d] -> [count, heads, length, d].
        q, k, v = (side[0, :, start:end].unflatten(1, (count, length)).transpose(0, 1) for side in (query, key, value))
        attended = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=scaling)
        output[0, :, start:end] = attended.transpose(0, 1).flatten(1, 2)
        start = end
    return output.transpose(1, 2)


def _runs(lengths: list[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for length in lengths:
        if runs and runs[-1][0] == length:
            runs[-1] = (length, runs[-1][1] + 1)
        else:
            runs.append((length, 1))
    return runs


def _forward(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float,
    sequence_lengths: list[int] | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    if sequence_lengths is not None:
        return packed_attention(query, key, value, lengths=sequence_lengths, scaling=scaling), None
    # A padded batch, as SentenceTransformer makes them.
    kwargs["is_causal"] = False
    return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)


def register() -> None:
    """Make the packed attention known to transformers under the name in `PACKED`; may be called again."""
    AttentionInterface.register(PACKED, _forward)
    AttentionMaskInterface.register(PACKED, sdpa_mask)
