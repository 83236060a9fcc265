"""Packed attention against the formula, written out a sequence and a head at a time in float64."""

import inspect
import subprocess
import sys
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pplx_embed_integrations import PplxEncoder
from pplx_embed_integrations.backbone.qwen3 import attention
from pplx_embed_integrations.backbone.qwen3.attention import choose_kernel, packed_attention
from pplx_embed_integrations.backbone.qwen3.varlen import PackedLayout
from pplx_embed_integrations.errors import InputError

CPU = torch.device("cpu")


def naive(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: list[int], scaling: float):
    query, key, value = (side.double() for side in (query, key, value))
    output = torch.zeros_like(query)
    groups = query.shape[1] // key.shape[1]
    start = 0
    for length in lengths:
        part = slice(start, start + length)
        for head in range(query.shape[1]):
            scores = query[0, head, part] @ key[0, head // groups, part].T * scaling
            output[0, head, part] = torch.softmax(scores, dim=-1) @ value[0, head // groups, part]
        start += length
    return output.transpose(1, 2)


def operands(lengths: list[int], *, kv_heads: int, groups: int, width: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    # As the model makes them: a transposed view, not a contiguous tensor.
    return [
        torch.randn(1, sum(lengths), heads, width, generator=generator).transpose(1, 2)
        for heads in (kv_heads * groups, kv_heads, kv_heads)
    ]


@pytest.mark.parametrize("kernel", [None, "sdpa", "blocked"])
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    kv_heads=st.integers(1, 3),
    groups=st.integers(1, 3),
    width=st.sampled_from([8, 16, 128]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=25)
def test_every_kernel_equals_the_formula(kernel, lengths, kv_heads, groups, width, seed) -> None:
    q, k, v = operands(lengths, kv_heads=kv_heads, groups=groups, width=width, seed=seed)
    scaling = width**-0.5
    layout = PackedLayout(lengths, device=CPU)
    result = packed_attention(q, k, v, layout=layout, scaling=scaling, kernel=kernel)
    assert result.shape == (1, sum(lengths), kv_heads * groups, width)
    torch.testing.assert_close(result.double(), naive(q, k, v, lengths, scaling), atol=1e-5, rtol=1e-4)


@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=5), room=st.integers(1, 3000))
@settings(max_examples=25)
def test_blocks_of_any_size_give_the_same(lengths, room) -> None:
    q, k, v = operands(lengths, kv_heads=2, groups=2, width=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(attention._SCORES_AT_ONCE, "cpu", room)
        patch.setattr(attention, "_FEWEST_ROWS", 3)
        layout = PackedLayout(lengths, device=CPU)
        result = packed_attention(q, k, v, layout=layout, scaling=0.3, kernel="blocked")
    torch.testing.assert_close(result.double(), naive(q, k, v, lengths, 0.3), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kernel", ["sdpa", "blocked"])
def test_bfloat16_stays_near_the_formula(kernel) -> None:
    lengths = [200, 130, 130, 5]
    q, k, v = (side.bfloat16() for side in operands(lengths, kv_heads=2, groups=2, width=128))
    layout = PackedLayout(lengths, device=CPU)
    result = packed_attention(q, k, v, layout=layout, scaling=128**-0.5, kernel=kernel)
    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(result.double(), naive(q, k, v, lengths, 128**-0.5), atol=1.5e-2, rtol=2e-2)


def test_a_cpu_takes_the_softmax_of_bfloat16_in_float32() -> None:
    # The blocks rely on it: no float32 copy of the scores is made.
    scores = (torch.randn(64, 999, generator=torch.Generator().manual_seed(0)) * 4).bfloat16()
    precise = torch.softmax(scores, dim=-1, dtype=torch.float32).bfloat16()
    torch.testing.assert_close(torch.softmax(scores, dim=-1), precise, atol=0, rtol=2**-7)


def test_neighbours_of_one_length_share_a_call() -> None:
    assert PackedLayout([3, 3, 5, 3], device=CPU).runs == [(3, 2), (5, 1), (3, 1)]
    assert PackedLayout([3, 3, 5, 3], device=CPU).borders.tolist() == [0, 3, 6, 11, 14]


@pytest.mark.parametrize(
    ("device", "dtype", "length", "kernel"),
    [
        ("cpu", torch.float32, 32768, "sdpa"),
        ("cpu", torch.bfloat16, 12, "sdpa"),
        ("cpu", torch.bfloat16, 32, "blocked"),
        ("mps", torch.float32, 500, "sdpa"),
        ("mps", torch.float32, 8192, "blocked"),
        ("cuda", torch.float32, 500, "sdpa"),
    ],
)
def test_the_kernel_that_is_chosen(device, dtype, length, kernel, monkeypatch) -> None:
    monkeypatch.setattr(attention, "_has_tiles", lambda: False)
    monkeypatch.setattr(attention, "has_varlen", lambda index, dtype: False)
    assert choose_kernel(device=torch.device(device), dtype=dtype, length=length) == kernel


def test_tile_registers_speak_for_sdpa(monkeypatch) -> None:
    monkeypatch.setattr(attention, "_has_tiles", lambda: True)
    for length in (12, 32, 8192):
        assert choose_kernel(device=CPU, dtype=torch.bfloat16, length=length) == "sdpa"


def test_only_a_long_sequence_alone_leaves_the_one_call_on_hopper(monkeypatch) -> None:
    cuda = torch.device("cuda", 0)

    def chosen(length: int, alone: bool, dtype: torch.dtype = torch.bfloat16) -> str:
        return choose_kernel(device=cuda, dtype=dtype, length=length, alone=alone)

    monkeypatch.setattr(attention, "has_varlen", lambda index, dtype: True)
    for hopper in (False, True):
        monkeypatch.setattr(attention, "_is_hopper", lambda index, answer=hopper: answer)
        assert chosen(32768, alone=True) == ("sdpa" if hopper else "varlen")
        assert chosen(12, alone=True) == "varlen"
        assert chosen(32768, alone=False) == "varlen"
        assert chosen(32768, alone=True, dtype=torch.float32) == "varlen"
    assert PackedLayout([5], device=CPU).alone
    assert not PackedLayout([5, 5], device=CPU).alone


def test_a_single_run_of_sequences_gives_what_several_runs_give() -> None:
    torch.manual_seed(3)
    q, k, v = (torch.randn(1, heads, 12, 16) for heads in (4, 2, 2))
    runs = {
        lengths: packed_attention(q, k, v, layout=PackedLayout(lengths, device=CPU), scaling=0.3)
        for lengths in ((6, 6), (6, 3, 3))
    }
    alone = packed_attention(
        q[:, :, 6:9], k[:, :, 6:9], v[:, :, 6:9], layout=PackedLayout([3], device=CPU), scaling=0.3
    )
    torch.testing.assert_close(runs[6, 6][:, :6], runs[6, 3, 3][:, :6])
    torch.testing.assert_close(alone, runs[6, 3, 3][:, 6:9])


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["sdpa", "blocked"])
def test_memory_grows_with_the_length_not_with_its_square(kernel) -> None:
    # All scores of 4,096 tokens and 4 heads would be 268 MB. In a process of its own, whose peak is only this.
    program = f"""
import resource, torch
from pplx_embed_integrations.backbone.qwen3.attention import packed_attention
from pplx_embed_integrations.backbone.qwen3.varlen import PackedLayout
torch.set_num_threads(1)
q = torch.randn(1, 4, 4096, 16)
k = torch.randn(1, 2, 4096, 16)
def run(n):
    layout = PackedLayout([n], device=q.device)
    packed_attention(q[:, :, :n], k[:, :, :n], k[:, :, :n], layout=layout, scaling=0.25, kernel={kernel!r})
with torch.inference_mode():
    run(64)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run(4096)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert float(printed) < 100  # MB


def test_the_call_of_variable_length_attention_is_one_that_torch_takes() -> None:
    # Without the card only the shapes can be followed, through torch's own description of the operator.
    from torch._subclasses.fake_tensor import FakeTensorMode

    varlen = pytest.importorskip("torch.nn.attention.varlen")
    if "scale" not in inspect.signature(varlen.varlen_attn).parameters:
        pytest.skip("this torch has an earlier form of it, which is not used")
    with FakeTensorMode():
        q, k, v = (side.bfloat16() for side in operands([4, 6], kv_heads=2, groups=2, width=16))
        layout = PackedLayout([4, 6], device=CPU)
        result = packed_attention(q, k, v, layout=layout, scaling=0.25, kernel="varlen")
    assert result.shape == (1, 10, 4, 16)
    assert result.dtype == torch.bfloat16


def test_a_kernel_of_the_users_choice(replica_v1, monkeypatch) -> None:
    texts = ["late chunking", "a somewhat longer text about embeddings " * 9]
    expected = PplxEncoder(replica_v1, dtype="float32").encode(texts, quantization=None)
    used = []
    for name in ("_sdpa", "_blocked"):
        honest = getattr(attention, name)
        monkeypatch.setattr(attention, name, lambda *given, f=honest, n=name: used.append(n) or f(*given))
    for kernel in ("blocked", "sdpa"):
        used.clear()
        encoder = PplxEncoder(replica_v1, dtype="float32", attention=kernel)
        np.testing.assert_allclose(encoder.encode(texts, quantization=None), expected, atol=1e-5)
        assert set(used) == {f"_{kernel}"}


def test_kernels_that_are_not_there_are_refused(replica_v1) -> None:
    with pytest.raises(InputError, match=r"attention='flash' is unknown; use \"sdpa\", \"blocked\" or \"varlen\""):
        PplxEncoder(replica_v1, attention="flash")
    with pytest.raises(InputError, match=r"attention='sdpa' is for torch, and backend='openvino' has its own"):
        PplxEncoder(replica_v1, attention="sdpa", backend="openvino")
    with pytest.raises(InputError, match=r"attention='varlen' needs torch 2.11 and a CUDA card.*the model is on cpu"):
        PplxEncoder(replica_v1, attention="varlen", device="cpu").encode(["a"])


@pytest.mark.parametrize("kernel", ["sdpa", "blocked"])
def test_lengths_in_bfloat16_share_few_shapes_and_what_is_added_changes_nothing(
    kernel: Literal["sdpa", "blocked"], monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: set[tuple[int, ...]] = set()
    bmm, sdpa = torch.bmm, torch.nn.functional.scaled_dot_product_attention

    def noting_bmm(left: torch.Tensor, right: torch.Tensor, **options: Any) -> torch.Tensor:
        shapes.add((*left.shape, *left.stride(), *right.shape, *right.stride()))
        return bmm(left, right, **options)

    def noting_sdpa(query: torch.Tensor, key: torch.Tensor, *rest: Any, **options: Any) -> torch.Tensor:
        shapes.add((*query.shape, *key.shape))
        return sdpa(query, key, *rest, **options)

    monkeypatch.setattr(torch, "bmm", noting_bmm)
    monkeypatch.setattr(
        "pplx_embed_integrations.backbone.qwen3.attention.functional.scaled_dot_product_attention", noting_sdpa
    )
    generator = torch.Generator().manual_seed(3)
    for length in range(130, 256, 5):
        q, k, v = (torch.randn(1, heads, length, 8, generator=generator).bfloat16() for heads in (4, 2, 2))
        layout = PackedLayout([length], device=q.device)
        found = packed_attention(q, k, v, layout=layout, scaling=8**-0.5, kernel=kernel)
        exact = sdpa(q.double(), *(side.double().repeat_interleave(2, 1) for side in (k, v)), scale=8**-0.5)
        assert found.shape == (1, length, 4, 8)
        torch.testing.assert_close(found.double(), exact.transpose(1, 2), atol=2e-2, rtol=2e-2)
    assert 0 < len(shapes) <= 2 * 8  # 26 lengths, each two products
