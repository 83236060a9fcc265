"""Clocks and memory: contenders take turns on every workload, and each figure is a median.

Knows rounds, medians and processes; must not know how a contender works.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .apart import Apart
from .workloads import Workload

ROOT = Path(__file__).parent.parent


PATIENCE = 60.0
"""Seconds of a workload after which a contender sits the rest of its rounds out; each has one at least."""

_WARM_UP = 20_000
"""Tokens of the longest workload that a GPU does once uncounted."""

clock = time.perf_counter


def interleaved(
    actions: dict[str, Callable[[], float | None]], *, rounds: int, patience: float = PATIENCE
) -> dict[str, list[float]]:
    """Run all in turn, `rounds` times over, and return the seconds that each round of each one took.

    An action that returns a number has measured itself.
    """
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            if sum(times[name]) < patience:
                started = clock()
                found = action()
                times[name].append(found if isinstance(found, float) else clock() - started)
    return times


def medians(times: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(taken) for name, taken in times.items()}


def run_workload(
    workload: Workload, contenders: dict[str, Apart], *, patience: float, device: str
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Return the seconds that each contender took in each of its rounds, and of those that failed why.

    Each has run a short text before; on a GPU, where new shapes are prepared for, the whole workload unless it is long.
    """
    before = workload.calls if device == "cuda" and workload.tokens <= _WARM_UP else [workload.calls[0][:1]]
    failed: dict[str, str] = {}
    for name, contender in contenders.items():
        try:
            contender.seconds(workload.kind, before)
        except RuntimeError as error:
            failed[name] = str(error)
    able = {name: each for name, each in contenders.items() if name not in failed}

    def timed(name: str) -> float:
        try:
            return able[name].seconds(workload.kind, workload.calls)
        except RuntimeError as error:
            failed[name] = str(error)
            return float("inf")

    times = interleaved({name: partial(timed, name) for name in able}, rounds=workload.rounds, patience=patience)
    return {name: taken for name, taken in times.items() if name not in failed}, failed


def in_process(function: str, *arguments: object) -> dict[str, float]:
    """Run a function of `benchmarks.probes` in a fresh process and return what it found."""
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.probes", function, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if ran.returncode:
        raise RuntimeError(f"{function}{arguments} failed:\n{ran.stderr[-2000:]}")
    found: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return found


def interleaved_processes(
    function: str, arguments: dict[str, tuple[object, ...]], *, rounds: int = 3
) -> dict[str, dict[str, float]]:
    """Run a probe in a fresh process for each set of arguments in turn, and return each one's median seconds.

    A round before the first is not counted: it brings the files into memory.
    """
    taken: dict[str, list[float]] = {name: [] for name in arguments}
    for _ in range(rounds + 1):
        for name, given in arguments.items():
            taken[name].append(in_process(function, *given)["seconds"])
    return {name: {"seconds": statistics.median(seconds[1:])} for name, seconds in taken.items()}


def pooled_floats(rows: int, width: int) -> np.ndarray:
    """Floats spread like those of the published 0.6b contextual model: its codes have a deviation of about 27."""
    return np.random.default_rng(0).standard_normal((rows, width), dtype=np.float32) * np.float32(0.23)


def hand_over(rows: int, width: int = 1024) -> dict[str, dict[str, float]]:
    """Time what happens between pooled floats and lists, beside the plain ways."""
    import torch

    from pplx_embed_integrations.vectors import quantize

    pooled = pooled_floats(rows, width)

    def published() -> Any:
        tensor = torch.from_numpy(pooled)
        soft = torch.tanh(tensor)
        return torch.clamp(torch.round(soft * 127), -128, 127).to(torch.int8).numpy()

    quantising = medians(
        interleaved(
            {
                "ours, int8": lambda: quantize(pooled),
                "torch, int8": published,
                "ours, ubinary": lambda: quantize(pooled, quantization="ubinary"),
                "published, ubinary": lambda: np.packbits(
                    (torch.where(torch.tanh(torch.from_numpy(pooled)) >= 0, 1.0, -1.0).numpy() > 0), axis=1
                ),
            },
            rounds=3,
        )
    )
    lists = {name: in_process("lists", name, rows, width) for name in ("ours", "tolist")}
    return {"quantising_seconds": quantising, **{f"lists_{name}": found for name, found in lists.items()}}
