"""`pplx-embed demo`: the figures are those of a search by hand, and those that the README prints."""

import re
from pathlib import Path

import numpy as np
import pytest

from pplx_embed_integrations import PplxBiEncoder
from pplx_embed_integrations.cli import demo, main
from pplx_embed_integrations.cli.demo_articles import articles, passages, shown_questions
from pplx_embed_integrations.cli.demo_indexes import MODES, STORED, label, plans
from pplx_embed_integrations.evaluation.results import Evaluation
from pplx_embed_integrations.evaluation.study import Study

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The whole collection, asked through LangChain, and in bits."""
    made = Study(articles(), split=passages)
    folder = tmp_path_factory.mktemp("stores")
    every = plans(made.chunked.chunks, model="miniature", plain_model="miniature-v1", folder=folder)
    for plan in [*every[: len(MODES)], *every[-len(MODES) :]]:
        demo.ask(made, plan())
    return made


def hits(study: Study, row: str) -> int:
    return round(sum(study.evaluation().measurement(row).values["chunks"]["hit@3"].values()))


def test_each_question_has_one_right_passage(study: Study) -> None:
    assert len(study.chunked.chunks) == 242
    for query, right in study.chunked.judgements.items():
        [(place, grade)] = right.items()
        [judged] = study.collection.passages[query]
        chunk = study.chunked.chunks[place]
        assert grade == 1
        assert chunk.text.endswith(judged.text)
        assert chunk.text == judged.text or chunk.start == 0  # the first has the title before it
    assert len(shown_questions()) == 30


def test_the_figures_are_those_of_a_search_by_hand(study: Study) -> None:
    pair = PplxBiEncoder("miniature")
    questions = pair.encode_queries(study.queries, quantization="int8").astype(float)
    right = np.array([next(iter(study.chunked.judgements[query])) for query in study.collection.queries])
    documents = study.chunked.nested
    alone = [[chunk] for chunks in documents for chunk in chunks]
    for mode, given in zip(MODES, (documents, alone), strict=True):
        codes = np.concatenate(pair.encode_documents(given, quantization="int8")).astype(float)
        cosines = questions @ (codes / np.linalg.norm(codes, axis=1, keepdims=True)).T
        before = (cosines > cosines[np.arange(len(right)), right][:, None]).sum(axis=1)
        assert hits(study, label("LangChain", mode)) == (before < 3).sum()


def test_the_readme_has_these_figures(study: Study) -> None:
    rows = re.findall(
        r"^\| (float32|bits).*\| (\d+) \| \*\*(\d+)\*\*.* \| (\d+)", README.read_text("utf-8"), re.MULTILINE
    )
    assert [[int(each) for each in figures] for _, *figures in rows] == [
        [
            study.evaluation().measurement(label(kind, "in context")).bytes_per_vector,
            hits(study, label(kind, "in context")),
            hits(study, label(kind, "plain")),
        ]
        for kind in ("LangChain", "bits")
    ]


def test_what_is_printed_and_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    few = articles().first(4)
    monkeypatch.setattr(demo, "articles", lambda: few)
    assert main(["demo", "--report", str(tmp_path / "demo.html"), "--json", str(tmp_path / "demo.json")]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    evaluation = Evaluation.from_json((tmp_path / "demo.json").read_text(encoding="utf-8"))
    in_context, plain = (evaluation.measurement(label("LangChain", mode)).means["chunks"]["hit@3"] for mode in MODES)
    assert (
        f"among the first three for {4 * in_context:.0f} of 4 questions in context, {4 * plain:.0f} plain." in printed
    )
    assert "LangChain and LlamaIndex give the same three passages in 8 of 8 rankings." in printed
    width = evaluation.measurement(label("LangChain", "plain")).dimensions or 0
    sizes = [evaluation.measurement(label(kind, "plain")).bytes_per_vector for kind in ("LangChain", *STORED)]
    assert sizes == [4 * width, width + width // 8, width, width // 8]
    for mode in MODES:  # codes found by bits, and codes alone, are the floats of the frameworks
        for kind in ("int8 and bits", "int8", "LlamaIndex"):
            assert rankings(evaluation, label(kind, mode)) == rankings(evaluation, label("LangChain", mode))
    assert len(evaluation.measurements) > 11  # and every pairing, width and form
    counted = {text for query, text in few.queries.items() if query not in shown_questions()}
    page = (tmp_path / "demo.html").read_text(encoding="utf-8")
    assert {question.text for question in evaluation.questions} == {*few.queries.values()} - counted
    assert len(evaluation.measurement("BM25").values["chunks"]["hit@3"]) == 4
    for text in counted:
        assert text not in printed + page
    for question in evaluation.questions:
        assert question.text in page


def rankings(evaluation: Evaluation, row: str) -> list[list[str]]:
    return [[found.passage.text for found in question.found[row]] for question in evaluation.questions]


@pytest.mark.parametrize("option", ["--report", "--json"])
def test_a_file_without_a_folder_is_refused_before_anything_is_done(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", option, "nowhere/demo"]) == 2
    named = "the report" if option == "--report" else option
    assert capsys.readouterr().err == (
        f"pplx-embed: error: there is no folder for {named} 'nowhere/demo'; make it first\n"
    )
