"""The texts and documents that are embedded, with known numbers of tokens.

Knows lengths and words; must not know who embeds them.
"""

from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from random import Random

from tokenizers import Tokenizer

SYLLABLES = "ka lo mi ter ran sol ve qui dan por el ish un ar bi con de fo gra hel in ju".split()


@dataclass
class Workload:
    """One row of the table.

    Attributes:
        key: Short name, for options and targets.
        name: What a reader is told.
        kind: How a contender is called: `texts`, `query`, `queries` (concurrent) or `document`.
        calls: What each call is given: a list of texts, or the chunks of a document.
        tokens: Tokens in all calls together.
        rounds: How often each contender does it, unless it runs out of patience.
        longest: Tokens of the longest text or document.
    """

    key: str
    name: str
    kind: str
    calls: list[list[str]]
    tokens: int
    rounds: int = 3
    longest: int = 400


@dataclass
class Writer:
    """Writes texts of an exact number of tokens under a checkpoint's tokenizer."""

    folder: Path
    random: Random = field(default_factory=lambda: Random(7))
    _sizes: dict[str, int] = field(default_factory=dict)

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return Tokenizer.from_file(str(self.folder / "tokenizer.json"))

    def count(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def _size(self, word: str) -> int:
        if word not in self._sizes:
            self._sizes[word] = self.count(word)
        return self._sizes[word]

    def text(self, tokens: int) -> str:
        words: list[str] = []
        room = tokens
        while room > 0:
            word = " " + "".join(self.random.choices(SYLLABLES, k=self.random.randint(1, 3)))
            size = self._size(word)
            words.append(word if size <= room else " a")
            room -= size if size <= room else self._size(words[-1])
        text = "".join(words)[1:]
        return text + " a" * (tokens - self.count(text))  # without its space, the first word may be shorter

    def log_normal(self, count: int) -> list[str]:
        lengths = (round(self.random.lognormvariate(4.6, 0.75)) for _ in iter(int, 1))
        return [self.text(n) for n in islice((n for n in lengths if 20 <= n <= 400), count)]


def workloads(writer: Writer, *, quick: bool, device: str = "cpu") -> list[Workload]:
    """Return the workloads, scaled down for a quick run; a GPU has some more, which are large enough to fill it."""
    texts = writer.log_normal(12 if quick else 96)
    chunks = [writer.text(256) for _ in range(4 if quick else 32)]
    queries = [writer.text(12) for _ in range(32 if quick else 64)]
    mixed = sum(map(writer.count, texts))
    tens = [texts[start : start + 10] for start in range(0, len(texts), 10)]
    asked = sum(map(writer.count, queries))
    rows = [
        Workload("query", "one query of 12 tokens", "query", [queries[:1]], writer.count(queries[0]), rounds=15),
        Workload("queries", f"{len(queries)} concurrent queries", "queries", [queries], asked),
        Workload("mixed", f"{len(texts)} mixed texts, one call", "texts", [texts], mixed),
        Workload("tens", f"{len(texts)} mixed texts, calls of 10", "texts", tens, mixed),
        Workload("chunks", f"{len(chunks)} chunks of 256 tokens", "texts", [chunks], sum(map(writer.count, chunks))),
    ]
    for tokens in (512, 1024) if quick else (512, 2048, 8192, 16384, 32768):
        document = [writer.text(255) for _ in range(tokens // 256)]
        size = sum(map(writer.count, document)) + len(document) - 1
        name = f"a document of {tokens} tokens"
        rows.append(Workload(f"document-{tokens}", name, "document", [document], size, longest=tokens))
    if device == "cuda":
        texts = writer.log_normal(20 if quick else 2000)
        chunks = [writer.text(256) for _ in range(8 if quick else 512)]
        rows += [
            Workload("many-mixed", f"{len(texts)} mixed texts, one call", "texts", [texts], _tokens(writer, texts)),
            Workload("many-chunks", f"{len(chunks)} chunks of 256 tokens", "texts", [chunks], _tokens(writer, chunks)),
        ]
    return rows


def _tokens(writer: Writer, texts: list[str]) -> int:
    return sum(map(writer.count, texts))
