"""`python -m benchmarks.service`: what a service meets that runs for months, in processes of their own.

Knows memory, lengths, processes and objects; must not know how any of it is kept small. Standard library alone, so that
another version of the package, `--tree FOLDER`, is measured by the same lines.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from .machine import commit, describe

RESULTS = Path(__file__).parent / "results"
SECTIONS = ["lengths", "queries", "processes", "calls", "objects"]

_START = """
import json, random, statistics, sys, time
from pplx_embed_integrations import PplxEncoder
MODEL, COUNT = sys.argv[1], int(sys.argv[2])
def megabytes(): return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6
def clock(action):
    started = time.perf_counter(); action(); return time.perf_counter() - started
"""
_PROBES = {
    "lengths": """
encoder = PplxEncoder(MODEL, device="cpu").load()
encoder.encode(["river " * 2000]); before = megabytes(); pairs = []
for words in random.Random(0).sample(range(1, 2001), COUNT):
    action = lambda: encoder.encode(["river " * words])
    pairs.append((clock(action), clock(action)))
print(json.dumps({"grown_megabytes": megabytes() - before,
                  "first_over_again": statistics.median(new / known for new, known in pairs)}))
""",
    "query": """
encoder = PplxEncoder(MODEL, device="cpu").load(); encoder.encode(["warm"])
times = [clock(lambda: encoder.encode([f"which river is number {i} of all"])) for i in range(COUNT)]
print(json.dumps({"milliseconds": 1000 * statistics.median(times)}))
""",
    "call": """
import resource
encoder = PplxEncoder(MODEL, device="cpu").load(); encoder.encode(["warm"] * 100)
texts = [f"note {i}" for i in range(COUNT)]; before = megabytes()
matrix = encoder.encode(texts)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
print(json.dumps({"megabytes_beyond_the_result": peak - before - matrix.nbytes / 1e6}))
""",
    "queries": """
from concurrent.futures import ThreadPoolExecutor
encoder = PplxEncoder(MODEL, device="cpu").load()
ask = lambda i: len(encoder.encode([f"which river is number {i} of all " + "and more " * (i % 40)]))
with ThreadPoolExecutor(64) as threads:
    sum(threads.map(ask, range(2000))); warm = megabytes(); grown = []
    for part in range(3):
        sum(threads.map(ask, range(part * COUNT // 3, (part + 1) * COUNT // 3))); grown.append(megabytes() - warm)
print(json.dumps({"grown_megabytes_after_thirds": grown}))
""",
    "objects": """
import pickle
held = [PplxEncoder(MODEL, device="cpu")]; held[0].encode(["warm"]); before = megabytes()
held += [PplxEncoder(MODEL, device="cpu") for _ in range(COUNT - 1)]
for each in held: each.encode(["warm"])
equal = megabytes() - before; stored = pickle.dumps(held[0])
for _ in range(COUNT): pickle.loads(stored).encode(["warm"])
print(json.dumps({"megabytes_of_more_objects": equal, "megabytes_after_unpickling": megabytes() - before - equal}))
""",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service", description=__doc__)
    parser.add_argument("--model", default="miniature-v1", help="a checkpoint's name or folder")
    parser.add_argument("--tree", type=Path, help="another working copy, to be measured in turn with this one")
    parser.add_argument("--only", nargs="+", choices=SECTIONS)
    parser.add_argument("--lengths", type=int, default=2000, help="how many different lengths")
    parser.add_argument("--queries", type=int, default=24_000, help="how many, from 64 threads, after 2,000 to warm up")
    parser.add_argument("--calls", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="texts in a call")
    options = parser.parse_args()
    trees = {"this": Path(__file__).parent.parent} | ({"other": options.tree.resolve()} if options.tree else {})
    model = str(Path(options.model).resolve()) if Path(options.model).is_dir() else options.model
    name = f"{commit()}-service-{Path(model).name}.json"
    result: dict[str, Any] = json.loads((RESULTS / name).read_text()) if (RESULTS / name).exists() else {}
    result |= {"machine": describe("cpu"), "command": "python -m benchmarks.service " + " ".join(sys.argv[1:])}
    for section in options.only or SECTIONS:
        for label, tree in trees.items():
            found = _measure(section, tree, model, options)
            result.setdefault(section, {})[label] = found
            print(f"{section}, {label}: {found}", flush=True)
            (RESULTS / name).write_text(json.dumps(result, indent=2) + "\n")
    return 0


def _measure(section: str, tree: Path, model: str, options: argparse.Namespace) -> dict[str, Any]:
    if section == "lengths":
        return _run("lengths", tree, model, options.lengths)[0]
    if section == "queries":
        return _run("queries", tree, model, options.queries)[0]
    if section == "objects":
        return _run("objects", tree, model, 10)[0]
    if section == "calls":
        return {f"{count} texts": _run("call", tree, model, count)[0] for count in options.calls}
    found = {}
    for processes in (1, 2):
        for threads, environment in (("default", {}), ("one", {"OMP_NUM_THREADS": "1"})):
            rounds = [_run("query", tree, model, 40, processes, environment) for _ in range(3)]
            slowest = [max(each["milliseconds"] for each in each_round) for each_round in rounds]
            found[f"{processes} processes, threads: {threads}, ms a query"] = statistics.median(slowest)
    return found


def _run(
    probe: str, tree: Path, model: str, count: int, processes: int = 1, environment: dict[str, str] | None = None
) -> list[dict[str, Any]]:
    """Run a probe in so many processes at a time, and return what each found."""
    command = [sys.executable, "-W", "ignore", "-c", _START + _PROBES[probe], model, str(count)]
    variables = {**os.environ, "PYTHONPATH": str(tree), "HF_HUB_OFFLINE": "1", **(environment or {})}
    running = [
        subprocess.Popen(command, env=variables, cwd=tree, stdout=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    return [json.loads(each.communicate()[0].splitlines()[-1]) for each in running]


if __name__ == "__main__":
    sys.exit(main())
