"""What tells one family of embedding models from another: a record for each.

Knows how the models of a family read a text, and what becomes of the mean of its tokens; must not know single
checkpoints, nor how a model is run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .vectors import Quantizer, tanh_int8


def _named_contextual(config: Mapping[str, Any]) -> bool:
    # Published checkpoints say it in auto_map alone; those saved through our classes say it in `architectures`.
    auto_map, architectures = config.get("auto_map"), config.get("architectures")
    named = [*architectures] if isinstance(architectures, list) else []
    named += [auto_map.get("AutoModel")] if isinstance(auto_map, dict) else []
    return any(isinstance(entry, str) and entry.endswith("ContextualModel") for entry in named)


@dataclass(frozen=True)
class Head:
    """A linear layer between the mean over a chunk's tokens and its vector, computed in float32.

    Attributes:
        dimension: Key of `config.json` under which the width of the vector stands.
        weight: Name of the layer's weight, `[dimension, hidden_size]`, in the checkpoint's files.
        bias: Name of its bias, `[dimension]`; None where it has none.
    """

    dimension: str
    weight: str
    bias: str | None = None


@dataclass(frozen=True)
class Family:
    """One family of models.

    Attributes:
        name: What an error calls it.
        model_type: `model_type` in the `config.json` of its checkpoints.
        separator: Token between two chunks of a document; None for the one that the tokenizer's files name.
        prompts: What is read before a text in the role of a query and of a document, special tokens included. It is
            attended to, and not pooled. Where there are none, both are read alike.
        head: Layer between the mean and the vector, None for the mean itself.
        quantizer: How floats become int8 codes; bits are always their signs.
        smallest: Smallest width to which a vector may be cut, but an eighth of it where that is less.
        contextual: Whether a `config.json` describes a checkpoint that embeds the chunks of a document together.

    Example:
        >>> PPLX_EMBED.model_type, PPLX_EMBED.prompts
        ('bidirectional_pplx_qwen3', None)
    """

    name: str
    model_type: str
    separator: str | None = None
    prompts: tuple[str, str] | None = None
    head: Head | None = None
    quantizer: Quantizer = tanh_int8
    smallest: int = 128
    contextual: Callable[[Mapping[str, Any]], bool] = _named_contextual

    def min_dimension(self, dimension: int) -> int:
        """Return the smallest width to which vectors may be cut.

        Example:
            >>> PPLX_EMBED.min_dimension(1024), PPLX_EMBED.min_dimension(384)
            (128, 48)
        """
        return max(1, min(self.smallest, dimension // 8))


PPLX_EMBED = Family(name="pplx-embed", model_type="bidirectional_pplx_qwen3")
"""pplx-embed v1 and context-v1."""

FAMILIES = {family.model_type: family for family in (PPLX_EMBED,)}
"""Every family, by the `model_type` of its checkpoints."""
