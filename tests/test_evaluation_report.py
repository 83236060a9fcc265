"""The report of an evaluation in a real browser: what it shows, whom it asks, whether it can be read, what it keeps."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pplx_embed_integrations import PplxBiEncoder
from pplx_embed_integrations.errors import InputError
from pplx_embed_integrations.evaluation import Collection, Study
from pplx_embed_integrations.evaluation.evaluating import searchers
from pplx_embed_integrations.evaluation.report import LeaveOneOut, page, render, write_report
from pplx_embed_integrations.evaluation.results import (
    METRICS,
    Comparison,
    Evaluation,
    Found,
    Level,
    Measurement,
    Passage,
    Question,
)
from tests import browser

HOSTILE = [
    "<script>document.title = 'taken over'</script><img src=https://example.com/x.png onerror=alert(1)> wing",
    "a\x00b\x1b[31m\x07 \ud800 half a character, \ufffe none, {{ 7 * 7 }} and {% raw %} wing",
    "مرحبا بالعالم \u202e turned around wing",
    "wing" * 400,
    "Its wings & \"flaps\" 'were' long; 川の翼は長い。\n\nSecond paragraph\u2028third line",
]
MODELS = [
    ("v1", "context-v1", True),
    ("v1", "context-v1", False),
    ("context-v1", "context-v1", True),
    ("v1", "v1", False),
]
FORMS = [(384, "float32", 1536), (384, "int8", 384), (384, "binary", 48), (96, "int8", 96), (96, "binary", 12)]


def measurement(label: str, seed: int, questions: int, levels: list[Level], **what: Any) -> Measurement:
    values = {
        level: {
            metric: {f"q{one}": float((one * (seed + 3) + place) % 11 < 3 + seed % 5) for one in range(questions)}
            for place, metric in enumerate(METRICS)
        }
        for level in levels
    }
    means = {
        level: {metric: sum(each.values()) / max(1, questions) for metric, each in metrics.items()}
        for level, metrics in values.items()
    }
    intervals = {
        level: {metric: (max(0.0, mean - 0.07), min(1.0, mean + 0.06)) for metric, mean in metrics.items()}
        for level, metrics in means.items()
    }
    return Measurement(label, values=values, means=means, intervals=intervals, **what)


def evaluation(
    questions: int = 24, levels: tuple[Level, ...] = ("documents", "chunks"), rows: int | None = None
) -> Evaluation:
    """Rows of every kind, with figures that differ from each other, and texts that mean harm."""
    made = []
    for place, (query, document, contextual) in enumerate(MODELS):
        for dimensions, form, size in FORMS if place == 0 else FORMS[1:2]:
            label = f"{query} → {document} {'in context' if contextual else 'plain'} {dimensions} {form} <b>"
            what = {"query_model": query, "document_model": document, "contextual": contextual, "latency_ms": 1.25}
            what |= {"dimensions": dimensions, "form": form, "bytes_per_vector": size, "system": "pplx-embed"}
            made.append(measurement(label, len(made), questions, list(levels), **what))
    made.append(measurement("BM25", len(made), questions, list(levels), system="BM25"))
    made = made[:rows]
    compared = [one for pair in combinations(made, 2) for level in levels for one in comparisons(*pair, level)]
    passages = [Passage(f"d{place}\x07<i>", 0, len(text), text) for place, text in enumerate(HOSTILE)]
    asked = []
    for one in range(questions):
        order = passages[one % 5 :] + passages[: one % 5]
        found = {row.label: found_by(row, f"q{one}", order, levels[-1]) for row in made}
        asked.append(Question(f"q{one}", HOSTILE[-1 - one % 5] + " wing?", ("d1",), (passages[2],), found))
    counts = {"documents": 5, "chunks": 5, "questions": questions}
    settings = {"command": "pplx-embed evaluate <i>x</i> --report out.html", "seed": 0}
    return Evaluation(
        "<em>tides</em>", counts, ("a note\x00",), settings, {"processor": "one & only"},
        tuple(made), tuple(compared), tuple(asked),
    )  # fmt: skip


def comparisons(left: Measurement, right: Measurement, level: Level) -> Iterator[Comparison]:
    for metric in METRICS:
        ours, others = left.values[level][metric], right.values[level][metric]
        less = [ours[key] - others[key] for key in ours]
        mean = sum(less) / max(1, len(less))
        ends = [sum(one > 0 for one in less), sum(one < 0 for one in less), sum(one == 0 for one in less)]
        yield Comparison(left.label, right.label, level, metric, mean, mean - 0.06, mean + 0.05, *ends)


def found_by(row: Measurement, question: str, passages: list[Passage], level: Level) -> tuple[Found, ...]:
    right = row.values[level]["hit@3"][question]
    return tuple(
        Found(passage, 0.7 - 0.1 * place, bool(right) and place == 1) for place, passage in enumerate(passages[:3])
    )


class Data(HTMLParser):
    """Collects what the tables' cells hold."""

    def __init__(self) -> None:
        super().__init__()
        self.level = ""
        self.cell: dict[str, str] = {}
        self.cells: list[tuple[str, str, str, float]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.level = given.get("data-level", "") if tag == "table" else self.level
        self.cell = given if tag == "td" else self.cell
        if tag == "data" and "data-row" in self.cell:
            self.cells.append((self.level, self.cell["data-row"], self.cell["data-name"], float(given["value"])))


@pytest.fixture(scope="module")
def chromium() -> Iterator[browser.Browser]:
    program = browser.executable()
    if program is None:
        pytest.skip("there is no Chromium here; on Debian type: apt install chromium")
    with browser.running(program) as running:
        yield running


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(evaluation(), tmp_path_factory.mktemp("report") / "out.html")


VIEWS = [(width, dark) for width in (400, 1400) for dark in (False, True)]


@pytest.mark.parametrize(("width", "dark"), VIEWS)
def test_the_page_is_quiet_fits_and_can_be_read(
    chromium: browser.Browser, written: Path, width: int, dark: bool
) -> None:
    chromium.show(written, width=width, dark=dark)
    chromium.run(OPEN_ALL)
    assert chromium.run("document.title") == "<em>tides</em>: retrieval evaluated"
    assert chromium.complaints() == []
    assert chromium.requests() == [written.as_uri()]
    assert chromium.run("document.documentElement.scrollWidth") == width
    assert chromium.run(OUTSIDE) == []
    assert chromium.run(FAINT) == []
    assert chromium.run(COVERED) == []


def test_texts_are_texts(chromium: browser.Browser, written: Path) -> None:
    chromium.show(written, width=1400)
    chromium.run(OPEN_ALL)
    assert chromium.run("document.querySelectorAll('script, img, iframe, object, em').length") == 0
    shown = chromium.run("document.body.innerText")
    for text in ("<script>document.title", "a␀b␛[31m␇", "{{ 7 * 7 }}", "مرحبا", "川の翼は長い", "d1␇<i>"):
        assert text in shown
    assert chromium.run("[...document.querySelectorAll('mark')].map(mark => mark.textContent)").count("wings") > 0


def test_the_page_has_the_structure_that_readers_without_eyes_need(chromium: browser.Browser, written: Path) -> None:
    chromium.show(written, width=1400)
    levels = chromium.run("[...document.querySelectorAll('h1, h2, h3, h4')].map(one => +one.tagName[1])")
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert chromium.run("document.documentElement.lang") == "en"
    assert chromium.run("document.querySelectorAll('main').length") == 1
    tree = chromium("Accessibility.getFullAXTree")["nodes"]
    named = {(node["role"]["value"], node.get("name", {}).get("value", "")) for node in tree if not node["ignored"]}
    assert ("image", "Quality against bytes") in named
    assert not {role for role, name in named if role in ("image", "link", "heading", "DisclosureTriangle") and not name}


@pytest.mark.parametrize("width", [400, 1400])
def test_tables_stay_tables_for_readers_without_eyes(chromium: browser.Browser, written: Path, width: int) -> None:
    chromium.show(written, width=width)
    roles = [node["role"]["value"] for node in chromium("Accessibility.getFullAXTree")["nodes"] if not node["ignored"]]
    rows = len(evaluation().measurements)
    assert roles.count("table") == 3  # the one by document is folded
    assert roles.count("rowheader") == rows + (rows - 1) + rows


def test_everything_opens_by_keyboard(chromium: browser.Browser, written: Path) -> None:
    chromium.show(written, width=1400)
    chromium.press("Tab")
    assert chromium.run("document.activeElement.textContent") == "Skip to the figures"
    chromium.press("Tab")
    state = "[document.activeElement.tagName, document.activeElement.parentElement.open]"
    for opened in (True, False, True):  # the first of those that are shown is open
        assert chromium.run(state) == ["SUMMARY", opened]
        chromium.press("Enter")
    assert chromium.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_on_paper_nothing_is_folded_and_ink_is_dark(chromium: browser.Browser, written: Path) -> None:
    chromium.show(written, width=800, dark=True, paper=True)
    folded = (
        "[...document.querySelectorAll('details:not([open]) .sides')].map(one => one.getBoundingClientRect().height)"
    )
    heights = chromium.run(folded)
    assert heights
    assert min(heights) > 20
    assert chromium.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert chromium.run(FAINT) == []
    assert chromium.pdf().startswith(b"%PDF")


@pytest.mark.parametrize("levels", [("documents", "chunks"), ("documents",)])
def test_page_and_json_have_the_same_figures(levels: tuple[Level, ...]) -> None:
    results = evaluation(levels=levels)
    content = json.loads(results.to_json())
    parser = Data()
    parser.feed(render(results))
    wanted = [
        (level, row["label"], metric, row["means"][level][metric])
        for row in content["measurements"]
        for level in row["means"]
        for metric in METRICS
    ]
    assert sorted(parser.cells) == sorted(wanted)


def test_a_page_from_json_is_the_same_page() -> None:
    results = evaluation()
    assert render(Evaluation.from_json(results.to_json())) == render(results)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.01, 0.2, "context helps."), (-0.2, -0.01, "context hurts."), (-0.1, 0.1, "cannot tell the two apart.")],
)
def test_the_sentence_counts_questions_and_says_no_more_than_the_interval(low: float, high: float, said: str) -> None:
    results = evaluation()
    compared = tuple(replace(one, difference=0.05, low=low, high=high) for one in results.comparisons)
    text = render(replace(results, comparisons=compared))
    ours, plain = (
        sum(results.measurement(f"v1 → context-v1 {how} 384 int8 <b>").values["chunks"]["hit@3"].values())
        for how in ("in context", "plain")
    )
    assert ours != plain
    assert f"among the first three for {ours:.0f} of 24 questions; without context, for {plain:.0f}: " in text
    assert said in text


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize(
    "results",
    [
        pytest.param(Evaluation("nothing"), id="nothing at all"),
        pytest.param(evaluation(questions=0), id="no questions"),
        pytest.param(evaluation(questions=1, levels=("documents",)), id="one question, documents only"),
        pytest.param(Evaluation("one row", measurements=evaluation().measurements[-1:]), id="no vectors"),
    ],
)
def test_little_is_shown_as_well(chromium: browser.Browser, tmp_path: Path, results: Evaluation, width: int) -> None:
    chromium.show(write_report(results, tmp_path / "out.html"), width=width)
    assert chromium.complaints() == []
    assert chromium.run("document.documentElement.scrollWidth") == width
    assert chromium.run("document.querySelector('h1').innerText").endswith(".")
    shown = chromium.run("document.body.innerText")
    assert "NaN" not in shown
    assert "None" not in shown


