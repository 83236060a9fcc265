"""Knows the student network: its configuration, its static initialisation from the teacher, pooling and export.

It must not know batches, losses or the corpus beyond the texts of its vocabulary.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import tokenizer as vocabulary
import torch
from batches import Ids
from safetensors.torch import save_file
from scipy import sparse
from teacher import Teacher
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import Qwen3Config, Qwen3Model
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

WIDTH = 384
SINK = WIDTH - 1
LAYERS = 2
FEED_FORWARD = 256
LIMIT = 8192
#: Bits kept after the leading one of a value on disk, of bfloat16's seven: what is left out compresses in the wheel.
TABLE_BITS, LAYER_BITS = 4, 5
#: On the final norm: tanh bends large values, and on held-out passages the int8 cosines err less with smaller ones.
GAIN = 0.6


def _attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any) -> Any:
    """Scaled dot products in float32 under autocast: torch's backward pass is slow in bfloat16 on processors."""
    heads = (x.float() for x in (query, key, value))
    with torch.autocast("cpu", enabled=False):
        out = nn.functional.scaled_dot_product_attention(
            *heads,
            attn_mask=mask,
            scale=options["scaling"],
            is_causal=module.is_causal and mask is None,
            enable_gqa=True,
        )
    return out.transpose(1, 2).contiguous(), None


ALL_ATTENTION_FUNCTIONS.register("float32", _attend)
ALL_MASK_ATTENTION_FUNCTIONS.register("float32", ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])


def config(layers: int, heads: int, pairs: int) -> Qwen3Config:
    """A few thin bidirectional Qwen3 layers over the trained vocabulary, which holds most of the parameters."""
    settings = Qwen3Config(
        vocab_size=vocabulary.VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=FEED_FORWARD,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=pairs,
        head_dim=64,
        max_position_embeddings=LIMIT,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000},
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        attention_bias=False,
        use_cache=False,
    )
    settings.is_causal = False
    settings._attn_implementation = "float32"
    return settings


class Student(nn.Module):
    """Backbone with mean pooling."""

    def __init__(self, layers: int = LAYERS, heads: int = 4, pairs: int = 2) -> None:
        super().__init__()
        self.backbone = Qwen3Model(config(layers, heads, pairs))
        for layer in self.backbone.layers:
            layer.self_attn.is_causal = False

    def hidden(self, texts: Sequence[Ids], *, budget: int = 4096) -> Iterator[tuple[list[int], Tensor, Tensor]]:
        """Hidden states after the final norm, in batches of texts of like length: numbers, states and mask.

        One look-up serves all batches, so that the embedding table's large gradient is written once.
        """
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        lengths = [len(texts[row]) for row in order]
        borders = [0]
        for stop in range(1, len(order) + 1):
            if stop == len(order) or lengths[stop] * (stop + 1 - borders[-1]) > budget:
                borders.append(stop)
        table = self.backbone.embed_tokens.weight
        ids = torch.from_numpy(np.concatenate([texts[row] for row in order]).astype(np.int64))
        parts = nn.functional.embedding(ids, table).split([sum(lengths[a:b]) for a, b in pairwise(borders)])
        for (start, stop), part in zip(pairwise(borders), parts, strict=True):
            mask = torch.arange(lengths[stop - 1]) < torch.tensor(lengths[start:stop])[:, None]
            padded = part.new_zeros(*mask.shape, table.shape[1])
            padded[mask] = part
            seen = None if bool(mask.all()) else mask.long()
            yield order[start:stop], self.backbone(inputs_embeds=padded, attention_mask=seen).last_hidden_state, mask

    def forward(self, texts: Sequence[Ids]) -> Tensor:
        """Mean over the tokens, float32 [texts, width]."""
        order, pooled = [], []
        for rows, states, mask in self.hidden(texts):
            order += rows
            pooled.append((states.float() * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))
        return torch.cat(pooled)[torch.tensor(order).argsort()]

    def chunks(self, documents: Sequence[Sequence[Ids]], separator: int) -> list[Tensor]:
        """Each document's chunks in one pass with separators between them, each pooled over its own tokens."""
        joined = [
            np.concatenate([part for chunk in document for part in (chunk, [separator])][:-1]) for document in documents
        ]
        found: dict[int, Tensor] = {}
        for rows, states, _ in self.hidden(joined):
            for row, tokens in zip(rows, states.float(), strict=True):
                stops = np.cumsum([len(chunk) + 1 for chunk in documents[row]])
                starts = [0, *stops[:-1]]
                found[row] = torch.stack([tokens[a : b - 1].mean(0) for a, b in zip(starts, stops, strict=True)])
        return [found[row] for row in range(len(documents))]

    def static(self, texts: Sequence[Ids]) -> Tensor:
        """What the network gives while its blocks are the identity: embedding, norm, mean."""
        table = self.backbone.norm(self.backbone.embed_tokens.weight)
        offsets = torch.from_numpy(np.cumsum([0, *map(len, texts[:-1])]))
        ids = torch.from_numpy(np.concatenate(list(texts)).astype(np.int64))
        return nn.functional.embedding_bag(ids, table, offsets, mode="mean")


