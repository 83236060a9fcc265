"""`check_documents`: one error that names everything the user has to mend, before anything is embedded."""

import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pplx_embed_integrations import PplxBiEncoder, PplxEncoder
from pplx_embed_integrations.backbone.tokenizer import TextTokenizer
from pplx_embed_integrations.errors import InputError, InputTypeError, NotContextualError
from pplx_embed_integrations.miniature import CONTEXT_V1

GOOD = ["a chunk", "another chunk"]


@pytest.fixture
def short(replica_context_v1: Path) -> PplxEncoder:
    return PplxEncoder(replica_context_v1, max_tokens=30)


def test_everything_that_is_wrong_stands_in_one_error(short: PplxEncoder) -> None:
    documents = [GOOD, ["fine", ""], [], ["long " * 100, "also fine", "bad \ud800"], ["", ""]]
    with pytest.raises(InputError) as told:
        short.check_documents(documents, names=["a.txt", "b{}.txt", "c.txt", "d.txt", "e.txt"])
    lines = str(told.value).split("\n- ")
    assert lines[0] == "5 chunks cannot be embedded:"
    assert [line.split(";")[0] for line in lines[1:]] == [
        "chunk 1 of b{}.txt is empty",
        "chunk 0 of d.txt has 301 tokens and the limit is 30",
        "chunk 2 of d.txt has a lone surrogate (U+D800) at character 4, which is no text",
        "chunk 0 of e.txt is empty",
        "chunk 1 of e.txt is empty",
    ]
    assert short._loaded is None  # no weights were needed


def test_without_names_positions_are_told_and_many_are_counted(short: PplxEncoder) -> None:
    with pytest.raises(InputError) as told:
        short.check_documents([["fine"], [""] * 27])
    lines = str(told.value).splitlines()
    assert lines[0] == "27 chunks cannot be embedded:"
    assert lines[1].startswith("- chunk 0 of document 1 is empty")
    assert len(lines) == 22
    assert lines[-1] == "- and 7 more"


@pytest.mark.parametrize("chunk", ["", "long " * 100, "bad \ud800"], ids=["empty", "long", "surrogate"])
def test_it_says_what_embedding_says(short: PplxEncoder, chunk: str) -> None:
    documents = [GOOD, ["fine", chunk]]
    with pytest.raises(InputError) as checked:
        short.check_documents(documents, names=["one", "two"])
    with pytest.raises(InputError) as embedded:
        short.encode_documents(documents, names=["one", "two"])
    assert str(checked.value) == str(embedded.value)
    assert str(checked.value).startswith("chunk 1 of two ")


def test_what_can_be_embedded_passes(short: PplxEncoder, replica_context_v1: Path) -> None:
    short.check_documents([])
    short.check_documents([[], GOOD, ["é" * 10]])
    PplxEncoder(replica_context_v1, max_tokens=30, truncate=True).check_documents([["long " * 100]])


def test_wrong_types_and_models_are_refused_as_by_embedding(short: PplxEncoder, replica_v1: Path) -> None:
    with pytest.raises(InputTypeError, match="chunk 1 of two must be a str, not float"):
        short.check_documents([GOOD, ["fine", float("nan")]], names=["one", "two"])  # type: ignore[list-item]
    with pytest.raises(InputTypeError, match="for document 0 a list of chunks is wanted, not a bare str"):
        short.check_documents(["text"])
    with pytest.raises(InputError, match="there are 1 names for 2 documents"):
        short.check_documents([GOOD, GOOD], names=["one"])
    with pytest.raises(NotContextualError):
        PplxEncoder(replica_v1).check_documents([GOOD])


async def test_both_sides_of_a_pair_name_documents(replica_v1: Path, replica_context_v1: Path) -> None:
    pair = PplxBiEncoder(query_model=replica_v1, document_model=replica_context_v1, max_tokens=30)
    pair.check_documents([GOOD], names=["a.txt"])
    bad = [GOOD, ["long " * 100]]
    for refused in (pair.check_documents, pair.encode_documents):
        with pytest.raises(InputError, match="chunk 0 of b has 301 tokens"):
            refused(bad, names=["a", "b"])
    with pytest.raises(InputError, match="chunk 0 of b has 301 tokens"):
        await pair.aencode_documents(bad, names=["a", "b"])


def test_short_chunks_are_not_tokenised(short: PplxEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    tokenizer = short._load_tokenizer()

    class Counting:
        def encode_batch_fast(self, texts: list[str], **options: bool) -> list[object]:
            seen.extend(texts)
            return original.encode_batch_fast(texts, **options)

    original = tokenizer._tokenizer
    monkeypatch.setattr(tokenizer, "_tokenizer", Counting())
    with pytest.raises(InputError, match="chunk 3 of document 0 has 31 tokens"):
        short.check_documents([["x" * 30, "é" * 15, "the" * 16, "x" * 31]])
    assert seen == ["the" * 16, "x" * 31]


@pytest.fixture(scope="module")
def miniature() -> TextTokenizer:
    return TextTokenizer(CONTEXT_V1)


@given(text=st.text(min_size=1, max_size=40), limit=st.integers(1, 60))
@settings(max_examples=300, deadline=None)
def test_the_cheap_way_finds_what_tokenising_finds(miniature: TextTokenizer, text: str, limit: int) -> None:
    tokens = len(miniature.encode([text], name=str)[0])
    assert tokens <= len(unicodedata.normalize("NFC", text).encode())
    assert bool(list(miniature.problems([text], max_tokens=limit))) == (tokens > limit)


def test_a_tokenizer_that_is_not_byte_level_is_asked(copy_of_miniature: Path) -> None:
    assert not TextTokenizer(copy_of_miniature)._bytes_bound_tokens
    encoder = PplxEncoder(copy_of_miniature)
    with pytest.raises(InputError, match="chunk 0 of document 0 has no tokens after normalisation"):
        encoder.check_documents([["   "]])


@pytest.fixture
def copy_of_miniature(replica_context_v1: Path, tmp_path: Path) -> Path:
    """A checkpoint whose tokenizer strips texts."""
    for file in replica_context_v1.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text())
    content["normalizer"] = {"type": "Strip", "strip_left": True, "strip_right": True}
    path.write_text(json.dumps(content))
    return tmp_path
