"""Knows the training stages of the plain student (static, then joint), each resumable and seeded.

It must not know where texts come from or how a checkpoint is written.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import losses
import numpy as np
import student as network
import tokenizer as vocabulary
import torch
import units
from batches import FORMS, MOST_WORDS, Padded, Reader, Sampler, cases, clusters, encode_words
from scipy import sparse
from sources import CACHE
from student import Projection, Student
from teacher import Teacher, teacher_tokenizer
from torch import Tensor
from torch.nn import functional
from units import Texts

WIDEN = 16.0
TOLD, READ = CACHE / "words-teacher.npz", CACHE / "words-student.npz"
STATIC, DENOISED, JOINT = CACHE / "static.pt", CACHE / "denoised.pt", CACHE / "v1.pt"
SAVE_EVERY = 60.0  # seconds between two saves of an unfinished stage
WIDTHS = {"lesson": 32, "asked": 32, "crops": 24, "passages": 128}
"""Tokens of each kind of text in a batch: all batches have one shape, so that a GPU replays what it recorded."""
MOST_OF_PASSAGE = 84  # words
HOLES = 6  # masked tokens of a text

Batch = dict[str, Tensor]
Forward = Callable[[Padded], Tensor]


def encode() -> None:
    """Encodes every word of the corpus for the teacher and for the student."""
    words = units.load().words
    encode_words(TOLD, words, teacher_tokenizer(), FORMS[:1])
    encode_words(READ, words, vocabulary.load(), FORMS)


class Material:
    """Texts, the teacher, both tokenizers' readers and the sampler.

    Args:
        device: Where networks are.
        seed: Decides what is drawn.
    """

    def __init__(self, *, device: torch.device, seed: int = 0) -> None:
        self.device, self.units = device, units.load()
        self.tokenizer = vocabulary.load()
        self.teacher, self.sampler = Teacher(device), Sampler(self.units, seed=seed)
        self.told = Reader(TOLD, forms=1, around=self.teacher.around)
        self.read = Reader(READ, forms=len(FORMS))
        self.separator = self.tokenizer.token_to_id(vocabulary.SPECIAL[0])
        self.hole = self.tokenizer.token_to_id(vocabulary.SPECIAL[1])
        known = torch.cat([self.taught(self.sampler.lesson(2048), width=32) for _ in range(6)])
        self.projection = Projection(known, seed=0)

    def taught(self, texts: Texts, *, width: int) -> Tensor:
        """What the teacher makes of them."""
        return self.teacher(self.told(texts, width=width).to(self.device))

    def target(self, taught: Tensor) -> Tensor:
        """The teacher's vectors in the student's space."""
        return functional.pad(self.projection(taught), (0, 1))

    def padded(self, texts: Texts, *, width: int) -> Padded:
        """As the student reads them, each in a form at random."""
        return self.read(texts, width=width, chosen=cases(texts, self.sampler.forms(len(texts))))

    def cluster(self, *, part: int = 4096, words: int = 32, width: int = 64) -> None:
        """Groups the passages by what the teacher makes of their beginnings."""
        positions = np.arange(len(self.sampler.passages))
        parts = [positions[at : at + part] for at in range(0, len(positions), part)]
        vectors = torch.cat([self.taught(self.sampler.told(one, most=words), width=width) for one in parts])
        self.sampler.clusters = clusters(vectors, seed=0)

    def bags(self, count: int = 60_000, part: int = 2048) -> tuple[sparse.csr_matrix, np.ndarray]:
        """Some texts as rows of token shares, beside their targets."""
        rows, columns, shares, targets = [], [], [], []
        for at in range(0, count, part):
            texts = self.sampler.lesson(part)
            read = self.padded(texts, width=WIDTHS["lesson"])
            targets.append(self.projection(self.taught(texts, width=WIDTHS["lesson"])).cpu().numpy())
            rows.append(at + read.mask.nonzero()[:, 0].numpy())
            columns.append(read.ids[read.mask].numpy())
            shares.append((read.mask / read.mask.sum(1, keepdim=True))[read.mask].numpy())
        found = (np.concatenate(shares), (np.concatenate(rows), np.concatenate(columns)))
        shape = (sum(map(len, targets)), vocabulary.VOCABULARY)
        return sparse.csr_matrix(found, shape, dtype=np.float32), np.concatenate(targets)

    def draw(self, count: int) -> Batch:
        """As many texts of each kind, as the teacher and as the student read them."""
        sampler = self.sampler
        drawn = sampler.draw(count, groups=-(-count // 256))
        kinds = {
            "lesson": sampler.lesson(count),
            "asked": sampler.queries(drawn).begun(MOST_WORDS),
            "crops": sampler.crops(drawn, sampler.rng.integers(3, 13, size=count)),
            "passages": sampler.told(drawn, most=MOST_OF_PASSAGE),
        }
        batch = {}
        for name, texts in kinds.items():
            read, told = self.padded(texts, width=WIDTHS[name]), self.told(texts, width=WIDTHS[name])
            batch |= read.named(name) | told.named(f"{name} told")
        return batch

    def loss(self, batch: Batch, forward: Forward) -> dict[str, Tensor]:
        """Distillation of texts of all kinds, and ranking of passages for what asks for them and for their crops."""
        taught = {name: self.teacher(Padded.of(batch, f"{name} told")) for name in WIDTHS}
        pooled = {name: forward(Padded.of(batch, name)) for name in WIDTHS}
        everything, target = torch.cat(list(pooled.values())), self.target(torch.cat(list(taught.values())))
        parts = {
            "distil": 2 * losses.distil(everything, target),
            "relations": 20 * losses.relations(everything, target),
            "scale": losses.scale(everything),
        }
        for name in ("asked", "crops"):
            wanted = losses.labels(taught[name] @ taught["passages"].T, certain=0.2)
            parts[name] = losses.ranking(pooled[name], pooled["passages"], wanted)
        return parts


def schedule(optimiser: torch.optim.Optimizer, spent: float, *, warmup: float = 0.04) -> None:
    """Linear warm-up, then linear to a hundredth; `spent` is the share of the stage that is over."""
    factor = spent / warmup if spent < warmup else 0.01 + 0.99 * (1 - spent) / (1 - warmup)
    for group in optimiser.param_groups:
        group["lr"] = group["base"] * factor


class Step:
    """A step forward and back, which leaves gradients.

    On CUDA the fourth step is recorded, and from then on replayed as a whole: thousands of small operations cost more
    to start than to compute.
    """

    def __init__(
        self, loss: Callable[[Batch], dict[str, Tensor]], parameters: Sequence[Tensor], device: torch.device
    ) -> None:
        self.loss, self.parameters, self.device = loss, parameters, device
        self.batch: Batch = {}
        self.graph: Any = None
        self.steps = 0

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """The losses."""
        if self.device.type != "cuda":
            return self._run(batch)
        for name, tensor in batch.items():
            if name in self.batch:
                self.batch[name].copy_(tensor.pin_memory(), non_blocking=True)
            else:
                self.batch[name] = tensor.to(self.device)
        self.steps += 1
        if self.steps < 4:  # on a stream of its own, as a recording is
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                found = self._run(self.batch)
            torch.cuda.current_stream().wait_stream(side)
            return found
        if self.graph is None:
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
                self.found = self._run(self.batch)
        self.graph.replay()
        return self.found

    def _run(self, batch: Batch) -> dict[str, Tensor]:
        for parameter in self.parameters:
            parameter.grad = None
        parts = self.loss(batch)
        torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
        return {name: value.detach() for name, value in parts.items()}


def ahead(draw: Callable[[], Batch], *, most: int = 8) -> Iterator[Batch]:
    """Batches drawn by a thread while others are computed."""
    drawn: queue.Queue[Batch | BaseException] = queue.Queue(most)
    ended = threading.Event()

    def work() -> None:
        try:
            while not ended.is_set():
                drawn.put(draw())
        except BaseException as error:  # noqa: BLE001  (raised where batches are taken)
            drawn.put(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            found = drawn.get()
            if isinstance(found, BaseException):
                raise found
            yield found
    finally:
        ended.set()
        while thread.is_alive():
            with suppress(queue.Empty):
                drawn.get(timeout=0.1)


def optimise(
    student: Student,
    optimiser: torch.optim.Optimizer,
    draw: Callable[[], Batch],
    loss: Callable[[Batch], dict[str, Tensor]],
    *,
    minutes: float,
    path: Path,
) -> Student:
    """Runs one stage for so many minutes.

    An unfinished stage is saved every so often beside `path` and goes on from there; `path` appears at its end.
    """
    unfinished, step, done = path.with_suffix(".partial"), 0, 0.0
    if unfinished.exists():
        saved = torch.load(unfinished, weights_only=True)
        student.load_state_dict(saved["student"])
        optimiser.load_state_dict(saved["optimiser"])
        done, step = saved["seconds"], saved["step"]
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    one = Step(loss, parameters, student.device)
    sums: dict[str, float] = {}
    begun = saved_at = time.monotonic() - done
    for batch in ahead(draw):
        if (seconds := time.monotonic() - begun) >= 60 * minutes:
            break
        schedule(optimiser, seconds / (60 * minutes))
        parts = one(batch)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        if step % 10 == 0:  # a GPU is waited for only here
            for name, value in parts.items():
                sums[name] = 0.8 * sums.get(name, float(value)) + 0.2 * float(value)
        if step % 100 == 0:
            shown = " ".join(f"{name} {value:.4f}" for name, value in sums.items())
            print(f"{path.stem} {step} ({seconds:.0f} s): {shown}", flush=True)
        if time.monotonic() - saved_at > SAVE_EVERY:
            saved_at = time.monotonic()
            state = {"student": student.state_dict(), "optimiser": optimiser.state_dict()}
            torch.save({**state, "seconds": seconds, "step": step}, unfinished)
        step += 1
    print(f"{path.stem}: {step} steps", flush=True)
    torch.save(student.state_dict(), path)
    unfinished.unlink(missing_ok=True)
    return student


def static(material: Material, *, minutes: float, batch: int = 512) -> Student:
    """Embedding table and final norm alone, blocks idle: what a bag of tokens can learn."""
    said = material.projection(material.teacher.encode(network.token_texts(material.tokenizer)))
    student = network.initialise(said.cpu().numpy(), *material.bags()).to(material.device)
    table, norm = student.backbone.embed_tokens.weight, student.backbone.norm.weight
    optimiser = torch.optim.Adam(
        [{"params": [table], "base": 4e-3}, {"params": [norm], "base": 1e-3}], betas=(0.9, 0.98), fused=True
    )

    def loss(drawn: Batch) -> dict[str, Tensor]:
        return material.loss(drawn, student.static)

    return optimise(student, optimiser, partial(material.draw, batch), loss, minutes=minutes, path=STATIC)


def denoised(material: Material, student: Student, *, minutes: float, batch: int = 512) -> Student:
    """The blocks set in: masked tokens are read off the tied embedding table, while distillation goes on."""
    with torch.no_grad():  # the norms make this a change of nothing but of how gently the blocks set in
        student.backbone.embed_tokens.weight.mul_(WIDEN)

    def draw() -> Batch:
        sampler = material.sampler
        texts = sampler.told(sampler.draw(batch, groups=1), most=40)
        read = material.padded(texts, width=64)
        real = np.flatnonzero(read.mask.numpy())
        holes = torch.from_numpy(sampler.rng.choice(real, size=min(HOLES * batch, len(real)), replace=False))
        answers = read.ids.flatten()[holes]
        read.ids.flatten()[holes] = material.hole  # a view: the texts themselves
        return material.draw(batch) | read.named("holed") | {"holes": holes, "answers": answers}

    def loss(drawn: Batch) -> dict[str, Tensor]:
        with torch.autocast(material.device.type, torch.bfloat16):
            states = student.states(Padded.of(drawn, "holed")).flatten(0, 1)[drawn["holes"]]
        table = functional.normalize(student.backbone.embed_tokens.weight, dim=-1)
        guesses = 12 * functional.normalize(states.float(), dim=-1) @ table.T
        told = functional.cross_entropy(guesses, drawn["answers"])
        return {"denoise": 0.3 * told} | material.loss(drawn, halved(student))

    return optimise(student, _adamw(student), draw, loss, minutes=minutes, path=DENOISED)


def joint(material: Material, student: Student, *, minutes: float, batch: int = 512) -> Student:
    """The whole network: distillation and ranking."""

    def loss(drawn: Batch) -> dict[str, Tensor]:
        return material.loss(drawn, halved(student))

    draw = partial(material.draw, batch)
    return optimise(student, _adamw(student), draw, loss, minutes=minutes, path=JOINT)


def _adamw(student: Student) -> torch.optim.Optimizer:
    blocks = [p for name, p in student.named_parameters() if "layers." in name]
    groups = [
        {"params": blocks, "base": 2e-3, "weight_decay": 0.01},
        {"params": [student.backbone.norm.weight], "base": 1e-3, "weight_decay": 0.0},
        {"params": [student.backbone.embed_tokens.weight], "base": 1e-2, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)


def halved(student: Student) -> Forward:
    """A student that multiplies in bfloat16."""

    def forward(texts: Padded) -> Tensor:
        with torch.autocast(texts.ids.device.type, torch.bfloat16):
            pooled: Tensor = student(texts)
        return pooled

    return forward


def load(path: Path, layers: int = network.LAYERS) -> Student:
    """The student saved by a stage."""
    student = Student(layers)
    student.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
    return student
