"""Random-weight checkpoints of the published shapes, made on the spot.

Knows the published layout and what makes trained weights awkward; must not know what is measured.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from pplx_embed_integrations.backbone.qwen3.export import PplxQwen3Config, PplxQwen3Model

TOKENIZER = Path(__file__).parent.parent / "tests" / "golden" / "replica-v1"
OUTLIERS = 8
"""Channels that are twenty times louder than the rest, as in trained models of this family."""


@dataclass(frozen=True)
class Shape:
    name: str
    hidden: int
    heads: int
    kv_heads: int
    ffn: int
    layers: int = 28

    @property
    def folder(self) -> str:
        return self.name if self.layers == 28 else f"{self.name}-{self.layers}-layers"

    @property
    def linear_flop(self) -> float:
        """Operations for a token in all linear layers."""
        attention = self.hidden * 128 * (2 * self.heads + 2 * self.kv_heads)
        return 2.0 * self.layers * (attention + 3 * self.hidden * self.ffn)

    def attention_flop(self, length: int) -> float:
        """Operations for a token in the attention of a sequence of so many."""
        return 4.0 * self.layers * self.heads * 128 * length

    @property
    def config(self) -> dict[str, object]:
        published = json.loads((TOKENIZER / "config.json").read_text())
        return published | {
            "architectures": ["PPLXQwen3ContextualModel"],
            "auto_map": {},
            "head_dim": 128,
            "hidden_size": self.hidden,
            "intermediate_size": self.ffn,
            "layer_types": ["full_attention"] * self.layers,
            "max_window_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv_heads,
            "vocab_size": 151936,
        }


SHAPES = {
    "0.6b": Shape("0.6b", hidden=1024, heads=16, kv_heads=8, ffn=3072),
    "quarter": Shape("quarter", hidden=512, heads=8, kv_heads=4, ffn=1536),
}


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "pplx-embed-benchmarks"


def checkpoint(shape: Shape) -> Path:
    """Return the folder of a checkpoint in float32, made if it is not there yet."""
    folder = cache_folder() / shape.folder
    if not (folder / "model.safetensors").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
            shutil.copyfile(TOKENIZER / file, folder / file)
        (folder / "config.json").write_text(json.dumps(shape.config, indent=2))
        partial = folder / "partial"
        save_file(random_weights(shape), partial, metadata={"format": "pt"})
        partial.rename(folder / "model.safetensors")
    return folder


def stock_checkpoint(shape: Shape) -> Path:
    """Return the same weights in a folder whose config says plain Qwen3, for peers that know no other name."""
    source, folder = checkpoint(shape), cache_folder() / f"{shape.folder}-qwen3"
    folder.mkdir(exist_ok=True)
    for file in source.iterdir():
        if file.name != "config.json" and not (folder / file.name).exists():
            (folder / file.name).symlink_to(file)
    config = shape.config | {"model_type": "qwen3", "architectures": ["Qwen3Model"], "is_causal": False}
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    return folder


def random_weights(shape: Shape) -> dict[str, torch.Tensor]:
    """Weights drawn so that hidden states keep their size through the layers and a few channels stand out."""
    device = "cuda" if torch.cuda.is_available() else "cpu"  # drawing 600 million numbers takes a processor a while
    generator = torch.Generator(device).manual_seed(0)
    with torch.device("meta"):
        model = PplxQwen3Model(PplxQwen3Config.from_dict(shape.config))
    weights = {}
    for name, like in model.state_dict().items():
        if like.dim() == 1:
            tensor = torch.ones(like.shape)
        else:
            tensor = torch.randn(like.shape, generator=generator, device=device).mul_(like.shape[1] ** -0.5).cpu()
        if name == "embed_tokens.weight":
            tensor[:, :OUTLIERS] *= 20
        weights[name] = tensor
    return weights
