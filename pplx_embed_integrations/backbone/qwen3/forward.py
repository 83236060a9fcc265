"""One pass over packed sequences for inference: Qwen3's weights, with fewer trips to memory.

Knows Qwen3's layer, and how to compute it in blocks that stay in the processor's caches, or in a GPU's fused kernels;
must not know texts, batches or where weights come from.

transformers' own forward takes a pass over memory for each operation, and a new array for its result. On a CPU that
costs a quarter of the time of a batch, and its arrays most of the memory of a long document; on a GPU it takes longer
than the matrix products.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .attention import Kernel, packed_attention, part_attention
from .fused import fused_kernels
from .int8_weights import Int8Linear, Rounded, round_tokens
from .prepacking import PostOp, PrepackedLinear
from .rows import row_blocks
from .varlen import PackedLayout

if TYPE_CHECKING:
    from .export import PplxQwen3Model
    from .network import Network

    Model: TypeAlias = Network | PplxQwen3Model
    """What holds a network's weights, in modules that are named as in transformers' Qwen3."""

_FLOATS_AT_ONCE = 2**17
"""Floats in a block on a CPU, for each thread: half a megabyte stays in a core's cache between two operations."""

Rotation = tuple[Tensor, Tensor]
"""Cosine and sine of each token's angles, `[tokens, 1, head_dim / 2]` float32."""
Fused = ModuleType | None
"""A GPU's fused kernels, where it has them."""
Attend = Callable[[Tensor, Tensor, Tensor, float], Tensor]
"""From queries, keys, values (each `[1, heads, tokens, head_dim]`) and scaling to `[tokens, heads, head_dim]`."""


