"""`python -m benchmarks`: run everything interleaved, print the table, write JSON and a plot.

Knows the order of events; must not know how anything is measured.
"""

import argparse
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from . import agreement, measure, report, targets
from .apart import Apart
from .checkpoints import SHAPES, Shape, checkpoint, stock_checkpoint
from .contenders import BASELINE, ENTRIES, Entry, chosen, contenders
from .machine import describe, gemm_peak, native_bfloat16
from .workloads import Workload, Writer, workloads

RESULTS = Path(__file__).parent / "results"
SECTIONS = ["workloads", "memory", "attention", "hand-over", "cold", "agreement"]
CUDA_SECTIONS = ["workloads", "memory", "attention", "agreement"]
ON_REQUEST = ["memory-published"]
FEW_LAYERS = 2


def main() -> int:
    options = _options()
    shape = SHAPES[options.shape or ("quarter" if options.quick else "0.6b")]
    shape = replace(shape, layers=options.layers or shape.layers)
    result: dict[str, Any] = {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M"),
        "command": "python -m benchmarks " + " ".join(sys.argv[1:]),
        "machine": describe(options.device),
        "shape": shape.folder,
        "clock": "processor time" if options.processor_time else "wall clock",
    }
    RESULTS.mkdir(exist_ok=True)
    kind = "" if options.device == "cpu" else f"-{options.device}"
    kind += ("-quick" if options.quick else "") + ("-processor-time" if options.processor_time else "")
    path = RESULTS / f"{result['machine']['commit']}-{shape.folder}{kind}.json"
    if path.exists():  # what was measured earlier at the same commit stays
        earlier = json.loads(path.read_text())
        result = earlier | result | {"command": f"{earlier['command']}; {result['command']}"}
    report.say(f"making or finding the checkpoint {checkpoint(shape)}")

    def keep() -> None:
        path.write_text(json.dumps(result, indent=2) + "\n")

    sections = {
        "workloads": lambda: _workloads(shape, options, result.setdefault("workloads", {}), keep),
        "memory": lambda: (_memory if options.device == "cpu" else _card)(shape, quick=options.quick),
        "memory-published": lambda: _memory_published(shape, quick=options.quick),
        "attention": lambda: _attention(options.device, quick=options.quick),
        "hand-over": lambda: measure.hand_over(20_000 if options.quick else 100_000),
        "cold": lambda: _cold(shape),
        "agreement": lambda: _agreement(shape, options),
    }
    started = time.perf_counter()
    for name in options.only or (SECTIONS if options.device == "cpu" else CUDA_SECTIONS):
        report.say(f"{name} ({time.perf_counter() - started:.0f} s so far)")
        result[name] = sections[name]()
        keep()
    wanted = targets.lines(result) if shape.name == "0.6b" and options.device == "cpu" else []
    report.say(report.table(result, wanted))
    if "workloads" in result:
        report.plot(result, path.with_suffix(".png"))
    report.say(f"written: {path}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a quarter-size model and fewer texts")
    parser.add_argument("--shape", choices=SHAPES, help="the model's shape (default: 0.6b, with --quick quarter)")
    parser.add_argument("--layers", type=int, help="so many of its layers, which all cost the same: for long documents")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where all of them run")
    parser.add_argument("--only", nargs="+", choices=SECTIONS + ON_REQUEST, help="these sections alone")
    parser.add_argument("--workloads", nargs="+", help="workloads whose key contains one of these")
    parser.add_argument("--contenders", nargs="+", help="contenders whose name contains one of these")
    parser.add_argument("--rounds", type=int, help="rounds of each workload, in place of its own number")
    parser.add_argument("--patience", type=float, default=measure.PATIENCE, help="seconds a workload and contender")
    parser.add_argument("--collections", nargs="+", type=Path, default=[], help="folders in the BEIR layout")
    parser.add_argument(
        "--processor-time", action="store_true", help="count processor time, on a busy machine; for a single thread"
    )
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: there is no CUDA card")
    if options.processor_time and torch.get_num_threads() != 1:
        parser.error("--processor-time is for a single thread: OMP_NUM_THREADS=1")
    return options


def _workloads(shape: Shape, options: argparse.Namespace, found: dict[str, Any], keep: Any) -> dict[str, Any]:
    device = options.device
    planned = workloads(Writer(checkpoint(shape)), quick=options.quick, device=device)
    if options.workloads:
        planned = [each for each in planned if any(part in each.key for part in options.workloads)]
    for workload in planned:
        workload.rounds = options.rounds or workload.rounds
    clock = time.process_time if options.processor_time else time.perf_counter
    peaks = found["gemm_peak_gflops"] = {"float32": gemm_peak(torch.float32, device, clock=clock)}
    if native_bfloat16(device):
        peaks["bfloat16"] = gemm_peak(torch.bfloat16, device, clock=clock)
    report.say("GEMM peaks: " + ", ".join(f"{dtype} {peak:.0f} GFLOP/s" for dtype, peak in peaks.items()))
    entries = chosen(options.contenders, device=device)
    if device == "cpu":
        minutes = _estimate(shape, planned, entries, peaks, patience=options.patience) / 60
        report.say(f"about {minutes:.0f} minutes if this machine is idle")
    missing = found["not_run"] = {}
    ready = _start(shape, entries, missing, device=device, processor_time=options.processor_time)
    rows = found.setdefault("rows", {})
    for workload in planned:
        able = {
            each.name: ready[each.name] for each in entries if each.name in ready and each.can(workload.longest, device)
        }
        times, failed = measure.run_workload(workload, able, patience=options.patience, device=device)
        missing |= {f"{name}: {workload.name}": why for name, why in failed.items()}
        rows[workload.key] = {
            "name": workload.name,
            "tokens": workload.tokens,
            "seconds": measure.medians(times),
            "rounds": {name: len(taken) for name, taken in times.items()},
        }
        report.say(report.row(rows[workload.key]))
        keep()
    for contender in ready.values():
        contender.close()
    if filled := rows.get("many-chunks", rows.get("chunks")):
        found["roofline"] = _roofline(shape, filled, peaks)
    return found


