"""Knows how texts are drawn, paired, re-cased and padded into training batches.

It must not know networks or losses.
"""

from __future__ import annotations

import random

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from units import Unit


class Sampler:
    """Draws pairs and documents; one seeded generator decides everything."""

    def __init__(self, texts: list[str], units: list[Unit], tokenizer: Tokenizer, *, seed: int = 0) -> None:
        self.texts, self.tokenizer = texts, tokenizer
        self.rng = random.Random(seed)
        self.units = [unit for unit in units if unit.chunks]
        self.long = [unit for unit in self.units if len(unit.chunks) >= 3]
        self.separator = tokenizer.token_to_id("<|endoftext|>")
        self.mask = tokenizer.token_to_id("<|im_start|>")

    def casing(self, text: str) -> str:
        """The teacher reads no capitals, so the student sees texts in either case and with or without a space."""
        draw = self.rng.random()
        return text if draw < 0.55 else text.lower() if draw < 0.8 else " " + text.lower()

    def pad(self, texts: list[str], *, longest: int) -> tuple[Tensor, Tensor]:
        """Token ids and mask, int64 [rows, tokens]."""
        ids = [e.ids[:longest] or [self.separator] for e in self.tokenizer.encode_batch(texts)]
        return pad_ids(ids, self.separator)

    def pair(self) -> tuple[str, str]:
        """A query-like text and a passage that answers it."""
        rng = self.rng
        unit = rng.choice(self.units if rng.random() < 0.6 else self.long)
        at = rng.randrange(len(unit.chunks))
        title, chunk, heading = self.texts[unit.title], self.texts[unit.chunks[at]], unit.headings[at]
        draw = rng.random()
        if draw < 0.15 and heading >= 0:
            return f"{title} {self.texts[heading]}", chunk
        if draw < 0.30 and len(unit.chunks) > 1:
            return title, " ".join(self.texts[number] for number in unit.chunks[:3])
        if draw < 0.36 and at + 1 < len(unit.chunks):
            return chunk, self.texts[unit.chunks[at + 1]]
        words = chunk.split()
        if draw < 0.7 and len(words) >= 12:
            size = rng.randint(4, 10)
            start = rng.randrange(len(words) - size)
            kept = words[:start] + words[start + size :] if rng.random() < 0.7 else words
            return " ".join(words[start : start + size]), " ".join(kept)
        return title, chunk

    def pairs(self, count: int) -> list[tuple[str, str]]:
        """Re-cased pairs, sorted by the passage's length so that padding stays small within slices."""
        drawn = [self.pair() for _ in range(count)]
        return sorted(((self.casing(a), self.casing(b)) for a, b in drawn), key=lambda pair: len(pair[1]))


def pad_ids(ids: list[list[int]], padding: int) -> tuple[Tensor, Tensor]:
    """Rows of ids as one padded tensor and its mask."""
    width = max(map(len, ids))
    rows = np.full((len(ids), width), padding, dtype=np.int64)
    mask = np.zeros((len(ids), width), dtype=np.int64)
    for row, values in enumerate(ids):
        rows[row, : len(values)] = values
        mask[row, : len(values)] = 1
    return torch.from_numpy(rows), torch.from_numpy(mask)