def packed_forward(model: Model, sequences: Sequence[Tensor], *, kernel: Kernel | None = None) -> Tensor:
    """Run sequences one behind the other, without padding or mask; each token attends to all of its own sequence.

    Hooks on layers are not called, and there are no gradients.

    Args:
        model: The weights; linear layers may be torch's own, prepacked, int8, or what a trainer has put in their place.
        sequences: Token ids, `[tokens]` integers each; on the CPU all move to the device together. Attention is
            fastest where sequences of one length are neighbours.
        kernel: How attention is computed; by default the fastest way for each sequence.

    Returns:
        Hidden states after the final norm of all tokens in order, `[sum of tokens, hidden_size]`, in the model's dtype.
    """
    lengths = [len(sequence) for sequence in sequences]
    ids = torch.cat(list(sequences)).to(model.device, torch.int64)
    layout = PackedLayout(lengths, device=ids.device)
    positions = torch.from_numpy(np.concatenate([np.arange(length) for length in lengths])).to(ids.device)

    def attend(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        return packed_attention(query, key, value, layout=layout, scaling=scaling, kernel=kernel)[0]

    return _forward(model, ids, positions, attend)


class Meeting:
    """Where threads that compute one sequence together leave its keys and values for each other, layer by layer.

    There is room for those of two layers: a thread is at most one layer ahead of another.

    Args:
        model: The weights.
        tokens: Tokens of the sequence.
        parts: Threads.
    """

    def __init__(self, model: Model, tokens: int, parts: int) -> None:
        heads, width = cast("tuple[int, int]", (model.config.num_key_value_heads, model.config.head_dim))
        self._room = torch.empty(2, 2, 1, heads, tokens, width, dtype=model.dtype)
        self._barrier = threading.Barrier(parts)

    def exchange(self, number: int, part: slice, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Leave a part's keys and values of a layer, and wait for those of the others.

        Raises:
            threading.BrokenBarrierError: Another thread will not come.
        """
        keys, values = self._room[number % 2]
        keys[:, :, part], values[:, :, part] = key, value
        self._barrier.wait()
        return keys, values

    def leave(self) -> None:
        """Tell the others not to wait any longer: this thread failed."""
        self._barrier.abort()


def part_forward(model: Model, ids: Tensor, part: slice, meeting: Meeting, *, kernel: Kernel | None = None) -> Tensor:
    """Run a part of one sequence, while other threads run the others; they wait for each other once a layer.

    Args:
        model: The weights, on the CPU.
        ids: Token ids of the whole sequence, `[tokens]`.
        part: Which of them are this thread's.
        meeting: What the threads have in common.
        kernel: How attention is computed.

    Returns:
        Hidden states of the part's tokens after the final norm, `[tokens of the part, hidden_size]`.

    Raises:
        threading.BrokenBarrierError: Another thread failed.
    """
    numbers = iter(range(len(model.layers)))

    def attend(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        keys, values = meeting.exchange(next(numbers), part, key, value)
        return part_attention(query, keys, values, scaling=scaling, kernel=kernel)

    try:
        return _forward(model, ids[part].long(), torch.arange(len(ids))[part], attend)
    except BaseException:
        meeting.leave()
        raise


def _forward(model: Model, ids: Tensor, positions: Tensor, attend: Attend) -> Tensor:
    tokens = len(ids)
    sizes = row_blocks(tokens) if ids.device.type == "cpu" else (tokens,)
    more = sum(sizes) - tokens  # rows of no sequence: they go through all but attention, and meet nobody

    def mix(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        query, key, value = (side[:, :, :tokens] for side in (query, key, value))
        mixed = attend(query, key, value, scaling).flatten(1)
        return functional.pad(mixed, (0, 0, 0, more)) if more else mixed

    kernels = fused_kernels(ids.device, model.dtype)
    # Triton's kernels run on the thread's current device, whatever their operands are on.
    with torch.cuda.device(ids.device) if ids.is_cuda else nullcontext():
        frequencies = cast("Tensor", model.rotary_emb.inv_freq).float()
        angles = torch.outer(functional.pad(positions, (0, more)).to(frequencies), frequencies)[:, None]
        rotation = angles.cos(), angles.sin()
        hidden: Tensor = model.embed_tokens(functional.pad(ids, (0, more)))
        for layer in model.layers:
            hidden = _layer(layer, hidden, rotation, mix, sizes, kernels)
        return _rms_norm(hidden[:tokens], model.norm)


def _layer(
    layer: Any, hidden: Tensor, rotation: Rotation, mix: Attend, sizes: tuple[int, ...], kernels: Fused
) -> Tensor:
    attention, mlp = layer.self_attn, layer.mlp
    normed = _rms_norm(hidden, layer.input_layernorm)
    query, key, value = _queries_keys_values(attention, normed, rotation, sizes, kernels)
    del normed
    mixed = mix(query, key, value, attention.scaling)
    del query, key, value
    for block, rows in zip(hidden.split(sizes), mixed.split(sizes), strict=True):
        between = _linear(attention.o_proj, rows, "add", block)
        normed = _rms_norm(between, layer.post_attention_layernorm)
        after = _linear(mlp.down_proj, _gated(mlp, normed, kernels), "add", between)
        if len(sizes) == 1:
            return after
        block.copy_(after)
    return hidden


def _queries_keys_values(
    attention: Any, normed: Tensor, rotation: Rotation, sizes: tuple[int, ...], kernels: Fused
) -> tuple[Tensor, ...]:
    """Return what attention is computed of, `[1, heads, tokens, head_dim]` each."""
    shape = (len(normed), -1, attention.head_dim)
    joined = getattr(attention, "joined", None)
    if joined is None or kernels is None:
        layers = attention.q_proj, attention.k_proj, attention.v_proj
        blocks = (_shared(layers[0], block) for block in normed.split(sizes))
        products = [[layer(block) for layer in layers] for block in blocks]
        sides = products[0] if len(sizes) == 1 else [torch.cat(parts) for parts in zip(*products, strict=True)]
        del products
        query, key, value = (side.view(shape) for side in sides)
        query, key = (
            _norm_and_rotate(heads, norm, rotation, kernels)
            for heads, norm in ((query, attention.q_norm), (key, attention.k_norm))
        )
        return query, key, value.transpose(0, 1)[None]
    heads = functional.linear(normed, joined).view(shape)
    keys = attention.k_proj.out_features // attention.head_dim
    kernels.norm_and_rotate(
        heads[:, :-keys],
        *rotation,
        attention.q_norm.weight,
        attention.k_norm.weight,
        epsilon=attention.q_norm.variance_epsilon,
        first=heads.shape[1] - 2 * keys,
    )
    return tuple(side.transpose(0, 1)[None] for side in heads.tensor_split((-2 * keys, -keys), dim=1))


def _gated(mlp: Any, normed: Tensor, kernels: Fused) -> Tensor:
    """Return what a feed-forward network's last product is given: silu(gate) · up."""
    if kernels is None:
        shared = _shared(mlp.gate_proj, normed)
        return _linear(mlp.up_proj, shared, "mul", _linear(mlp.gate_proj, shared, "swish"))
    joined = getattr(mlp, "joined", None)
    gate: Tensor
    if joined is None:
        gate, up = mlp.gate_proj(normed), mlp.up_proj(normed)
    else:
        gate, up = functional.linear(normed, joined).chunk(2, dim=-1)
    kernels.silu_times(gate, up)
    return gate


def _shared(layer: torch.nn.Module, hidden: Tensor) -> Tensor | Rounded:
    """Return the input of layers like this one, rounded for all of them where they multiply in 8 bits."""
    return round_tokens(hidden) if isinstance(layer, Int8Linear) else hidden


def _linear(layer: torch.nn.Module, hidden: Tensor | Rounded, post: PostOp, other: Tensor | None = None) -> Tensor:
    """Multiply, and do what comes next while the product is at hand, where the layer can; `other` may be changed."""
    if isinstance(layer, (PrepackedLinear, Int8Linear)):
        return cast("Tensor", layer(hidden, post, other))
    plain = type(layer) is torch.nn.Linear and getattr(layer, "bias", None) is None
    if post == "add" and plain and other is not None and other.is_cuda:
        return other.addmm_(cast("Tensor", hidden), cast("Tensor", layer.weight).t())
    product: Tensor = layer(hidden)
    if post == "swish":
        return functional.silu(product)
    if other is None:
        return product
    return product * other if post == "mul" else product + other


def _rows_at_once(rows: Tensor) -> int:
    """Return how many rows make a block on a CPU; elsewhere it is all: a kernel there wants all the work at once."""
    if rows.device.type != "cpu":
        return len(rows)
    return max(1, _FLOATS_AT_ONCE * torch.get_num_threads() // math.prod(rows.shape[1:]))


def _rms_norm(hidden: Tensor, norm: Any) -> Tensor:
    """Qwen3's norm (Zhang and Sennrich 2019) in float32; rounded once, at the end."""
    if hidden.is_cuda:
        return functional.rms_norm(hidden, hidden.shape[-1:], norm.weight, norm.variance_epsilon)
    normed = torch.empty_like(hidden)
    rows, weight = _rows_at_once(hidden), norm.weight.float()
    for block, target in zip(hidden.split(rows), normed.split(rows), strict=True):
        target.copy_(_unit(block, norm.variance_epsilon).mul_(weight))
    return normed


def _norm_and_rotate(heads: Tensor, norm: Any, rotation: Rotation, kernels: Fused) -> Tensor:
    """Norm each head and turn it by its token's angles: `[tokens, heads, d]` to `[1, heads, tokens, d]`."""
    tokens, count, width = heads.shape
    half = width // 2
    if kernels is not None:
        kernels.norm_and_rotate(heads, *rotation, norm.weight, norm.weight, epsilon=norm.variance_epsilon, first=count)
        return heads.transpose(0, 1)[None]
    # In memory as the kernels like it: head by head on a CPU, token by token elsewhere.
    if heads.device.type == "cpu":
        turned = heads.new_empty(count, tokens, width).transpose(0, 1)
    else:
        turned = torch.empty_like(heads)
    rows, weight = _rows_at_once(heads), norm.weight.float()
    for block, target, cos, sin in zip(*(each.split(rows) for each in (heads, turned, *rotation)), strict=True):
        first, second = _unit(block, norm.variance_epsilon).mul_(weight).chunk(2, dim=-1)
        target[..., :half] = (first * cos).addcmul_(second, sin, value=-1)
        target[..., half:] = (second * cos).addcmul_(first, sin)
    return turned.transpose(0, 1)[None]


def _unit(rows: Tensor, epsilon: float) -> Tensor:
    """Scale each row to a mean square of one, as a float32 copy."""
    copied = rows.to(torch.float32, copy=True)
    squares: Tensor = torch.linalg.vector_norm(copied, dim=-1, keepdim=True).square_()
    return copied.mul_(squares.div_(rows.shape[-1]).add_(epsilon).rsqrt_())
