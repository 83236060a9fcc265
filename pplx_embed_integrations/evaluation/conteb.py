"""ConTEB's layout: documents that come as chunks with ids such as `tides_3`, and queries that name the right ones.

Knows the files of a copied data set and what can be wrong with them; must not know models, vectors or metrics.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..errors import InputError
from .collection import Collection
from .reading import clean, exists, objects, rows
from .results import Passage

LAYOUT = (
    "ConTEB's layout is documents.jsonl (chunk_id, chunk) and queries.jsonl (query, chunk_id), or the folders "
    "documents and queries with Parquet files"
)
BETWEEN = "\n\n"
"""What stands between two chunks in the text of their document, which is put together from them."""


def is_conteb(root: Path) -> bool:
    """Return whether a folder looks like this layout."""
    return exists(root / "documents.jsonl") or (root / "documents").is_dir()


def load_conteb(root: Path, *, split: str) -> Collection:
    """Read a folder in this layout; see `load_collection`."""
    notes: Counter[str] = Counter()
    texts: dict[str, dict[int, str]] = {}
    for place, row in _rows(root, "documents", split):
        document, at = _place(row.get("chunk_id"), place)
        text = clean(str(row.get("chunk") or ""))
        if at in texts.setdefault(document, {}):
            notes["chunks with the chunk_id of an earlier one, which stands"] += 1
        elif not text.strip():
            notes["chunks without text, left out"] += 1
        else:
            texts[document][at] = text
    empty = tuple(document for document, chunks in texts.items() if not chunks)
    named = {document: _joined(document, chunks) for document, chunks in texts.items() if chunks}
    queries, passages = _queries(_rows(root, "queries", split), named, notes)
    if not named or not queries:
        raise InputError(
            f"{str(root)!r} holds {len(named)} documents with text and {len(queries)} queries with a right chunk; at "
            "least one of each is needed"
        )
    return Collection(
        documents={document: BETWEEN.join(each.text for each in chunks.values()) for document, chunks in named.items()},
        queries=queries,
        judgements={
            query: {passage.document: 1 for passage, grade in passages[query].items() if grade > 0} for query in queries
        },
        empty=empty,
        notes=tuple(f"{note}: {count}" for note, count in notes.items() if count),
        passages=passages,
        chunks={document: tuple(chunks.values()) for document, chunks in named.items()},
    )


def _rows(root: Path, kind: str, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield where a row stands and the row."""
    single = root / f"{kind}.jsonl"
    if exists(single):
        for at, row in objects(single, hint=LAYOUT):
            yield f"{single} line {at}", row
        return
    paths = sorted((root / kind).glob(f"{split}-*.parquet")) + sorted((root / kind).glob(f"{split}.*"))
    if not paths:
        there = sorted({path.name.split("-")[0].split(".")[0] for path in (root / kind).glob("*") if path.is_file()})
        hint = f"there are: {', '.join(there)}; choose one with --split" if there else LAYOUT
        raise InputError(f"there is no {root / kind}/{split}-….parquet; {hint}")
    for path in paths:
        if path.suffix == ".parquet":
            yield from ((f"{path} row {at}", row) for at, row in rows(path))
        elif path.name.removesuffix(".gz").endswith(".jsonl"):
            plain = path.with_name(path.name.removesuffix(".gz"))
            yield from ((f"{plain} line {at}", row) for at, row in objects(plain, hint=LAYOUT))
        else:
            raise InputError(f"{path} is neither Parquet nor JSON lines; {LAYOUT}")


def _place(chunk_id: object, at: str) -> tuple[str, int]:
    """Return the document of a chunk and its number there.

    Example:
        >>> _place("high_tide_12", "line 1")
        ('high_tide', 12)
    """
    document, _, place = str(chunk_id).rpartition("_")
    if not document or not place.isascii() or not place.isdigit():
        raise InputError(
            f'{at}: "chunk_id" is {chunk_id!r}; wanted is the document\'s id, "_" and the number of the chunk in '
            'reading order, such as "tides_3"'
        )
    return document, int(place)


def _joined(document: str, chunks: dict[int, str]) -> dict[int, Passage]:
    """Return each chunk by its number, in reading order, at its place in the document's text."""
    start, found = 0, {}
    for place, text in sorted(chunks.items()):
        found[place] = Passage(document, start, start + len(text), text)
        start += len(text) + len(BETWEEN)
    return found


def _queries(
    entries: Iterable[tuple[str, dict[str, Any]]], documents: dict[str, dict[int, Passage]], notes: Counter[str]
) -> tuple[dict[str, str], dict[str, dict[Passage, int]]]:
    queries: dict[str, str] = {}
    passages: dict[str, dict[Passage, int]] = {}
    for number, (at, row) in enumerate(entries):
        text = clean(str(row.get("query") or ""))
        named = row.get("chunk_ids", row.get("chunk_id"))
        right = [_place(each, at) for each in (named if isinstance(named, list) else [named] if named else [])]
        key = str(next((row[name] for name in ("_id", "id", "query_id") if row.get(name) is not None), number))
        if not text.strip():
            notes["queries without text, not asked"] += 1
        elif not right:
            notes["queries without a right chunk, not asked"] += 1
        elif key in queries:
            notes["queries with the id of an earlier one, which stands"] += 1
        else:
            queries[key] = text
            passages[key] = {_found(document, place, documents, notes): 1 for document, place in right}
    return queries, passages


def _found(document: str, place: int, documents: dict[str, dict[int, Passage]], notes: Counter[str]) -> Passage:
    chunk = documents.get(document, {}).get(place)
    if chunk is None:
        notes["right chunks that are not there, counted as not found"] += 1
        return Passage(document, -place - 1, -place - 1, "")  # no part of any text, and not equal to another
    return chunk
