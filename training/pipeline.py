"""Knows the order of the stages and their budgets; run it to go from nothing to both checkpoints.

It must not know how any stage works.  Every finished stage leaves a file in `.cache` and is skipped the next time.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import context
import corpus
import student
import tokenizer
import torch
import train
import units

STAGES = ("collect", "units", "tokenizer", "static", "denoised", "joint", "context", "export")
MINUTES = {"static": 0.12, "denoised": 0.3, "joint": 2.6, "context": 0.8}
"""Of the trained stages, on the graphics card (an H100) that trained the published pair."""
PACKAGE = Path(__file__).parent.parent / "pplx_embed_integrations" / "miniature"


def prepare(wanted: tuple[str, ...], *, seed: int) -> None:
    """The stages that need no student: text and vocabulary."""
    if "collect" in wanted and not corpus.CORPUS.exists() and not units.UNITS.exists():
        corpus.collect(seed=seed)
    if "units" in wanted and not units.UNITS.exists():
        units.build(seed=seed)
    if "tokenizer" in wanted and not (tokenizer.FOLDER / "tokenizer.json").exists():
        tokenizer.train()
    if "tokenizer" in wanted and not train.READ.exists():
        train.encode()


def fit(wanted: tuple[str, ...], *, device: torch.device, factor: float, seed: int, target: Path) -> None:
    """The trained stages; `factor` scales their minutes."""
    minutes = {stage: factor * budget for stage, budget in MINUTES.items()}
    torch.manual_seed(seed)
    material = train.Material(device=device, seed=seed)
    if not train.JOINT.exists():
        material.cluster()
    made: student.Student | None = None
    for stage, path, run in (
        ("static", train.STATIC, train.static),
        ("denoised", train.DENOISED, train.denoised),
        ("joint", train.JOINT, train.joint),
    ):
        if stage in wanted:
            begun = () if made is None else (made,)
            done = path.exists()
            made = train.load(path).to(device) if done else run(material, *begun, minutes=minutes[stage])
    if "context" in wanted:
        done = context.CONTEXT.exists()
        branch = context.load() if done else context.contextual(material, made, minutes=minutes["context"])
    if "export" in wanted:
        student.export(made, target / "v1", contextual=False)
        student.export(branch, target / "context-v1", contextual=True)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--until", choices=STAGES, default="export")
    parser.add_argument("--factor", type=float, default=1.0, help="on the trained stages' minutes (default: 1)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--target", type=Path, default=PACKAGE, help="where the two checkpoint folders go")
    given = parser.parse_args()
    wanted = STAGES[: STAGES.index(given.until) + 1]
    prepare(wanted, seed=given.seed)
    if "static" in wanted:
        fit(wanted, device=torch.device(given.device), factor=given.factor, seed=given.seed, target=given.target)


if __name__ == "__main__":
    main()
