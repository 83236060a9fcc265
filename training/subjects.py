"""Knows how the published contextual branch learns on: short articles about a name that later chunks leave out.

It must not know the stages before, whose checkpoints it reads from the package.  Run it after `pipeline.py`.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import context
import corpus
import losses
import markup
import sources
import student as network
import tokenizer as vocabulary
import torch
import train
from batches import Padded
from safetensors.torch import load_file
from student import Student
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

PACKAGE = Path(__file__).parent.parent / "pplx_embed_integrations"
TUNED = sources.CACHE / "subjects.pt"
PROSE = (
    "anarchism debian-handbook debian-history debian-reference-en python3.11-doc postgresql-doc-15 gimp-help-en "
    "git-doc harden-doc ledger libreoffice-help-en-us rust-doc"
).split()
ROOM, QUERY, CHUNKS = 80, 32, 48
"""Tokens of a chunk and of a query at most, chunks of a batch."""
TEXTS = ("chunks", "titles", "asked", "alone")
SHAPES = (3, 4, 6, 8)
"""Chunks of a document; one of these for each batch."""
SHORT = 0.6
"""Share of the batches whose chunks are single sentences."""
ASKED = (
    "{title} {aspect}|{aspect} {title}|what did {title} {aspect}?|where did {title} {aspect}?|who {aspect} {title}?|"
    "when was {title} {aspect}?|why was {title} {aspect}?|which {aspect} {title}?|what is the {aspect} of {title}?|"
    "what happened to the {aspect} of {title}?|how {aspect} {title}?"
).split("|")
OPENED = ("{title}\n\n{text}",) * 2 + ("# {title}\n\n{text}", "{title}. {text}", "{title}: {text}", "{text}")


def names() -> Iterator[tuple[str, str]]:
    """Proper names and what they are, from WordNet's instances; none that shares a word with a title of the demo."""
    with (PACKAGE / "evaluation/demo/corpus.jsonl").open(encoding="utf-8") as lines:
        asked = set(re.findall(r"\w+", " ".join(json.loads(line)["title"] for line in lines).lower())) - {"the", "of"}
    wordnet = sources.fetch_debian("wordnet-base") / "usr/share/wordnet/data.noun"
    for line in wordnet.read_text(errors="ignore").splitlines():
        if line.startswith("  ") or "|" not in line or " @i " not in line:
            continue
        head, gloss = line.split("|", 1)
        fields = head.split()
        lemmas = [fields[4 + 2 * number].replace("_", " ") for number in range(int(fields[3], 16))]
        title = max(lemmas, key=len)
        if title[0].isupper() and asked.isdisjoint(re.findall(r"\w+", " ".join(lemmas).lower())):
            yield title, markup.clean(gloss.split(";")[0])


class Writer:
    """Writes articles: the first chunk names the subject, the others do not."""

    def __init__(self, *, seed: int) -> None:
        self.rng = random.Random(seed)
        self.names = list(names())
        people = [title.split() for title, gloss in self.names if re.search(r"\(\d{4}-\d{2,4}\)", gloss)]
        self.first = [words[0] for words in people if len(words) > 1]
        self.last = [words[-1] for words in people if len(words) > 1]
        pages = (document for name in PROSE for document in corpus.html_pages(name))
        foldoc = markup.dictionary_entries("dict-foldoc", corpus.dictionary("dict-foldoc"))
        self.pages = [page for page in chain(pages, foldoc) if len(page.chunks) >= 3]
        self.glosses = [gloss for _, gloss in self.names]
        print(len(self.names), "names,", len(self.pages), "pages", flush=True)

    def article(self, size: int, *, short: bool) -> tuple[str, list[str]]:
        """A subject and so many chunks about it: paragraphs, or a sentence each."""
        rng = self.rng
        most = rng.randint(4, 16) if short else 50
        page = rng.choice(self.pages)
        start = rng.randrange(max(1, len(page.chunks) - size + 1))
        chunks = [" ".join(page.chunks[(start + number) % len(page.chunks)].split()[:most]) for number in range(size)]
        draw = rng.random()
        if draw < 0.25:
            title, opening = page.title, chunks[0]
        else:
            title, gloss = rng.choice(self.names)
            if draw < 0.5:
                title = f"{rng.choice(self.first)} {rng.choice(self.last)}"
            opening = chunks[0] if rng.random() < 0.25 else f"{title} {rng.choice(('is', 'was'))} {gloss}."
            if rng.random() < 0.5 and not short:
                opening += " " + " ".join(chunks[0].split()[:25])
        hidden = {word.lower() for word in re.findall(r"\w{4,}", f"{title} {page.title}")}
        later = [self._left_out(self._told(chunk, short=short), hidden) for chunk in chunks[1:]]
        form = "{title}. {text}" if short and rng.random() < 0.5 else rng.choice(OPENED)
        if title not in opening and form == "{text}":
            form = OPENED[0]
        return title, [form.format(title=title, text=opening), *later]

    def _told(self, chunk: str, *, short: bool) -> str:
        """Half of them speak of people and places: glosses as sentences, with or without prose behind."""
        rng = self.rng
        if rng.random() < 0.5:
            return chunk
        subject = rng.choice(("It was", "He was", "She was", "It is", "This was", "They were"))
        if short:
            return f"{rng.choice(('It', 'He', 'She', 'This', 'They'))} {chunk[0].lower()}{chunk[1:]}"
        said = [f"{subject} {rng.choice(self.glosses)}." for _ in range(rng.randint(1, 2))]
        return " ".join([*said, *chunk.split()[: rng.choice((0, 15, 30))]])

    def _left_out(self, text: str, hidden: set[str]) -> str:
        stand_in = self.rng.choice(("it", "he", "she", "they", "the thing"))
        return re.sub(r"\w{4,}", lambda word: stand_in if word[0].lower() in hidden else word[0], text)

    def question(self, title: str, chunk: str) -> str:
        """Title and a few words of the chunk."""
        rng = self.rng
        words = [word.strip(".,;:()\"'") for word in chunk.split()]
        long = [word for word in words if len(word) > 3] or words
        if rng.random() < 0.5:
            aspect = " ".join(rng.sample(long, min(len(long), rng.randint(1, 4))))
        else:
            start = rng.randrange(max(1, len(words) - 4))
            aspect = " ".join(words[start : start + rng.randint(2, 5)])
        return rng.choice(ASKED).format(title=title, aspect=aspect)

    def cased(self, text: str) -> str:
        """As it stands, or in small letters."""
        return text.lower() if self.rng.random() < 0.25 else text


