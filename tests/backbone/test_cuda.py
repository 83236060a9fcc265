"""On a CUDA card: the vectors of the CPU, through every kernel, whatever the company, and with little memory.

Skipped where there is no card.
"""

import logging
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from pplx_embed_integrations import PplxBiEncoder, PplxEncoder
from pplx_embed_integrations.backbone.backends.workers import WorkerPool
from pplx_embed_integrations.backbone.pooling import span_means
from pplx_embed_integrations.backbone.qwen3 import forward, network, varlen
from pplx_embed_integrations.backbone.qwen3.attention import choose_kernel, packed_attention
from pplx_embed_integrations.backbone.qwen3.fused import fused_kernels
from pplx_embed_integrations.backbone.qwen3.varlen import PackedLayout
from pplx_embed_integrations.errors import EncodingError, InputError
from pplx_embed_integrations.vectors import quantize

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA card")

CUDA = torch.device("cuda", 0)
SAME = 2e-5  # float32 in another order of additions; vectors have a length of some 4
NEAR = 0.05  # bfloat16 of random weights
TEXTS = [f"text {i} " * (1 + i % 9) for i in range(200)]


def encoder(folder: Path | str, dtype: str = "float32", **options: Any) -> PplxEncoder:
    return PplxEncoder(folder, dtype=dtype, device="cuda", **options)


def assert_codes(got: np.ndarray, pooled: np.ndarray) -> None:
    """Codes are those of the floats, or one apart where a float lies at a rounding border."""
    scaled = np.tanh(pooled.astype(np.float64)) * 127
    at_border = np.abs(scaled - np.floor(scaled) - 0.5) < 127 * SAME
    apart = np.abs(got.astype(int) - quantize(pooled).astype(int))
    assert apart[~at_border].max(initial=0) == 0
    assert apart.max(initial=0) <= 1


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return (left * right).sum(axis=1) / lengths


