"""How results are shown: a table in the terminal, a plot beside the JSON.

Knows names and ratios; must not know how figures came about.
"""

from pathlib import Path
from typing import Any

from .contenders import BASELINE


def say(text: str) -> None:
    print(text, flush=True)


def row(found: dict[str, Any]) -> str:
    """One workload: tokens a second, and how many times the baseline's speed."""
    seconds = found["seconds"]
    lines = [f"{found['name']} ({found['tokens']} tokens)"]
    for name, taken in seconds.items():
        ratio = f"x{seconds[BASELINE] / taken:.2f}" if BASELINE in seconds else ""
        lines.append(f"    {name:<38} {taken * 1000:>10.0f} ms {found['tokens'] / taken:>9.0f} tok/s  {ratio}")
    return "\n".join(lines)


def table(result: dict[str, Any], targets: list[str]) -> str:
    machine = result["machine"]
    lines = [
        "",
        f"{_place(machine)}, torch {machine['torch']}",
        f"load before: {machine['load_before']}; shape {result['shape']}; commit {machine['commit']}",
        f"clock: {result['clock']}",
    ]
    if work := result.get("workloads"):
        lines += map(row, work["rows"].values())
        lines += [f"not run: {name} ({why})" for name, why in work["not_run"].items()]
        lines += [f"GEMM peak, {dtype}: {peak:.0f} GFLOP/s" for dtype, peak in work["gemm_peak_gflops"].items()]
        lines += [
            f"share of the GEMM peak, 256-token chunks, linear layers alone: {name} {share:.0%}"
            for name, share in work.get("roofline", {}).items()
        ]
    for section in ("memory", "memory-published", "attention", "hand-over", "cold", "agreement"):
        lines += [f"{section}: {name}: {_short(found)}" for name, found in result.get(section, {}).items()]
    return "\n".join([*lines, *([""] if targets else []), *targets])


def _place(machine: dict[str, Any]) -> str:
    if machine.get("device") == "cuda":
        return f"{machine['gpu']}, CUDA {machine['cuda']}, {machine['cores']} cores, {machine['processor']}"
    return f"{machine['processor']}, threads: {machine['threads']}, {machine['instructions']}"


def _short(found: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {value if isinstance(value, str) else format(value, '.4g')}" for name, value in found.items()
    )


def plot(result: dict[str, Any], path: Path) -> None:
    """Draw a panel a workload, each with its own scale: tokens a second, and times the baseline."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = list(result["workloads"]["rows"].values())
    names = list(dict.fromkeys(name for found in rows for name in found["seconds"]))
    colors = dict(zip(names, pyplot.get_cmap("tab10").colors, strict=False))
    across = 2 if len(rows) > 1 else 1
    down = -(-len(rows) // across)
    figure, axes = pyplot.subplots(
        down, across, figsize=(7 * across, 0.7 + down * (0.8 + 0.24 * len(names))), squeeze=False
    )
    for axis in axes.flat[len(rows) :]:
        axis.set_visible(False)
    for axis, found in zip(axes.flat, rows, strict=False):
        seconds = found["seconds"]
        speeds = [found["tokens"] / taken for taken in seconds.values()]
        bars = axis.barh(list(seconds), speeds, color=[colors[name] for name in seconds])
        ratios = [f"  (x{seconds[BASELINE] / taken:.2f})" if BASELINE in seconds else "" for taken in seconds.values()]
        labels = [f"{speed:.0f}{ratio}" for speed, ratio in zip(speeds, ratios, strict=True)]
        axis.bar_label(bars, labels, padding=3, fontsize=8)
        axis.set_title(found["name"], fontsize=10, loc="left")
        axis.invert_yaxis()
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_xlim(0, max(speeds) * 1.3)
    machine = result["machine"]
    figure.suptitle(
        f"Tokens a second, text to vectors (in brackets: times the {BASELINE})\n"
        f"{_place(machine)}; {result['shape']} shape; {result['clock']}",
        fontsize=10,
    )
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
