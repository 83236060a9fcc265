"""Knows the order of the stages and their time budgets; run it to go from nothing to both checkpoints.

It must not know how any stage works.  Every finished stage leaves a file in `.cache` and is skipped the next time.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import context
import corpus
import student
import teacher
import tokenizer
import torch
import train
import units

STAGES = ("collect", "tokenizer", "teacher", "static", "joint", "context", "export")
PACKAGE = Path(__file__).parent.parent / "pplx_embed_integrations" / "miniature"


def run(*, until: str, minutes: float, context_minutes: float, seed: int, target: Path) -> None:
    """Runs every stage up to `until`; `minutes` scales the budgets of the timed ones (1 = as published)."""
    wanted = STAGES[: STAGES.index(until) + 1]
    if "collect" in wanted and not corpus.CORPUS.exists():
        corpus.collect(seed=seed)
    if "tokenizer" in wanted and not (tokenizer.FOLDER / "tokenizer.json").exists():
        tokenizer.train()
    done = teacher.SHARDS / "done"
    if "teacher" in wanted and not done.exists():
        read = units.load()
        teacher.cache([read.texts[number] for number in read.order])
        done.touch()
    if "static" not in wanted:
        return
    torch.manual_seed(seed)
    material = train.Material(seed=seed)
    plain = train.load(train.STATIC) if train.STATIC.exists() else train.static(material, minutes=12 * minutes)
    if "joint" in wanted:
        finished = train.JOINT.exists()
        plain = train.load(train.JOINT) if finished else train.joint(material, plain, minutes=40 * minutes)
    if "context" in wanted:
        finished = context.CONTEXT.exists()
        branch = (
            train.load(context.CONTEXT) if finished else context.contextual(material, plain, minutes=context_minutes)
        )
    if "export" in wanted:
        student.export(plain, target / "v1", contextual=False)
        student.export(branch, target / "context-v1", contextual=True)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--until", choices=STAGES, default="export")
    parser.add_argument("--minutes", type=float, default=1.0, help="factor on the time budgets (default: 1)")
    parser.add_argument("--context-minutes", type=float, default=18.0, help="of the contextual stage")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--target", type=Path, default=PACKAGE, help="where the two checkpoint folders go")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    run(**{name: value for name, value in vars(arguments).items() if name != "threads"})


if __name__ == "__main__":
    main()
