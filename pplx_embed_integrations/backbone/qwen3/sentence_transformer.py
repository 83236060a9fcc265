"""The checkpoint as a SentenceTransformer: the same weights behind sentence-transformers' own modules.

Knows how a SentenceTransformer is composed, with mean pooling and the published quantiser; must not know packing,
spans or frameworks.
"""

from __future__ import annotations

import json
import shutil
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base import model as base
from sentence_transformers.base.modules import Module, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

from ...errors import InputError
from ...files import read_json
from . import export
from .export import PplxQwen3Model


class TanhQuantizer(Module):
    """The published output stage: pooled floats to int8 or binary values, held as floats.

    `SentenceTransformer.encode(texts, quantization=...)` passes the choice through: `"int8"` (default, as
    published), `"binary"` or `None` for the pooled floats themselves. In training the gradient is that of the smooth
    function (straight-through estimator).
    """

    forward_kwargs = {"quantization"}  # noqa: RUF012  (declared like this by the base class)

    def __init__(self) -> None:
        Module.__init__(self)  # by name: mypy cannot see whose the untyped call is behind super()

    def forward(self, features: dict[str, Any], quantization: str | None = "int8", **kwargs: Any) -> dict[str, Any]:
        """Quantise `features["sentence_embedding"]`, `[n, d]`.

        Raises:
            InputError: `quantization` is none of the three.
        """
        pooled = features["sentence_embedding"].float()
        if quantization not in ("int8", "binary", None):
            raise InputError(
                f'quantization={quantization!r} is unknown here; use "int8", "binary" or None. '
                'Packed bits ("ubinary") come from PplxEncoder.encode'
            )
        if quantization == "int8":
            pooled = _straight_through(torch.tanh(pooled) * 127, torch.round)
        elif quantization == "binary":
            pooled = _straight_through(torch.tanh(pooled), lambda soft: torch.where(soft >= 0, 1.0, -1.0))
        features["sentence_embedding"] = pooled
        return features

    @classmethod
    def load(cls, model_name_or_path: str, *args: Any, **kwargs: Any) -> TanhQuantizer:
        """Make one; nothing is read, neither configuration nor code."""
        return cls()

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Write the (empty) configuration: the formulas have no parameters."""
        self.save_config(output_path)


_OURS = (
    f"{TanhQuantizer.__module__}.{TanhQuantizer.__qualname__}",
    "pplx_embed_integrations.backbone.modules.TanhQuantizer",
    "st_quantize.FlexibleQuantizer",
)
"""What a `modules.json` calls the output stage: ours as saved now and formerly, and the published one."""

_import_module_class = base.import_module_class  # type: ignore[attr-defined]  # the library imports it there


@wraps(_import_module_class)
def _import_known_class(class_ref: str, *args: Any, **kwargs: Any) -> type:
    return TanhQuantizer if class_ref in _OURS else _import_module_class(class_ref, *args, **kwargs)


def register() -> None:
    """Teach transformers and sentence-transformers to open pplx-embed checkpoints by themselves.

    Afterwards `AutoConfig`, `AutoModel`, `AutoTokenizer` and a plain `SentenceTransformer(folder)` open the published
    repositories, and what `PplxEncoder.sentence_transformer` has saved, without `trust_remote_code`, without a question
    on standard input, and without running code of the folder. Holds for this process; calling it again changes nothing.

    In transformers it adds the model type `bidirectional_pplx_qwen3` to the registries of `AutoConfig`, `AutoModel` and
    `AutoTokenizer`. In sentence-transformers it makes two names in a `modules.json` mean `TanhQuantizer`: its own, and
    the published `st_quantize.FlexibleQuantizer`. All else is looked up as before.

    Example:
        >>> register()
        >>> from transformers import AutoConfig
        >>> AutoConfig.for_model("bidirectional_pplx_qwen3").is_causal
        False
    """
    export.register()
    base.import_module_class = _import_known_class  # type: ignore[attr-defined]


def _straight_through(soft: torch.Tensor, harden: Any) -> torch.Tensor:
    hard: torch.Tensor = harden(soft)
    if not soft.requires_grad:
        return hard  # exactly integral; the sum below is off by a rounding error
    return soft + (hard - soft).detach()


class _LoadedTransformer(Transformer):
    """sentence-transformers' own Transformer around a model that is already in memory."""

    def __init__(self, folder: str, *, model: PplxQwen3Model, **kwargs: Any) -> None:
        self._held = [model]  # in a list: a bare module cannot be set before Module.__init__
        super().__init__(folder, **kwargs)
        del self._held

    def _load_model(self, *args: Any, **kwargs: Any) -> Any:
        return self._held[0]


def _copy_without_code(folder: Path, clean: Path) -> None:
    """Copy configuration and tokenizer without what names code: transformers refuses a folder that asks for any."""
    shutil.copy(folder / "tokenizer.json", clean)
    tokenizer: dict[str, Any] = {}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / file).is_file():
            tokenizer |= read_json(folder / file)
    tokenizer["tokenizer_class"] = "Qwen2Tokenizer"
    for file, settings in (("config.json", read_json(folder / "config.json")), ("tokenizer_config.json", tokenizer)):
        data = {key: value for key, value in settings.items() if key not in ("auto_map", "processor_class")}
        (clean / file).write_text(json.dumps(data), encoding="utf-8")


def compose(folder: Path, model: PplxQwen3Model, *, max_tokens: int) -> SentenceTransformer:
    """Compose a SentenceTransformer that shares the weights of a loaded model.

    Args:
        folder: The checkpoint's folder, for the tokenizer.
        model: The loaded model.
        max_tokens: Longest input; sentence-transformers cuts longer ones.

    Returns:
        The SentenceTransformer, on the model's device, its weights free to be trained. No code from the folder is
        run.
    """
    export.register()
    model.requires_grad_(True)
    with TemporaryDirectory() as clean:
        _copy_without_code(folder, Path(clean))
        transformer = _LoadedTransformer(
            clean,
            model=model,
            config_kwargs={"trust_remote_code": False},
            processor_kwargs={"trust_remote_code": False, "local_files_only": True, "split_special_tokens": True},
            max_seq_length=max_tokens,
        )
    if transformer.tokenizer is not None:  # it never is, but sentence-transformers has image models, too
        transformer.tokenizer.name_or_path = str(folder)
    # Saved under the name that sentence-transformers itself can load again.
    transformer.__class__ = Transformer
    pooling = Pooling(model.config.hidden_size, pooling_mode="mean")
    return SentenceTransformer(modules=[transformer, pooling, TanhQuantizer()], device=str(model.device))
