"""Linear layers in 8 bits: the sums are exact, the rounding is what is documented, and nothing falls back silently."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pplx_embed_integrations import PplxBiEncoder, PplxEncoder
from pplx_embed_integrations.backbone.qwen3 import forward, int8_weights
from pplx_embed_integrations.backbone.qwen3.int8_weights import Int8Linear, check_int8_weights
from pplx_embed_integrations.errors import EncodingError, InputError
from pplx_embed_integrations.vectors import cosine_similarity

CPU = torch.device("cpu")
needs_int8 = pytest.mark.skipif(
    int8_weights._failure() is not None, reason=f"no exact 8-bit products here: {int8_weights._failure()}"
)


def naive(weight: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Round weights a row and inputs a token, and multiply, in float64 and in the plainest way."""

    def rounded(rows: torch.Tensor, step_dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        step = (rows.float().abs().amax(1, keepdim=True) / 127).to(step_dtype).double().clamp_min(1e-37)
        return (rows.double() / step).round(), step

    rows, row_steps = rounded(weight, torch.float32)
    codes, token_steps = rounded(hidden, hidden.dtype)
    return (codes @ rows.T) * token_steps * row_steps.T


@needs_int8
@settings(max_examples=40, deadline=None)
@given(
    tokens=st.integers(1, 70),
    inputs=st.integers(1, 400),
    outputs=st.integers(1, 200),
    loud=st.floats(1, 1000),
    seed=st.integers(0, 2**31),
)
def test_sums_are_exact(tokens: int, inputs: int, outputs: int, loud: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight, hidden = (torch.randn(n, inputs, generator=generator) for n in (outputs, tokens))
    hidden[0] *= loud  # costs the other tokens nothing
    with torch.inference_mode():
        found = Int8Linear(weight)(hidden)
    expected = naive(weight, hidden)
    # A value on the border between two codes may fall to either side.
    close = (found.double() - expected).abs() <= 1e-5 * expected.abs().amax(1, keepdim=True) + 1e-30
    border = 1.01 / 127 * hidden.abs().amax(1, keepdim=True) * weight.abs().amax(1)
    assert (close | ((found - expected).abs() <= border)).all()
    # Such a value moves all results of its token, or of its weight's row: few of either.
    off = ~close
    tokens_off, outputs_off = off.double().mean(1) > 0.5, off.double().mean(0) > 0.5
    assert int(tokens_off.sum()) <= 1 + tokens / 50 or int(outputs_off.sum()) <= 1 + outputs / 50
    assert (off & ~tokens_off[:, None] & ~outputs_off).double().mean() < 0.02


@needs_int8
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 64), (15, 64), (700, 64)])
def test_products_and_what_comes_next(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    weight, hidden, other = torch.randn(48, 64), torch.randn(*shape).to(dtype), torch.randn(*shape[:-1], 48).to(dtype)
    layer, product = Int8Linear(weight), hidden.double() @ weight.double().T
    with torch.inference_mode():
        results = (
            (layer(hidden), product),
            (layer(hidden, "swish"), product * product.sigmoid()),
            (layer(hidden, "mul", other), product * other.double()),
            (layer(hidden, "add", other), product + other.double()),
        )
    for found, expected in results:
        assert found.dtype == dtype
        assert found.shape == expected.shape
        apart = torch.nn.functional.cosine_similarity(found.double().flatten(), expected.flatten(), dim=0)
        assert apart > 0.9998


@needs_int8
def test_inputs_that_layers_share_are_rounded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = PplxEncoder("miniature-v1", weights="int8", device="cpu").load()
    assert encoder._loaded is not None
    rounded: list[torch.Tensor] = []
    honest = int8_weights.round_tokens
    for module in (int8_weights, forward):
        monkeypatch.setattr(module, "round_tokens", lambda hidden: rounded.append(hidden) or honest(hidden))
    encoder.encode(["a text"])
    # For queries, keys and values; for what attention gives; for gate and up; for down.
    assert len(rounded) == 4 * len(encoder._loaded.backend.model.layers)


@needs_int8
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_no_number_does_not_become_one(bad: float) -> None:
    hidden = torch.randn(3, 64)
    hidden[1, 7] = bad
    with torch.inference_mode():
        found = Int8Linear(torch.randn(8, 64))(hidden)
    assert not found[1].isfinite().any()
    assert found[[0, 2]].isfinite().all()
    with torch.inference_mode():
        assert not Int8Linear(torch.zeros(2, 4))(torch.zeros(1, 4)).any()


@needs_int8
def test_a_damaged_model_is_refused_and_gives_no_vector(replica_v1, copy_of) -> None:
    from safetensors.torch import load_file, save_file

    folder = copy_of(replica_v1)
    tensors = load_file(folder / "model.safetensors")
    tensors["layers.0.mlp.up_proj.weight"][3, 3] = float("nan")
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(EncodingError):
        PplxEncoder(folder, weights="int8", device="cpu").encode(["a text"])


@needs_int8
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_trained_weights_agree(dtype: str) -> None:
    texts = [
        "Saturn is a planet with bright rings made of ice and rock.",
        "Mix flour, water, salt and yeast, let the dough rise, then bake the bread.",
        "Use apt-get install to download and install a Debian package.",
        "Air flowing over the wing of an aircraft produces lift. " * 20,
    ]
    for name in ("miniature-v1", "miniature-context-v1"):
        exact = PplxEncoder(name, dtype="float32", device="cpu").encode(texts, quantization=None)
        encoder = PplxEncoder(name, dtype=dtype, weights="int8", device="cpu")
        found = encoder.encode(texts, quantization=None)
        assert np.diag(np.asarray(cosine_similarity(found, exact))).min() > 0.995
        assert not np.array_equal(found, exact)  # it was asked for, so it is done
        alone = np.concatenate([encoder.encode([text], quantization=None) for text in texts])
        np.testing.assert_allclose(alone, found, atol=0.03 if dtype == "bfloat16" else 1e-5)


def test_the_option_is_checked_kept_and_shown(replica_v1) -> None:
    with pytest.raises(InputError, match=r"weights='int4' is unknown; use \"int8\", or leave it out"):
        PplxEncoder(replica_v1, weights="int4")  # type: ignore[arg-type]
    encoder = PplxEncoder(replica_v1, weights="int8")
    assert pickle.loads(pickle.dumps(encoder)).weights == "int8"
    assert repr(encoder).endswith("weights='int8')")
    pair = PplxBiEncoder(replica_v1, weights="int8")
    assert pair.query.weights == "int8"
    assert pair.options["weights"] == "int8"
    assert PplxBiEncoder(replica_v1).options["weights"] is None


@needs_int8
def test_no_trainer_gets_rounded_weights(replica_v1) -> None:
    with pytest.raises(InputError, match="leave weights out to have a SentenceTransformer"):
        _ = PplxEncoder(replica_v1, weights="int8", device="cpu").sentence_transformer


@needs_int8
def test_workers_have_them_too(replica_v1) -> None:
    encoder = PplxEncoder(replica_v1, weights="int8", devices=["cpu"])
    texts = ["a", "a longer text"]
    expected = PplxEncoder(replica_v1, weights="int8", device="cpu").encode(texts, quantization=None)
    np.testing.assert_allclose(encoder.encode(texts, quantization=None), expected, atol=1e-5)
    encoder.close()


def test_elsewhere_they_are_refused(monkeypatch: pytest.MonkeyPatch, replica_v1) -> None:
    with pytest.raises(InputError, match=r"runs on the CPU alone, and device is 'cuda:1'"):
        check_int8_weights(torch.device("cuda:1"))
    monkeypatch.setattr(int8_weights.platform, "machine", lambda: "arm64")
    with pytest.raises(InputError, match=r"needs a processor with exact 8-bit products.*no x86-64; leave weights out"):
        PplxEncoder(replica_v1, weights="int8", device="cpu").encode(["a"])


def test_wrong_or_missing_products_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def saturating(self: Int8Linear, hidden: torch.Tensor) -> torch.Tensor:
        return torch.clamp(hidden @ torch.ones(hidden.shape[1], self.out_features), max=2000)

    def missing(self: Int8Linear, hidden: torch.Tensor) -> torch.Tensor:
        raise AttributeError("no such operator")

    for replacement, reason in ((saturating, "other sums"), (missing, "no such operator")):
        int8_weights._failure.cache_clear()
        monkeypatch.setattr(Int8Linear, "forward", replacement)
        with pytest.raises(InputError, match=reason):
            check_int8_weights(CPU)
    int8_weights._failure.cache_clear()