SEA = ["The sea is deep.", "Its shores are sand.", "Its tides are high."]
SHIP = ["A ship sails.", "It has a mast."]


@pytest.fixture(scope="module")
def study(biencoder: PplxBiEncoder) -> Study:
    """Two documents, really measured."""
    texts = {"sea": "".join(SEA), "ship": "".join(SHIP)}
    spans = {texts["sea"]: [(0, 16), (16, 36), (36, 55)], texts["ship"]: [(0, 13), (13, 27)]}
    collection = Collection(texts, {"q": "How high are the tides of the sea?"}, {"q": {"sea": 1}})
    measuring = Study(collection, split=lambda text: spans[text])
    assert list(measuring.measure(searchers(measuring, embedder=biencoder, against=())))
    return measuring


def test_what_context_lent_is_what_leaving_passages_out_gives(study: Study, biencoder: PplxBiEncoder) -> None:
    def cosine(chunks: list[str]) -> float:
        vectors = biencoder.document.encode_documents([chunks], quantization="int8")[0].astype(float)
        question = biencoder.query.encode(["tides"], role="query", quantization="int8")[0].astype(float)
        return float(vectors[-1] @ question / np.linalg.norm(vectors[-1]) / np.linalg.norm(question))

    chunks = study.chunked.chunks
    lent, other = LeaveOneOut(chunks, biencoder)([("tides", chunks[2]), ("mast", chunks[4])])
    assert lent is not None
    assert other is not None
    assert other.passages == chunks[3:]
    assert lent.alone == pytest.approx(cosine(SEA[2:]), abs=0.01)
    assert lent.in_context == pytest.approx(cosine(SEA), abs=0.01)
    without = [cosine(SEA[1:]), cosine([SEA[0], SEA[2]]), cosine(SEA)]
    assert lent.shares == pytest.approx([cosine(SEA) - each for each in without], abs=0.02)


