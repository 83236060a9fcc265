"""Products in few sizes: every length is served by the same ones, and what is added changes nothing."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pplx_embed_integrations.backbone.backends.base import Loading
from pplx_embed_integrations.backbone.backends.torch import TorchBackend
from pplx_embed_integrations.backbone.qwen3 import prepacking
from pplx_embed_integrations.backbone.qwen3.prepacking import PrepackedLinear, can_prepack
from pplx_embed_integrations.backbone.qwen3.rows import padded_length, row_blocks
from pplx_embed_integrations.backbone.sequences import TokenSequence

needs_packing = pytest.mark.skipif(
    not can_prepack(torch.device("cpu"), torch.float32), reason="this processor or this torch has no prepacked layers"
)


def sequence(length: int) -> TokenSequence:
    return TokenSequence(np.arange(length, dtype=np.int32) % 200, ((0, length),), (0,))


def test_few_sizes_hold_every_number_of_rows() -> None:
    found = {rows: row_blocks(rows) for rows in range(1, 5000)}
    assert len({size for blocks in found.values() for size in blocks}) < 25
    for rows, blocks in found.items():
        added = sum(blocks) - rows
        assert 0 <= added < blocks[-1]
        assert added <= max(3, rows / 5)
        assert list(blocks) == sorted(blocks, reverse=True)
    for first, end, most in ((5, 21, 1.13), (20, 256, 1.06), (256, 5000, 1.01)):
        assert sum(sum(found[rows]) for rows in range(first, end)) < most * sum(range(first, end))


def test_few_lengths_are_padded_to() -> None:
    assert len({padded_length(length) for length in range(1, 32769)}) < 80
    assert all(0 <= padded_length(n) - n <= max(15, n / 8) for n in range(1, 32769))


@needs_packing
def test_a_model_multiplies_few_shapes_whatever_it_reads(replica_v1: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: set[tuple[int, int, int]] = set()
    forward = PrepackedLinear.forward

    def noting(self: PrepackedLinear, hidden: torch.Tensor, *post: Any) -> torch.Tensor:
        shapes.add((len(hidden), self.in_features, self.out_features))
        return forward(self, hidden, *post)

    monkeypatch.setattr(prepacking.PrepackedLinear, "forward", noting)
    engine = TorchBackend(Loading(replica_v1, contextual=False, dtype="float32"), "cpu")
    for length in range(1, 700, 3):
        engine.run([sequence(length)])
    engine.run([sequence(length) for length in range(10, 60)])
    assert len({rows for rows, _, _ in shapes}) < 25


@pytest.mark.parametrize("length", [1, 3, 17, 70, 257, 523])
def test_the_rows_that_are_added_change_nothing(
    length: int, replica_context_v1: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = TorchBackend(Loading(replica_context_v1, contextual=True, dtype="float32"), "cpu")
    blocks = engine.run([sequence(length)])
    monkeypatch.setattr("pplx_embed_integrations.backbone.qwen3.forward.row_blocks", lambda rows: (rows,))
    np.testing.assert_allclose(blocks, engine.run([sequence(length)]), atol=1e-5)


@needs_packing
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_memory_does_not_grow_with_the_lengths_that_were_met(replica_v1: Path) -> None:
    script = f"""
import numpy as np
from pathlib import Path
from pplx_embed_integrations.backbone.backends.base import Loading
from pplx_embed_integrations.backbone.backends.torch import TorchBackend
from pplx_embed_integrations.backbone.sequences import TokenSequence

def run(length):
    engine.run([TokenSequence(np.arange(length, dtype=np.int32) % 200, ((0, length),), (0,))])

def megabytes():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6

engine = TorchBackend(Loading(Path({str(replica_v1)!r}), contextual=False, dtype="float32"), "cpu")
for length in (1, 8, 31, 64, 500, 511):
    run(length)
before = megabytes()
for length in range(1, 512, 2):
    run(length)
print("grown", megabytes() - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600)
    found = re.search(r"grown (-?[\d.]+)", done.stdout)
    assert found is not None, done.stderr
    assert float(found[1]) < 120  # a plan for each length takes 500 and more
