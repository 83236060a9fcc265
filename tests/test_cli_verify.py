"""`pplx-embed verify`: the comparison, and what is told when there is nothing to compare."""

import base64
import importlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub.utils._http import default_client_factory

from pplx_embed_integrations import PplxEncoder
from pplx_embed_integrations.cli import main, verify


def array(stored: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(stored["base64"]), stored["dtype"]).reshape(stored["shape"])


def as_reference(golden: dict[str, Any]) -> dict[str, Any]:
    """What the published algorithm gives on the replica, written the way the real weights' figures are."""
    borders = np.cumsum([len(chunks) for chunks in golden["inputs"]])[:-1]
    pooled, codes = (np.split(array(golden[name]), borders) for name in ("pooled", "int8"))
    documents = [
        {
            "name": f"document {number}",
            "chunks": chunks,
            "input_ids": ids,
            "pooled_first16_hex": [row[:16].tobytes().hex() for row in floats],
            "int8_first32": rows[:, :32].tolist(),
        }
        for number, (chunks, ids, floats, rows) in enumerate(
            zip(golden["inputs"], golden["input_ids"], pooled, codes, strict=True)
        )
    ]
    return {"documents": documents}


@pytest.fixture
def figures(golden: Path) -> dict[str, Any]:
    return as_reference(json.loads((golden / "expected-context-v1.json").read_text(encoding="utf-8")))


def test_what_the_published_algorithm_gives_passes(encoder_context_v1: PplxEncoder, figures: dict[str, Any]) -> None:
    checks = list(verify.check_documents(encoder_context_v1, figures))
    assert len(checks) == 3 * len(figures["documents"])
    assert {check.passed for check in checks} == {True}


def test_each_kind_of_difference_fails_alone(encoder_context_v1: PplxEncoder, figures: dict[str, Any]) -> None:
    document = figures["documents"][0]
    document["input_ids"][3] += 1
    document["int8_first32"][1][5] += 3
    other = figures["documents"][1]
    floats = np.frombuffer(bytes.fromhex(other["pooled_first16_hex"][0]), "<f4").copy()
    floats[2] += 0.01
    other["pooled_first16_hex"][0] = floats.tobytes().hex()
    checks = list(verify.check_documents(encoder_context_v1, figures))
    failed = [(check.subject, check.figure) for check in checks if not check.passed]
    assert failed == [("document 0", "token ids"), ("document 0", "int8 codes"), ("document 1", "pooled floats")]


def test_a_document_with_an_empty_chunk_is_not_compared(encoder_context_v1: PplxEncoder) -> None:
    [check] = verify.check_documents(encoder_context_v1, {"documents": [{"name": "gap", "chunks": ["a", ""]}]})
    assert check.passed is None
    assert "empty chunk" in check.difference


def test_cosines_are_compared_with_a_relative_tolerance(encoder_v1: PplxEncoder) -> None:
    texts = ["Which planet is red?", "Mars is.", "Venus is not."]
    codes = encoder_v1.encode(texts).astype(float)
    unit = codes / np.linalg.norm(codes, axis=1, keepdims=True)
    right, off = (float(unit[0] @ unit[1]), float(unit[0] @ unit[2]) * 1.02)
    figures = {"query": texts[0], "documents": texts[1:], "cosines": [right, off]}
    assert [check.passed for check in verify.check_pairs(encoder_v1, figures)] == [True, False]


@pytest.fixture
def known_replica(monkeypatch: pytest.MonkeyPatch, replica_context_v1: Path, figures: dict[str, Any]) -> dict[str, Any]:
    """Lets the replica stand for a published checkpoint with figures."""
    monkeypatch.setattr(verify, "_figures", lambda name: {**figures, "source": "the replica"})
    return figures


def test_command_prints_a_table_and_passes(
    known_replica: dict[str, Any], replica_context_v1: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(replica_context_v1)]) == 0
    output = capsys.readouterr().out
    assert output.count("pass\n") == 3 * len(known_replica["documents"])
    assert f"All {3 * len(known_replica['documents'])} figures agree.\nSource of the figures: the replica\n" in output


def test_command_fails_with_one(
    known_replica: dict[str, Any], replica_context_v1: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known_replica["documents"][0]["input_ids"][0] += 1
    assert main(["verify", str(replica_context_v1)]) == 1
    output = capsys.readouterr().out
    assert output.count("FAIL\n") == 1
    assert "1 of " in output


def test_the_hub_out_of_reach_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "v1-0.6b"]) == 2
    error = capsys.readouterr().err
    assert "neither in the local cache nor can the hub be reached" in error
    assert error.endswith("pplx-embed verify v1-0.6b --folder PATH\n")
    assert "Traceback" not in error


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[Any, Any], Any]], None]]:
    """Puts a function in the place of the hub: it gets the HTTP library and a request."""
    http = importlib.import_module(type(huggingface_hub.get_session()).__module__.split(".")[0])

    def answer(handler: Callable[[Any, Any], Any]) -> None:
        transport = http.MockTransport(lambda request: handler(http, request))
        huggingface_hub.set_client_factory(lambda: http.Client(transport=transport))

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    yield answer
    huggingface_hub.set_client_factory(default_client_factory)


def refuse(http: Any, request: Any) -> Any:
    raise http.ConnectError("connection refused", request=request)


def no_such(code: str) -> Callable[[Any, Any], Any]:
    return lambda http, request: http.Response(404, headers={"X-Error-Code": code}, request=request)


@pytest.mark.parametrize(
    ("handler", "told"),
    [
        (refuse, "neither in the local cache nor can the hub be reached"),
        (no_such("RepoNotFound"), "the hub does not give out perplexity-ai/pplx-embed-v1-0.6b"),
        (no_such("RevisionNotFound"), "there is no perplexity-ai/pplx-embed-v1-0.6b at revision 2c4d510"),
    ],
)
def test_what_the_hub_answers_is_told(
    wire: Any, handler: Callable[[Any, Any], Any], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    wire(handler)
    assert main(["verify", "v1-0.6b"]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["v1-4b"], "there are no published figures for v1-4b; there are for v1-0.6b and context-v1-0.6b"),
        (["v2"], "there is no checkpoint or folder 'v2'"),
        (["v1-0.6b", "--folder", "nowhere"], "there is no checkpoint or folder 'nowhere'"),
        (["v1-0.6b", "--folder", "tests/golden/replica-v1"], "is no copy of v1-0.6b"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", *arguments]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("name", ["v1-0.6b", "context-v1-0.6b"])
def test_figures_name_their_checkpoint_and_source(name: str) -> None:
    figures = verify._figures(name)
    assert figures["model_id"].endswith(name)
    assert verify._source(figures)


def test_published_figures_hold_together() -> None:
    """The codes follow from the floats, so the file was not damaged on its way here."""
    figures = verify._figures("context-v1-0.6b")
    for document in figures["documents"]:
        if all(document["chunks"]):
            assert document["input_ids"].count(figures["separator_id"]) == len(document["chunks"]) - 1
        for row, codes in zip(document["pooled_first16_hex"], document["int8_first32"], strict=True):
            floats = np.frombuffer(bytes.fromhex(row), "<f4")
            np.testing.assert_array_equal(np.round(np.tanh(floats) * 127).astype(int), codes[:16])
