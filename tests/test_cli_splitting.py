"""Chunks: they tile the text, fit the limit, end where a reader would cut, and cost the same for odd texts."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pplx_embed_integrations import PplxEncoder
from pplx_embed_integrations.cli import splitting
from pplx_embed_integrations.cli.markup import html_text
from pplx_embed_integrations.cli.splitting import Splitter


def by_bytes(texts: list[str]) -> list[int]:
    """A tokenizer at its worst: a token for each byte of what is no letter, for up to three letters else."""
    return [
        sum(-(-len(part) // 3) if part.isalpha() else len(part.encode()) for part in re.findall(r"\w+|\W", text))
        for text in texts
    ]


def texts(text: str, most: int, *, markdown: bool = False) -> list[str]:
    words = Splitter(
        chunk_tokens=most, count_tokens=lambda texts: [len(text.split()) for text in texts], markdown=markdown
    )
    return [chunk.text for chunk in words.split(text)]


@given(
    text=st.text(alphabet=st.sampled_from("ab .\n\n#-。，川é👩\t") | st.characters(codec="utf-8"), max_size=300),
    most=st.integers(4, 40),
    markdown=st.booleans(),
)
def test_chunks_tile_the_text_and_fit(text: str, most: int, markdown: bool) -> None:
    end = 0
    for chunk in Splitter(chunk_tokens=most, count_tokens=by_bytes, markdown=markdown).split(text):
        assert text[chunk.start : chunk.start + len(chunk.text)] == chunk.text
        assert text[end : chunk.start].strip() == ""
        assert chunk.text == chunk.text.strip() != ""
        assert chunk.tokens == by_bytes([chunk.text])[0]
        assert chunk.tokens <= most or len(chunk.text) == 1
        end = chunk.start + len(chunk.text)
    assert text[end:].strip() == ""


def test_the_best_border_is_taken() -> None:
    assert texts("# A\n\none two\n\nthree four\n\n# B\n\nfive", 7, markdown=True) == [
        "# A\n\none two\n\nthree four",
        "# B\n\nfive",
    ]
    assert texts("one two\nthree\n\nfour five", 4) == ["one two\nthree", "four five"]
    assert texts("one two three\nfour five", 4) == ["one two three", "four five"]
    assert texts("One two. Three four five! Six", 4) == ["One two.", "Three four five! Six"]
    assert texts("one two three four five", 3) == ["one two three", "four five"]
    assert texts("# A\n\none", 9, markdown=True) == ["# A\n\none"]


@pytest.mark.parametrize("name", ["data URI", "Chinese", "log", "emoji", "one line", "spaces"])
def test_no_text_is_tokenised_over_and_over(name: str, encoder_v1: PplxEncoder) -> None:
    text = {
        "data URI": "data:image/png;base64," + "iVBORw0KGgoAAAANSUhEUgAA" * 800,
        "Chinese": "川流不息的河水，向东流去。" * 800,
        "log": "".join(f"12:{n % 60:02}:00 worker {n} finished\n" for n in range(600)),
        "emoji": "👩‍👩‍👧‍👦" * 1500,
        "one line": "The tide rises. It falls again, twice a day! " * 400,
        "spaces": "a" + " " * 20_000 + "b",
    }[name]
    counted = 0

    def count(texts: list[str]) -> list[int]:
        nonlocal counted
        counted += sum(map(len, texts))
        return encoder_v1.count_tokens(texts) if texts else []

    chunks = list(Splitter(chunk_tokens=64, count_tokens=count).split(text))
    assert counted <= 4.5 * len(text)
    assert max(chunk.tokens for chunk in chunks) <= 64
    assert "".join("".join(chunk.text for chunk in chunks).split()) == "".join(text.split())
    if name != "spaces":
        assert sum(chunk.tokens for chunk in chunks) / len(chunks) > 30  # and none is needlessly short


def test_a_huge_text_is_looked_at_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splitting, "_SEGMENT", 50)
    text = "one two three four\n" * 20 + "x" * 200
    longest = 0

    def count(texts: list[str]) -> list[int]:
        nonlocal longest
        longest = max([longest, *map(len, texts)])
        return [len(text.split()) for text in texts]

    chunks = list(Splitter(chunk_tokens=8, count_tokens=count).split(text))
    assert longest <= 50
    assert "".join("".join(chunk.text for chunk in chunks).split()) == "".join(text.split())


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>The <b>spring</b> <i>tide</i>, <a href=x>here</a>.</p>", "The spring tide, here."),
        ("<ul><li>one<li>two</ul>after", "one\ntwo\n\nafter"),
        ("<h2>Ebb</h2>text<br/>more", "## Ebb\n\ntext\nmore"),
        ("<script>if (a < b) {}</script>a &lt; b<style>p {}</style>", "a < b"),
        ("<pre>a\n  b</pre>", "a\n  b"),
        ("<table><tr><td>1<td>2</table>", "1\n2"),
        ("<p>unclosed <b>tags", "unclosed tags"),
    ],
)
def test_html_is_read_in_order(html: str, text: str) -> None:
    assert html_text(html) == text
