"""`python -m benchmarks`: run everything interleaved, print the table, write JSON and a plot.

Knows the order of events; must not know how anything is measured.
"""

import argparse
import json
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from . import measure, report
from .checkpoints import SHAPES, checkpoint, stock_checkpoint
from .contenders import BASELINE, contenders
from .machine import describe, gemm_peak, native_bfloat16
from .workloads import Writer, workloads

RESULTS = Path(__file__).parent / "results"
SECTIONS = ["workloads", "memory", "attention", "hand-over", "cold"]


def main() -> int:
    options = _options()
    shape = SHAPES[options.shape or ("quarter" if options.quick else "0.6b")]
    result: dict[str, Any] = {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M"),
        "command": "python -m benchmarks " + " ".join(sys.argv[1:]),
        "machine": describe(),
        "shape": shape.name,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{result['machine']['commit']}-{shape.name}{'-quick' if options.quick else ''}.json"
    if path.exists():  # sections measured earlier at the same commit stay
        earlier = json.loads(path.read_text())
        result = earlier | result | {"command": f"{earlier['command']}; {result['command']}"}
    report.say(f"making or finding the checkpoint {checkpoint(shape)}")
    sections = {
        "workloads": lambda: _workloads(shape, options),
        "memory": lambda: _memory(shape, quick=options.quick),
        "attention": lambda: _attention(quick=options.quick),
        "hand-over": lambda: measure.hand_over(20_000 if options.quick else 100_000),
        "cold": lambda: measure.interleaved_processes(
            "cold", {"ours": ("ours", checkpoint(shape)), "sentence-transformers": ("other", stock_checkpoint(shape))}
        ),
    }
    started = time.perf_counter()
    for name in options.only or SECTIONS:
        report.say(f"{name} ({time.perf_counter() - started:.0f} s so far)")
        result[name] = sections[name]()
        path.write_text(json.dumps(result, indent=2) + "\n")
    report.say(report.table(result))
    if "workloads" in result:
        report.plot(result, path.with_suffix(".png"))
    report.say(f"written: {path}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a quarter-size model and fewer texts")
    parser.add_argument("--shape", choices=SHAPES, help="the model's shape (default: 0.6b, with --quick quarter)")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, help="these sections alone")
    parser.add_argument("--contenders", nargs="+", help="contenders whose name contains one of these")
    parser.add_argument("--rounds", type=int, help="rounds of each workload, in place of its own number")
    return parser.parse_args()


def _workloads(shape: Any, options: argparse.Namespace) -> dict[str, Any]:
    ready, missing = contenders(shape, options.contenders)
    writer = Writer(checkpoint(shape))
    rows: list[dict[str, Any]] = []
    planned = workloads(writer, quick=options.quick)
    for workload in planned:
        workload.rounds = options.rounds or workload.rounds
        seconds = measure.run_workload(workload, ready)
        rows.append({"name": workload.name, "tokens": workload.tokens, "seconds": seconds})
        report.say(report.row(rows[-1]))
    found: dict[str, Any] = {"rows": rows, "not_run": missing}
    peaks = {"float32": gemm_peak(torch.float32)}
    if native_bfloat16():
        peaks["bfloat16"] = gemm_peak(torch.bfloat16)
    found["gemm_peak_gflops"] = peaks
    found["linear_gflop_per_token"] = _linear_flop(shape) / 1e9
    if BASELINE in ready:
        found["agreement"] = measure.agreement(planned[0].calls[0][:16], ready[BASELINE], ready)
    return found


def _linear_flop(shape: Any) -> float:
    attention = shape.hidden * 128 * (2 * shape.heads + 2 * shape.kv_heads)
    return 2.0 * shape.layers * (attention + 3 * shape.hidden * shape.ffn)


def _memory(shape: Any, *, quick: bool) -> dict[str, Any]:
    folder = checkpoint(shape)
    found: dict[str, Any] = {
        f"loading, {dtype}": measure.in_process("load", folder, dtype) for dtype in ("float32", "bfloat16")
    }
    dtype = "bfloat16" if native_bfloat16() else "float32"
    tokens = 2048 if quick else 32768
    found[f"document of {tokens} tokens, ours, {dtype}"] = measure.in_process(
        "document", shape.name, dtype, "ours", tokens
    )
    if quick:
        found[f"document of {tokens} tokens, published way, float32"] = measure.in_process(
            "document", shape.name, "float32", "published", tokens
        )
    return found


def _attention(*, quick: bool) -> dict[str, Any]:
    dtypes = ["float32", "bfloat16"] if native_bfloat16() else ["float32"]
    lengths = [12, 64, 128, 256, 1024] if quick else [12, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192]
    threads = torch.get_num_threads()
    return {
        f"{dtype}, {length} tokens": measure.in_process("attention", length, dtype, threads)
        for dtype in dtypes
        for length in lengths
    }


if __name__ == "__main__":
    sys.exit(main())
