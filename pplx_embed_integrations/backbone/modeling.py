"""Qwen3 with bidirectional attention, as a native transformers class, and how it is built from a folder.

Knows transformers' Qwen3 and in what its weights are held; must not know texts, batches or frameworks.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModel, Qwen3Config, Qwen3Model
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention

from ..checkpoints import MODEL_TYPE
from ..errors import CheckpointError
from .attention import Kernel
from .devices import resolve_dtype
from .forward import packed_forward
from .int8_weights import Int8Linear, TokenCodes, check_int8_weights
from .prepacking import PrepackedLinear, can_prepack
from .tensors import read_tensors

__all__ = ["PplxQwen3Config", "PplxQwen3ContextualModel", "PplxQwen3Model", "empty_model", "load_model", "register"]


class PplxQwen3Config(Qwen3Config):
    """Configuration of a pplx-embed checkpoint: Qwen3's, under the published `model_type`, never causal.

    Example:
        >>> PplxQwen3Config(hidden_size=64).model_type
        'bidirectional_pplx_qwen3'
    """

    model_type = MODEL_TYPE
    is_causal = False


class PplxQwen3Model(Qwen3Model):
    """Qwen3 in which every token attends to every real token.

    A `config` with `is_causal=False` makes transformers build a bidirectional mask where there is padding and none
    where there is not; the flag on each attention module keeps the kernels from adding a causal one of their own.

    Args:
        config: The checkpoint's configuration.
    """

    config_class = PplxQwen3Config
    config: PplxQwen3Config

    def __init__(self, config: PplxQwen3Config) -> None:
        super().__init__(config)
        for module in self.modules():
            if isinstance(module, Qwen3Attention):
                module.is_causal = False

    def forward_packed(self, sequences: list[torch.Tensor], *, kernel: Kernel | None = None) -> torch.Tensor:
        """Run sequences one behind the other, without padding, without a mask and without gradients.

        Args:
            sequences: Token ids, `[tokens]` integers each; on the CPU all move to the device together. Attention
                is fastest where sequences of one length are neighbours.
            kernel: How attention is computed; by default the fastest way for each sequence.

        Returns:
            Final hidden states of all tokens in order, `[sum of tokens, hidden_size]`.
        """
        ids = torch.cat(sequences).to(self.device, torch.int64)
        return packed_forward(self, ids, [len(sequence) for sequence in sequences], kernel=kernel)


class PplxQwen3ContextualModel(PplxQwen3Model):
    """The same network under the name by which a saved contextual checkpoint is recognised."""


def register() -> None:
    """Register the classes with transformers, so that no checkpoint ever asks to run its own code; idempotent."""
    AutoConfig.register(MODEL_TYPE, PplxQwen3Config, exist_ok=True)
    AutoModel.register(PplxQwen3Config, PplxQwen3Model, exist_ok=True)


def load_model(
    folder: Path,
    *,
    contextual: bool,
    dtype: str,
    device: torch.device,
    prepacked: bool = False,
    weights: str | None = None,
) -> PplxQwen3Model:
    """Build the model from a folder's `config.json` and safetensors, straight in the wanted dtype and place.

    Weights are memory mapped and copied one by one, so that at no time more than the model and one tensor is held, and
    nothing of the model depends on the file afterwards.

    Args:
        folder: The checkpoint's folder.
        contextual: Whether it embeds chunks in context.
        dtype: `"float32"`, `"bfloat16"` or `"auto"`.
        device: Where the model goes.
        prepacked: Hold the linear layers in the processor's own order where that is possible; see `prepacking`.
        weights: `"int8"` to hold and multiply the linear layers in 8 bits; see `int8_weights`.

    Returns:
        The model in evaluation mode.

    Raises:
        CheckpointError: A file is missing, damaged, or does not fit the configuration.
        InputError: This machine has no `weights="int8"`.
    """
    register()
    config, model = empty_model(folder, contextual=contextual)
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    parameters = sum(map(math.prod, expected.values()))
    number_type = resolve_dtype(dtype, device=device, parameters=parameters)
    make_linear = _linear_maker(device, number_type, prepacked=prepacked, weights=weights)
    for name, tensor in read_tensors(folder, expected):
        layer = name.rpartition(".")[0]
        if make_linear is not None and isinstance(model.get_submodule(layer), torch.nn.Linear):
            model.set_submodule(layer, make_linear(tensor))
        else:
            model.load_state_dict({name: tensor.to(device, number_type, copy=True)}, strict=False, assign=True)
        del tensor
    model.rotary_emb = type(model.rotary_emb)(config).to(device)
    model.train(False)
    model.requires_grad_(False)
    return model


def _linear_maker(
    device: torch.device, dtype: torch.dtype, *, prepacked: bool, weights: str | None
) -> Callable[[torch.Tensor], torch.nn.Module] | None:
    """Return what makes a linear layer of a weight, None where torch's own layer takes it as it is."""
    if weights == "int8":
        check_int8_weights(device)
        return partial(Int8Linear, codes=TokenCodes())
    if prepacked and can_prepack(device, dtype):
        return lambda weight: PrepackedLinear(weight.to(dtype))
    return None


def empty_model(folder: Path, *, contextual: bool) -> tuple[PplxQwen3Config, PplxQwen3Model]:
    """Build the model that a folder's `config.json` describes, with shapes and no weights.

    Raises:
        CheckpointError: There is no such file, or it describes no pplx-embed model.
    """
    try:
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        # What names code is dropped, so that a model saved from here does not ask for it either.
        settings = {key: value for key, value in settings.items() if key not in ("is_causal", "auto_map")}
        config = PplxQwen3Config.from_dict(settings)
        config._attn_implementation = "sdpa"  # of padded batches, which a SentenceTransformer makes
        with torch.device("meta"):
            model = (PplxQwen3ContextualModel if contextual else PplxQwen3Model)(config)
    except Exception as error:  # whatever transformers, or torch under it, says of a value that cannot be
        reason = f"{type(error).__name__}: {error}"
        raise CheckpointError(f"config.json in {str(folder)!r} cannot be used ({reason})") from error
    if set(config.layer_types or ()) != {"full_attention"}:
        raise CheckpointError(f"config.json in {str(folder)!r} asks for sliding attention, which pplx-embed never uses")
    if config.attention_bias or config.hidden_act != "silu":
        raise CheckpointError(
            f"config.json in {str(folder)!r} asks for attention_bias={config.attention_bias!r} and "
            f"hidden_act={config.hidden_act!r}; pplx-embed has no bias, and silu"
        )
    return config, model
