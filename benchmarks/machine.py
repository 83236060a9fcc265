"""What the machine is and what it can do at best.

Knows processors and matrix products; must not know models.
"""

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import torch


def describe(device: str) -> dict[str, object]:
    """Return what a reader needs to judge the figures: processor, threads, load, versions, commit."""
    import numpy
    import sentence_transformers
    import transformers

    return {
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "native_bfloat16": native_bfloat16(device),
        "device": device,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_before": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "sentence_transformers": sentence_transformers.__version__,
        "numpy": numpy.__version__,
        "commit": commit(),
    }


def native_bfloat16(device: str) -> bool:
    from pplx_embed_integrations.backbone.devices import resolve_dtype

    return resolve_dtype("auto", device=torch.device(device), parameters=10**9) == torch.bfloat16


def commit() -> str:
    """Return the commit, with `-dirty` where the package or the benchmarks differ from it.

    A copy without git is told by the environment variable BENCHMARK_COMMIT.
    """

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        root = Path(__file__).parent.parent
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)

    if told := os.environ.get("BENCHMARK_COMMIT"):
        return told
    name = git("rev-parse", "--short", "HEAD").stdout.strip() or "unknown"
    measured = ("pplx_embed_integrations/backbone", "pplx_embed_integrations/vectors.py", "benchmarks")
    return name + ("-dirty" if git("diff", "--quiet", "HEAD", "--", *measured).returncode else "")


def gemm_peak(dtype: torch.dtype, device: str, *, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the GFLOP/s of a large matrix product, the most that the linear layers could reach."""
    rows, inner, columns = (1024, 1024, 4096) if device == "cpu" else (8192, 8192, 8192)
    left, right = (torch.randn(size, inner, device=device).to(dtype) for size in (rows, columns))
    times = []
    for _ in range(9):
        synchronize(device)
        started = clock()
        torch.nn.functional.linear(left, right)
        synchronize(device)
        times.append(clock() - started)
    return 2 * rows * inner * columns / statistics.median(times[1:]) / 1e9


def synchronize(device: str) -> None:
    """Wait until a device has done what it was given; a clock read before that says nothing."""
    if device == "cuda":
        torch.cuda.synchronize()


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
