"""Knows the student network: its configuration, its static initialisation from the teacher, pooling and export.

It must not know batches, losses or the corpus beyond the texts of its vocabulary.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import tokenizer as vocabulary
import torch
from batches import Ids, pad
from safetensors.torch import save_file
from scipy import sparse
from teacher import Teacher
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import Qwen3Config, Qwen3Model

WIDTH = 384
SINK = WIDTH - 1
LAYERS = 2
FEED_FORWARD = 192
LIMIT = 8192


def config() -> Qwen3Config:
    """Two thin bidirectional Qwen3 layers over the trained vocabulary, which holds most of the parameters."""
    settings = Qwen3Config(
        vocab_size=vocabulary.VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=FEED_FORWARD,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=LIMIT,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000},
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        attention_bias=False,
        use_cache=False,
    )
    settings.is_causal = False
    settings._attn_implementation = "sdpa"
    return settings


class Student(nn.Module):
    """Backbone with mean pooling; `spans` pools each chunk of a document over its own tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Qwen3Model(config())
        self.causal(False)

    def causal(self, flag: bool) -> None:
        """Switches every layer between bidirectional and causal attention (the ablation)."""
        self.backbone.config.is_causal = flag
        for layer in self.backbone.layers:
            layer.self_attn.is_causal = flag

    def hidden(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Hidden states after the final norm, float32 [rows, tokens, width]."""
        full = bool(mask.all())
        out: Tensor = self.backbone(input_ids=ids, attention_mask=None if full else mask).last_hidden_state
        return out

    def forward(self, texts: Sequence[Ids], *, budget: int = 4096) -> Tensor:
        """Mean over the tokens, float32 [texts, width]; texts of like length go together, so little is padding."""
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        pooled, start = [], 0
        while start < len(order):
            stop = start + 1
            while stop < len(order) and len(texts[order[stop]]) * (stop + 1 - start) <= budget:
                stop += 1
            ids, mask = pad([texts[row] for row in order[start:stop]], 0)
            hidden, weights = self.hidden(ids, mask), mask[..., None].float()
            pooled.append((hidden * weights).sum(1) / weights.sum(1))
            start = stop
        return torch.cat(pooled)[torch.tensor(order).argsort()]

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
    counts: np.ndarray,
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
    weight = np.sqrt(1e-3 / (1e-3 + counts / counts.sum()))  # smooth inverse frequency (Arora et al. 2017), softened
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


def export(student: Student, folder: Path, *, contextual: bool) -> None:
    """Writes one checkpoint in the published layout, bfloat16 on disk."""
    folder.mkdir(parents=True, exist_ok=True)
    state = student.backbone.state_dict()
    tensors = {name: tensor.detach().to(torch.bfloat16).contiguous() for name, tensor in state.items()}
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
        "layer_types": ["full_attention"] * LAYERS,
        "max_position_embeddings": LIMIT,
        "max_window_layers": LAYERS,
        "model_type": "bidirectional_pplx_qwen3",
        "num_attention_heads": 4,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": 2,
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
