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


def table(result: dict[str, Any]) -> str:
    machine = result["machine"]
    lines = [
        "",
        f"{machine['processor']}, threads: {machine['threads']}, {machine['instructions']}, torch {machine['torch']}",
    ]
    lines.append(f"load before: {machine['load_before']}; shape {result['shape']}; commit {machine['commit']}")
    if work := result.get("workloads"):
        lines += map(row, work["rows"])
        lines += [f"not run: {name} ({why})" for name, why in work["not_run"].items()]
        lines += [f"GEMM peak, {dtype}: {peak:.0f} GFLOP/s" for dtype, peak in work["gemm_peak_gflops"].items()]
        lines += [
            f"agreement of {name} with {BASELINE}: {_short(found)}" for name, found in work.get("agreement", {}).items()
        ]
    for section in ("memory", "attention", "hand-over", "cold"):
        lines += [f"{section}: {name}: {_short(found)}" for name, found in result.get(section, {}).items()]
    return "\n".join(lines)


def _short(found: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in found.items())


def plot(result: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = result["workloads"]["rows"]
    names = list(rows[0]["seconds"])
    figure, axes = pyplot.subplots(figsize=(9, 0.9 + 0.22 * len(rows) * (len(names) + 1)))
    height = 1 / (len(names) + 1)
    for index, name in enumerate(names):
        at = [place + index * height for place in range(len(rows))]
        speeds = [found["tokens"] / found["seconds"][name] for found in rows]
        bars = axes.barh(at, speeds, height=height * 0.9, label=name)
        axes.bar_label(bars, [f"{speed:.0f}" for speed in speeds], padding=3, fontsize=8)
    axes.set_yticks(
        [place + (len(names) - 1) * height / 2 for place in range(len(rows))], [found["name"] for found in rows]
    )
    axes.invert_yaxis()
    axes.set_xlabel("tokens a second, text to vectors (more is better)")
    machine = result["machine"]
    axes.set_title(
        f"{machine['processor']}, threads: {machine['threads']}, {machine['instructions']}; {result['shape']}",
        fontsize=9,
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.08)
    axes.legend(fontsize=8, loc="lower right", frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
