"""Judged passages: read from spans and from ConTEB's chunks, and mapped to whatever chunks there are."""

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pplx_embed_integrations import InputError
from pplx_embed_integrations.evaluation import Collection, Passage, load_collection
from pplx_embed_integrations.evaluation.chunking import cut, is_right

TEXT = "The moon makes tides. It turns around the earth. Ships wait for high water."


Files = dict[str, list[dict[str, object]] | str]


def write(folder: Path, files: Files) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = content if isinstance(content, str) else "".join(json.dumps(line) + "\n" for line in content)
        path.write_text(lines, encoding="utf-8")
    return folder


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    start = TEXT.index("It turns")
    return write(
        tmp_path,
        {
            "corpus.jsonl": [
                {"_id": "tides", "title": "Tides", "text": TEXT},
                {"_id": "plain", "text": "Sand and shells."},
            ],
            "queries.jsonl": [
                {"_id": "q1", "text": "what turns?"},
                {"_id": "q2", "text": "shells?"},
                {"_id": "q3", "text": "?"},
            ],
            "qrels/passages.tsv": "query-id\tcorpus-id\tstart\tend\tscore\n"
            f"q1\ttides\t{start}\t{start + len('It turns around the earth.')}\t2\n"
            "q2\tplain\t0\t4\t0\nq2\tplain\t9\t16\t1\n",
        },
    )


def test_spans_count_the_text_without_its_title_and_make_their_documents_relevant(beir: Path) -> None:
    loaded = load_collection(beir)
    [[passage, grade]] = loaded.passages["q1"].items()
    assert (passage.text, grade) == ("It turns around the earth.", 2)
    assert loaded.documents["tides"][passage.start : passage.end] == passage.text
    assert [each.text for each in loaded.passages["q2"]] == ["Sand", "shells."]
    assert loaded.judgements == {"q1": {"tides": 2}, "q2": {"plain": 1}}
    assert loaded.notes == ("queries without a relevant document, not asked: 1",)
    assert loaded.first(1).passages == {"q1": loaded.passages["q1"]}


def test_judged_documents_say_which_queries_are_asked(beir: Path) -> None:
    write(beir, {"qrels/test.tsv": "q1\tplain\t1\nq1\ttides\t0\nq3\ttides\t1\n"})
    loaded = load_collection(beir)
    assert loaded.judgements == {"q1": {"plain": 1, "tides": 2}, "q3": {"tides": 1}}
    assert set(loaded.passages) == {"q1"}
    assert set(loaded.notes) == {
        "queries of passages.tsv that qrels/test does not have, not asked: 1",
        "documents not relevant in qrels/test with a right passage in passages.tsv, taken as relevant: 1",
        "queries without a relevant document, not asked: 1",
    }
    with pytest.raises(InputError, match=r"there are: test; choose one with --split"):
        load_collection(beir, split="dev")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("q1\ttides\t0\t5", "line 2 is not `query id<TAB>document id<TAB>start<TAB>end<TAB>score`"),
        ("q1\ttides\t0\tfive\t1", "line 2 is not `query id"),
        ("q1\ttides\t0.5\t5\t1", "line 2 is not `query id"),
        ("q1\ttides\t5\t5\t1", "line 2: 5 to 5 is no part of the text of 'tides', which has 75 characters"),
        ("q1\ttides\t-1\t5\t1", "-1 to 5 is no part"),
        ("q1\ttides\t0\t76\t1", "0 to 76 is no part"),
        ("q1\ttides\t3\t4\t1", "line 2: characters 3 to 4 of 'tides' are white space alone"),
        ("q9\ttides\t0\t5\t1", "0 queries with a relevant document"),
    ],
)
def test_a_broken_line_of_passages_is_named(beir: Path, line: str, told: str) -> None:
    write(beir, {"qrels/passages.tsv": f"query-id\tcorpus-id\tstart\tend\tscore\n{line}\n"})
    with pytest.raises(InputError) as error:
        load_collection(beir)
    assert told in str(error.value)


def test_odd_passages_are_counted(beir: Path) -> None:
    write(
        beir, {"qrels/passages.tsv": "q1\ttides\t2\t9\t1\nq1\ttides\t2\t9\t1\nq1\tgone\t0\t9\t1\nq9\ttides\t0\t5\t1\n"}
    )
    loaded = load_collection(beir)
    assert {note.split(" (")[0].split(":")[0] for note in loaded.notes} == {
        "judged passages that begin or end within a word",
        "judgements of what was judged before, of which the first stands",
        "judged documents that are not in the corpus, counted as not found",
        "judgements of queries that are not there",
        "queries without a relevant document, not asked",
    }
    chunked = cut(loaded, lambda text: [(0, len(text))])
    assert chunked.judgements == {"q1": {0: 1, -2: 1}}
    assert chunked.notes == ("judged passages that no chunk holds, counted as not found: 1",)


