"""The packed forward against an independent way: stock Qwen3, padded batches, an explicit mask, plain mean pooling."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import Qwen3Config, Qwen3Model

from pplx_embed_integrations import PplxEncoder

SEPARATOR = "<|endoftext|>"
Pool = Callable[[list[list[str]]], list[np.ndarray]]

words = st.sampled_from(
    ["late", "chunking ", "Ångström", "東京", "🙂", "  ", "\n", "retrieval", "0123456789", "é", "<b>"]
)
texts = st.lists(words, min_size=1, max_size=12).map(" ".join)
corpora = st.lists(st.lists(texts, min_size=1, max_size=5), min_size=1, max_size=6)


def naive(folder: Path) -> Pool:
    """Return a function that pools documents of chunks with nothing of the package's code."""
    config = Qwen3Config.from_pretrained(folder)
    config._attn_implementation = "eager"
    model = Qwen3Model(config).eval()
    model.load_state_dict(load_file(folder / "model.safetensors"))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    separator = tokenizer.token_to_id(SEPARATOR)

    @torch.inference_mode()
    def pool(documents: list[list[str]]) -> list[np.ndarray]:
        rows, masks = [], []
        for chunks in documents:
            ids, owners = [], []
            for position, chunk in enumerate(chunks):
                tokens = tokenizer.encode(chunk, add_special_tokens=False).ids
                ids += [separator] * bool(ids) + tokens
                owners += [-1] * bool(owners) + [position] * len(tokens)
            rows.append(ids)
            masks.append(owners)
        longest = max(map(len, rows))
        padded = torch.tensor([row + [separator] * (longest - len(row)) for row in rows])
        real = torch.tensor([[1.0] * len(row) + [0.0] * (longest - len(row)) for row in rows])
        # 4-D and additive: every query sees every real token of its own row.
        bias = torch.where(real[:, None, None, :] > 0, 0.0, -1e9).expand(-1, 1, longest, -1)
        hidden = model(input_ids=padded, attention_mask={"full_attention": bias}, use_cache=False).last_hidden_state
        pooled = []
        for document, owners in enumerate(masks):
            means = [
                hidden[document, [i for i, owner in enumerate(owners) if owner == chunk]].mean(0)
                for chunk in range(max(owners) + 1)
            ]
            pooled.append(torch.stack(means).numpy())
        return pooled

    return pool


@pytest.fixture(scope="module")
def naive_context(replica_context_v1: Path) -> Pool:
    return naive(replica_context_v1)


@pytest.fixture(scope="module")
def naive_v1(replica_v1: Path) -> Pool:
    return naive(replica_v1)


@settings(max_examples=25)
@given(corpora)
def test_documents(naive_context: Pool, encoder_context_v1: PplxEncoder, documents: list[list[str]]) -> None:
    got = encoder_context_v1.encode_documents(documents, quantization=None)
    for matrix, expected in zip(got, naive_context(documents), strict=True):
        np.testing.assert_allclose(matrix, expected, atol=1e-5)


@settings(max_examples=25)
@given(st.lists(texts, min_size=1, max_size=12))
def test_texts(naive_v1: Pool, encoder_v1: PplxEncoder, corpus: list[str]) -> None:
    got = encoder_v1.encode(corpus, quantization=None)
    np.testing.assert_allclose(got, np.concatenate(naive_v1([[text] for text in corpus])), atol=1e-5)
