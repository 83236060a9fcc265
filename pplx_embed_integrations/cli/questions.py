"""`pplx-embed questions`: passages of a folder, and a question for each, by a person at a prompt or by a chat model.

Knows what is asked and shown, and how one stops and goes on; must not know the files of the collection.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..biencoder import PplxBiEncoder
from ..errors import InputError
from ..evaluation import named
from ..evaluation.asking import question_for
from ..evaluation.questions import Draft, Drawn
from ..evaluation.results import Passage
from .folder import MARKDOWN, folder_name, read_folder
from .interruption import INTERRUPTED
from .splitting import Splitter
from .terminal import shown, terminal_width, wrapped

_PASSAGE_TOKENS = 128
_STOP = "q"
_ASKED = "Your question (Enter: another passage, q: stop) > "


def run(arguments: argparse.Namespace) -> int:
    """Begin or go on, ask, tell what there is."""
    chat = named.parse(arguments.chat).make(wanted=("invoke",)) if arguments.chat else None
    target = Path(arguments.to)
    draft = _opened(target, arguments) if Draft.begun(target) else _begun(target, arguments)
    code = 0
    try:
        if draft.count < arguments.count:
            code = _by_person(draft, arguments.count) if chat is None else _by_chat(draft, arguments.count, chat)
    finally:
        _tell(draft, arguments)
    return code


def _begun(target: Path, arguments: argparse.Namespace) -> Draft:
    files, left_out = read_folder(arguments.directory, include=arguments.include or (), except_for=target.resolve())
    print(f"{len(files)} documents" + (f", {len(left_out)} files left out" if left_out else ""))
    documents = {shown(file.source).strip(): file.text for file in files}  # a tab in a name would part two columns
    if len(documents) < len(files):
        raise InputError("the names of two files read alike once control characters are escaped; rename one of them")
    drawn = Drawn(folder_name(arguments.directory), arguments.passage_tokens or _PASSAGE_TOKENS, arguments.seed or 0)
    return Draft.begin(target, documents, drawn)


def _opened(target: Path, arguments: argparse.Namespace) -> Draft:
    draft = Draft(target)
    asked = {
        "DIR": (folder_name(arguments.directory), draft.drawn.source),
        "--passage-tokens": (arguments.passage_tokens, draft.drawn.passage_tokens),
        "--seed": (arguments.seed, draft.drawn.seed),
    }
    for option, (given, kept) in asked.items():
        if given is not None and given != kept:
            raise InputError(
                f"{str(target)!r} was begun with {option} {kept}, not {given}; go on with that, or name a new folder "
                "with --to"
            )
    print(f"{_questions(draft.count)} so far. Passages are those of the copy in {shown(str(target / 'corpus.jsonl'))}")
    return draft


class _Cut:
    """Where documents are cut, by the splitter of `index` and the tokens of the miniature, which needs no download."""

    def __init__(self, passage_tokens: int) -> None:
        count = PplxBiEncoder("miniature").document.count_tokens
        self._splitters = {
            markdown: Splitter(chunk_tokens=passage_tokens, count_tokens=count, markdown=markdown)
            for markdown in (False, True)
        }

    def __call__(self, document: str, text: str) -> Iterable[tuple[int, int]]:
        return self._splitters[Path(document).suffix.lower() in MARKDOWN].spans(text)


def _by_person(draft: Draft, wanted: int) -> int:
    with suppress(ImportError):  # not on Windows, whose console has it by itself
        import readline  # noqa: F401  (arrow keys move in the line, from here on)
    for passage in draft.waiting(_Cut(draft.drawn.passage_tokens)):
        if draft.count >= wanted:
            return 0
        _show(draft, passage, wanted)
        try:
            question = input(_ASKED).strip()
        except EOFError:
            print()
            return 0
        except KeyboardInterrupt:
            print()
            return INTERRUPTED
        if question.casefold() == _STOP:
            return 0
        if question:
            draft.add(passage, question, by="a person")
        else:
            draft.skip(passage)
    if draft.count < wanted:
        print("There are no more passages.")
    return 0


def _show(draft: Draft, passage: Passage, wanted: int) -> None:
    line = draft.documents[passage.document].count("\n", 0, passage.start) + 1
    print(f"\nQuestion {draft.count + 1} of {wanted}: {shown(passage.document)}, line {line}\n")
    for paragraph in passage.text.split("\n"):
        print(*(f"  {part}" for part in wrapped(shown(paragraph), terminal_width() - 2) or [""]), sep="\n")
    print("\nWhat would somebody ask who has not read it, and is answered here? Name the subject.")


def _by_chat(draft: Draft, wanted: int, chat: Any) -> int:
    refused = 0
    before = draft.count
    with tqdm(total=wanted, initial=before, unit="question", file=sys.stderr) as bar:
        for passage in draft.waiting(_Cut(draft.drawn.passage_tokens)):
            if draft.count >= wanted:
                break
            beginning = draft.documents[passage.document]
            question = question_for(chat, name=passage.document, beginning=beginning, passage=passage.text)
            if question is None:
                draft.skip(passage)
                refused += 1
            else:
                draft.add(passage, question, by=type(chat).__name__)
                bar.update()
    if refused:
        print(f"{refused} passages were skipped: the model gave no question of one line for them.")
    if draft.count < wanted:
        print("There are no more passages.")
    return 0


def _tell(draft: Draft, arguments: argparse.Namespace) -> None:
    count, to = draft.count, shown(arguments.to)
    more = "" if count >= arguments.count else " The same command goes on."
    print(f"{_questions(count)} in {to}.{more}")
    if count:
        print(f"Measure: pplx-embed evaluate {to}")


def _questions(count: int) -> str:
    return f"{count} question{'' if count == 1 else 's'}"
