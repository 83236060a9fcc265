"""The long articles as a collection in ConTEB's layout: `python -m benchmarks.articles FOLDER [--seen]`.

Afterwards `pplx-embed evaluate FOLDER --model miniature` measures plain and in context, by chunk.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

DATA = Path(__file__).parent / "data"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--seen", action="store_true", help="the articles that were looked at while training was written"
    )
    arguments = parser.parse_args()
    source = DATA / ("articles-seen.jsonl" if arguments.seen else "articles.jsonl")
    articles = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    chunks = [
        {"chunk_id": f"{number}_{place}", "chunk": chunk}
        for number, article in enumerate(articles)
        for place, chunk in enumerate(article["chunks"])
    ]
    queries = [
        {"query": query, "chunk_id": f"{number}_{place}"}
        for number, article in enumerate(articles)
        for query, place in article["queries"]
    ]
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("documents", chunks), ("queries", queries)):
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (arguments.folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    print(f"{len(articles)} articles, {len(chunks)} chunks, {len(queries)} questions in {arguments.folder}")


if __name__ == "__main__":
    main()
