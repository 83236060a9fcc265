"""Clocks and memory: contenders take turns on every workload, and each figure is a median.

Knows rounds, medians and processes; must not know how a contender works.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .contenders import Contender
from .workloads import Workload

ROOT = Path(__file__).parent.parent


def interleaved(actions: dict[str, Callable[[], Any]], *, rounds: int) -> dict[str, float]:
    """Run all in turn, `rounds` times over, and return each one's median seconds."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            started = time.perf_counter()
            action()
            times[name].append(time.perf_counter() - started)
    return {name: statistics.median(taken) for name, taken in times.items()}


def run_workload(workload: Workload, contenders: dict[str, Contender]) -> dict[str, float]:
    """Return the median seconds of each contender; every one has run a short text before."""

    def action(contender: Contender) -> Callable[[], None]:
        method = getattr(contender, workload.kind)

        def call() -> None:
            for given in workload.calls:
                method(given)

        return call

    for contender in contenders.values():
        contender.texts(workload.calls[0][:1])
    return interleaved({name: action(each) for name, each in contenders.items()}, rounds=workload.rounds)


def agreement(texts: list[str], reference: Contender, contenders: dict[str, Contender]) -> dict[str, dict[str, float]]:
    """Return each contender's cosine with the reference, and how many int8 codes differ where it gives codes."""

    def unit(rows: Any) -> np.ndarray:
        matrix = np.asarray(rows, dtype=np.float64)
        return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)

    codes = np.asarray(reference.texts(texts), dtype=np.float64)
    found = {}
    for name, contender in contenders.items():
        if contender is reference or not hasattr(contender, "pair"):
            continue
        cosines = (unit(contender.texts(texts)) * unit(codes)).sum(axis=1)
        mine = contender.pair.encode_texts(texts, quantization="int8").astype(np.int64)
        apart = np.abs(mine - codes)
        found[name] = {
            "cosine_mean": float(cosines.mean()),
            "cosine_worst": float(cosines.min()),
            "codes_different": float((apart > 0).mean()),
            "codes_largest_difference": float(apart.max()),
        }
    return found


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

    quantising = interleaved(
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
    lists = {name: in_process("lists", name, rows, width) for name in ("ours", "tolist")}
    return {"quantising_seconds": quantising, **{f"lists_{name}": found for name, found in lists.items()}}