def test_the_page_says_what_context_lent(
    chromium: browser.Browser, study: Study, biencoder: PplxBiEncoder, tmp_path: Path
) -> None:
    explain = LeaveOneOut(study.chunked.chunks, biencoder)
    chromium.show(write_report(study.evaluation(), tmp_path / "out.html", explain=explain), width=400)
    chromium.run(OPEN_ALL)
    assert chromium.complaints() == []
    assert chromium.run(OUTSIDE) == []
    assert chromium.run(FAINT) == []
    assert chromium.run("document.querySelector('.lent').innerText").startswith("What its document lent to the right")


def test_an_explanation_of_something_else_is_refused(study: Study, biencoder: PplxBiEncoder, tmp_path: Path) -> None:
    results = study.evaluation()
    with pytest.raises(InputError, match="is no chunk of the collection"):
        write_report(results, tmp_path / "out.html", explain=LeaveOneOut(study.chunked.chunks[3:], biencoder))
    [question] = results.questions
    found = {
        label: tuple(replace(hit, score=hit.score + 0.1) for hit in hits) for label, hits in question.found.items()
    }
    others = replace(results, questions=(replace(question, found=found),))
    with pytest.raises(InputError, match="give LeaveOneOut the embedder that was evaluated"):
        write_report(others, tmp_path / "out.html", explain=LeaveOneOut(study.chunked.chunks, biencoder))
    assert list(tmp_path.iterdir()) == []