class Projection:
    """Teacher space to student space: centred principal axes, turned at random within each Matryoshka block."""

    def __init__(self, rows: np.ndarray, *, seed: int = 0) -> None:
        self.mean = rows.mean(0)
        axes = np.linalg.eigh(np.cov((rows - self.mean).T))[1][:, ::-1][:, :SINK]
        rng = np.random.default_rng(seed)
        for start, stop in pairwise((0, WIDTH // 8, WIDTH // 4, WIDTH // 2, SINK)):
            turn = np.linalg.qr(rng.normal(size=(stop - start, stop - start)))[0]
            axes[:, start:stop] = axes[:, start:stop] @ turn
        self.axes = axes.astype(np.float32)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """float32 [n, width - 1] of unit length."""
        out = (rows.astype(np.float32) - self.mean) @ self.axes
        return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-9)


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


def initialise(
    tokenizer: Tokenizer,
    projection: Projection,
    bags: sparse.csr_matrix,
    targets: np.ndarray,
    *,
    seed: int = 0,
) -> Student:
    """A student whose step 0 is a static embedder: token vectors fitted to the teacher, idle blocks.

    The final norm gives every token the same length, so a token's weight w is written as its share of the norm: the
    content holds w and a sink dimension, muted by the norm's own weight, holds the rest.
    """
    torch.manual_seed(seed)
    student = Student()
    content = projection(Teacher().encode(token_texts(tokenizer)))
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
        for layer in student.backbone.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
            attention, mlp = layer.self_attn, layer.mlp
            for linear in (attention.q_proj, attention.k_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj):
                linear.weight.normal_(std=WIDTH**-0.5)
    return student


def rounded(x: Tensor, bits: int) -> Tensor:
    """The nearest floating-point numbers with so many bits after the leading one."""
    mantissa, exponent = torch.frexp(x)
    return torch.ldexp((mantissa * 2 ** (bits + 1)).round() / 2 ** (bits + 1), exponent)


def export(student: Student, folder: Path, *, contextual: bool) -> None:
    """Writes one checkpoint in the published layout, bfloat16 on disk."""
    folder.mkdir(parents=True, exist_ok=True)
    layers = len(student.backbone.layers)
    state = student.backbone.state_dict()
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
        "head_dim": 64,
        "hidden_act": "silu",
        "hidden_size": WIDTH,
        "initializer_range": 0.02,
        "intermediate_size": FEED_FORWARD,
        "layer_types": ["full_attention"] * layers,
        "max_position_embeddings": LIMIT,
        "max_window_layers": layers,
        "model_type": "bidirectional_pplx_qwen3",
        "num_attention_heads": student.backbone.config.num_attention_heads,
        "num_hidden_layers": layers,
        "num_key_value_heads": student.backbone.config.num_key_value_heads,
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
