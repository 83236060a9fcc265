"""Weights that multiply the same, laid below each other so that a GPU multiplies once; and apart again.

Knows which of a layer's weights these are; must not know how they are computed with or loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch

from .prepacking import unpack

if TYPE_CHECKING:
    from .network import Network

__all__ = ["join", "separate"]


def join(network: Network) -> None:
    """Join queries, keys and values, and both layers before a gate; the layers hold views of what is joined."""
    for layer in cast("list[Any]", network.layers):
        attention, mlp = layer.self_attn, layer.mlp
        groups: list[tuple[Any, list[torch.nn.Linear]]] = [
            (attention, [attention.q_proj, attention.k_proj, attention.v_proj]),
            (mlp, [mlp.gate_proj, mlp.up_proj]),
        ]
        for owner, linears in groups:
            owner.joined = torch.cat([linear.weight for linear in linears])
            rows = owner.joined.split([linear.out_features for linear in linears])
            for linear, weight in zip(linears, rows, strict=True):
                linear.weight = torch.nn.Parameter(weight, requires_grad=False)


def separate(network: Network) -> None:
    """Undo what makes computing faster: give each layer a weight of its own, to be trained, saved and moved."""
    unpack(network)
    for layer in cast("list[Any]", network.layers):
        for owner in (layer.self_attn, layer.mlp):
            if owner.joined is None:
                continue
            owner.joined = None
            for linear in owner.children():
                weight: torch.Tensor = linear.weight
                if weight.untyped_storage().nbytes() > weight.nbytes:  # a view of the joined one
                    linear.weight = torch.nn.Parameter(weight.clone(), requires_grad=False)