def _start(
    shape: Shape, entries: list[Entry], missing: dict[str, str], *, device: str, processor_time: bool
) -> dict[str, Apart]:
    """Set all up that can run, one after the other on a CPU, side by side on a GPU, and say of the others why not."""
    ready: dict[str, Apart] = {}

    def settle(name: str) -> None:
        try:
            ready[name].wait()
        except RuntimeError as error:  # a row that says so
            missing[name] = str(error)
            del ready[name]

    for entry in entries:
        ready[entry.name] = Apart(entry.name, shape, device=device, processor_time=processor_time)
        if device == "cpu":
            settle(entry.name)
    if device != "cpu":
        for entry in entries:
            settle(entry.name)
    return ready


def _estimate(
    shape: Shape, planned: list[Workload], entries: list[Entry], peaks: dict[str, float], *, patience: float
) -> float:
    seconds = 60.0  # loading
    for entry in entries:
        peak = peaks.get(str(entry.dtype).removeprefix("torch."))
        if peak is None:
            continue
        for workload in planned:
            if entry.can(workload.longest, "cpu"):
                flop = workload.tokens * (shape.linear_flop + 1.5 * shape.attention_flop(workload.longest))
                once = flop / (peak * entry.share * 1e9)
                seconds += once * min(workload.rounds, 1 + patience // once)
    return seconds


def _roofline(shape: Shape, row: dict[str, Any], peaks: dict[str, float]) -> dict[str, float]:
    """What part of the measured matrix product the linear layers alone amount to, whatever else took time."""
    dtypes = {entry.name: str(entry.dtype).removeprefix("torch.") for entry in ENTRIES}
    return {
        name: row["tokens"] * shape.linear_flop / seconds / 1e9 / peaks[dtypes[name]]
        for name, seconds in row["seconds"].items()
        if "int8" not in name
    }


def _memory(shape: Shape, *, quick: bool) -> dict[str, Any]:
    folder = checkpoint(shape)
    found: dict[str, Any] = {
        f"loading, {dtype}": measure.in_process("load", folder, dtype) for dtype in ("float32", "bfloat16")
    }
    dtype = "bfloat16" if native_bfloat16("cpu") else "float32"
    tokens = 2048 if quick else 32768
    found[f"document of {tokens} tokens, ours, {dtype}, {FEW_LAYERS} layers"] = measure.in_process(
        "document", shape.name, dtype, "ours", tokens, FEW_LAYERS
    )
    return found


def _card(shape: Shape, *, quick: bool) -> dict[str, Any]:
    """Memory on a card, where other processes do not disturb it: all at once."""
    tokens = 2048 if quick else 32768
    pairs = [("ours", "float32"), ("ours", "bfloat16"), ("published", "bfloat16")]

    def probe(way: str, dtype: str) -> dict[str, Any]:
        try:
            return measure.in_process("card", shape.name, shape.layers, dtype, way, tokens)
        except RuntimeError as error:
            return {"failed": str(error).strip().splitlines()[-1][:200]}

    with ThreadPoolExecutor() as threads:
        found = threads.map(lambda pair: probe(*pair), pairs)
    return {
        f"document of {tokens} tokens, {way}, {dtype}": each for (way, dtype), each in zip(pairs, found, strict=True)
    }


def _memory_published(shape: Shape, *, quick: bool) -> dict[str, Any]:
    tokens = 2048 if quick else 32768
    return {
        f"document of {tokens} tokens, published way, float32, {FEW_LAYERS} layers": measure.in_process(
            "document", shape.name, "float32", "published", tokens, FEW_LAYERS
        )
    }


def _attention(device: str, *, quick: bool) -> dict[str, Any]:
    if device == "cuda":
        return dict(measure.in_process("attention_on_card", 12, 128, 512, 2048, *([] if quick else [8192, 32768])))
    dtypes = ["float32", "bfloat16"] if native_bfloat16("cpu") else ["float32"]
    lengths = [12, 64, 128, 256, 1024] if quick else [12, 32, 64, 128, 256, 512, 1024, 2048, 4096]
    threads = torch.get_num_threads()
    return {
        f"{dtype}, {length} tokens": measure.in_process("attention", length, dtype, threads)
        for dtype in dtypes
        for length in lengths
    }


def _cold(shape: Shape) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for dtype in ["float32", "bfloat16"] if native_bfloat16("cpu") else ["float32"]:
        found |= measure.interleaved_processes(
            "cold",
            {
                f"ours, LangChain, {dtype}": ("langchain", checkpoint(shape), dtype),
                f"ours, LlamaIndex, {dtype}": ("llama-index", checkpoint(shape), dtype),
                f"sentence-transformers, {dtype}": ("other", stock_checkpoint(shape), dtype),
            },
        )
    return found


def _agreement(shape: Shape, options: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {}
    ready, _ = contenders(shape, ["ours", BASELINE], device=options.device)
    if BASELINE in ready:
        texts = Writer(checkpoint(shape)).log_normal(16)
        for name, figures in agreement.with_baseline(texts, ready[BASELINE], ready).items():
            found[f"{name} (random weights)"] = figures
    for collection in options.collections:
        if collection.is_dir():
            found |= agreement.trained(collection)
        else:
            report.say(f"{collection} is not there: agreement on trained weights is not measured")
    return found


if __name__ == "__main__":
    sys.exit(main())
