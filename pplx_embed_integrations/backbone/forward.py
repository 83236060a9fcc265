"""One pass over packed sequences for inference: Qwen3's weights, with fewer trips to memory.

Knows Qwen3's layer, and how to compute it in blocks that stay in the processor's caches; must not know texts, batches
or where weights come from.

transformers' own forward takes a pass over memory for each operation, and a new array for its result. On a CPU that
costs a quarter of the time of a batch, and its arrays most of the memory of a long document.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.nn import functional

from .attention import Kernel, PackedLayout, packed_attention
from .int8_weights import Int8Linear
from .prepacking import PrepackedLinear

if TYPE_CHECKING:
    from .modeling import PplxQwen3Model
    from .network import Network

__all__ = ["packed_forward"]

_FLOATS_AT_ONCE = 2**17
"""Floats in a block on a CPU, for each thread: half a megabyte stays in a core's cache between two operations."""
_ROWS_AT_ONCE = 1024
"""Tokens that go through a feed-forward network together on a CPU: what lies between its layers is three times wider
than a hidden state, and of a long document would fill gigabytes."""

Rotation = tuple[torch.Tensor, torch.Tensor]
"""Cosine and sine of each token's angles, `[tokens, 1, head_dim / 2]` float32."""


def packed_forward(
    model: Network | PplxQwen3Model, sequences: Sequence[torch.Tensor], *, kernel: Kernel | None = None
) -> torch.Tensor:
    """Run sequences one behind the other, without padding or mask; each token attends to all of its own sequence.

    Hooks on layers are not called, and there are no gradients.

    Args:
        model: The weights, in modules named as in transformers' Qwen3; its linear layers may be torch's own, prepacked,
            int8, or what a trainer has put in their place.
        sequences: Token ids, `[tokens]` integers each; on the CPU all move to the device together. Attention is
            fastest where sequences of one length are neighbours.
        kernel: How attention is computed; by default the fastest way for each sequence.

    Returns:
        Hidden states after the final norm of all tokens in order, `[sum of tokens, hidden_size]`, in the model's dtype.
    """
    lengths = [len(sequence) for sequence in sequences]
    ids = torch.cat(list(sequences)).to(model.device, torch.int64)
    layout = PackedLayout(lengths, device=ids.device)
    rotation = _rotation(cast("torch.Tensor", model.rotary_emb.inv_freq).float(), lengths)
    hidden = model.embed_tokens(ids)
    for layer in model.layers:
        hidden = _layer(layer, hidden, rotation, layout, kernel)
    return _rms_norm(hidden, model.norm)


def _rotation(frequencies: torch.Tensor, lengths: Sequence[int]) -> Rotation:
    positions = torch.cat([torch.arange(length, dtype=torch.float32) for length in lengths]).to(frequencies.device)
    angles = torch.outer(positions, frequencies)[:, None]
    return angles.cos(), angles.sin()


def _layer(
    layer: Any, hidden: torch.Tensor, rotation: Rotation, layout: PackedLayout, kernel: Kernel | None
) -> torch.Tensor:
    attention, mlp = layer.self_attn, layer.mlp
    normed = _rms_norm(hidden, layer.input_layernorm)
    heads = (len(hidden), -1, attention.head_dim)
    query = _norm_and_rotate(attention.q_proj(normed).view(heads), attention.q_norm, rotation)
    key = _norm_and_rotate(attention.k_proj(normed).view(heads), attention.k_norm, rotation)
    value = attention.v_proj(normed).view(heads).transpose(0, 1)[None]
    del normed
    mixed = packed_attention(query, key, value, layout=layout, scaling=attention.scaling, kernel=kernel)[0].flatten(1)
    del query, key, value
    hidden = _linear(attention.o_proj, mixed, plus=hidden)
    del mixed
    for block in _blocks(hidden, _ROWS_AT_ONCE):
        normed = _rms_norm(block, layer.post_attention_layernorm)
        inner = _linear(mlp.up_proj, normed, times=_linear(mlp.gate_proj, normed, silu=True))
        block.copy_(_linear(mlp.down_proj, inner, plus=block))
    return hidden


def _linear(
    layer: torch.nn.Module,
    hidden: torch.Tensor,
    *,
    silu: bool = False,
    times: torch.Tensor | None = None,
    plus: torch.Tensor | None = None,
) -> torch.Tensor:
    """Multiply, and do what comes next while the product is at hand, where the layer can."""
    product: torch.Tensor
    if isinstance(layer, (PrepackedLinear, Int8Linear)):
        product = layer(hidden, silu=silu, times=times, plus=plus)
        return product
    product = layer(hidden)
    if silu:
        product = functional.silu(product)
    if times is not None:
        product = product * times
    return product if plus is None else product + plus


def _blocks(rows: torch.Tensor, most: int) -> Iterator[torch.Tensor]:
    """Yield views of neighbouring rows on a CPU, elsewhere all of them: a kernel there wants all the work at once."""
    yield from rows.split(most) if rows.device.type == "cpu" else (rows,)


def _rms_norm(hidden: torch.Tensor, norm: Any) -> torch.Tensor:
    """Qwen3's norm (Zhang and Sennrich 2019) in float32; rounded once, at the end."""
    normed = torch.empty_like(hidden)
    rows = max(1, _FLOATS_AT_ONCE * torch.get_num_threads() // hidden.shape[-1])
    weight = norm.weight.float()
    for block, target in zip(_blocks(hidden, rows), _blocks(normed, rows), strict=True):
        target.copy_(_unit(block, norm.variance_epsilon).mul_(weight))
    return normed


def _norm_and_rotate(heads: torch.Tensor, norm: Any, rotation: Rotation) -> torch.Tensor:
    """Norm each head and turn it by its token's angles: `[tokens, heads, d]` to `[1, heads, tokens, d]`."""
    tokens, count, width = heads.shape
    # In memory as the kernels like it: head by head on a CPU, token by token elsewhere.
    if heads.device.type == "cpu":
        turned = heads.new_empty(count, tokens, width).transpose(0, 1)
    else:
        turned = torch.empty_like(heads)
    rows = max(1, _FLOATS_AT_ONCE * torch.get_num_threads() // (count * width))
    weight = norm.weight.float()
    for block, target, cos, sin in zip(*(_blocks(each, rows) for each in (heads, turned, *rotation)), strict=True):
        first, second = _unit(block, norm.variance_epsilon).mul_(weight).chunk(2, dim=-1)
        target[..., : width // 2] = (first * cos).addcmul_(second, sin, value=-1)
        target[..., width // 2 :] = (second * cos).addcmul_(first, sin)
    return turned.transpose(0, 1)[None]


def _unit(rows: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Scale each row to a mean square of one, as a float32 copy."""
    copied = rows.to(torch.float32, copy=True)
    squares: torch.Tensor = torch.linalg.vector_norm(copied, dim=-1, keepdim=True).square_()
    return copied.mul_(squares.div_(rows.shape[-1]).add_(epsilon).rsqrt_())
