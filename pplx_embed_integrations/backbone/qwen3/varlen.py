"""Where the sequences of a packed batch lie, and attention over all of them in one call, on a CUDA card.

Knows torch's kernels for it, and tries those that torch does not promise; must not know when which is the fastest.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence
from functools import cache
from itertools import accumulate, groupby
from typing import Any, cast

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

_Varlen = Callable[[Tensor, Tensor, Tensor, "PackedLayout", float], Tensor]


class PackedLayout:
    """Where each sequence of a packed batch begins and ends.

    Args:
        lengths: Tokens of each sequence, in order.
        device: Where the batch lies.

    Example:
        >>> PackedLayout([2, 2, 3], device=torch.device("cpu")).runs
        [(2, 2), (3, 1)]
    """

    def __init__(self, lengths: Sequence[int], *, device: torch.device) -> None:
        self.longest = max(lengths)
        self.alone = len(lengths) == 1
        self.borders = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32).to(device, non_blocking=True)
        self.runs = [(length, len(list(neighbours))) for length, neighbours in groupby(lengths)]
        """Neighbours of one length, `(length, count)`: they share a call."""


@cache
def has_varlen(index: int, dtype: torch.dtype) -> bool:
    """Whether torch has attention over all sequences at once in a form that is used here, and the card can run it.

    Args:
        index: The card's.
        dtype: What is computed in.
    """
    if index >= torch.cuda.device_count():
        return False
    if dtype == torch.float32:
        return _works(_efficient, index, dtype)
    return (
        dtype in (torch.bfloat16, torch.float16)
        and "scale" in _varlen_options()
        and torch.cuda.get_device_capability(index) >= (8, 0)
    )


def varlen_attention(query: Tensor, key: Tensor, value: Tensor, layout: PackedLayout, scaling: float) -> Tensor:
    """Attend within each sequence, in one call; see `attention.packed_attention`.

    The kernels take heads and tokens in any order in memory: nothing is copied.
    """
    q, k, v = (side[0].transpose(0, 1) for side in (query, key, value))  # [1, heads, n, d] -> [n, heads, d]
    groups = q.shape[1] // k.shape[1]
    if q.dtype == torch.float32:
        return _efficient(q, k, v, layout, scaling)[None]
    if groups > 1 and not (q.is_cuda and _shares_heads(q.device.index)):
        k, v = (side.repeat_interleave(groups, dim=1) for side in (k, v))
    return _flash(q, k, v, layout, scaling)[None]


@cache
def _varlen_options() -> frozenset[str]:
    """Return the names of what torch's variable-length attention takes; of none where there is none."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:  # torch before 2.10
        return frozenset()
    return frozenset(inspect.signature(varlen_attn).parameters)


@cache
def _shares_heads(index: int) -> bool:
    """Whether FlashAttention lets query heads share a key head, also where torch does not say so (before 2.12)."""
    return "enable_gqa" in _varlen_options() or _works(_flash, index, torch.bfloat16)


def _works(attend: _Varlen, index: int, dtype: torch.dtype) -> bool:
    """Try a kernel on a card, with two query heads to a key head, against plain products."""
    device = torch.device("cuda", index)
    with torch.inference_mode(), torch.cuda.device(device):
        # No random numbers: a caller's would come out differently.
        numbers = torch.sin(torch.arange(7 * 4 * 64, device=device) * 0.37).view(7, 4, 64)
        query, key, value = (side.to(dtype) for side in (numbers, numbers[:, :2], numbers[:, 2:]))
        layout = PackedLayout([5, 2], device=device)
        try:
            found = attend(query, key, value, layout, 0.25)
        except (AttributeError, RuntimeError, TypeError) as error:  # no such operator, or none for this card
            logger.debug("a kernel for attention is not available on %s: %s", device, error)
            return False
        expected = torch.empty(7, 4, 64, device=device)
        for part in (slice(0, 5), slice(5, 7)):
            q, k, v = (side[part].float().transpose(0, 1) for side in (query, key, value))
            k, v = (side.repeat_interleave(2, dim=0) for side in (k, v))
            weights = torch.softmax((q * 0.25 @ k.transpose(1, 2)), dim=-1)
            expected[part] = (weights @ v).transpose(0, 1)
        return torch.allclose(found.float(), expected, rtol=0, atol=1e-5 if dtype == torch.float32 else 2e-2)


def _flash(query: Tensor, key: Tensor, value: Tensor, layout: PackedLayout, scaling: float) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    options: dict[str, Any] = {"scale": scaling}
    if "enable_gqa" in _varlen_options():
        options["enable_gqa"] = query.shape[1] != key.shape[1]
    where = (layout.borders, layout.borders, layout.longest, layout.longest)
    return cast("Tensor", varlen_attn(query, key, value, *where, **options))


def _efficient(query: Tensor, key: Tensor, value: Tensor, layout: PackedLayout, scaling: float) -> Tensor:
    """What sdpa calls in float32, with borders between the sequences: an operator that torch does not document."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (side.repeat_interleave(groups, dim=1) for side in (key, value))
    where = (layout.borders, layout.borders, layout.longest, layout.longest)
    attend = torch.ops.aten._efficient_attention_forward
    found = attend(query[None], key[None], value[None], None, *where, 0.0, 0, False, scale=scaling)
    return cast("Tensor", found[0][0])
