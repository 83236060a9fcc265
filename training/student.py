"""Knows the student network: its configuration, its static initialisation from the teacher, pooling and export.

It must not know batches, losses or the corpus beyond the texts of its vocabulary.
"""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import tokenizer as vocabulary
import torch
from batches import Padded
from safetensors.torch import save_file
from scipy import sparse
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from pplx_embed_integrations.backbone.qwen3.network import Network, NetworkConfig, rotary_frequencies

WIDTH = 384
SINK = WIDTH - 1
LAYERS = 3
HEADS, PAIRS, HEAD = 4, 2, 64
FEED_FORWARD = 384
LIMIT = 8192
#: Bits kept after the leading one of a value on disk, of bfloat16's seven: what is left out compresses in the wheel.
TABLE_BITS, LAYER_BITS = 3, 3
#: On the final norm: tanh bends large values, and on held-out passages the int8 cosines err less with smaller ones.
GAIN = 0.6


def shape(layers: int) -> NetworkConfig:
    """A few thin layers over the trained vocabulary, which holds most of the parameters."""
    return NetworkConfig(
        vocab_size=vocabulary.VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=FEED_FORWARD,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        num_key_value_heads=PAIRS,
        head_dim=HEAD,
        rms_norm_eps=1e-6,
        rope_theta=1_000_000,
    )


class Student(nn.Module):
    """The package's own network with a forward pass that can be trained, and mean pooling."""

    def __init__(self, layers: int = LAYERS) -> None:
        super().__init__()
        self.backbone = Network(shape(layers))
        self.backbone.rotary_emb.inv_freq.copy_(rotary_frequencies(self.backbone.config))
        for name, parameter in self.backbone.named_parameters():
            parameter.requires_grad_(True)
            if parameter.ndim == 1:
                nn.init.ones_(parameter)
            elif name.endswith(("o_proj.weight", "down_proj.weight")):
                nn.init.zeros_(parameter)  # an idle layer: its sum adds nothing yet
            else:
                nn.init.normal_(parameter, std=WIDTH**-0.5)

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.backbone.device

    def states(self, texts: Padded) -> Tensor:
        """Hidden states after the final norm, `[texts, tokens, width]`, of each text on its own."""
        net, mask = self.backbone, texts.mask
        frequencies = net.rotary_emb.inv_freq
        angles = torch.outer(torch.arange(mask.shape[1], device=mask.device).to(frequencies), frequencies)
        turn = angles.cos(), angles.sin()
        hidden = net.embed_tokens(texts.ids)
        for layer in net.layers:
            hidden = hidden + _attend(layer.self_attn, _rms(hidden, layer.input_layernorm), turn, mask)
            normed, mlp = _rms(hidden, layer.post_attention_layernorm), layer.mlp
            hidden = hidden + mlp.down_proj(functional.silu(mlp.gate_proj(normed)) * mlp.up_proj(normed))
        return _rms(hidden, net.norm)

    def forward(self, texts: Padded) -> Tensor:
        """Mean over the tokens, float32 [texts, width]."""
        return _mean(self.states(texts), texts.mask)

    def static(self, texts: Padded) -> Tensor:
        """What the network gives while its blocks are idle: embedding, norm, mean."""
        return _mean(_rms(self.backbone.embed_tokens(texts.ids), self.backbone.norm), texts.mask)