def published(folder: Path, layers: int) -> Student:
    """A checkpoint of the package as a student."""
    state = {name: tensor.float() for name, tensor in load_file(str(folder / "model.safetensors")).items()}
    state["norm.weight"] = state["norm.weight"] / network.GAIN
    made = Student(layers)
    made.backbone.load_state_dict(state, strict=False)
    return made


def padded(tokenizer: Tokenizer, texts: Sequence[str], room: int) -> Padded:
    """The first tokens of each text."""
    encodings = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    room = min(room, max(len(encoded.ids) for encoded in encodings))
    ids = torch.zeros(len(texts), room, dtype=torch.long)
    mask = torch.zeros(len(texts), room, dtype=torch.bool)
    for row, encoded in enumerate(encodings):
        size = min(room, len(encoded.ids))
        ids[row, :size] = torch.tensor(encoded.ids[:size])
        mask[row, :size] = True
    return Padded(ids, mask)


def tune(begin: Path, *, minutes: float, rate: float, seed: int) -> Student:
    """Goes on from a contextual checkpoint; v1, the anchor, stays as it is."""
    torch.manual_seed(seed)
    tokenizer = vocabulary.load(PACKAGE / "miniature/v1")
    separator = tokenizer.token_to_id(vocabulary.SPECIAL[0])
    anchor = published(PACKAGE / "miniature/v1", network.LAYERS).eval().requires_grad_(False)
    student = published(begin, network.LAYERS + 1)
    student.backbone.embed_tokens.requires_grad_(False)
    blocks = [p for name, p in student.named_parameters() if "layers." in name]
    optimiser = torch.optim.AdamW([{"params": blocks, "base": rate}], betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    writer, known, trained = Writer(seed=seed), train.halved(anchor), train.halved(student)

    def draw() -> train.Batch:
        short = writer.rng.random() < SHORT
        together = writer.rng.choice((2, 3, 4) if short else SHAPES)
        chunks, titles, asked = list[str](), list[str](), list[str]()
        for _ in range(CHUNKS // together):
            title, article = writer.article(together, short=short)
            chunks += [writer.cased(chunk) for chunk in article]
            titles += [title] * together
            asked += [writer.cased(writer.question(title, chunk)) for chunk in article]
        alone = [writer.cased(writer.rng.choice(writer.rng.choice(writer.pages).chunks)) for _ in range(24)]
        later = torch.tensor([number % together > 0 for number in range(len(chunks))], dtype=torch.float32)
        return (
            padded(tokenizer, chunks, ROOM).named("chunks")
            | padded(tokenizer, titles, 24).named("titles")
            | padded(tokenizer, asked, QUERY).named("asked")
            | padded(tokenizer, alone, ROOM).named("alone")
            | {"later": later, "together": torch.tensor(together)}
        )

    def loss(drawn: train.Batch) -> dict[str, Tensor]:
        chunks, alone = Padded.of(drawn, "chunks"), Padded.of(drawn, "alone")
        with torch.no_grad():
            own, subjects, asked, wanted = (known(Padded.of(drawn, name)) for name in TEXTS)
        subject = drawn["later"][:, None] * functional.normalize(subjects, dim=-1)
        target = functional.normalize(own, dim=-1) + context.SUBJECT * subject
        with torch.autocast("cpu", torch.bfloat16):
            found = context.pooled(student, chunks, together=int(drawn["together"]), separator=separator)
        certain = losses.labels(torch.eye(len(found)), certain=1.0)
        return {
            "alone": 10 * losses.distil(trained(alone), wanted),
            "target": 2 * losses.distil(found, target),
            "find": losses.ranking(asked, found, certain),
            "scale": losses.scale(found),
        }

    return train.optimise(student, optimiser, draw, loss, minutes=minutes, path=TUNED)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=22)
    parser.add_argument("--rate", type=float, default=6e-4, help="of learning, at its highest")
    parser.add_argument("--begin", type=Path, default=PACKAGE / "miniature/context-v1")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", type=Path, default=PACKAGE / "miniature/context-v1")
    given = parser.parse_args()
    student = tune(given.begin, minutes=given.minutes, rate=given.rate, seed=given.seed)
    vocabulary.FOLDER.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        if not (vocabulary.FOLDER / name).exists():
            shutil.copy(PACKAGE / "miniature/v1" / name, vocabulary.FOLDER / name)
    network.export(student, given.target, contextual=True)


if __name__ == "__main__":
    main()
