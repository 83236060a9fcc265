"""Knows how texts are drawn and cropped into batches, and how their words become padded tokens.

It must not know networks or losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer
from torch import Tensor
from units import Texts, Units, spans

CASED, LOWER, INNER = range(3)
"""Forms of a text: as it stands, lower-case, and lower-case as in the middle of a sentence (with a space before it)."""
_SHARES = (0.5, 0.25, 0.25)
"""The teacher reads no capitals, so the student sees texts in either case, with or without a space before them."""


@dataclass(frozen=True)
class Padded:
    """Token ids `[texts, longest]` and which of them are real."""

    ids: Tensor
    mask: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device) -> Padded:
        """The same there."""
        return Padded(self.ids.to(device), self.mask.to(device))

    def named(self, name: str) -> dict[str, Tensor]:
        """As entries of a batch."""
        return {name: self.ids, f"{name} mask": self.mask}

    @classmethod
    def of(cls, batch: dict[str, Tensor], name: str) -> Padded:
        """From a batch's entries."""
        return cls(batch[name], batch[f"{name} mask"])


def encode_words(path: Path, words: Sequence[str], tokenizer: Tokenizer, forms: Sequence[str]) -> None:
    """Encodes what becomes of each word in each form, once for all batches."""
    with path.open("wb") as out:
        sizes, flat = [], []
        for at in range(0, len(words), 65_536):
            part = words[at : at + 65_536]
            said = [form.format(word=word, lower=word.lower()) for word in part for form in forms]
            ids = [e.ids for e in tokenizer.encode_batch_fast(said, add_special_tokens=False)]
            sizes.append(np.array([len(one) for one in ids], dtype=np.int16))
            flat.append(np.fromiter(chain.from_iterable(ids), dtype=np.int16))
        np.savez_compressed(out, allow_pickle=False, sizes=np.concatenate(sizes), flat=np.concatenate(flat))


class Reader:
    """Turns words into tokens, which is exact where a tokenizer encodes words apart.

    Args:
        path: What `encode_words` wrote.
        forms: How many forms of a word there are.
        around: Tokens before and after each text.
    """

    def __init__(self, path: Path, *, forms: int, around: tuple[list[int], list[int]] = ([], [])) -> None:
        with np.load(path) as stored:
            self.sizes, self.flat = stored["sizes"].astype(np.int64), stored["flat"]
        self.forms, self.around = forms, around
        self.firsts = np.cumsum(self.sizes) - self.sizes

    def __call__(self, texts: Texts, *, width: int, chosen: npt.NDArray[np.int64] | None = None) -> Padded:
        """The first tokens of each text, as many as fit into `width`; `chosen` says which form each word has."""
        rows = texts.words.astype(np.int64) * self.forms + (0 if chosen is None else chosen)
        sizes, (before, after) = self.sizes[rows], self.around
        ends = np.cumsum(sizes)
        stops = ends[np.cumsum(texts.lengths) - 1]
        begins = np.concatenate([[0], stops[:-1]])
        counts = np.minimum(stops - begins, width - len(before) - len(after))
        place = np.repeat(np.arange(len(texts)), counts)
        kept = spans(begins, counts)  # positions among all tokens
        tokens = self.flat[spans(self.firsts[rows], sizes)[kept]]
        ids = np.zeros((len(texts), width), dtype=np.int64)
        ids[place, kept - begins[place] + len(before)] = tokens
        if before:
            ids[:, : len(before)] = before
            ids[np.arange(len(texts))[:, None], counts[:, None] + len(before) + np.arange(len(after))] = after
        mask = np.arange(width) < counts[:, None] + len(before) + len(after)
        return Padded(torch.from_numpy(ids), torch.from_numpy(mask))


