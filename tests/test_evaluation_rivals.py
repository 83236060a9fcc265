"""What models are compared with: BM25 and LangChain's `Embeddings`, named on the command line."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import numpy as np
import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings

from pplx_embed_integrations import EncodingError, FakeEmbedder, InputError, MissingDependencyError, PplxBiEncoder
from pplx_embed_integrations.cli import main
from pplx_embed_integrations.evaluation import BM25Searcher, Collection, LangChainSearcher, evaluate, named

QUERIES = ["moon and tides", "the", "anchors"]
CHUNKS = ["The moon makes tides.", "A moon of Mars.", "Ships sail."]


class Lengths(Embeddings):
    """Vectors made of a text's length, and of whatever a test asks for."""

    model_name = "someone/lengths"

    def __init__(self, more: list[float] | None = None, api_key: str = "", broken: str = "") -> None:
        self.more, self.broken = more or [1.0], broken
        if api_key.startswith("bad"):
            raise ValueError(f"the key {api_key} is not valid")

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        if self.broken:
            raise RuntimeError(self.broken)
        return [[float(len(text)), *self.more] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return [float(len(text)), 1.0]


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    made = ModuleType("of_the_user")
    made.Lengths = Lengths  # type: ignore[attr-defined]
    made.Other = object  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "of_the_user", made)
    return made


def test_bm25_finds_what_shares_a_word_and_nothing_else() -> None:
    searcher = BM25Searcher(QUERIES, CHUNKS)
    found = np.isfinite(searcher.scores(slice(None)))
    assert found.tolist() == [[True, True, False], [False, False, False], [False, False, False]]
    first = searcher.scores(slice(0, 1))[0]
    assert first[0] > first[1]


def test_without_bm25s_nothing_is_embedded_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bm25s", None)
    collection = Collection({"d": "text"}, {"q": "query"}, {"q": {"d": 1}})
    monkeypatch.setattr(FakeEmbedder, "encode_documents", None)  # a call would be another error
    with pytest.raises(MissingDependencyError, match="bm25s is not installed"):
        evaluate(collection, embedder=PplxBiEncoder(FakeEmbedder()), split=lambda text: [(0, len(text))])


def test_embeddings_are_compared_by_cosine() -> None:
    fake = DeterministicFakeEmbedding(size=16)
    searcher = LangChainSearcher(fake, QUERIES, CHUNKS)
    left, right = np.array([fake.embed_query(each) for each in QUERIES]), np.array(fake.embed_documents(CHUNKS))
    expected = left @ right.T / np.outer(np.linalg.norm(left, axis=1), np.linalg.norm(right, axis=1))
    np.testing.assert_allclose(searcher.scores(slice(None)), expected, rtol=1e-5)
    np.testing.assert_allclose(searcher.scores(slice(1, 3)), expected[1:3], rtol=1e-5)
    assert (searcher.row.dimensions, searcher.row.bytes_per_vector, searcher.row.form) == (16, 64, "float32")
    assert searcher.latency_ms() > 0


@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        (Lengths(broken="no quota"), InputError, "Lengths lengths failed on chunks: RuntimeError: no quota"),
        (Lengths([float("nan")]), EncodingError, "a vector with NaN or infinite values"),
        (Lengths([1.0, 2.0]), EncodingError, "2 numbers for a query and 3 for a chunk"),
    ],
)
def test_what_gives_no_vectors_is_told(given: Lengths, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        LangChainSearcher(given, QUERIES, CHUNKS)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("of_the_user", "names no class; wanted is module:Class"),
        ("of_the_user.Lengths", "names no class"),
        ("of_the_user:Lengths(open('secret'))", "the arguments of of_the_user:Lengths cannot be read"),
        ("of_the_user:Lengths(api_key=__import__('os'))", "cannot be read"),
        ("of_the_user:Lengths(**{'a': 1})", "cannot be read"),
        ("of_the_user:Lengths('secret')", "cannot be read"),
        ("of_the_user:Nothing", "of_the_user has no class Nothing"),
        ("of_the_user:Other", "it has no embed_documents, embed_query"),
        ("of_the_user:Lengths(api_key='bad-secret')", "of_the_user:Lengths refuses: the key … is not valid"),
        ("not_there_at_all:X", "type: pip install not-there-at-all"),
        ("langchain_core.not_there:X", "langchain_core has no module langchain_core.not_there"),
        ("langchain_core.embeddings:DeterministicFakeEmbedding(sizes='secret')", "refuses: size: Field required"),
    ],
)
def test_a_class_that_cannot_be_had_is_told_without_its_arguments(module: ModuleType, text: str, told: str) -> None:
    with pytest.raises(InputError) as error:
        named.parse(text).make(wanted=("embed_documents", "embed_query"))
    assert told in str(error.value)
    assert "secret" not in str(error.value)


def test_arguments_are_literals() -> None:
    parsed = named.parse("a.b:C(text='x (y)', number=-1.5, parts=[1, 2], more={'k': None})")
    assert parsed.arguments == {"text": "x (y)", "number": -1.5, "parts": [1, 2], "more": {"k": None}}
    assert "x (y)" not in repr(parsed)


def test_command_takes_several_and_refuses_a_mistake_before_it_measures(
    module: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], replica_v1: Path
) -> None:
    (tmp_path / "documents.jsonl").write_text(
        "".join(json.dumps({"chunk_id": f"d_{place}", "chunk": chunk}) + "\n" for place, chunk in enumerate(CHUNKS))
    )
    (tmp_path / "queries.jsonl").write_text(json.dumps({"query": QUERIES[0], "chunk_id": "d_0"}) + "\n")
    command: list[Any] = ["evaluate", str(tmp_path), "--model", str(replica_v1)]
    lengths = ["--against", "of_the_user:Lengths(api_key='a-secret')"]
    assert main([*command, *lengths, *lengths, "--json", str(tmp_path / "all.json")]) == 0
    output = capsys.readouterr().out
    assert "chunks as they come" in output
    assert "Lengths lengths (1)" in output
    assert "Lengths lengths (2)" in output
    written = (tmp_path / "all.json").read_text()
    labels = [row["label"] for row in json.loads(written)["measurements"]]
    assert labels[-3:] == ["BM25", "Lengths lengths (1)", "Lengths lengths (2)"]
    assert "secret" not in written
    assert json.loads(written)["settings"]["command"].endswith("--against 'of_the_user:Lengths(…)'")
    assert main([*command, "--against", "of_the_user:Other"]) == 2
    assert main([*command, "--chunk-tokens", "64"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "it has no embed_documents" in captured.err
    assert "--chunk-tokens 64:" in captured.err


def test_what_an_interruption_leaves_says_so(
    module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replica_v1: Path
) -> None:
    (tmp_path / "documents.jsonl").write_text(json.dumps({"chunk_id": "d_0", "chunk": CHUNKS[0]}) + "\n")
    (tmp_path / "queries.jsonl").write_text(json.dumps({"query": QUERIES[0], "chunk_id": "d_0"}) + "\n")

    def stopped(*_: Any) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(module.Lengths, "embed_documents", stopped)
    command = ["evaluate", str(tmp_path), "--model", str(replica_v1), "--against", "of_the_user:Lengths"]
    files = {name: tmp_path / f"all.{name}" for name in ("json", "html")}
    assert main([*command, "--json", str(files["json"]), "--report", str(files["html"])]) == 130
    written = json.loads(files["json"].read_text())
    assert written["measurements"][-1]["label"] == "BM25"
    assert written["notes"][-1] in files["html"].read_text()
    assert "stopped" in written["notes"][-1]
