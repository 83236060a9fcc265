"""A collection that is being written: documents, passages drawn from them, and a question for each.

Knows the files, in the BEIR layout with passages, and in which order passages are drawn; must not know who writes the
questions, nor how a text is cut.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from .beir import PASSAGES
from .reading import clean, lines, objects
from .results import Passage
from .writing import replace_file

_RECORD = "drawn.json"
_HEADERS = {"test.tsv": "query-id\tcorpus-id\tscore\n", PASSAGES: "query-id\tcorpus-id\tstart\tend\tscore\n"}
_HINT = "it is part of a collection that `pplx-embed questions` began; put it back, or begin anew in another folder"
_SHORTEST = 40
"""Characters of the shortest passage that is drawn: a heading alone answers nothing."""

_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]")

Cut = Callable[[str, str], Iterable[tuple[int, int]]]
"""Returns start and end of a document's passages, given its id and its text."""


@dataclass(frozen=True)
class Drawn:
    """What decides which passages are drawn, kept with the collection.

    Attributes:
        source: Where the documents come from.
        passage_tokens: The longest passage.
        seed: Of the order.
    """

    source: str
    passage_tokens: int
    seed: int


def draw(documents: Mapping[str, str], cut: Cut, *, seed: int) -> Iterator[Passage]:
    """Draw passages: one from every document in random order, then a second from each that has more, and so on.

    A document is cut when its turn comes. The same seed gives the same order.

    Example:
        >>> halves = lambda _, text: [(0, 50), (50, 100)]
        >>> [(each.document, each.start) for each in draw({"a": "x" * 100, "b": "y" * 100}, halves, seed=0)]
        [('a', 50), ('b', 50), ('a', 0), ('b', 0)]
    """
    order = list(documents)
    random.Random(seed).shuffle(order)
    waiting: dict[str, list[Passage]] = {}
    while order:
        for document in order:
            if document not in waiting:
                text = documents[document]
                spans = [(start, end) for start, end in cut(document, text) if end - start >= _SHORTEST]
                random.Random(f"{seed} {document}").shuffle(spans)
                waiting[document] = [Passage(document, start, end, text[start:end]) for start, end in spans]
            if waiting[document]:
                yield waiting[document].pop()
        order = [document for document in order if waiting[document]]


class Draft:
    """A folder with documents and the questions that there are until now.

    Every question is on the disk when `add` returns; a file is replaced as a whole, so that none is ever half written.
    The files are read anew each time: what an editor or another run wrote meanwhile stays.

    Args:
        folder: The collection.

    Raises:
        InputError: It is no folder that `begin` made, or a file is damaged.

    Example:
        >>> import tempfile
        >>> draft = Draft.begin(Path(tempfile.mkdtemp()), {"a": "Tides follow the moon."}, Drawn("notes", 128, 0))
        >>> draft.add(Passage("a", 0, 22, "Tides follow the moon."), "What do tides follow?", by="a person")
        'q1'
        >>> draft.count
        1
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
            self.drawn = Drawn(record["source"], record["passage_tokens"], record["seed"])
        except FileNotFoundError:
            raise InputError(f"{str(folder)!r} was not begun by `pplx-embed questions`; name a new folder") from None
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{folder / _RECORD} is damaged: {error}") from error
        self.documents = {
            str(entry["_id"]): str(entry["text"]) for _, entry in objects(folder / "corpus.jsonl", hint=_HINT)
        }

    @classmethod
    def begun(cls, folder: Path) -> bool:
        """Return whether `begin` was here.

        Raises:
            InputError: The folder holds something else.
        """
        if (folder / _RECORD).is_file():
            return True
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(
                f"{str(folder)!r} holds something else; name a new folder, or one that `pplx-embed questions` began"
            )
        return False

    @classmethod
    def begin(cls, folder: Path, documents: Mapping[str, str], drawn: Drawn) -> Draft:
        """Write the documents, and no question yet."""
        (folder / "qrels").mkdir(parents=True, exist_ok=True)
        corpus = (json.dumps({"_id": key, "text": clean(text)}, ensure_ascii=False) for key, text in documents.items())
        replace_file(folder / "corpus.jsonl", "".join(f"{line}\n" for line in corpus).encode())
        replace_file(folder / "queries.jsonl", b"")
        for name, header in _HEADERS.items():
            replace_file(folder / "qrels" / name, header.encode())
        _keep(folder, {**asdict(drawn), "skipped": []})  # last: it says begun
        return cls(folder)

    @property
    def count(self) -> int:
        """How many questions there are."""
        return sum(1 for _ in objects(self.folder / "queries.jsonl", hint=_HINT))

    def waiting(self, cut: Cut) -> Iterator[Passage]:
        """Yield the passages that were neither asked about nor skipped, in the order in which they are drawn."""
        for passage in draw(self.documents, cut, seed=self.drawn.seed):
            if (passage.document, passage.start, passage.end) not in self._done():
                yield passage

    def add(self, passage: Passage, question: str, *, by: str) -> str:
        """Keep a question that a passage answers.

        Args:
            passage: One of a document of this collection.
            question: The question.
            by: Who wrote it.

        Returns:
            Its id.

        Raises:
            InputError: It is empty.
        """
        text = clean(" ".join(_CONTROLS.sub(" ", question).split()))
        if not text:
            raise InputError("a question has at least one word")
        taken = {str(entry.get("_id")) for _, entry in objects(self.folder / "queries.jsonl", hint=_HINT)}
        number = len(taken) + 1
        while f"q{number}" in taken:
            number += 1
        key = f"q{number}"
        entry = {"_id": key, "text": text, "metadata": {"written by": by}}
        _append(self.folder / "queries.jsonl", json.dumps(entry, ensure_ascii=False))
        span = f"{passage.document}\t{passage.start}\t{passage.end}"
        _append(self.folder / "qrels" / PASSAGES, f"{key}\t{span}\t1")
        _append(self.folder / "qrels" / "test.tsv", f"{key}\t{passage.document}\t1")
        return key

    def skip(self, passage: Passage) -> None:
        """Do not draw a passage again."""
        record = self._record()
        record["skipped"].append([passage.document, passage.start, passage.end])
        _keep(self.folder, record)

    def _record(self) -> dict[str, Any]:
        record: dict[str, Any] = json.loads((self.folder / _RECORD).read_text(encoding="utf-8"))
        record.setdefault("skipped", [])
        return record

    def _done(self) -> set[tuple[str, int, int]]:
        done = {(str(document), int(start), int(end)) for document, start, end in self._record()["skipped"]}
        for number, line in lines(self.folder / "qrels" / PASSAGES, hint=_HINT):
            columns = line.rstrip("\r\n").split("\t")
            if number > 1 and len(columns) == 5 and columns[2].isdecimal() and columns[3].isdecimal():
                done.add((columns[1], int(columns[2]), int(columns[3])))  # `evaluate` tells of what is no such line
        return done


def _keep(folder: Path, record: Mapping[str, Any]) -> None:
    replace_file(folder / _RECORD, f"{json.dumps(record, indent=1, ensure_ascii=False)}\n".encode())


def _append(path: Path, line: str) -> None:
    before = path.read_text(encoding="utf-8")
    between = "\n" if before and not before.endswith("\n") else ""
    replace_file(path, f"{before}{between}{line}\n".encode())
