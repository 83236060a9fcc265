"""Qwen3's weights in torch's own modules, and how they are loaded from a folder.

Knows which `config.json` is understood, under what names the weights lie in the files, and in what they are held; must
not know texts, frameworks or transformers, whose import takes longer than loading a model: `export` hands the weights
over to it where it is wanted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ...errors import CheckpointError
from ...files import positive, read_config
from ..devices import resolve_dtype
from ..tensors import read_tensors
from .fused import fused_kernels
from .int8_weights import Int8Linear, check_int8_weights
from .prepacking import PrepackedLinear, can_prepack, unpack

_SIZES = "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim"


@dataclass(frozen=True)
class NetworkConfig:
    """What of a `config.json` decides how the network computes, by the names it has there.

    Attributes:
        vocab_size: Tokens there are.
        hidden_size: Width of a token's state, and of its vector.
        intermediate_size: Width inside a feed-forward network.
        num_hidden_layers: Layers.
        num_attention_heads: Query heads.
        num_key_value_heads: Key and value heads; each serves several query heads.
        head_dim: Width of a head.
        rms_norm_eps: What is added to a mean square before its root is taken.
        rope_theta: Base of the rotary embedding's frequencies.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float
    rope_theta: float

    @classmethod
    def from_folder(cls, folder: Path) -> NetworkConfig:
        """Read a folder's `config.json`.

        Raises:
            CheckpointError: There is none, or it describes a network that is computed in another way.
        """
        config = read_config(folder)
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        if not isinstance(rope, dict):
            raise _refusal(folder, "rope_parameters", rope, "an object is needed")
        kind = rope.get("rope_type", rope.get("type", "default"))
        for key, value, known in (
            ("hidden_act", config.get("hidden_act", "silu"), "silu"),
            ("attention_bias", config.get("attention_bias", False), False),
            ("rope_type", kind, "default"),
            ("partial_rotary_factor", rope.get("partial_rotary_factor", 1), 1),
        ):
            if value != known:
                raise _refusal(folder, key, value, f"pplx-embed has {known!r}, and nothing else is computed here")
        layers = config.get("layer_types") or ["sliding_attention" if config.get("use_sliding_window") else None]
        if not isinstance(layers, list) or not set(map(str, layers)) <= {"full_attention", "None"}:
            raise _refusal(
                folder, "layer_types", layers, "pplx-embed has no sliding attention: full_attention is needed"
            )
        sizes = {key: positive({"head_dim": 128, **config}, key, folder) for key in _SIZES.split()}
        heads, shared = sizes["num_attention_heads"], sizes["num_key_value_heads"]
        if heads % shared:
            raise _refusal(folder, "num_key_value_heads", shared, f"a divisor of {heads} is needed")
        if sizes["head_dim"] % 2:
            raise _refusal(folder, "head_dim", sizes["head_dim"], "an even number is needed")
        numbers = {
            "rms_norm_eps": config.get("rms_norm_eps", 1e-6),
            "rope_theta": rope.get("rope_theta", config.get("rope_theta")),
        }
        for key, value in numbers.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
                raise _refusal(folder, key, value, "a positive number is needed")
        return cls(**sizes, **numbers)


def _refusal(folder: Path, key: str, value: object, needed: str) -> CheckpointError:
    return CheckpointError(f"config.json in {str(folder)!r} has {key}={value!r}; {needed}")


class _Norm(torch.nn.Module):
    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(width))
        self.variance_epsilon = epsilon


class _Attention(torch.nn.Module):
    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.scaling = config.head_dim**-0.5
        queries, keys = (config.head_dim * n for n in (config.num_attention_heads, config.num_key_value_heads))
        self.q_proj = torch.nn.Linear(config.hidden_size, queries, bias=False)
        self.k_proj = torch.nn.Linear(config.hidden_size, keys, bias=False)
        self.v_proj = torch.nn.Linear(config.hidden_size, keys, bias=False)
        self.o_proj = torch.nn.Linear(queries, config.hidden_size, bias=False)
        self.q_norm = _Norm(config.head_dim, config.rms_norm_eps)
        self.k_norm = _Norm(config.head_dim, config.rms_norm_eps)
        self.joined: Tensor | None = None
        """The weights of `q_proj`, `k_proj` and `v_proj` below each other, where one product serves all three."""


class _FeedForward(torch.nn.Module):
    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.gate_proj = torch.nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = torch.nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = torch.nn.Linear(config.intermediate_size, config.hidden_size, bias=False)
        self.joined: Tensor | None = None
        """The weights of `gate_proj` and `up_proj` below each other."""


class _Layer(torch.nn.Module):
    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.self_attn = _Attention(config)
        self.mlp = _FeedForward(config)
        self.input_layernorm = _Norm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = _Norm(config.hidden_size, config.rms_norm_eps)


class _Rotary(torch.nn.Module):
    def __init__(self, frequencies: Tensor) -> None:
        super().__init__()
        self.inv_freq = torch.nn.Buffer(frequencies, persistent=False)


