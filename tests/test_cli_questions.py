"""`pplx-embed questions`: a collection grows question by question, is stopped and gone on with, and evaluates."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pplx_embed_integrations import InputError
from pplx_embed_integrations.cli import main
from pplx_embed_integrations.evaluation import load_collection
from pplx_embed_integrations.evaluation.questions import Draft, Drawn, draw

CHAT = "langchain_core.language_models:FakeListChatModel"
SENTENCE = "The harbour of {} lies behind a reef that only small ships pass at high water. "


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    notes = tmp_path / "notes"
    (notes / "more").mkdir(parents=True)
    for number, name in enumerate(["a.txt", "b.md", "more/c\td.txt"]):
        paragraphs = [SENTENCE.format(f"{name} {part}") * 2 for part in range(2 + number)]
        (notes / name).write_text("# Heading\n\n" + "\n\n".join(paragraphs), encoding="utf-8")
    (notes / "picture.png").write_bytes(b"\x89PNG")
    return notes


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> list[str | type[BaseException]]:
    """What a person types; an exception is a key such as Ctrl-C."""
    keys: list[str | type[BaseException]] = []

    def type_one(prompt: str = "") -> str:
        print(prompt)
        key = keys.pop(0)
        if not isinstance(key, str):
            raise key
        return key

    monkeypatch.setattr("builtins.input", type_one)
    return keys


def spans(to: Path) -> list[str]:
    return (to / "qrels" / "passages.tsv").read_text(encoding="utf-8").splitlines()[1:]


def test_questions_are_kept_one_by_one_and_gone_on_with(
    folder: Path, tmp_path: Path, typed: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "made"
    command = ["questions", str(folder), "--to", str(to), "--passage-tokens", "48", "--count", "4"]
    typed += ["Where is\x1b a harbour?", "", KeyboardInterrupt]
    assert main(command) == 130
    output = capsys.readouterr().out
    assert "3 documents, 1 files left out" in output
    assert "Question 1 of 4: " in output
    assert "The harbour of" in output
    assert f"1 question in {to}. The same command goes on." in output
    first = spans(to)
    [asked] = load_collection(to).queries.values()
    assert asked == "Where is a harbour?"

    typed += ["Second?", "q"]
    assert main(command) == 0
    assert "1 question so far" in capsys.readouterr().out
    typed += ["Third?", EOFError]
    assert main(command) == 0
    typed += ["Fourth?"]
    assert main(command) == 0
    assert f"4 questions in {to}.\n" in capsys.readouterr().out
    assert main(command) == 0  # there is nothing left to ask
    assert typed == []

    assert spans(to)[:1] == first
    [skipped] = json.loads((to / "drawn.json").read_text())["skipped"]
    assert len({tuple(row.split("\t")[1:4]) for row in spans(to)} | {tuple(map(str, skipped))}) == 5
    collection = load_collection(to)
    assert list(collection.queries.values()) == ["Where is a harbour?", "Second?", "Third?", "Fourth?"]
    assert collection.notes == ()
    assert set(collection.documents) == {"a.txt", "b.md", "more/c\\td.txt"}
    for query, passages in collection.passages.items():
        [passage] = passages
        assert collection.judgements[query] == {passage.document: 1}
        assert passage.text == collection.documents[passage.document][passage.start : passage.end]
        assert passage.text == passage.text.strip()


def test_a_chat_model_writes_them(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    to = tmp_path / "made"
    answers = ["\\n “Which ships pass?”\\nBecause …", "", "x" * 500, "How deep?"]
    chat = f"{CHAT}(responses={json.dumps(answers)})".replace("\\\\n", "\\n")
    command = ["questions", str(folder), "--to", str(to), "--passage-tokens", "48", "--count", "2", "--chat", chat]
    assert main(command) == 0
    assert "2 passages were skipped" in capsys.readouterr().out
    assert list(load_collection(to).queries.values()) == ["Which ships pass?", "How deep?"]
    written = [json.loads(line)["metadata"]["written by"] for line in (to / "queries.jsonl").read_text().splitlines()]
    assert written == ["FakeListChatModel"] * 2
    assert main([*command[:-4], "--count", "99", "--chat", chat]) == 0
    assert "There are no more passages." in capsys.readouterr().out
    assert main([*command[:-1], "langchain_core.language_models:FakeListChatModel(responses=[])"]) == 0
    assert main([*command[:-4], "--count", "999", "--chat", "json:JSONDecoder"]) == 2
    assert "it has no invoke" in capsys.readouterr().err


def test_a_model_that_fails_loses_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from langchain_core.language_models import FakeListChatModel

    calls = iter(range(9))

    def fail_once(self: FakeListChatModel, prompt: str) -> str:
        assert "The harbour of" in prompt
        if next(calls) == 1:
            raise RuntimeError("no quota")
        return "Question?"

    monkeypatch.setattr(FakeListChatModel, "invoke", fail_once)
    to = tmp_path / "made"
    command = ["questions", str(folder), "--to", str(to), "--passage-tokens", "48", "--count", "3"]
    command += ["--chat", f"{CHAT}(responses=['?'])"]
    assert main(command) == 2
    captured = capsys.readouterr()
    assert "FakeListChatModel failed: RuntimeError: no quota" in captured.err
    assert f"1 question in {to}" in captured.out
    assert main(command) == 0
    assert len(load_collection(to).queries) == 3


def test_what_a_collection_was_begun_with_stays(
    folder: Path, tmp_path: Path, typed: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "made"
    typed += ["q"]
    assert main(["questions", str(folder), "--to", str(to), "--seed", "3"]) == 0
    for more, told in [
        (["--seed", "4"], "begun with --seed 3, not 4"),
        (["--passage-tokens", "64"], "begun with --passage-tokens 128, not 64"),
    ]:
        assert main(["questions", str(folder), "--to", str(to), *more]) == 2
        assert told in capsys.readouterr().err
    assert main(["questions", str(tmp_path), "--to", str(to)]) == 2
    assert "begun with DIR" in capsys.readouterr().err
    assert main(["questions", str(folder), "--to", str(folder)]) == 2
    assert "holds something else; name a new folder" in capsys.readouterr().err
    (tmp_path / "bare").mkdir()
    assert main(["questions", str(tmp_path / "bare"), "--to", str(tmp_path / "other")]) == 2
    assert "holds no text or Markdown file" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_what_others_wrote_meanwhile_stays(tmp_path: Path) -> None:
    text = "A passage of more than forty characters, which is drawn."
    documents = {"d": f"{text}\n{text}"}

    def cut(document: str, text: str) -> list[tuple[int, int]]:
        half = len(text) // 2
        return [(0, half), (half + 1, len(text))]

    one = Draft.begin(tmp_path / "made", documents, Drawn("notes", 128, 0))
    other = Draft(tmp_path / "made")
    waiting = one.waiting(cut)
    first = next(waiting)
    assert other.add(first, "From another run?", by="a person") == "q1"
    with (tmp_path / "made" / "queries.jsonl").open("a") as file:
        file.write('{"_id": "q3", "text": "By hand, without a last newline?"}')
    second = next(waiting)
    assert second != first
    assert one.add(second, "Here?", by="a person") == "q4"
    assert (one.count, list(one.waiting(cut))) == (3, [])
    texts = [json.loads(line)["text"] for line in (tmp_path / "made" / "queries.jsonl").read_text().splitlines()]
    assert texts == ["From another run?", "By hand, without a last newline?", "Here?"]
    with pytest.raises(InputError, match="at least one word"):
        one.add(second, " \n", by="a person")


def test_every_document_comes_before_any_comes_twice() -> None:
    documents = {name: name * 100 for name in "abcde"}
    cut_documents: list[str] = []

    def cut(document: str, text: str) -> Iterator[tuple[int, int]]:
        cut_documents.append(document)
        return ((start, start + 50) for start in (0, 50))

    drawn = [(each.document, each.start) for each in draw(documents, cut, seed=1)]
    assert sorted(document for document, _ in drawn[:5]) == sorted(documents)
    assert len(set(drawn)) == 10
    assert drawn == [(each.document, each.start) for each in draw(documents, cut, seed=1)]
    assert drawn != [(each.document, each.start) for each in draw(documents, cut, seed=2)]
    cut_documents.clear()
    next(draw(documents, cut, seed=1))
    assert len(cut_documents) == 1
