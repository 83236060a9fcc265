"""The demo's collection: one passage answers each question, and later passages do not name their subject."""

import json
import re
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from pplx_embed_integrations.evaluation import load_collection

FOLDER = Path(__file__).parents[1] / "pplx_embed_integrations" / "evaluation" / "demo"


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / name).read_text(encoding="utf-8").splitlines()]


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.casefold()))


def names(article: dict[str, Any]) -> set[str]:
    return {word for word in re.findall(r"\w+", article["title"]) if word[0].isupper()} - {"The"}


ARTICLES = {article["_id"]: article for article in lines("corpus.jsonl")}
QUESTIONS = {question["_id"]: question for question in lines("queries.jsonl")}
HEADER, *SPANS = [row.split("\t") for row in (FOLDER / "qrels/passages.tsv").read_text(encoding="utf-8").splitlines()]


def test_evaluate_reads_it_without_a_remark() -> None:
    collection = load_collection(FOLDER)
    assert (len(collection.documents), len(collection.queries), collection.notes) == (40, 60, ())
    assert collection.judgements == {query: {document: 1} for query, document, *_ in SPANS}


@pytest.mark.parametrize("key", ARTICLES)
def test_later_passages_do_not_name_the_subject(key: str) -> None:
    article = ARTICLES[key]
    first, *later = article["text"].split("\n\n")
    assert 3 <= 1 + len(later) <= 8
    assert words(" ".join(names(article))) <= words(first)
    for passage in later:
        assert passage == passage.strip()
        assert not names(article) & set(re.findall(r"\w+", passage))


@pytest.mark.parametrize("row", SPANS, ids=lambda row: row[0])
def test_the_span_is_the_one_passage_that_answers(row: list[str]) -> None:
    query, document, start, end, score = row
    article, question = ARTICLES[document], QUESTIONS[query]
    text = article["text"]
    passages = text.split("\n\n")
    assert text[int(start) : int(end)] in passages
    assert [question["metadata"]["answer"] in passage for passage in passages].count(True) == 1
    assert question["metadata"]["answer"] in text[int(start) : int(end)]
    assert score == "1"


def test_every_article_is_asked_about_by_name_and_every_other_question_is_shown() -> None:
    assert HEADER == ["query-id", "corpus-id", "start", "end", "score"]
    assert [query for query, *_ in SPANS] == list(QUESTIONS)
    assert [document for document, _ in groupby(document for _, document, *_ in SPANS)] == list(ARTICLES)
    assert [question["metadata"]["shown"] for question in QUESTIONS.values()] == [True, False] * 30
    for query, document, *_ in SPANS:
        assert words(" ".join(names(ARTICLES[document]))) <= words(QUESTIONS[query]["text"]), query