def cases(texts: Texts, forms: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Which of a student reader's four forms each word has: cased or not, with a space before it or not."""
    form = np.repeat(forms, texts.lengths)
    first = np.zeros(len(texts.words), dtype=bool)
    first[np.cumsum(texts.lengths) - texts.lengths] = True
    return 2 * (form != CASED) + (~first | (form == INNER))


#: What a word becomes in each of the four.
FORMS = ("{word}", " {word}", "{lower}", " {lower}")


#: Words of a short text at most, so that its tokens fit beside each other.
MOST_WORDS = 22


class Sampler:
    """Draws batches of queries, crops and passages; one seeded generator decides everything.

    Batches are drawn from a few clusters of like passages, so that telling them apart takes more than the topic
    (Hofstätter et al. 2021, "topic aware sampling").
    """

    def __init__(self, units: Units, *, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.units = units
        self.passages = units.passages[~units.held[units.passages[:, 2]]]
        self.numbers = np.flatnonzero(~units.held[units.passages[:, 2]])
        self.clusters: list[npt.NDArray[np.int64]] = [np.arange(len(self.passages))]

    def forms(self, count: int) -> npt.NDArray[np.int64]:
        """A form at random for each text."""
        return self.rng.choice(3, p=_SHARES, size=count)

    def texts(self, numbers: npt.ArrayLike) -> Texts:
        """Texts by number."""
        chosen = np.asarray(numbers)
        starts = self.units.starts[chosen]
        lengths = (self.units.starts[chosen + 1] - starts).astype(np.int64)
        return Texts(self.units.flat[spans(starts, lengths)], lengths)

    def told(self, positions: npt.ArrayLike, *, most: int) -> Texts:
        """Passages, or their first words."""
        chosen = self.passages[np.asarray(positions)]
        starts, stops = self.units.starts[chosen[:, 0]], self.units.starts[chosen[:, 1]]
        lengths = np.minimum(stops - starts, most).astype(np.int64)
        return Texts(self.units.flat[spans(starts, lengths)], lengths)

    def crops(self, positions: npt.ArrayLike, sizes: npt.NDArray[np.int64]) -> Texts:
        """So many words in a row of each passage, or all it has."""
        chosen = self.passages[np.asarray(positions)]
        starts, stops = self.units.starts[chosen[:, 0]].astype(np.int64), self.units.starts[chosen[:, 1]]
        lengths = np.minimum(sizes, stops - starts)
        firsts = starts + (self.rng.random(len(chosen)) * (stops - starts - lengths + 1)).astype(np.int64)
        return Texts(self.units.flat[spans(firsts, lengths)], lengths)

    def queries(self, positions: npt.ArrayLike) -> Texts:
        """One of the texts that ask for each passage."""
        numbers = self.numbers[np.asarray(positions)]
        first, stop = self.units.asking[numbers], self.units.asking[numbers + 1]
        return self.texts(self.units.queries[first + (self.rng.random(len(numbers)) * (stop - first)).astype(np.int64)])

    def draw(self, count: int, *, groups: int) -> npt.NDArray[np.int64]:
        """Distinct positions of passages: three quarters from `groups` clusters, the rest from all."""
        chosen = self.rng.integers(len(self.clusters), size=groups)
        near = np.concatenate([self.clusters[one] for one in chosen])
        near = self.rng.permutation(np.unique(near))[: count * 3 // 4]
        far = np.setdiff1d(self.rng.integers(len(self.passages), size=2 * count), near)
        return np.concatenate([near, self.rng.permutation(far)[: count - len(near)]])

    def lesson(self, count: int) -> Texts:
        """Texts for the teacher alone: stretches of any length, single words, titles, headings and questions."""
        words = self.units.lexicon[self.rng.integers(len(self.units.lexicon), size=count // 8)]
        asked = self.queries(self.rng.integers(len(self.passages), size=count // 4))
        rest = count - len(words) - len(asked)
        sizes = np.exp(self.rng.uniform(np.log(2), np.log(MOST_WORDS), size=rest)).astype(np.int64)
        stretches = self.crops(self.rng.integers(len(self.passages), size=rest), sizes)
        return Texts(words, np.ones(len(words), dtype=np.int64)) + asked + stretches


def clusters(vectors: Tensor, *, seed: int, size: int = 200, rounds: int = 8) -> list[npt.NDArray[np.int64]]:
    """Positions grouped by k-means on unit vectors, about `size` in each."""
    generator = torch.Generator().manual_seed(seed)
    centres = vectors[torch.randperm(len(vectors), generator=generator)[: max(2, len(vectors) // size)]]
    for _ in range(rounds):
        nearest = torch.cat([(part @ centres.T).argmax(1) for part in vectors.split(8192)])
        sums = torch.zeros_like(centres).index_add_(0, nearest, vectors)
        centres = torch.nn.functional.normalize(sums, dim=-1)
    order = nearest.argsort(stable=True).cpu().numpy()
    borders = np.cumsum(torch.bincount(nearest, minlength=len(centres)).cpu().numpy())
    return [found for found in np.split(order, borders[:-1]) if len(found) >= 8]
