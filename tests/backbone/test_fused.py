"""The one-pass kernels, run by Triton's interpreter on the CPU, against torch's operators and the golden vectors."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pplx_embed_integrations import PplxEncoder
from pplx_embed_integrations.backbone.qwen3.fused import fused_kernels

# The interpreter is chosen before Triton is imported, so in a process of its own.
PRELUDE = """
import sys
import torch
torch.set_num_threads(1)  # the interpreter is not made for threads
from pplx_embed_integrations import PplxEncoder
from pplx_embed_integrations.backbone.qwen3 import forward, fused, network, triton as triton_kernels
"""
TRIALS = """
for dtype in (torch.float32, torch.bfloat16):
    for found, expected in fused._trials(triton_kernels, torch.device("cpu"), dtype):
        torch.testing.assert_close(found, expected, rtol=0, atol=fused._TOLERANCE[dtype])
torch.manual_seed(0)
for width, count, first in ((16, 6, 4), (12, 3, 3), (128, 24, 16)):
    beside = torch.zeros(7, count + 5, width)
    heads = beside[:, :count]
    heads.copy_(torch.randn(7, count, width))
    weights, angles = torch.rand(2, width), torch.rand(7, width // 2) * 9
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    normed = torch.nn.functional.rms_norm(heads, (width,), eps=1e-6)
    normed = normed * weights[[0] * first + [1] * (count - first)]
    left, right = normed.chunk(2, dim=-1)
    expected = torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)
    triton_kernels.norm_and_rotate(heads, cos, sin, *weights, epsilon=1e-6, first=first)
    torch.testing.assert_close(heads, expected)
    assert not beside[:, count:].any()
"""
FORWARD = """
for module in (forward, network):
    module.fused_kernels = lambda device, dtype: triton_kernels
network.can_prepack = lambda device, dtype: False
folder, dtype, target = sys.argv[1:]
encoder = PplxEncoder(folder, dtype=dtype, device="cpu")
texts = ["late chunking", "a", "a somewhat longer text about embeddings " * 3]
together = torch.from_numpy(encoder.encode(texts, quantization=None))
assert encoder._loaded.backend.model.layers[0].self_attn.joined is not None
model = encoder.sentence_transformer[0].model
shared = [p for p in model.parameters() if p.untyped_storage().nbytes() != p.nbytes]
assert not shared, "a trainer's and a file's weights lie in memory of their own"
apart = torch.from_numpy(encoder.encode(texts, quantization=None))
torch.testing.assert_close(apart, together, atol=1e-5 if dtype == "float32" else 0.05, rtol=0)
torch.save(together, target)
"""


def interpreted(program: str, *arguments: object) -> None:
    pytest.importorskip("triton")
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", PRELUDE + program, *map(str, arguments)],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr


def test_the_kernels_equal_torchs_operators() -> None:
    interpreted(TRIALS)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.05)])
def test_a_forward_with_fused_kernels_and_joined_weights(
    dtype: str, tolerance: float, replica_v1: Path, tmp_path: Path
) -> None:
    interpreted(FORWARD, replica_v1, dtype, tmp_path / "pooled.pt")
    texts = ["late chunking", "a", "a somewhat longer text about embeddings " * 3]
    expected = PplxEncoder(replica_v1, dtype="float32", device="cpu").encode(texts, quantization=None)
    np.testing.assert_allclose(torch.load(tmp_path / "pooled.pt").numpy(), expected, atol=tolerance)


def test_other_devices_have_none() -> None:
    assert fused_kernels(torch.device("cpu"), torch.float32) is None
    assert fused_kernels(torch.device("mps"), torch.bfloat16) is None
    assert fused_kernels(torch.device("cuda", 0), torch.float64) is None
