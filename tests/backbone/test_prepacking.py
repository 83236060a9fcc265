"""Prepacked linear layers: the same products, the same weights back, and nothing held twice."""

import gc

import numpy as np
import pytest
import torch

from pplx_embed_integrations import PplxEncoder
from pplx_embed_integrations.backbone.prepacking import PrepackedLinear, prepack, unpack


def layers() -> torch.nn.Sequential:
    torch.manual_seed(0)
    made = torch.nn.Sequential(
        torch.nn.Linear(48, 96, bias=False), torch.nn.SiLU(), torch.nn.Linear(96, 16, bias=False)
    )
    return made.requires_grad_(False)


needs_packing = pytest.mark.skipif(
    prepack(layers()) == 0, reason="this processor or this torch has no prepacked layers"
)


@needs_packing
@pytest.mark.parametrize("tokens", [1, 3, 64, 700])
def test_the_product_is_the_same(tokens: int) -> None:
    plain, packed = layers(), layers()
    assert prepack(packed) == 2
    hidden = torch.randn(1, tokens, 48)
    with torch.inference_mode():
        torch.testing.assert_close(packed(hidden), plain(hidden), atol=1e-6, rtol=1e-5)


@needs_packing
def test_unpacking_gives_the_very_weights_back() -> None:
    plain, packed = layers(), layers()
    prepack(packed)
    assert not list(packed.parameters())  # the plain weights are gone
    unpack(packed)
    assert [type(layer) for layer in packed] == [type(layer) for layer in plain]
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(packed.parameters(), plain.parameters(), strict=True))


@needs_packing
def test_no_plain_weight_stays_behind() -> None:
    shape = (96, 48)
    packed = layers()
    prepack(packed)
    gc.collect()
    dense = [
        t for t in gc.get_objects() if type(t) is torch.nn.Parameter and t.shape == shape and t.device.type == "cpu"
    ]
    assert not dense


def test_layers_with_bias_and_other_dtypes_are_left_alone() -> None:
    assert prepack(torch.nn.Sequential(torch.nn.Linear(4, 4))) == 0
    assert prepack(torch.nn.Sequential(torch.nn.Linear(4, 4, bias=False, dtype=torch.float64))) == 0
    assert prepack(torch.nn.Sequential(torch.nn.ReLU())) == 0


def test_a_kernel_that_is_wrong_or_missing_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PrepackedLinear, "forward", lambda self, hidden: hidden @ self.plain().weight.T * 1.001)
    assert prepack(layers()) == 0

    def missing(self: PrepackedLinear, hidden: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    monkeypatch.setattr(PrepackedLinear, "forward", missing)
    assert prepack(layers()) == 0


@needs_packing
def test_the_sentence_transformer_shares_weights_and_can_be_trained(replica_v1) -> None:
    encoder = PplxEncoder(replica_v1, dtype="float32")
    texts = ["late chunking", "a somewhat longer text about embeddings", "x"]
    before = encoder.encode(texts, quantization=None)
    assert encoder._loaded is not None
    assert any(isinstance(module, PrepackedLinear) for module in encoder._loaded.model.modules())
    model = encoder.sentence_transformer
    assert not any(isinstance(module, PrepackedLinear) for module in model.modules())
    np.testing.assert_allclose(encoder.encode(texts, quantization=None), before, atol=1e-6)
    with torch.no_grad():
        model[0].model.layers[0].mlp.down_proj.weight.mul_(1.5)
    after = encoder.encode(texts, quantization=None)
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(model.encode(texts, quantization=None), after, atol=1e-5)


def test_no_global_setting_is_changed(encoder_v1) -> None:
    def settings() -> tuple[object, ...]:
        return (
            torch.get_float32_matmul_precision(),
            torch.backends.mkldnn.enabled,
            torch.get_num_threads(),
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
        )

    before = settings()
    encoder_v1.encode(["a text"])
    assert settings() == before
