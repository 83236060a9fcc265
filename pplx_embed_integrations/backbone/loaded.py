"""One checkpoint in memory: texts and documents become token sequences, batches of them become pooled vectors.

Knows tokenizer, model and lane of a folder; must not know quantisation, frameworks or where the folder came from.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import accumulate, chain, pairwise
from pathlib import Path

import torch

from ..errors import InputError
from .lane import Lane, Pooled
from .modeling import PplxQwen3Model, load_model
from .packing import TokenSequence, document_sequences, text_sequence
from .pooling import span_means
from .prepacking import unpack
from .tokenizer import TextTokenizer

__all__ = ["LoadedCheckpoint"]

logger = logging.getLogger(__name__)


class LoadedCheckpoint:
    """Tokenizer, weights and lane of a checkpoint.

    Args:
        folder: The checkpoint's files.
        contextual: Whether it embeds chunks in context.
        device: Where it runs.
        dtype: `"auto"`, `"float32"` or `"bfloat16"`.
        max_tokens: Longest sequence.
        batch_tokens: Most tokens in a forward pass, unless one sequence alone is longer.
        truncate: Cut what is longer than `max_tokens` instead of refusing it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        contextual: bool,
        device: torch.device,
        dtype: str,
        max_tokens: int,
        batch_tokens: int,
        truncate: bool,
    ) -> None:
        self.folder = folder
        self.max_tokens = max_tokens
        self.truncate = truncate
        self.tokenizer = TextTokenizer(folder)
        self.model = load_model(folder, contextual=contextual, dtype=dtype, device=device, prepacked=True)
        self.lane = Lane(self._pool, budget=batch_tokens)

    def text_sequences(self, texts: list[str]) -> list[TokenSequence]:
        """Tokenise texts, a sequence each.

        Raises:
            InputError: A text is too long or not Unicode.
        """
        ids = self._tokenize(texts, "text {}".format)
        return [text_sequence(tokens, row=row) for row, tokens in enumerate(ids)]

    def document_sequences(self, documents: list[list[str]]) -> list[TokenSequence]:
        """Tokenise documents, a sequence each, or several windows where one is too long.

        Raises:
            InputError: A chunk is too long or not Unicode.
        """
        borders = list(accumulate(map(len, documents), initial=0))
        names = [(document, chunk) for document, chunks in enumerate(documents) for chunk in range(len(chunks))]
        ids = self._tokenize(list(chain.from_iterable(documents)), lambda row: _chunk_name(*names[row]))
        sequences: list[TokenSequence] = []
        for document, (start, end) in enumerate(pairwise(borders)):
            windows = document_sequences(
                ids[start:end], separator=self.tokenizer.separator, max_tokens=self.max_tokens, first_row=start
            )
            if len(windows) > 1:
                logger.info(
                    "document %d is longer than %d tokens and is read in %d overlapping windows",
                    document,
                    self.max_tokens,
                    len(windows),
                )
            sequences += windows
        return sequences

    def _tokenize(self, texts: list[str], name: Callable[[int], str]) -> list[list[int]]:
        ids = self.tokenizer.encode(texts, name=name)
        for row, tokens in enumerate(ids):
            if len(tokens) > self.max_tokens:
                if not self.truncate:
                    raise InputError(
                        f"{name(row)} has {len(tokens)} tokens and the limit is {self.max_tokens}; split it, or pass "
                        "truncate=True to embed its beginning only"
                    )
                ids[row] = tokens[: self.max_tokens]
        return ids

    def plain_model(self) -> PplxQwen3Model:
        """Return the model with ordinary linear layers, for trainers and for saving; from then on it stays so."""
        unpack(self.model)
        return self.model

    @torch.inference_mode()
    def _pool(self, sequences: list[TokenSequence]) -> Pooled:
        """Run sequences through the model and return the float32 mean over each span, `[spans, hidden_size]`."""
        # Gathered from several calls they are in no order, and equal lengths share a kernel call.
        order = sorted(range(len(sequences)), key=lambda index: len(sequences[index]))
        hidden = self.model.forward_packed([torch.from_numpy(sequences[index].ids) for index in order])
        offsets = dict(zip(order, accumulate((len(sequences[index]) for index in order), initial=0), strict=False))
        spans = [
            (offsets[index] + start, offsets[index] + end)
            for index, sequence in enumerate(sequences)
            for start, end in sequence.spans
        ]
        return span_means(hidden, spans).cpu().numpy()


def _chunk_name(document: int, chunk: int) -> str:
    return f"chunk {chunk} of document {document}"