def test_questions_that_are_only_counted_are_counted() -> None:
    results = evaluation()
    kept = replace(results, questions=results.questions[:6])
    assert len(counted(results)) == 4
    assert counted(kept) == counted(results)
    assert "the JSON file has them all" not in render(kept)
    none = render(replace(results, questions=()))
    assert "None of them is shown: only their figures are here." in none


def counted(results: Evaluation) -> list[str]:
    """The lines that say how many questions ended in which way."""
    lines = [line for line in render(results).splitlines() if " of 24 questions: " in line]
    return [line.partition(".")[0] for line in lines]


def test_ten_thousand_questions_make_no_larger_page() -> None:
    many, some = (render(evaluation(questions=count, levels=("documents",), rows=6)) for count in (10_000, 200))
    assert len(many) < 1.2 * len(some)


def test_a_page_is_replaced_only_by_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out.html"
    write_report(Evaluation("first"), target)
    target.chmod(0o640)
    monkeypatch.setattr(page, "view", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(Evaluation("second"), target)
    monkeypatch.undo()
    monkeypatch.setattr(os, "fsync", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(Evaluation("second"), target)
    monkeypatch.undo()
    assert "first" in target.read_text(encoding="utf-8")
    link = tmp_path / "link.html"
    link.symlink_to(target)
    write_report(Evaluation("third"), link)
    assert link.is_symlink()
    assert "third" in target.read_text(encoding="utf-8")
    assert target.stat().st_mode & 0o777 == 0o640
    assert sorted(tmp_path.iterdir()) == [link, target]


def test_a_place_that_cannot_be_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="is a folder; name a file in it"):
        write_report(Evaluation("x"), tmp_path)
    with pytest.raises(InputError, match="there is no folder for the report"):
        write_report(Evaluation("x"), tmp_path / "none" / "out.html")
    with pytest.raises(InputError, match="is no file that could be replaced"):
        write_report(Evaluation("x"), os.devnull)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputError, match="may not be written to"):
        write_report(Evaluation("x"), tmp_path / "out.html")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_leaves_the_old_page_and_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = write_report(Evaluation("first"), tmp_path / "out.html")
    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda self, mode="r", **_: opened(Path("/dev/full"), mode.replace("x", "w")))
    with pytest.raises(OSError, match=r"No space left.*out\.html"):
        write_report(Evaluation("second"), target)
    monkeypatch.undo()
    assert "first" in target.read_text(encoding="utf-8")
    assert list(tmp_path.iterdir()) == [target]


