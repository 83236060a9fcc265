"""Knows the order of the stages and their budgets; run it to go from nothing to both checkpoints.

It must not know how any stage works.  Every finished stage leaves a file in `.cache` and is skipped the next time.
"""

from __future__ import annotations

import argparse
import os
from datetime import timedelta
from pathlib import Path

import context
import corpus
import sources
import student
import teacher
import tokenizer
import torch
import train
import units
from torch import distributed, multiprocessing

STAGES = ("collect", "tokenizer", "teacher", "static", "joint", "context", "export")
#: Of processor time for each worker.  The published branch is the context stage as it begins: it was given none.
MINUTES = {"static": 5.0, "joint": 4.0, "context": 0.0}
PACKAGE = Path(__file__).parent.parent / "pplx_embed_integrations" / "miniature"


def prepare(*, until: str, seed: int, workers: int) -> None:
    """The stages that need no student: text, vocabulary and the teacher's vectors."""
    wanted = STAGES[: STAGES.index(until) + 1]
    if not corpus.CORPUS.exists():
        corpus.collect(seed=seed)
    if "tokenizer" in wanted and not (tokenizer.FOLDER / "tokenizer.json").exists():
        tokenizer.train()
    if "teacher" in wanted and len(list(teacher.SHARDS.glob("*.npy"))) < teacher.MOST:
        read = units.load()
        teacher.cache([read.texts[number] for number in read.order], workers=workers)


def fit(rank: int, until: str, factor: float, seed: int, workers: int, target: Path) -> None:
    """One worker's part of the trained stages; `factor` scales their processor time (1 = as published)."""
    wanted = STAGES[: STAGES.index(until) + 1]
    minutes = {stage: factor * budget for stage, budget in MINUTES.items()}
    torch.set_num_threads(1)
    torch.manual_seed(seed + rank)
    if workers > 1:
        store = distributed.FileStore(str(sources.CACHE / f"workers-{os.getppid()}"), workers)
        distributed.init_process_group("gloo", store=store, rank=rank, world_size=workers, timeout=timedelta(hours=2))
    material = train.Material(seed=seed + rank)
    done = train.STATIC.exists()
    plain = train.load(train.STATIC) if done else train.static(material, minutes=minutes["static"])
    if "joint" in wanted:
        done = train.JOINT.exists()
        plain = train.load(train.JOINT) if done else train.joint(material, plain, minutes=minutes["joint"])
    if "context" in wanted:
        done = context.CONTEXT.exists()
        branch = context.load() if done else context.contextual(material, plain, minutes=minutes["context"])
    if "export" in wanted and rank == 0:
        student.export(plain, target / "v1", contextual=False)
        student.export(branch, target / "context-v1", contextual=True)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--until", choices=STAGES, default="export")
    parser.add_argument("--factor", type=float, default=1.0, help="on the trained stages (default: 1)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each (default: 2)")
    parser.add_argument("--target", type=Path, default=PACKAGE, help="where the two checkpoint folders go")
    given = parser.parse_args()
    prepare(until=given.until, seed=given.seed, workers=given.workers)
    if given.until in MINUTES or given.until == "export":
        work = (given.until, given.factor, given.seed, given.workers, given.target)
        multiprocessing.spawn(fit, work, nprocs=given.workers)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
