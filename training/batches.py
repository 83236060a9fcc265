"""Knows how taught passages are clustered, drawn, cropped, re-cased and padded into training batches.

It must not know networks or losses.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer
from torch import Tensor
from units import Units

Ids = npt.NDArray[np.int32]
_FORMS = (str, str.lower, lambda text: " " + text.lower())
"""The teacher reads no capitals, so the student sees texts in either case, with or without a space before them."""
_SHARES = (0.5, 0.25, 0.25)


class Shelf:
    """Token ids of many texts in one flat array, in every form."""

    def __init__(self, texts: Sequence[str], tokenizer: Tokenizer) -> None:
        self.flat, self.starts = [], []
        for form in _FORMS:
            encoded = [e.ids or [0] for e in tokenizer.encode_batch_fast([form(text) for text in texts])]
            self.flat.append(np.concatenate([np.asarray(ids, dtype=np.int16) for ids in encoded]))
            self.starts.append(np.concatenate([[0], np.cumsum([len(ids) for ids in encoded])]))

    def ids(self, row: int, form: int) -> Ids:
        """Token ids of one text."""
        starts = self.starts[form]
        return self.flat[form][starts[row] : starts[row + 1]]


class Sampler:
    """Draws batches of (query, crop, passage); one seeded generator decides everything.

    Batches are drawn from a few clusters of like passages, so that telling them apart takes more than the topic
    (Hofstätter et al. 2021, "topic aware sampling").
    """

    def __init__(self, units: Units, taught: int, targets: Tensor, tokenizer: Tokenizer, *, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.rows = {number: row for row, number in enumerate(units.order[:taught])}
        self.shelf = Shelf([units.texts[number] for number in units.order[:taught]], tokenizer)
        self.taught = taught
        passages = [p for p in units.passages if all(one in self.rows for one in (p.text, *p.queries))]
        self.passages = np.array([self.rows[p.text] for p in passages])
        self.queries = [[self.rows[query] for query in p.queries] for p in passages]
        self.clusters = clusters(targets[torch.from_numpy(self.passages)], seed=seed)
        self.separator = tokenizer.token_to_id("<|endoftext|>")
        self.mask = tokenizer.token_to_id("<|im_start|>")
        words = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
        self.begins = np.array([word.startswith("Ġ") for word in words])

    def form(self) -> int:
        """A form at random."""
        return int(self.rng.choice(len(_FORMS), p=_SHARES))

    def pairs(self, count: int, *, groups: int) -> npt.NDArray[np.int64]:
        """Positions of distinct passages from `groups` clusters, a part from anywhere."""
        sizes = np.array([len(cluster) for cluster in self.clusters])
        chosen = self.rng.choice(len(sizes), size=groups, replace=False, p=sizes / sizes.sum())
        pool = np.concatenate([self.clusters[one] for one in chosen])
        near = self.rng.choice(pool, size=min(len(pool), count * 3 // 4), replace=False)
        far = self.rng.integers(len(self.passages), size=count)
        return np.unique(np.concatenate([near, far]))[: count + count // 2]

    def crop(self, ids: Ids) -> Ids:
        """Four to ten words in a row, from a word's beginning."""
        starts = np.flatnonzero(self.begins[ids])
        size = int(self.rng.integers(4, 11))
        if len(starts) <= size:
            return ids
        first = int(self.rng.integers(len(starts) - size))
        return ids[starts[first] : starts[first + size]]

    def batch(self, count: int, *, groups: int, longest: int) -> tuple[list[Ids], list[Ids], list[Ids], Tensor, Tensor]:
        """Queries, crops and passages as ids, and the rows of queries' and passages' targets."""
        queries, crops, passages, asked, told = [], [], [], [], []
        for position in self.pairs(count, groups=groups)[:count]:
            row = int(self.passages[position])
            query = self.queries[position][int(self.rng.integers(len(self.queries[position])))]
            ids = self.shelf.ids(row, self.form())[:longest]
            queries.append(self.shelf.ids(query, self.form())[:32])
            crops.append(self.crop(self.shelf.ids(row, 2)[:longest]))
            passages.append(ids)
            asked.append(query)
            told.append(row)
        return queries, crops, passages, torch.tensor(asked), torch.tensor(told)

    def lesson(self, count: int, *, longest: int) -> tuple[list[Ids], Tensor]:
        """Taught texts of any kind: ids and the rows of their targets."""
        rows = self.rng.integers(self.taught, size=count)
        return [self.shelf.ids(int(row), self.form())[:longest] for row in rows], torch.from_numpy(rows)


def clusters(vectors: Tensor, *, seed: int, size: int = 200, rounds: int = 8) -> list[npt.NDArray[np.int64]]:
    """Positions grouped by k-means on unit vectors, about `size` in each."""
    generator = torch.Generator().manual_seed(seed)
    centres = vectors[torch.randperm(len(vectors), generator=generator)[: max(2, len(vectors) // size)]]
    for _ in range(rounds):
        nearest = torch.cat([(part @ centres.T).argmax(1) for part in vectors.split(8192)])
        sums = torch.zeros_like(centres).index_add_(0, nearest, vectors)
        centres = torch.nn.functional.normalize(sums, dim=-1)
    return [found for k in range(len(centres)) if len(found := np.flatnonzero(nearest.numpy() == k)) >= 8]


def pad(ids: Sequence[Sequence[int] | Ids], padding: int) -> tuple[Tensor, Tensor]:
    """Rows of ids as one padded tensor and its mask, int64 [rows, tokens]."""
    width = max(map(len, ids))
    rows = np.full((len(ids), width), padding, dtype=np.int64)
    mask = np.zeros((len(ids), width), dtype=np.int64)
    for row, values in enumerate(ids):
        rows[row, : len(values)] = values
        mask[row, : len(values)] = 1
    return torch.from_numpy(rows), torch.from_numpy(mask)
