"""Knows how the long-article test set is made from documentation that training never reads (SQLite's, public domain).

It must not know any model.  Each article names its subject in the first chunk; a query names the subject and the aspect
of one later chunk, whose own text holds no word of the subject.
"""

from __future__ import annotations

import html
import json
import random
import re
from pathlib import Path
from typing import Any

import markup
import sources

FOLDER = Path(__file__).parent.parent / "benchmarks" / "data"
SETS = {"articles-seen": ("sqlite3-doc",), "articles": ("varnish-doc", "erlang-doc")}
_SITE = re.compile(r"^Erlang -- | \S+ Varnish version .*$")
_WORD = re.compile(r"[a-z0-9_]{3,}")
_COMMON = set("sqlite varnish erlang the and for with from this that are was not how what using".split())


def _stems(text: str) -> set[str]:
    return {word[:6] for word in _WORD.findall(text.lower())} - {word[:6] for word in _COMMON}


def build(name: str, *, seed: int = 0, most: int = 170) -> None:
    """Writes one article per line: title, chunks, and its queries as [text, number of the chunk]."""
    rng = random.Random(seed)
    articles = []
    titles: set[str] = set()
    pages = [path for package in SETS[name] for path in sorted(sources.fetch_debian(package).rglob("*.html"))]
    for path in pages:
        if not path.is_file():
            continue
        page = path.read_text(encoding="utf-8", errors="ignore")
        document = markup.html_document(name, page)
        named = re.search(r"(?is)<title>(.*?)</title>", page)
        if not document or not named or len(document.chunks) < 4:
            continue
        document.title = _SITE.sub("", markup.clean(html.unescape(named[1])))
        usual = not re.search("Release|Interface Library", document.title) and len(document.title.split()) > 1
        if not usual or document.title in titles:
            continue
        article = _article(document, rng)
        titles.add(document.title)
        if article["queries"]:
            articles.append(article)
    rng.shuffle(articles)
    lines = [json.dumps(article) + "\n" for article in articles[:most]]
    (FOLDER / f"{name}.jsonl").write_text("".join(lines))
    print(name, len(lines), "articles,", sum(len(article["queries"]) for article in articles[:most]), "queries")


def _article(document: markup.Document, rng: random.Random) -> dict[str, Any]:
    """The first chunks with the title before them, and queries for two chunks that hold no word of the title."""
    subject = _stems(document.title)
    chunks = document.chunks[:10]
    chunks[0] = f"{document.title}. {chunks[0]}"
    silent = [i for i in range(1, len(chunks)) if not _stems(chunks[i]) & subject and len(chunks[i].split()) > 14]
    queries = []
    for i in sorted(rng.sample(silent, min(2, len(silent))) if subject else []):
        heading = document.headings[i]
        words = [w for w in re.findall(r"[A-Za-z]{5,}", chunks[i]) if w.islower()]
        aspect = heading if len(_stems(heading) - subject) >= 2 else " ".join(rng.sample(words, min(3, len(words))))
        queries.append([f"{document.title}: {aspect}", i])
    return {"title": document.title, "chunks": chunks, "queries": queries}


if __name__ == "__main__":
    for name in SETS:
        build(name)