def _mean(states: Tensor, mask: Tensor) -> Tensor:
    return (states.float() * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


def _rms(hidden: Tensor, norm: Any) -> Tensor:
    return functional.rms_norm(hidden.float(), norm.weight.shape, norm.weight, norm.variance_epsilon)


def _attend(attention: Any, hidden: Tensor, turn: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
    heads = (*hidden.shape[:2], -1, HEAD)
    query = _turned(_rms(attention.q_proj(hidden).view(heads), attention.q_norm), turn)
    key = _turned(_rms(attention.k_proj(hidden).view(heads), attention.k_norm), turn)
    value = attention.v_proj(hidden).view(heads).transpose(1, 2)
    key, value = (side.repeat_interleave(HEADS // PAIRS, dim=1) for side in (key, value))
    # torch's backward pass is slow in bfloat16 on processors.
    half = torch.bfloat16 if hidden.device.type == "cuda" else torch.float32
    query, key, value = (side.to(half) for side in (query, key, value))
    with torch.autocast(hidden.device.type, enabled=False):
        seen = mask[:, None, None].expand(-1, HEADS, mask.shape[1], -1)
        out = functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)
    return attention.o_proj(out.transpose(1, 2).flatten(2))


def _turned(heads: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = (part[:, None] for part in turn)
    first, second = heads.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).transpose(1, 2)


class Projection:
    """Teacher space to student space: centred principal axes, turned at random within each Matryoshka block."""

    def __init__(self, known: Tensor, *, seed: int = 0) -> None:
        rows = known.cpu().numpy()
        self.mean = known.mean(0)
        axes = np.linalg.eigh(np.cov((rows - rows.mean(0)).T))[1][:, ::-1][:, :SINK].copy()
        rng = np.random.default_rng(seed)
        for start, stop in pairwise((0, WIDTH // 8, WIDTH // 4, WIDTH // 2, SINK)):
            turn = np.linalg.qr(rng.normal(size=(stop - start, stop - start)))[0]
            axes[:, start:stop] = axes[:, start:stop] @ turn
        self.axes = torch.from_numpy(axes.astype(np.float32)).to(known.device)

    def __call__(self, rows: Tensor) -> Tensor:
        """float32 [n, width - 1] of unit length."""
        return functional.normalize((rows - self.mean) @ self.axes, dim=-1)


def token_texts(tokenizer: Tokenizer) -> list[str]:
    """What every vocabulary entry says, as the teacher is asked about it."""
    texts = [tokenizer.decode([i], skip_special_tokens=False).strip() for i in range(tokenizer.get_vocab_size())]
    return [text if text and "\ufffd" not in text else "." for text in texts]


def fit_bags(
    content: np.ndarray, bags: sparse.csr_matrix, targets: np.ndarray, *, ridge: float, rounds: int
) -> np.ndarray:
    """Token vectors whose means over a text come nearest the text's target, by conjugate gradient.

    Solves min ||bags @ E - targets||^2 + ridge ||E - content||^2 for all columns at once.
    """
    start = bags @ content
    content = content * float((start * targets).sum() / (start**2).sum())
    back = bags.T.tocsr()
    solution = np.zeros_like(content)
    residual = back @ (targets - bags @ content)
    direction, norm = residual.copy(), (residual**2).sum(0)
    for _ in range(rounds):
        image = back @ (bags @ direction) + ridge * direction
        step = norm / np.maximum((direction * image).sum(0), 1e-12)
        solution += step * direction
        residual -= step * image
        fresh = (residual**2).sum(0)
        direction = residual + fresh / np.maximum(norm, 1e-12) * direction
        norm = fresh
    return np.asarray(content + solution, dtype=np.float32)


def initialise(content: np.ndarray, bags: sparse.csr_matrix, targets: np.ndarray) -> Student:
    """A student whose step 0 is a static embedder: token vectors fitted to the teacher, idle blocks.

    The final norm gives every token the same length, so a token's weight w is written as its share of the norm: the
    content holds w and a sink dimension, muted by the norm's own weight, holds the rest.

    Args:
        content: What the teacher says of each token by itself, projected, `[vocabulary, width - 1]`.
        bags: Some texts as shares of their tokens, `[texts, vocabulary]`.
        targets: The teacher's projected vectors of them, `[texts, width - 1]`.
    """
    student = Student()
    shares = np.asarray(bags.mean(0)).ravel()
    weight = np.sqrt(1e-3 / (1e-3 + shares))  # smooth inverse frequency (Arora et al. 2017), softened
    fitted = fit_bags((content * weight[:, None]).astype(np.float32), bags, targets, ridge=0.3, rounds=25)
    lengths = np.linalg.norm(fitted, axis=1, keepdims=True)
    fitted = torch.from_numpy(fitted / np.maximum(lengths, np.quantile(lengths, 0.98)))
    with torch.no_grad():
        table = student.backbone.embed_tokens.weight
        table[:, :SINK] = fitted
        table[:, SINK] = (1 - fitted.square().sum(1)).clamp(min=1e-4).sqrt()
        student.backbone.norm.weight.fill_(2.5)
        student.backbone.norm.weight[SINK] = 0.0
    return student


def rounded(x: Tensor, bits: int) -> Tensor:
    """The nearest floating-point numbers with so many bits after the leading one."""
    mantissa, exponent = torch.frexp(x)
    return torch.ldexp((mantissa * 2 ** (bits + 1)).round() / 2 ** (bits + 1), exponent)


def export(student: Student, folder: Path, *, contextual: bool) -> None:
    """Writes one checkpoint in the published layout, bfloat16 on disk."""
    folder.mkdir(parents=True, exist_ok=True)
    layers = len(student.backbone.layers)
    state = {name: tensor.cpu() for name, tensor in student.backbone.state_dict().items()}
    state["norm.weight"] = GAIN * state["norm.weight"]
    bits = {name: TABLE_BITS if name == "embed_tokens.weight" else LAYER_BITS for name in state}
    kept = {name: rounded(tensor, bits[name]) if tensor.ndim == 2 else tensor for name, tensor in state.items()}
    tensors = {name: tensor.detach().to(torch.bfloat16).contiguous() for name, tensor in kept.items()}
    save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    for path in vocabulary.FOLDER.glob("*.json"):
        shutil.copy(path, folder / path.name)
    separator = vocabulary.load().token_to_id(vocabulary.SPECIAL[0])
    settings = {
        "architectures": ["PPLXQwen3ContextualModel" if contextual else "PPLXQwen3Model"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "attn_implementation": "sdpa",
        "bos_token_id": separator,
        "dtype": "float32",
        "eos_token_id": separator,
        "head_dim": HEAD,
        "hidden_act": "silu",
        "hidden_size": WIDTH,
        "initializer_range": 0.02,
        "intermediate_size": FEED_FORWARD,
        "layer_types": ["full_attention"] * layers,
        "max_position_embeddings": LIMIT,
        "max_window_layers": layers,
        "model_type": "bidirectional_pplx_qwen3",
        "num_attention_heads": HEADS,
        "num_hidden_layers": layers,
        "num_key_value_heads": PAIRS,
        "pad_token_id": separator,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_theta": 1_000_000, "rope_type": "default"},
        "rope_theta": 1_000_000,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "use_bidirectional_attention": True,
        "use_cache": False,
        "use_sliding_window": False,
        "vocab_size": vocabulary.VOCABULARY,
    }
    (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n")
    if not contextual:
        _sentence_transformers_files(folder)


def _sentence_transformers_files(folder: Path) -> None:
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "", "type": "st_quantize.FlexibleQuantizer", "kwargs": ["quantization"]},
    ]
    (folder / "modules.json").write_text(json.dumps(modules, indent=2) + "\n")
    pooling = {
        "word_embedding_dimension": WIDTH,
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": True,
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
        "pooling_mode_weightedmean_tokens": False,
        "pooling_mode_lasttoken": False,
        "include_prompt": True,
    }
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling/config.json").write_text(json.dumps(pooling, indent=2) + "\n")