class Network(torch.nn.Module):
    """The weights of a pplx-embed model, under the names of transformers' Qwen3 and of the published files.

    Args:
        config: Sizes. On torch's meta device nothing is allocated.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        # Made of a tensor: drawing random numbers on the meta device imports torch's compiler, which takes a second.
        table = torch.empty(config.vocab_size, config.hidden_size)
        self.embed_tokens: torch.nn.Embedding = torch.nn.Embedding.from_pretrained(table)
        self.layers = torch.nn.ModuleList(_Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = _Norm(config.hidden_size, config.rms_norm_eps)
        self.rotary_emb = _Rotary(torch.empty(config.head_dim // 2))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embed_tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """What is computed in."""
        return self.embed_tokens.weight.dtype

    def join(self) -> None:
        """Lay weights that multiply the same below each other, so that a GPU multiplies once; layers hold views."""
        for module in self.modules():
            if isinstance(module, _Attention):
                module.joined = _joined([module.q_proj, module.k_proj, module.v_proj])
            elif isinstance(module, _FeedForward):
                module.joined = _joined([module.gate_proj, module.up_proj])

    def separate(self) -> None:
        """Undo what makes computing faster: give each layer a weight of its own, to be trained, saved and moved."""
        unpack(self)
        for module in self.modules():
            if isinstance(module, (_Attention, _FeedForward)):
                module.joined = None
            elif isinstance(module, torch.nn.Linear):
                weight = module.weight
                if weight.untyped_storage().nbytes() > weight.nbytes:  # a view of the joined one
                    module.weight = torch.nn.Parameter(weight.clone(), requires_grad=False)


def _joined(linears: list[torch.nn.Linear]) -> Tensor:
    joined = torch.cat([linear.weight for linear in linears])
    for linear, weight in zip(linears, joined.split([linear.out_features for linear in linears]), strict=True):
        linear.weight = torch.nn.Parameter(weight, requires_grad=False)
    return joined


def rotary_frequencies(config: NetworkConfig) -> Tensor:
    """Return by what angle each pair of a head's coordinates turns from one token to the next, `[head_dim / 2]`.

    Su et al. 2021, "RoFormer", section 3.2.2: theta^(-2i / d).
    """
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.int64).float() / config.head_dim
    return 1.0 / (config.rope_theta**exponents)


def load_network(
    folder: Path, *, dtype: str, device: torch.device, prepacked: bool = False, weights: str | None = None
) -> Network:
    """Build the network from a folder's `config.json` and safetensors, straight in the wanted dtype and place.

    Weights are memory mapped and copied one by one, so that at no time more than the model and one tensor is held, and
    nothing of the model depends on the file afterwards.

    Args:
        folder: The checkpoint's folder.
        dtype: `"float32"`, `"bfloat16"` or `"auto"`.
        device: Where the model goes.
        prepacked: Hold the linear layers in the processor's own order where that is possible; see `prepacking`.
        weights: `"int8"` to hold and multiply the linear layers in 8 bits; see `int8_weights`.

    Returns:
        The network, without gradients.

    Raises:
        CheckpointError: A file is missing, damaged, or does not fit the configuration.
        InputError: This machine has no `weights="int8"`.
    """
    config = NetworkConfig.from_folder(folder)
    network = empty_network(config)
    expected = tensor_shapes(network)
    number_type = resolve_dtype(dtype, device=device, parameters=sum(map(math.prod, expected.values())))
    make_linear = _linear_maker(device, number_type, prepacked=prepacked, weights=weights)
    for name, tensor in read_tensors(folder, expected):
        layer = name.rpartition(".")[0]
        if make_linear is not None and isinstance(network.get_submodule(layer), torch.nn.Linear):
            network.set_submodule(layer, make_linear(tensor))
        else:
            network.load_state_dict({name: tensor.to(device, number_type, copy=True)}, strict=False, assign=True)
        del tensor
    network.rotary_emb = _Rotary(rotary_frequencies(config).to(device))
    network.train(False)
    network.requires_grad_(False)
    if fused_kernels(network.device, number_type) is not None:
        network.join()
    return network


def empty_network(config: NetworkConfig) -> Network:
    """Return a network with shapes and no weights."""
    with torch.device("meta"):
        return Network(config)


def tensor_shapes(network: torch.nn.Module) -> dict[str, torch.Size]:
    """Return the shape of each tensor that a checkpoint's files hold, by name."""
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


def _linear_maker(
    device: torch.device, dtype: torch.dtype, *, prepacked: bool, weights: str | None
) -> Callable[[Tensor], torch.nn.Module] | None:
    """Return what makes a linear layer of a weight, None where torch's own layer takes it as it is."""
    if weights == "int8":
        check_int8_weights(device)
        return Int8Linear
    if prepacked and can_prepack(device, dtype):
        return lambda weight: PrepackedLinear(weight.to(dtype))
    return None
