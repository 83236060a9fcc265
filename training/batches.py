"""Knows how taught passages are clustered, drawn, cropped and re-cased into training batches.

It must not know networks or losses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

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


class Sampler:
    """Draws batches of (query, crop, passage); one seeded generator decides everything.

    Batches are drawn from a few clusters of like passages, so that telling them apart takes more than the topic
    (Hofstätter et al. 2021, "topic aware sampling").
    """

    def __init__(self, units: Units, taught: Tensor, tokenizer: Tokenizer, *, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.texts, self.tokenizer = units.texts, tokenizer
        self.order = units.order[: len(taught)]
        self.rows = {number: row for row, number in enumerate(self.order)}
        known = [all(one in self.rows for one in (p.text, *p.queries)) for p in units.passages]
        self.taught = [p for p, flag in zip(units.passages, known, strict=True) if flag]
        self.untaught = [p for p, flag in zip(units.passages, known, strict=True) if not flag]
        self.vectors, self.like = taught, list[npt.NDArray[np.int64]]()
        self.separator = tokenizer.token_to_id("<|endoftext|>")
        self.mask = tokenizer.token_to_id("<|im_start|>")
        words = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
        self.begins = np.array([word.startswith("Ġ") for word in words])

    @cached_property
    def known(self) -> list[npt.NDArray[np.int64]]:
        """Clusters of the taught passages."""
        return clusters(self.vectors[torch.tensor([self.rows[p.text] for p in self.taught])].float(), seed=0)

    def encode(self, texts: Sequence[str], longest: int) -> list[Ids]:
        """Token ids of any texts as they stand."""
        encoded = self.tokenizer.encode_batch_fast(texts)
        return [np.asarray(e.ids[:longest] or [self.separator], dtype=np.int16) for e in encoded]

    def read(self, numbers: Iterable[int], longest: int) -> list[Ids]:
        """Token ids of numbered texts, each in a form at random."""
        forms = self.rng.choice(len(_FORMS), p=_SHARES, size=len(numbers := list(numbers)))
        pairs = zip(numbers, forms, strict=True)
        return self.encode([_FORMS[form](self.texts[number]) for number, form in pairs], longest)

    def group(self, embed: Callable[[Sequence[Ids]], Tensor]) -> None:
        """Clusters the passages that the teacher did not read by what a student makes of them."""
        numbers = [p.text for p in self.untaught]
        parts = [numbers[at : at + 4096] for at in range(0, len(numbers), 4096)]
        with torch.no_grad():
            vectors = torch.cat([embed(self.read(part, 128)) for part in parts])
        self.like = clusters(torch.nn.functional.normalize(vectors, dim=-1), seed=0)

    def draw(self, clusters: Sequence[npt.NDArray[np.int64]], count: int, *, groups: int) -> npt.NDArray[np.int64]:
        """Distinct positions: three quarters from `groups` clusters, the rest from all."""
        sizes = np.array([len(cluster) for cluster in clusters])
        chosen = self.rng.choice(len(sizes), size=groups, replace=False, p=sizes / sizes.sum())
        pool = np.concatenate([clusters[one] for one in chosen])
        near = self.rng.choice(pool, size=min(len(pool), count * 3 // 4), replace=False)
        others = self.rng.choice(len(sizes), size=count, p=sizes / sizes.sum())
        far = np.array([self.rng.choice(clusters[one]) for one in others])
        return self.rng.permutation(np.unique(np.concatenate([near, np.setdiff1d(far, near)[: count - len(near)]])))

    def pairs(self, count: int, *, groups: int, longest: int) -> tuple[list[Ids], list[Ids], Tensor]:
        """Untaught queries and passages as ids, and which belong together (those of one title), as shares."""
        drawn = [self.untaught[position] for position in self.draw(self.like, count, groups=groups)]
        queries = [int(self.rng.choice(p.queries)) for p in drawn]
        titles = torch.tensor([p.title for p in drawn])
        same = (titles[:, None] == titles).float()
        return self.read(queries, 32), self.read([p.text for p in drawn], longest), same / same.sum(1, keepdim=True)

    def crop(self, ids: Ids) -> Ids:
        """Four to ten words in a row, from a word's beginning."""
        starts = np.flatnonzero(self.begins[ids])
        size = int(self.rng.integers(4, 11))
        if len(starts) <= size:
            return ids
        first = int(self.rng.integers(len(starts) - size))
        return ids[starts[first] : starts[first + size]]

    def batch(self, count: int, *, groups: int, longest: int) -> tuple[list[Ids], list[Ids], list[Ids], Tensor, Tensor]:
        """Taught queries, crops and passages as ids, and the rows of queries' and passages' targets."""
        drawn = [self.taught[position] for position in self.draw(self.known, count, groups=groups)]
        queries, told = [int(self.rng.choice(p.queries)) for p in drawn], [p.text for p in drawn]
        crops = [self.crop(ids) for ids in self.encode([_FORMS[2](self.texts[number]) for number in told], longest)]
        rows = (torch.tensor([self.rows[number] for number in numbers]) for numbers in (queries, told))
        return self.read(queries, 32), crops, self.read(told, longest), *rows

    def lesson(self, count: int, *, longest: int) -> tuple[list[Ids], Tensor]:
        """Taught texts of any kind: ids and the rows of their targets."""
        rows = self.rng.integers(len(self.order), size=count)
        return self.read([self.order[row] for row in rows], longest), torch.from_numpy(rows)


def clusters(vectors: Tensor, *, seed: int, size: int = 200, rounds: int = 8) -> list[npt.NDArray[np.int64]]:
    """Positions grouped by k-means on unit vectors, about `size` in each."""
    generator = torch.Generator().manual_seed(seed)
    centres = vectors[torch.randperm(len(vectors), generator=generator)[: max(2, len(vectors) // size)]]
    for _ in range(rounds):
        nearest = torch.cat([(part @ centres.T).argmax(1) for part in vectors.split(8192)])
        sums = torch.zeros_like(centres).index_add_(0, nearest, vectors)
        centres = torch.nn.functional.normalize(sums, dim=-1)
    return [found for k in range(len(centres)) if len(found := np.flatnonzero(nearest.numpy() == k)) >= 8]
