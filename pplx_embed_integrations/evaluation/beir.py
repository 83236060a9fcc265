"""The BEIR layout: `corpus.jsonl`, `queries.jsonl`, `qrels/test.tsv`, and passages in `qrels/passages.tsv`.

Knows the files and what can be wrong with them; must not know models, vectors or metrics.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from .collection import Collection
from .reading import clean, exists, lines, number, objects
from .results import Passage

LAYOUT = "the BEIR layout is corpus.jsonl, queries.jsonl and qrels/test.tsv, or qrels/passages.tsv"
PASSAGES = "passages.tsv"
_QRELS = (".tsv", ".txt", ".trec", ".qrels")
_SPLIT = "test"
_ODD = (
    'judged passages that begin or end within a word (start and end count the characters of "text", without the title)'
)


@dataclass(frozen=True)
class _Text:
    """A document as the splitter sees it, and where in it the `text` of its line begins."""

    whole: str
    begin: int = 0


_Grades = dict[str, dict[str, int]]
_PassageGrades = dict[str, dict[Passage, int]]


def load_beir(root: Path, *, split: str) -> Collection:
    """Read a folder in this layout; see `load_collection`."""
    notes: Counter[str] = Counter()
    texts = {key: _text(entry, notes) for key, entry in _entries(root / "corpus.jsonl", "document", notes)}
    documents = {key: text.whole for key, text in texts.items() if text.whole.strip()}
    empty = tuple(key for key in texts if key not in documents)
    asked = {key: _text(entry, notes).whole for key, entry in _entries(root / "queries.jsonl", "query", notes)}
    judgements, passages = _judged(root, split, texts=texts, queries=set(asked), notes=notes)
    queries = {key: text for key, text in asked.items() if key in judgements and text.strip()}
    notes["queries without text, not asked"] += sum(key in judgements and key not in queries for key in asked)
    notes["queries without a relevant document, not asked"] += sum(key not in judgements for key in asked)
    if not documents or not queries:
        raise InputError(
            f"{str(root)!r} holds {len(documents)} documents with text and {len(queries)} queries with a relevant "
            f"document in qrels/{split}.tsv; at least one of each is needed"
        )
    return Collection(
        documents,
        queries,
        {key: judgements[key] for key in queries},
        empty,
        tuple(f"{note}: {count}" for note, count in notes.items() if count),
        {key: passages[key] for key in queries if key in passages},
    )


def _text(entry: dict[str, Any], notes: Counter[str]) -> _Text:
    title, text = (str(entry.get(key) or "") for key in ("title", "text"))
    if title.strip() and text.strip():
        whole, begin = f"{title}\n\n{text}", len(title) + 2
    else:
        whole, begin = (title if title.strip() else text), 0
    notes["texts with half a character (a lone surrogate), read as �"] += clean(whole) != whole
    return _Text(clean(whole), begin)


def _entries(path: Path, kind: str, notes: Counter[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    seen: set[str] = set()
    for place, entry in objects(path, hint=LAYOUT):
        if entry.get("_id") is None:
            raise InputError(f'{path} line {place} has no "_id"; a line looks like {{"_id": "1", "text": "…"}}')
        key = str(entry["_id"])
        if key in seen:
            notes[f"lines of {path.name} with the _id of an earlier {kind}, which stands"] += 1
            continue
        seen.add(key)
        yield key, entry


def _judged(
    root: Path, split: str, *, texts: dict[str, _Text], queries: set[str], notes: Counter[str]
) -> tuple[_Grades, _PassageGrades]:
    """Return the grades of documents and of passages, of queries that something answers."""
    marked = root / "qrels" / PASSAGES
    by_passage = _passages(marked, texts=texts, queries=queries, notes=notes) if exists(marked) else {}
    documents: _Grades
    if exists(marked) and split == _SPLIT and _qrels(root, split) is None:
        documents = {query: {} for query in by_passage}
    else:
        documents = _documents(_wanted(root, split), documents=set(texts), queries=queries, notes=notes)
    for query, grades in by_passage.items():
        if query not in documents:
            notes[f"queries of {PASSAGES} that qrels/{split} does not have, not asked"] += 1
            continue
        best: dict[str, int] = {}
        for passage, grade in grades.items():
            best[passage.document] = max(grade, best.get(passage.document, grade))
        for document, grade in best.items():
            judged = documents[query].get(document, grade)
            notes[f"documents not relevant in qrels/{split} with a right passage in {PASSAGES}, taken as relevant"] += (
                judged <= 0 < grade
            )
            documents[query][document] = max(grade, judged)
    answered = {query: grades for query, grades in documents.items() if any(grade > 0 for grade in grades.values())}
    return answered, {query: by_passage[query] for query in answered if _any(by_passage.get(query))}


def _any(grades: dict[Passage, int] | None) -> bool:
    return any(grade > 0 for grade in (grades or {}).values())


def _qrels(root: Path, split: str) -> Path | None:
    paths = (root / "qrels" / f"{split}{suffix}" for suffix in _QRELS)
    return next((path for path in paths if exists(path)), None)


def _wanted(root: Path, split: str) -> Path:
    if path := _qrels(root, split):
        return path
    folder = root / "qrels"
    found = (file.name.removesuffix(".gz") for file in folder.glob("*"))
    there = sorted({Path(name).stem for name in found if Path(name).suffix in _QRELS} - {Path(PASSAGES).stem})
    hint = f"there are: {', '.join(there)}; choose one with --split" if there else LAYOUT
    raise InputError(f"there is no {folder / split}.tsv; {hint}")


def _documents(path: Path, *, documents: set[str], queries: set[str], notes: Counter[str]) -> _Grades:
    judgements: _Grades = {}
    missing: set[str] = set()
    for place, (at, line) in enumerate(lines(path, hint=LAYOUT)):
        columns = _columns(line)
        if place == 0 and len(columns) in (3, 4) and number(columns[-1]) is None:
            continue  # the header
        grade = number(columns[-1]) if len(columns) in (3, 4) else None
        if grade is None or not grade.is_integer():
            raise InputError(f"{path} line {at} is not `query id<TAB>document id<TAB>whole number`: {line.rstrip()!r}")
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


def _passages(path: Path, *, texts: dict[str, _Text], queries: set[str], notes: Counter[str]) -> _PassageGrades:
    judgements: _PassageGrades = {}
    missing: set[str] = set()
    for place, (at, line) in enumerate(lines(path, hint=LAYOUT)):
        columns = [column.strip() for column in line.rstrip("\r\n").split("\t")]
        if place == 0 and len(columns) == 5 and number(columns[-1]) is None:
            continue  # the header
        numbers = [number(column) for column in columns[2:]] if len(columns) == 5 else []
        whole = [int(each) for each in numbers if each is not None and each.is_integer()]
        if len(whole) != 3:
            raise InputError(
                f"{path} line {at} is not `query id<TAB>document id<TAB>start<TAB>end<TAB>score`, the last three whole "
                f"numbers: {line.rstrip()!r}"
            )
        (query, document), (start, end, grade) = columns[:2], whole
        if query not in queries:
            notes["judgements of queries that are not there"] += 1
            continue
        if document not in texts:
            missing.add(document)
            passage = Passage(document, start, end, "")
        else:
            passage = _passage(document, start, end, texts[document], at=f"{path} line {at}")
            notes[_ODD] += any(_within_a_word(texts[document].whole, each) for each in (passage.start, passage.end))
        if passage in judgements.setdefault(query, {}):
            notes["judgements of what was judged before, of which the first stands"] += 1
            continue
        judgements[query][passage] = grade
    notes["judged documents that are not in the corpus, counted as not found"] += len(missing)
    return judgements


def _passage(document: str, start: int, end: int, text: _Text, *, at: str) -> Passage:
    length = len(text.whole) - text.begin
    if not 0 <= start < end <= length:
        raise InputError(
            f"{at}: {start} to {end} is no part of the text of {document!r}, which has {length} characters; start and "
            'end count the characters of its "text" from 0, without its title, and end is exclusive'
        )
    first, last = text.begin + start, text.begin + end
    if text.whole[first:last].isspace():
        raise InputError(f"{at}: characters {start} to {end} of {document!r} are white space alone")
    return Passage(document, first, last, text.whole[first:last])


def _within_a_word(text: str, place: int) -> bool:
    """Return whether a place parts two Latin letters or digits: other scripts write words without spaces."""
    return 0 < place < len(text) and all(each.isascii() and each.isalnum() for each in text[place - 1 : place + 1])
