"""A judged collection: documents, queries, and which document answers which query.

Knows the files of the BEIR layout and what can be wrong with them; must not know models, vectors or metrics.
"""

from __future__ import annotations

import gzip
import io
import json
import math
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import InputError

__all__ = ["Collection", "load_collection"]

_LAYOUT = "the BEIR layout is corpus.jsonl, queries.jsonl and qrels/test.tsv"
_QRELS = (".tsv", ".txt", ".trec", ".qrels")


@dataclass(frozen=True)
class Collection:
    """Documents, queries and judgements, by id.

    Attributes:
        documents: Text by document id.
        queries: Text by query id; each has at least one relevant document.
        judgements: For each query id, the grade by document id; 0 is not relevant.
        empty: Ids of documents that have no text and were left out.
        notes: What was not as it should be in the files, counted, in sentences for a reader.

    Example:
        >>> collection = Collection({"d1": "a", "d2": "b"}, {"q1": "a?"}, {"q1": {"d1": 2, "d2": 0}})
        >>> collection.relevant
        {'d1'}
    """

    documents: dict[str, str]
    queries: dict[str, str]
    judgements: dict[str, dict[str, int]]
    empty: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

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
        return replace(self, documents=documents, queries=chosen, judgements=judgements)


def load_collection(folder: str | Path, *, split: str = "test") -> Collection:
    """Read a collection in the BEIR layout.

    `corpus.jsonl` has an object a line with `_id`, `text` and perhaps `title`; `queries.jsonl` has `_id` and `text`;
    `qrels/<split>.tsv` has the columns query id, document id and grade, with or without a header, or the four columns
    of TREC. Any of them may be compressed (`.gz`). A title is put before its text.

    Real collections are not tidy: what is repeated, missing or not asked about is counted in `notes`. A judged document
    that is not in the corpus stays judged, and cannot be found, as in BEIR itself.

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
    notes: Counter[str] = Counter()
    texts = {key: _text(entry, notes) for key, entry in _objects(root / "corpus.jsonl", "document", notes)}
    documents = {key: text for key, text in texts.items() if text.strip()}
    empty = tuple(key for key in texts if key not in documents)
    asked = {key: _text(entry, notes) for key, entry in _objects(root / "queries.jsonl", "query", notes)}
    judgements = _judgements(_qrels(root, split), documents=set(texts), queries=set(asked), notes=notes)
    queries = {key: text for key, text in asked.items() if key in judgements and text.strip()}
    notes["queries without text, not asked"] += sum(key in judgements and key not in queries for key in asked)
    notes["queries without a relevant document, not asked"] += sum(key not in judgements for key in asked)
    if not documents or not queries:
        raise InputError(
            f"{str(folder)!r} holds {len(documents)} documents with text and {len(queries)} queries with a relevant "
            f"document in qrels/{split}.tsv; at least one of each is needed"
        )
    told = tuple(f"{note}: {count}" for note, count in notes.items() if count)
    return Collection(documents, queries, {key: judgements[key] for key in queries}, empty, told)


def _text(entry: dict[str, Any], notes: Counter[str]) -> str:
    title, text = (str(entry.get(key) or "") for key in ("title", "text"))
    whole = f"{title}\n\n{text}" if title.strip() and text.strip() else title if title.strip() else text
    clean = whole.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    notes["texts with half a character (a lone surrogate), read as �"] += clean != whole
    return clean


def _objects(path: Path, kind: str, notes: Counter[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    seen: set[str] = set()
    for number, line in _lines(path):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path} line {number} is no JSON: {error}") from error
        if not isinstance(entry, dict) or entry.get("_id") is None:
            raise InputError(f'{path} line {number} has no "_id"; a line looks like {{"_id": "1", "text": "…"}}')
        key = str(entry["_id"])
        if key in seen:
            notes[f"lines of {path.name} with the _id of an earlier {kind}, which stands"] += 1
            continue
        seen.add(key)
        yield key, entry


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    packed = path.with_name(f"{path.name}.gz")
    try:
        with gzip.open(packed, "rb") if _is_packed(path) else path.open("rb") as data:
            file = io.TextIOWrapper(data, encoding="utf-8-sig")
            yield from ((number, line) for number, line in enumerate(file, 1) if line.strip())
    except FileNotFoundError:
        raise InputError(f"there is no {path}; {_LAYOUT}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: {error}") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{packed} is damaged: {error}") from error


def _is_packed(path: Path) -> bool:
    return not path.is_file() and path.with_name(f"{path.name}.gz").is_file()


def _qrels(root: Path, split: str) -> Path:
    folder = root / "qrels"
    for suffix in _QRELS:
        path = folder / f"{split}{suffix}"
        if path.is_file() or _is_packed(path):
            return path
    found = (file.name.removesuffix(".gz") for file in folder.glob("*"))
    there = sorted({Path(name).stem for name in found if Path(name).suffix in _QRELS})
    hint = f"there are: {', '.join(there)}; choose one with --split" if there else _LAYOUT
    raise InputError(f"there is no {folder / split}.tsv; {hint}")


def _judgements(
    path: Path, *, documents: set[str], queries: set[str], notes: Counter[str]
) -> dict[str, dict[str, int]]:
    judgements: dict[str, dict[str, int]] = {}
    missing: set[str] = set()
    for place, (number, line) in enumerate(_lines(path)):
        columns = _columns(line)
        if place == 0 and len(columns) in (3, 4) and _number(columns[-1]) is None:
            continue  # the header
        grade = _number(columns[-1]) if len(columns) in (3, 4) else None
        if grade is None or not grade.is_integer():
            raise InputError(
                f"{path} line {number} is not `query id<TAB>document id<TAB>whole number`: {line.rstrip()!r}"
            )
        query, document = columns[0], columns[-2]
        if query not in queries:
            notes["judgements of queries that are not there"] += 1
            continue
        if document in judgements.setdefault(query, {}):
            notes["judgements of what was judged before, of which the first stands"] += 1
            continue
        if document not in documents:
            missing.add(document)
        judgements[query][document] = int(grade)
    notes["judged documents that are not in the corpus, counted as not found"] += len(missing)
    return {query: grades for query, grades in judgements.items() if any(grade > 0 for grade in grades.values())}


def _columns(line: str) -> list[str]:
    """Split at tabs, as BEIR does, or at any white space, as TREC does."""
    columns = [column.strip() for column in line.rstrip().split("\t")]
    return columns if len(columns) in (3, 4) else line.split()


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
