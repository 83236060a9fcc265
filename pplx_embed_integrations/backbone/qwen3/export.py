"""Qwen3 with bidirectional attention, as a native transformers class: for trainers, evaluators and saving.

Knows transformers' Qwen3, and how it takes over the weights of a network; must not know weight files, texts or
frameworks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer, Qwen2Tokenizer, Qwen3Config, Qwen3Model
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention

from ...errors import CheckpointError
from ...families import PPLX_EMBED
from ...files import read_config
from .network import Network


class PplxQwen3Config(Qwen3Config):
    """Configuration of a pplx-embed checkpoint: Qwen3's, under the published `model_type`, never causal.

    Example:
        >>> PplxQwen3Config(hidden_size=64).model_type
        'bidirectional_pplx_qwen3'
    """

    model_type = PPLX_EMBED.model_type
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

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> PplxQwen3Model:
        """Load a folder as transformers does, as the contextual class where the checkpoint is one.

        `AutoModel` knows one class for a configuration, and what it opens must stay contextual when it is saved.
        """
        model: PplxQwen3Model = super().from_pretrained(*args, **kwargs)
        if type(model) is PplxQwen3Model and PPLX_EMBED.contextual(model.config.to_dict()):
            model.__class__ = PplxQwen3ContextualModel
        return model


class PplxQwen3ContextualModel(PplxQwen3Model):
    """The same network under the name by which a saved contextual checkpoint is recognised."""


def register() -> None:
    """Register the classes with transformers, so that no checkpoint ever asks to run its own code; idempotent."""
    AutoConfig.register(PPLX_EMBED.model_type, PplxQwen3Config, exist_ok=True)
    AutoModel.register(PplxQwen3Config, PplxQwen3Model, exist_ok=True)
    AutoTokenizer.register(PplxQwen3Config, fast_tokenizer_class=Qwen2Tokenizer, exist_ok=True)


def as_transformers(network: Network, folder: Path, *, contextual: bool) -> PplxQwen3Model:
    """Return the transformers model that holds a network's weights: the same tensors, none copied.

    Args:
        network: The weights, linear layers torch's own.
        folder: The checkpoint's folder, for what else its `config.json` says.
        contextual: Whether it embeds chunks in context.

    Returns:
        The model in evaluation mode, without gradients.

    Raises:
        CheckpointError: transformers does not take the configuration.
    """
    register()
    # What names code is dropped, so that a model saved from here does not ask for it either.
    settings = {key: value for key, value in read_config(folder).items() if key not in ("is_causal", "auto_map")}
    try:
        config = PplxQwen3Config.from_dict(settings)
        config._attn_implementation = "sdpa"  # of padded batches, which a SentenceTransformer makes
        with torch.device("meta"):
            model = (PplxQwen3ContextualModel if contextual else PplxQwen3Model)(config)
    except Exception as error:  # whatever transformers says of a value that it, other than `Network`, reads
        reason = f"{type(error).__name__}: {error}"
        raise CheckpointError(f"config.json in {str(folder)!r} cannot be used by transformers ({reason})") from error
    for name, parameter in network.named_parameters():
        module, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(module), leaf, parameter)
    model.rotary_emb = type(model.rotary_emb)(config).to(network.device)
    model.train(False)
    model.requires_grad_(False)
    return model