@pytest.fixture
def clean() -> Iterator[None]:
    """The card's memory without what earlier tests left behind, and without a limit afterwards."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


def test_golden_texts(replica_v1: Path, expected_v1: Any) -> None:
    made = encoder(replica_v1)
    np.testing.assert_allclose(made.encode(expected_v1.inputs, quantization=None), expected_v1.pooled, atol=SAME)
    assert_codes(made.encode(expected_v1.inputs), expected_v1.pooled)
    alone = [made.encode([text], quantization=None)[0] for text in expected_v1.inputs]
    np.testing.assert_allclose(np.array(alone), expected_v1.pooled, atol=SAME)
    for form in ("binary", "ubinary"):
        np.testing.assert_array_equal(made.encode(expected_v1.inputs, quantization=form), getattr(expected_v1, form))


@pytest.mark.parametrize("budget", [None, 40, 300])
def test_golden_documents(budget: int | None, replica_context_v1: Path, expected_context_v1: Any) -> None:
    made = encoder(replica_context_v1, batch_tokens=budget)
    got = np.concatenate(made.encode_documents(expected_context_v1.inputs, quantization=None))
    np.testing.assert_allclose(got, expected_context_v1.pooled, atol=SAME)
    assert_codes(np.concatenate(made.encode_documents(expected_context_v1.inputs)), expected_context_v1.pooled)


@pytest.mark.parametrize("kernel", ["sdpa", "blocked", "varlen"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_golden_documents_through_every_kernel(
    kernel: Any, dtype: str, replica_context_v1: Path, expected_context_v1: Any
) -> None:
    made = encoder(replica_context_v1, dtype, attention=kernel)
    got = np.concatenate(made.encode_documents(expected_context_v1.inputs, quantization=None))
    np.testing.assert_allclose(got, expected_context_v1.pooled, atol=SAME if dtype == "float32" else NEAR)
    assert cosines(got, expected_context_v1.pooled).min() > (0.999999 if dtype == "float32" else 0.999)


def naive(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: list[int], scaling: float) -> Any:
    query, key, value = (side.double() for side in (query, key, value))
    groups = query.shape[1] // key.shape[1]
    key, value = (side.repeat_interleave(groups, dim=1) for side in (key, value))
    parts = zip(*(side.split(lengths, dim=2) for side in (query, key, value)), strict=True)
    attended = [torch.softmax(q @ k.transpose(-1, -2) * scaling, dim=-1) @ v for q, k, v in parts]
    return torch.cat(attended, dim=2).transpose(1, 2)


@pytest.mark.parametrize("kernel", ["sdpa", "blocked", "varlen", None])
@pytest.mark.parametrize(("heads", "kv_heads", "width"), [(16, 8, 128), (4, 4, 64), (4, 2, 16)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_kernel_equals_the_formula(
    kernel: Any, heads: int, kv_heads: int, width: int, dtype: torch.dtype
) -> None:
    lengths = [1, 7, 7, 700, 1, 129, 64]
    torch.manual_seed(0)
    # As the model makes them: parts of one product.
    product = torch.randn(sum(lengths), heads + 2 * kv_heads, width, device=CUDA).to(dtype)
    parts = product.split([heads, kv_heads, kv_heads], dim=1)
    query, key, value = (part.transpose(0, 1)[None] for part in parts)
    layout = PackedLayout(lengths, device=CUDA)
    got = packed_attention(query, key, value, layout=layout, scaling=width**-0.5, kernel=kernel)
    assert got.shape == (1, sum(lengths), heads, width)
    assert got.dtype == dtype
    exact = naive(query, key, value, lengths, width**-0.5)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(got.double(), exact, atol=tolerance, rtol=tolerance)


def test_one_call_takes_the_whole_batch() -> None:
    dtypes = [torch.float32, torch.bfloat16] if torch.cuda.get_device_capability() >= (8, 0) else [torch.float32]
    for dtype in dtypes:
        assert choose_kernel(device=CUDA, dtype=dtype, length=12) == "varlen"
    if torch.bfloat16 in dtypes:
        assert varlen._shares_heads(0)


def test_a_long_sequence_alone_and_in_company() -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, heads, 16400, 128, device=CUDA).bfloat16() for heads in (4, 2, 2))
    for lengths in ([16400], [16384, 16]):
        layout = PackedLayout(lengths, device=CUDA)
        kernels: list[Any] = [None, "varlen"]
        found, expected = (
            packed_attention(query, key, value, layout=layout, scaling=128**-0.5, kernel=kernel) for kernel in kernels
        )
        torch.testing.assert_close(found, expected, atol=2e-3, rtol=2e-2)


def test_fused_kernels_are_there() -> None:
    pytest.importorskip("triton")
    for dtype in (torch.float32, torch.bfloat16):
        assert isinstance(fused_kernels(CUDA, dtype), ModuleType)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_without_fused_kernels_the_vectors_are_the_same(
    dtype: str, replica_context_v1: Path, expected_context_v1: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (forward, network):
        monkeypatch.setattr(module, "fused_kernels", lambda device, dtype: None)
    made = encoder(replica_context_v1, dtype)
    got = np.concatenate(made.encode_documents(expected_context_v1.inputs, quantization=None))
    np.testing.assert_allclose(got, expected_context_v1.pooled, atol=SAME if dtype == "float32" else NEAR)
    assert made._loaded is not None
    assert made._loaded.backend.model.layers[0].self_attn.joined is None  # type: ignore[union-attr]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_text_alone_and_in_company(dtype: str, replica_v1: Path) -> None:
    made = encoder(replica_v1, dtype)
    together = made.encode(TEXTS, quantization=None)
    alone = np.concatenate([made.encode([text], quantization=None) for text in TEXTS[:40]])
    np.testing.assert_allclose(alone, together[:40], atol=SAME if dtype == "float32" else NEAR)
    for _ in range(3):  # nothing depends on the order in which threads happen to come
        np.testing.assert_array_equal(made.encode(TEXTS, quantization=None), together)


def test_the_miniature_pair_gives_the_cpus_vectors() -> None:
    documents = [[f"Chunk {i} of {n}, which speaks of engines." for i in range(n)] for n in (1, 2, 7)]
    pairs = [PplxBiEncoder("miniature", dtype="float32", device=device) for device in ("cpu", "cuda")]
    ours, theirs = (pair.encode_queries(TEXTS, quantization=None) for pair in pairs)
    np.testing.assert_allclose(theirs, ours, atol=SAME)
    ours, theirs = (np.concatenate(pair.encode_documents(documents, quantization=None)) for pair in pairs)
    np.testing.assert_allclose(theirs, ours, atol=SAME)
    assert_codes(np.concatenate(pairs[1].encode_documents(documents)), ours)
    rough = np.concatenate(
        PplxBiEncoder("miniature", dtype="bfloat16", device="cuda").encode_documents(documents, quantization=None)
    )
    assert cosines(rough, ours).min() > 0.9995


def test_means_over_spans() -> None:
    hidden = torch.randn(1000, 24)
    spans = [(900, 1000), (0, 1), (1, 70), (200, 520), (70, 200), (521, 522)]
    expected = torch.stack([hidden[start:end].double().mean(0) for start, end in spans])
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.bfloat16, 1e-2)):
        got = span_means(hidden.to(CUDA, dtype), spans)
        torch.testing.assert_close(got.double().cpu(), expected, atol=tolerance, rtol=0)


def test_a_sentence_transformer_on_the_card(replica_v1: Path, expected_v1: Any, tmp_path: Path) -> None:
    made = encoder(replica_v1)
    model = made.sentence_transformer
    assert model.device.type == "cuda"
    got = model.encode(expected_v1.inputs, quantization=None, batch_size=4)
    np.testing.assert_allclose(got, expected_v1.pooled, atol=SAME)
    np.testing.assert_allclose(made.encode(expected_v1.inputs, quantization=None), expected_v1.pooled, atol=SAME)
    for parameter in model.parameters():
        assert parameter.untyped_storage().nbytes() == parameter.nbytes
    model.save_pretrained(str(tmp_path))
    again = encoder(tmp_path).encode(expected_v1.inputs, quantization=None)
    np.testing.assert_allclose(again, expected_v1.pooled, atol=SAME)


def test_concurrent_queries(replica_v1: Path) -> None:
    made = encoder(replica_v1)
    expected = made.encode(TEXTS, quantization=None)
    with ThreadPoolExecutor(16) as callers:
        rows = callers.map(lambda text: made.encode([text], quantization=None)[0], TEXTS)
    np.testing.assert_allclose(np.array(list(rows)), expected, atol=SAME)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.usefixtures("clean")
def test_loading_holds_one_copy(dtype: str) -> None:
    fused_kernels(CUDA, getattr(torch, dtype))  # tried, and their memory given back
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    made = encoder("miniature-context-v1", dtype).load()
    size = torch.cuda.memory_allocated() - before
    assert made._loaded is not None
    model = made._loaded.backend.model  # type: ignore[union-attr]
    assert size < 1.1 * sum(parameter.nbytes for parameter in model.parameters())
    assert torch.cuda.max_memory_allocated() - before < 1.3 * size


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.usefixtures("clean")
def test_a_document_of_32768_tokens_in_little_memory(dtype: str, replica_context_v1: Path) -> None:
    made = encoder(replica_context_v1, dtype)
    chunks = ["a b c d e f g h " * 8] * 300
    tokens = sum(made.count_tokens(chunks)) + len(chunks) - 1
    chunks = chunks[: 300 * 32768 // tokens]
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    [got] = made.encode_documents([chunks], quantization=None)
    assert got.shape == (len(chunks), 32)
    assert np.isfinite(got).all()
    assert torch.cuda.max_memory_allocated() - before < 200e6  # all scores of one head would be 4.3 GB


@pytest.mark.usefixtures("clean")
def test_memory_that_runs_out_halves_the_budget(replica_v1: Path, caplog: pytest.LogCaptureFixture) -> None:
    texts = TEXTS * 6
    made = encoder(replica_v1)
    made.encode(texts[:1])
    before = torch.cuda.memory_allocated()
    expected = made.encode(texts, quantization=None)
    taken = torch.cuda.max_memory_allocated() - before
    torch.cuda.empty_cache()
    _allow(taken / 2)
    with caplog.at_level(logging.WARNING):
        got = made.encode(texts, quantization=None)
    np.testing.assert_allclose(got, expected, atol=SAME)
    assert "the device ran out of memory; going on with" in caplog.text
    assert made._loaded is not None
    assert made._loaded.scheduler.budget < made._loaded.backend.batch_tokens


@pytest.mark.usefixtures("clean")
def test_a_text_that_does_not_fit_at_all_is_its_callers_error(replica_v1: Path) -> None:
    made = encoder(replica_v1)
    expected = made.encode(["short"])
    long = "a b c d " * (100 * 32000 // made.count_tokens(["a b c d " * 100])[0])
    torch.cuda.empty_cache()
    _allow(22e6)
    with pytest.raises(EncodingError, match="ran out of memory with a single sequence of"):
        made.encode([long])
    np.testing.assert_array_equal(made.encode(["short"]), expected)


def _allow(more: float) -> None:
    """Let this process take so many bytes of the card more than it holds."""
    total = torch.cuda.get_device_properties(CUDA).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + more) / total)


def _settings() -> list[object]:
    matmul, cuda = torch.backends.cuda.matmul, torch.backends.cuda
    return [
        matmul.allow_tf32,
        matmul.allow_bf16_reduced_precision_reduction,
        torch.backends.cudnn.allow_tf32,
        torch.get_float32_matmul_precision(),
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        torch.cuda.current_device(),
        cuda.flash_sdp_enabled(),
        cuda.mem_efficient_sdp_enabled(),
        cuda.math_sdp_enabled(),
        cuda.cudnn_sdp_enabled(),
        torch.get_rng_state().tolist(),
        torch.cuda.get_rng_state().tolist(),
    ]


def test_no_setting_of_torch_is_changed(replica_v1: Path) -> None:
    torch.cuda.init()
    before = _settings()
    for dtype in ("float32", "bfloat16"):
        encoder(replica_v1, dtype).encode(TEXTS)
    assert _settings() == before


def test_int8_weights_and_openvino_are_for_cpus(replica_v1: Path) -> None:
    with pytest.raises(InputError, match="int8"):
        encoder(replica_v1, weights="int8").encode(["a"])


def test_the_best_device_is_the_card(replica_v1: Path) -> None:
    made = PplxEncoder(replica_v1).load()
    assert made._loaded is not None
    assert made._loaded.backend.model.device == CUDA  # type: ignore[union-attr]
    with pytest.raises(InputError, match=r"device='cuda:99' is not there; this machine has \d+ CUDA devices"):
        PplxEncoder(replica_v1, device="cuda:99").load()


@pytest.mark.slow
def test_two_workers_on_one_card(replica_context_v1: Path, expected_context_v1: Any) -> None:
    made = PplxEncoder(replica_context_v1, dtype="float32", devices=["cuda:0", "cuda:0"], batch_tokens=100).load()
    got = np.concatenate(made.encode_documents(expected_context_v1.inputs, quantization=None))
    np.testing.assert_allclose(got, expected_context_v1.pooled, atol=SAME)
    assert made._loaded is not None
    pool = made._loaded.backend
    assert isinstance(pool, WorkerPool)
    process = pool._workers[0]._process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    expected = encoder(replica_context_v1).encode(TEXTS, quantization=None)
    np.testing.assert_allclose(made.encode(TEXTS, quantization=None), expected, atol=SAME)
    made.close()


def test_langchain(replica_v1: Path, replica_context_v1: Path, expected_context_v1: Any) -> None:
    langchain = pytest.importorskip("pplx_embed_integrations.langchain", exc_type=ImportError)
    embeddings = langchain.PplxEmbeddings(
        query_model=replica_v1, document_model=replica_context_v1, dtype="float32", device="cuda"
    )
    got = [row for rows in embeddings.embed_document_chunks(expected_context_v1.inputs) for row in rows]
    assert cosines(np.array(got), expected_context_v1.int8.astype(float)).min() > 0.9999
    assert len(embeddings.embed_query("a question")) == 32


def test_llama_index(replica_v1: Path, replica_context_v1: Path, expected_v1: Any) -> None:
    llama_index = pytest.importorskip("pplx_embed_integrations.llama_index", exc_type=ImportError)
    model = llama_index.PplxEmbedding(
        query_model=replica_v1, document_model=replica_context_v1, dtype="float32", device="cuda"
    )
    got = model.get_query_embedding(expected_v1.inputs[0])
    assert cosines(np.array([got]), expected_v1.int8[:1].astype(float)).min() > 0.9999
