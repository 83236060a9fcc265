"""Prepacked linear layers: the same products, the same weights back, and nothing held twice."""

from typing import Any

import numpy as np
import pytest
import torch

from pplx_embed_integrations import PplxEncoder
from pplx_embed_integrations.backbone.qwen3 import network, prepacking
from pplx_embed_integrations.backbone.qwen3.network import load_network
from pplx_embed_integrations.backbone.qwen3.prepacking import PrepackedLinear, can_prepack, unpack

CPU = torch.device("cpu")


def layers() -> torch.nn.Sequential:
    torch.manual_seed(0)
    made = torch.nn.Sequential(
        torch.nn.Linear(48, 96, bias=False), torch.nn.SiLU(), torch.nn.Linear(96, 16, bias=False)
    )
    return made.requires_grad_(False)


def packed_layers() -> torch.nn.Sequential:
    return torch.nn.Sequential(
        *(PrepackedLinear(layer.weight) if isinstance(layer, torch.nn.Linear) else layer for layer in layers())
    )


needs_packing = pytest.mark.skipif(
    not can_prepack(CPU, torch.float32), reason="this processor or this torch has no prepacked layers"
)


@needs_packing
@pytest.mark.parametrize("tokens", [1, 3, 64, 700])
def test_the_product_is_the_same(tokens: int) -> None:
    plain, packed = layers(), packed_layers()
    hidden = torch.randn(1, tokens, 48)
    with torch.inference_mode():
        torch.testing.assert_close(packed(hidden), plain(hidden), atol=1e-6, rtol=1e-5)


@needs_packing
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [1, 12, 300])
def test_what_comes_next_is_done_to_the_product(tokens: int, dtype: torch.dtype) -> None:
    if not can_prepack(CPU, dtype):
        pytest.skip(f"this processor has no prepacked layers in {dtype}")
    torch.manual_seed(1)
    weight, hidden, other = (torch.randn(*shape).to(dtype) for shape in ((96, 48), (tokens, 48), (tokens, 96)))
    packed, product = PrepackedLinear(weight), hidden.double() @ weight.double().T
    tolerance = {"atol": 2e-2, "rtol": 1e-2} if dtype == torch.bfloat16 else {"atol": 1e-5, "rtol": 1e-5}
    for found, expected in (
        (packed(hidden, "swish"), product * product.sigmoid()),
        (packed(hidden, "mul", other), product * other.double()),
        (packed(hidden, "add", other), product + other.double()),
    ):
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), expected, **tolerance)


@needs_packing
def test_unpacking_gives_the_very_weights_back() -> None:
    plain, packed = layers(), packed_layers()
    assert not list(packed.parameters())  # the plain weights are gone
    unpack(packed)
    assert [type(layer) for layer in packed] == [type(layer) for layer in plain]
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(packed.parameters(), plain.parameters(), strict=True))


def test_devices_and_dtypes_without_prepacked_layers() -> None:
    assert not can_prepack(CPU, torch.float64)
    assert not can_prepack(CPU, torch.float16)
    assert not can_prepack(torch.device("cuda"), torch.float32)


def test_a_kernel_that_is_wrong_or_missing_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    right = PrepackedLinear.forward

    def wrong(self: PrepackedLinear, hidden: torch.Tensor, *post: Any) -> torch.Tensor:
        return right(self, hidden, *post) * 1.001

    def wrong_only_then(self: PrepackedLinear, hidden: torch.Tensor, *post: Any) -> torch.Tensor:
        return right(self, hidden, *post) * (1.001 if "add" in post[:1] else 1)

    def missing(self: PrepackedLinear, hidden: torch.Tensor, *post: Any) -> torch.Tensor:
        raise NotImplementedError

    prepacking._works.cache_clear()
    for forward in (wrong, wrong_only_then, missing):
        monkeypatch.setattr(PrepackedLinear, "forward", forward)
        assert not can_prepack(CPU, torch.float32)
        prepacking._works.cache_clear()


def test_a_model_without_prepacked_layers_gives_the_same(replica_v1, monkeypatch) -> None:
    texts = ["late chunking", "a somewhat longer text about embeddings"]
    expected = PplxEncoder(replica_v1, dtype="float32", device="cpu").encode(texts, quantization=None)
    monkeypatch.setattr(network, "can_prepack", lambda device, dtype: False)
    plain = PplxEncoder(replica_v1, dtype="float32", device="cpu", batch_tokens=4000)  # no weights in common
    found = plain.encode(texts, quantization=None)
    assert plain._loaded is not None
    assert not any(isinstance(module, PrepackedLinear) for module in plain._loaded.backend.model.modules())
    np.testing.assert_allclose(found, expected, atol=1e-6)


@needs_packing
def test_no_plain_weight_is_held_beside_the_packed_one(replica_v1) -> None:
    model = load_network(replica_v1, dtype="float32", device=CPU, prepacked=True)
    assert not any("proj" in name for name in model.state_dict())
    assert sum(isinstance(module, PrepackedLinear) for module in model.modules()) == 7 * len(model.layers)


@needs_packing
def test_the_sentence_transformer_shares_weights_and_can_be_trained(replica_v1) -> None:
    encoder = PplxEncoder(replica_v1, dtype="float32", device="cpu")
    texts = ["late chunking", "a somewhat longer text about embeddings", "x"]
    before = encoder.encode(texts, quantization=None)
    assert encoder._loaded is not None
    assert any(isinstance(module, PrepackedLinear) for module in encoder._loaded.backend.model.modules())
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
