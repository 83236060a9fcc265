"""Knows how the long-article test set is made from documentation that training never reads (SQLite's, public domain).

It must not know any model.  Each article names its subject in the first chunk; a query names the subject and the aspect
of one later chunk, whose own text holds no word of the subject.
"""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import markup
import sources

TARGET = Path(__file__).parent.parent / "benchmarks" / "data" / "articles.jsonl"
_WORD = re.compile(r"[a-z0-9_]{3,}")
_COMMON = {"sqlite", "the", "and", "for", "with", "from", "this", "that", "are", "was", "not", "how", "what", "using"}


def _stems(text: str) -> set[str]:
    return {word[:6] for word in _WORD.findall(text.lower())} - {word[:6] for word in _COMMON}


def build(*, seed: int = 0, most: int = 170) -> None:
    """Writes one article per line: title, chunks, and its queries as [text, number of the chunk]."""
    rng = random.Random(seed)
    folder = sources.fetch_debian("sqlite3-doc") / "usr/share/doc/sqlite3"
    articles = []
    titles: set[str] = set()
    for path in sorted(folder.rglob("*.html")):
        page = path.read_text(encoding="utf-8", errors="ignore")
        document = markup.html_document("sqlite3-doc", page)
        named = re.search(r"(?is)<title>(.*?)</title>", page)
        if not document or not named or len(document.chunks) < 4:
            continue
        document.title = markup.clean(named[1])
        if "Release" in document.title or document.title in titles or len(document.title.split()) < 2:
            continue
        subject = _stems(document.title)
        if not subject:
            continue
        titles.add(document.title)
        chunks = document.chunks[:10]
        chunks[0] = f"{document.title}. {chunks[0]}"
        silent = [i for i in range(1, len(chunks)) if not _stems(chunks[i]) & subject and len(chunks[i].split()) > 14]
        queries = []
        for i in sorted(rng.sample(silent, min(2, len(silent)))):
            heading = document.headings[i]
            words = [w for w in re.findall(r"[A-Za-z]{5,}", chunks[i]) if w.islower()]
            aspect = heading if len(_stems(heading) - subject) >= 2 else " ".join(rng.sample(words, min(3, len(words))))
            queries.append([f"{document.title}: {aspect}", i])
        if queries:
            articles.append({"title": document.title, "chunks": chunks, "queries": queries})
    rng.shuffle(articles)
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text("".join(json.dumps(article) + "\n" for article in articles[:most]))
    print(len(articles[:most]), "articles,", sum(len(a["queries"]) for a in articles[:most]), "queries")


if __name__ == "__main__":
    build()
