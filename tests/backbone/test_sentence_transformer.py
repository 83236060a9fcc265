"""The same weights as a SentenceTransformer: vectors, saving, training."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import batch_to_device

from pplx_embed_integrations import PplxEncoder
from pplx_embed_integrations.backbone.qwen3.sentence_transformer import TanhQuantizer
from pplx_embed_integrations.errors import InputError
from tests.processes import Processes

TEXTS = ["a text", "another, longer text with 東京", " white space ", "x" * 300, "<|endoftext|> as text"]


def test_vectors_are_those_of_encode(
    encoder_v1: PplxEncoder, encoder_context_v1: PplxEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    for encoder in (encoder_v1, encoder_context_v1):
        model = encoder.sentence_transformer
        assert not caplog.records
        assert model is encoder.sentence_transformer
        assert model.get_embedding_dimension() == 32
        for form in ("int8", "binary", None):
            got = model.encode(TEXTS, quantization=form)
            expected = encoder.encode(TEXTS, quantization=form)  # type: ignore[arg-type]
            np.testing.assert_allclose(got, expected, atol=1 if form == "int8" else 2e-5)
        np.testing.assert_array_equal(model.encode(TEXTS), model.encode(TEXTS, quantization="int8"))


def test_its_tokens_are_those_of_encode(encoder_v1: PplxEncoder) -> None:
    model, loaded = encoder_v1.sentence_transformer, encoder_v1.load()._loaded
    assert loaded is not None
    for text in TEXTS:
        features = model.tokenize([text])
        [[sequence]] = loaded.tokenizer.text_slices(encoder_v1._limits, [text])
        assert features["input_ids"][0].tolist() == sequence.ids.tolist()


def test_packed_bits_are_refused_with_the_way_to_them(encoder_v1: PplxEncoder) -> None:
    with pytest.raises(InputError, match=r"PplxEncoder\.encode"):
        encoder_v1.sentence_transformer.encode(["a"], quantization="ubinary")


def test_every_attention_is_bidirectional(replica_v1: Path, encoder_v1: PplxEncoder) -> None:
    model = PplxEncoder(replica_v1, dtype="float32").sentence_transformer
    expected = encoder_v1.encode(TEXTS, quantization=None)
    for implementation in ("sdpa", "eager"):
        model[0].model.set_attn_implementation(implementation)
        np.testing.assert_allclose(model.encode(TEXTS, quantization=None), expected, atol=2e-5)


@pytest.mark.parametrize("contextual", [False, True])
def test_what_is_saved_is_recognised(
    contextual: bool, replica_v1: Path, replica_context_v1: Path, tmp_path: Path
) -> None:
    encoder = PplxEncoder(replica_context_v1 if contextual else replica_v1, dtype="float32")
    encoder.sentence_transformer.save_pretrained(str(tmp_path / "saved"))
    saved = PplxEncoder(tmp_path / "saved", dtype="float32")
    assert saved.checkpoint.contextual is contextual
    assert "auto_map" not in (tmp_path / "saved" / "config.json").read_text()
    assert "processor_class" not in (tmp_path / "saved" / "tokenizer_config.json").read_text()
    assert saved.checkpoint.dimension == 32
    # The one's layers are prepacked, the other's are torch's own: rounding in another order, no more.
    expected = encoder.encode(TEXTS, quantization=None)
    np.testing.assert_allclose(saved.encode(TEXTS, quantization=None), expected, atol=1e-5)
    if contextual:
        documents = [["one", "two"], ["three"]]
        for left, right in zip(saved.encode_documents(documents), encoder.encode_documents(documents), strict=True):
            np.testing.assert_array_equal(left, right)


def load_plainly(saved: Path, expected: Path) -> None:
    from pplx_embed_integrations.backbone.qwen3.export import register

    register()
    # The flag is asked for by the last module, which is this package's; the folder holds no code.
    model = SentenceTransformer(str(saved), trust_remote_code=True, local_files_only=True, device="cpu")
    got = model.encode(TEXTS)
    assert np.abs(got - np.load(expected)).max() <= 1, got


def test_what_is_saved_loads_in_sentence_transformers_itself(
    replica_v1: Path, processes: Processes, tmp_path: Path
) -> None:
    encoder = PplxEncoder(replica_v1, dtype="float32")
    encoder.sentence_transformer.save_pretrained(str(tmp_path / "saved"))
    np.save(tmp_path / "expected.npy", encoder.encode(TEXTS))
    processes.run(load_plainly, tmp_path / "saved", tmp_path / "expected.npy")


@pytest.mark.parametrize("form", ["int8", "binary", None])
def test_gradients_pass_the_quantiser(form: str | None) -> None:
    pooled = torch.linspace(-2, 2, 24).reshape(2, 12).requires_grad_()
    out = TanhQuantizer()({"sentence_embedding": pooled}, quantization=form)["sentence_embedding"]
    hard = {"int8": torch.round(torch.tanh(pooled) * 127), "binary": torch.where(pooled >= 0, 1.0, -1.0), None: pooled}
    torch.testing.assert_close(out, hard[form])
    out.sum().backward()
    slope = 1 - torch.tanh(pooled.detach()) ** 2
    expected = {"int8": slope * 127, "binary": slope, None: torch.ones_like(slope)}[form]
    assert pooled.grad is not None
    torch.testing.assert_close(pooled.grad, expected)


def test_the_weights_are_shared(replica_v1: Path) -> None:
    encoder = PplxEncoder(replica_v1, dtype="float32")
    before = encoder.encode(TEXTS, quantization=None)
    model = encoder.sentence_transformer[0].model
    assert encoder._loaded is not None
    assert encoder._loaded.backend.model is model
    np.testing.assert_allclose(encoder.encode(TEXTS, quantization=None), before, atol=1e-5)
    assert {name for name, _ in model.named_parameters()} == set(load_file(replica_v1 / "model.safetensors"))
    for name, tensor in load_file(replica_v1 / "model.safetensors").items():
        torch.testing.assert_close(model.get_parameter(name).detach().cpu(), tensor, rtol=0, atol=0)


def test_layers_that_a_trainer_puts_in_are_used_by_encode(replica_v1: Path) -> None:
    class Adapted(torch.nn.Module):
        def __init__(self, base: torch.nn.Module) -> None:
            super().__init__()
            self.base = base

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            return self.base(hidden) * 1.5

    encoder = PplxEncoder(replica_v1, dtype="float32")
    before = encoder.encode(TEXTS, quantization=None)
    model = encoder.sentence_transformer
    attention = model[0].model.layers[0].self_attn
    attention.q_proj = Adapted(attention.q_proj)  # as LoRA does
    model[0].model.layers[1].mlp.down_proj = Adapted(model[0].model.layers[1].mlp.down_proj)
    after = encoder.encode(TEXTS, quantization=None)
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(model.encode(TEXTS, quantization=None), after, atol=2e-5)


def test_training_changes_what_encode_gives(replica_v1: Path) -> None:
    encoder = PplxEncoder(replica_v1, dtype="float32")
    before = encoder.encode(["anchor", "positive"], quantization=None)
    model = encoder.sentence_transformer
    model.train()
    assert all(parameter.requires_grad for parameter in model.parameters())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    similarities = []
    features = batch_to_device(model.tokenize(["anchor", "positive"]), model.device)
    for _ in range(4):
        embeddings: Any = model(dict(features))["sentence_embedding"]
        similarity = torch.nn.functional.cosine_similarity(embeddings[0], embeddings[1], dim=0)
        optimizer.zero_grad()
        (-similarity).backward()
        optimizer.step()
        similarities.append(similarity.item())
    model.eval()
    assert similarities[-1] > similarities[0]
    after = encoder.encode(["anchor", "positive"], quantization=None)
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(model.encode(["anchor", "positive"], quantization=None), after, atol=2e-5)


def test_long_texts_are_cut_where_sentence_transformers_cuts(replica_v1: Path) -> None:
    model = PplxEncoder(replica_v1, dtype="float32", max_tokens=16).sentence_transformer
    assert model.max_seq_length == 16
    assert model.tokenize(["word " * 100])["input_ids"].shape == (1, 16)