@pytest.mark.parametrize("packed", [False, True], ids=["JSON lines", "Parquet"])
def test_chunks_that_a_collection_brings_stay_as_they_are(tmp_path: Path, packed: bool) -> None:
    documents = [
        {"chunk_id": "high_tide_10", "chunk": "Ten."},
        {"chunk_id": "high_tide_2", "chunk": "Two."},
        {"chunk_id": "reef_0", "chunk": "Coral."},
        {"chunk_id": "reef_1", "chunk": " "},
    ]
    queries = [
        {"query": "ten?", "chunk_id": "high_tide_10"},
        {"query": "all?", "chunk_ids": ["high_tide_2", "reef_0", "reef_7", "sand_0"]},
        {"query": "nothing?", "chunk_id": None},
    ]
    if packed:
        arrow = pytest.importorskip("pyarrow")
        for name, content in (("documents", documents), ("queries", queries)):
            (tmp_path / name).mkdir()
            table = arrow.Table.from_pylist(content, schema=arrow.Table.from_pylist([*content, *content[::-1]]).schema)
            __import__("pyarrow.parquet").parquet.write_table(table, tmp_path / name / "test-00000-of-00001.parquet")
    else:
        write(tmp_path, {"documents.jsonl": documents, "queries.jsonl": queries})
    loaded = load_collection(tmp_path)
    assert loaded.documents == {"high_tide": "Two.\n\nTen.", "reef": "Coral."}
    assert next(iter(loaded.queries.values())) == "ten?"
    chunked = cut(loaded, None)
    assert [chunk.text for chunk in chunked.chunks] == ["Two.", "Ten.", "Coral."]
    assert all(loaded.documents[each.document][each.start : each.end] == each.text for each in chunked.chunks)
    assert chunked.judgements["0"] == {1: 1}
    if not packed:
        assert chunked.judgements["1"] == {0: 1, 2: 1, -3: 1, -4: 1}
        assert loaded.judgements["1"] == {"high_tide": 1, "reef": 1, "sand": 1}
        assert set(loaded.notes) == {
            "chunks without text, left out: 1",
            "right chunks that are not there, counted as not found: 2",
            "queries without a right chunk, not asked: 1",
        }
    with pytest.raises(InputError, match="brings its chunks"):
        cut(loaded, lambda text: [(0, len(text))])


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"documents.jsonl": [{"chunk_id": "reef", "chunk": "a"}]}, "line 1: \"chunk_id\" is 'reef'; wanted is"),
        ({"documents.jsonl": [{"chunk_id": "reef_0", "chunk": "a"}]}, "there is no"),
        ({"documents.jsonl": [], "queries.jsonl": []}, "0 documents with text and 0 queries with a right chunk"),
        ({"documents.jsonl": [], "corpus.jsonl": []}, "two layouts; leave one of them"),
        ({"documents/dev.jsonl": []}, "there are: dev; choose one with --split"),
        ({"documents/test-0.parquet": "no"}, "is no Parquet file that can be read"),
        ({"documents/test.csv": "no"}, "is neither Parquet nor JSON lines"),
    ],
)
def test_a_broken_folder_of_chunks_is_named(
    tmp_path: Path, files: dict[str, list[dict[str, object]]], told: str
) -> None:
    with pytest.raises(InputError) as error:
        load_collection(write(tmp_path, files))
    assert told in str(error.value)


def passage(start: int, end: int) -> Passage:
    return Passage("d", start, end, TEXT[start:end])


def test_a_chunk_is_right_if_half_of_the_answer_or_half_of_it_is_there() -> None:
    answer = passage(0, 21)  # "The moon makes tides."
    assert is_right(passage(0, len(TEXT)), answer)  # all of the answer, in a long chunk
    assert is_right(passage(4, 8), answer)  # a short chunk within the answer
    assert is_right(passage(9, 48), answer)  # "makes tides." is more than half of the answer
    assert not is_right(passage(15, 48), answer)  # "tides." is less than half of either
    assert not is_right(Passage("other", 0, 21, TEXT[:21]), answer)


@given(st.data())
def test_every_passage_has_a_right_chunk_wherever_a_text_is_cut(data: st.DataObject) -> None:
    text = data.draw(st.text("ab \n", min_size=1, max_size=40).filter(str.strip))
    places = sorted({0, len(text), *data.draw(st.lists(st.integers(0, len(text)), max_size=6))})
    pieces = [(start, end) for start, end in pairwise(places) if text[start:end].strip()]
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    if not text[start:end].strip():
        return
    answer = Passage("d", start, end, text[start:end])
    collection = Collection({"d": text}, {"q": "?"}, {"q": {"d": 1}}, passages={"q": {answer: 1}})
    chunked = cut(collection, lambda _: pieces)
    right = chunked.judgements["q"]
    letters = {place for place in range(start, end) if not text[place].isspace()}
    held = {place: letters & set(range(each.start, each.end)) for place, each in enumerate(chunked.chunks)}
    assert right
    assert min(right) >= 0
    assert all(held[place] for place in right)
    whole = any(letters == each for each in held.values())
    assert chunked.notes == (() if whole else ("judged passages cut by a chunk border, of 1: 1",))


@pytest.mark.parametrize("span", [(0, 99), (3, 3), (-1, 2), (3, 4)])
def test_a_chunk_outside_the_text_is_refused(span: tuple[int, int]) -> None:
    collection = Collection({"d": TEXT}, {"q": "?"}, {"q": {"d": 1}})
    assert re.fullmatch(r"\s", TEXT[3])
    with pytest.raises(InputError, match=f"split= gave {span[0]} to {span[1]} as a chunk"):
        cut(collection, lambda _: [span])