OPEN_ALL = "document.querySelectorAll('details').forEach(one => one.open = true)"

OUTSIDE = """
[...document.querySelectorAll('body *')].filter(one => !one.closest('.unseen, .skip')).filter(one => {
  const box = one.getBoundingClientRect();
  return box.width && (box.left < -1 || box.right > innerWidth + 1);
}).map(one => one.tagName + ' ' + one.textContent.slice(0, 40))
"""

# WCAG 2.2, contrast minimum: 4.5 to 1, for large text 3 to 1, against the nearest background that is no window.
FAINT = """
(() => {
  const parts = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(part => part / 255)
    .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
  const behind = one => {
    for (; one; one = one.parentElement) {
      const colour = parts(getComputedStyle(one).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const faint = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const one = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !one.getClientRects().length) continue;
    if (one.closest('.unseen, .skip, title, desc')) continue;
    const style = getComputedStyle(one);
    const ink = parts(one.closest('svg') ? style.fill : style.color);
    const inks = [light(ink), light(behind(one))].sort((a, b) => b - a);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    const contrast = (inks[0] + 0.05) / (inks[1] + 0.05);
    if (contrast < (large ? 3 : 4.5) || style.opacity !== '1')
      faint.push([contrast, one.tagName, walker.currentNode.textContent.slice(0, 40)]);
  }
  return faint;
})()
"""

# Texts of a drawing that lie over each other or leave it.
COVERED = """
[...document.querySelectorAll('svg.wide, svg.narrow')].flatMap(drawing => {
  const whole = drawing.getBoundingClientRect();
  const texts = [...drawing.querySelectorAll('text')].map(one => [one.textContent, one.getBoundingClientRect()])
    .filter(([, box]) => box.width);
  const outside = texts.filter(([, box]) => box.left < whole.left - 1 || box.right > whole.right + 1);
  const covered = texts.flatMap(([one, a], place) => texts.slice(place + 1)
    .filter(([, b]) => a.left + 1 < b.right && b.left + 1 < a.right && a.top + 3 < b.bottom && b.top + 3 < a.bottom)
    .map(([other]) => one + ' | ' + other));
  return outside.map(([one]) => one + ' leaves the drawing').concat(covered);
})
"""
