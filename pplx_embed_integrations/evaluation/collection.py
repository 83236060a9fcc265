"""A judged collection: documents, queries, and which document answers which query.

Knows the files of the BEIR layout and what can be wrong with them; must not know models, vectors or metrics.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import InputError

__all__ = ["Collection", "load_collection"]

_LAYOUT = "the BEIR layout is corpus.jsonl, queries.jsonl and qrels/test.tsv"


@dataclass(frozen=True)
class Collection:
    """Documents, queries and judgements, by id.

    Attributes:
        documents: Text by document id.
        queries: Text by query id; each has at least one relevant document.
        judgements: For each query id, the grade by document id; 0 is not relevant.
        empty: Ids of documents that have no text and were left out.

    Example:
        >>> collection = Collection({"d1": "a", "d2": "b"}, {"q1": "a?"}, {"q1": {"d1": 2, "d2": 0}})
        >>> collection.relevant
        {'d1'}
    """

    documents: dict[str, str]
    queries: dict[str, str]
    judgements: dict[str, dict[str, int]]
    empty: tuple[str, ...] = ()

    @property
    def relevant(self) -> set[str]:
        """Ids of the documents that answer any query."""
        return {document for grades in self.judgements.values() for document, grade in grades.items() if grade > 0}

    def first(self, queries: int) -> Collection:
        """Return a smaller collection: the first queries, the documents judged for them, and as many others again.

        Args:
            queries: How many.

        Returns:
            A collection on which figures come quickly and are higher than on the whole one.

        Example:
            >>> collection = Collection({"d1": "a", "d2": "b", "d3": "c"}, {"q1": "a?"}, {"q1": {"d1": 2}})
            >>> list(collection.first(1).documents)
            ['d1', 'd2']
        """
        chosen = dict(islice(self.queries.items(), queries))
        judgements = {query: self.judgements[query] for query in chosen}
        judged = {document for grades in judgements.values() for document in grades}
        others = (document for document in self.documents if document not in judged)
        kept = judged.union(islice(others, len(judged)))
        documents = {document: text for document, text in self.documents.items() if document in kept}
        return Collection(documents, chosen, judgements, self.empty)


def load_collection(folder: str | Path, *, split: str = "test") -> Collection:
    """Read a collection in the BEIR layout.

    `corpus.jsonl` has an object a line with `_id`, `text` and perhaps `title`; `queries.jsonl` has `_id` and `text`;
    `qrels/<split>.tsv` has a header and the columns query id, document id and grade. A title is put before its text.

    Args:
        folder: Where the three are.
        split: Which file of `qrels`.

    Returns:
        The collection. Queries without a relevant document are left out, as in BEIR itself.

    Raises:
        InputError: A file is missing, a line cannot be read, or nothing is judged; the message names file and line.

    Example:
        >>> load_collection("nowhere")
        Traceback (most recent call last):
        pplx_embed_integrations.errors.InputError: 'nowhere' is no folder; the BEIR layout is corpus.jsonl, ...
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{str(folder)!r} is no folder; {_LAYOUT}")
    texts = {key: _text(entry) for key, entry in _objects(root / "corpus.jsonl")}
    documents = {key: text for key, text in texts.items() if text.strip()}
    empty = tuple(key for key in texts if key not in documents)
    queries = {key: str(entry.get("text", "")) for key, entry in _objects(root / "queries.jsonl")}
    judgements = _judgements(_qrels(root, split), documents=set(texts), queries=set(queries))
    judged = {key: text for key, text in queries.items() if key in judgements and text.strip()}
    if not documents or not judged:
        raise InputError(
            f"{str(folder)!r} holds {len(documents)} documents with text and {len(judged)} queries with a relevant "
            f"document in qrels/{split}.tsv; at least one of each is needed"
        )
    return Collection(documents, judged, {key: judgements[key] for key in judged}, empty)


def _text(entry: dict[str, Any]) -> str:
    title, text = (str(entry.get(key) or "") for key in ("title", "text"))
    return f"{title}\n\n{text}" if title.strip() and text.strip() else title or text


def _objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    seen: set[str] = set()
    for number, line in _lines(path):
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise InputError(f"{path} line {number} is no JSON: {error}") from error
        if not isinstance(entry, dict) or "_id" not in entry:
            raise InputError(f'{path} line {number} has no "_id"; a line looks like {{"_id": "1", "text": "…"}}')
        key = str(entry["_id"])
        if key in seen:
            raise InputError(f"{path} line {number} repeats the _id {key!r}; each must be unique")
        seen.add(key)
        yield key, entry


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield from ((number, line) for number, line in enumerate(file, 1) if line.strip())
    except FileNotFoundError:
        raise InputError(f"there is no {path}; {_LAYOUT}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: {error}") from error


def _qrels(root: Path, split: str) -> Path:
    path = root / "qrels" / f"{split}.tsv"
    if not path.is_file():
        there = sorted(file.stem for file in path.parent.glob("*.tsv"))
        hint = f"there are: {', '.join(there)}; choose one with --split" if there else _LAYOUT
        raise InputError(f"there is no {path}; {hint}")
    return path


def _judgements(path: Path, *, documents: set[str], queries: set[str]) -> dict[str, dict[str, int]]:
    judgements: dict[str, dict[str, int]] = {}
    for number, line in _lines(path):
        columns = line.rstrip("\r\n").split("\t")
        if number == 1 and not columns[-1].strip().lstrip("-").isdigit():
            continue  # the header
        if len(columns) != 3 or not columns[2].strip().lstrip("-").isdigit():
            raise InputError(
                f"{path} line {number} is not `query id<TAB>document id<TAB>whole number`: {line.rstrip()!r}"
            )
        query, document, grade = (column.strip() for column in columns)
        for key, known, kind in ((query, queries, "query"), (document, documents, "document")):
            if key not in known:
                raise InputError(f"{path} line {number} judges the {kind} {key!r}, which the collection does not hold")
        judgements.setdefault(query, {})[document] = int(grade)
    return {query: grades for query, grades in judgements.items() if any(grade > 0 for grade in grades.values())}
