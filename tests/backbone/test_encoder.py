"""PplxEncoder: what it takes and refuses, long documents, laziness, copies."""

import asyncio
import copy
import logging
import pickle
import threading
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pplx_embed_integrations import PplxEncoder
from pplx_embed_integrations.backbone.backends import torch as loading
from pplx_embed_integrations.backbone.sequences import plan_windows
from pplx_embed_integrations.errors import (
    CheckpointError,
    EncodingError,
    InputError,
    InputTypeError,
    NotContextualError,
)

SEPARATOR = "<|endoftext|>"
ways = pytest.mark.parametrize("way", ["encode", "aencode"])
document_ways = pytest.mark.parametrize("way", ["encode_documents", "aencode_documents"])


def call(encoder: Any, way: str, *args: object, **options: object) -> Any:
    """Call a method, and wait for it where it is a coroutine."""
    result = getattr(encoder, way)(*args, **options)
    return asyncio.run(result) if asyncio.iscoroutine(result) else result


@ways
@pytest.mark.parametrize(
    ("texts", "kind", "message"),
    [
        (None, InputTypeError, "a list of strings is wanted, not NoneType"),
        ("a bare string", InputTypeError, "not a bare str; put it in a list"),
        (b"bytes", InputTypeError, "not bytes"),
        ({"a": "b"}, InputTypeError, "not dict"),
        ({"a"}, InputTypeError, "not set"),
        (7, InputTypeError, "not int"),
        (["a", None], InputTypeError, "text 1 must be a str, not NoneType"),
        (["a", 7], InputTypeError, "text 1 must be a str, not int"),
        ([["nested"]], InputTypeError, "text 0 must be a str, not list; .* encode_documents"),
        (["a", ""], InputError, "text 1 is empty"),
        (["a", "b\ud800c"], InputError, r"text 1 has a lone surrogate \(U\+D800\) at character 1, .*'replace'"),
        (["\udfff"], InputError, r"text 0 has a lone surrogate \(U\+DFFF\) at character 0"),
    ],
)
def test_bad_texts(encoder_v1: PplxEncoder, way: str, texts: object, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call(encoder_v1, way, texts)


@document_ways
@pytest.mark.parametrize(
    ("documents", "kind", "message"),
    [
        (None, InputTypeError, "a list of documents"),
        ("a bare string", InputTypeError, "a list of documents.* not a bare str"),
        (["flat", "list"], InputTypeError, "for document 0 a list of chunks is wanted, not a bare str"),
        ([["a"], None], InputTypeError, "for document 1 a list of chunks is wanted, not NoneType"),
        ([["a"], ["b", b"c"]], InputTypeError, "chunk 1 of document 1 must be a str, not bytes"),
        ([[["too deep"]]], InputTypeError, "chunk 0 of document 0 must be a str, not list"),
        ([["a"], ["b", ""]], InputError, "chunk 1 of document 1 is empty"),
        (
            [["a"], ["b", "\udc00"]],
            InputError,
            r"chunk 1 of document 1 has a lone surrogate \(U\+DC00\) at character 0",
        ),
    ],
)
def test_bad_documents(
    encoder_context_v1: PplxEncoder, way: str, documents: object, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        call(encoder_context_v1, way, documents)


@pytest.mark.parametrize("way", ["encode", "aencode", "encode_documents", "aencode_documents"])
@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"dimensions": 3}, InputError, "dimensions=3 is out of range; this model gives 4 to 32"),
        ({"dimensions": 33}, InputError, "dimensions=33 is out of range"),
        ({"dimensions": -1}, InputError, "dimensions=-1 is out of range"),
        ({"dimensions": True}, InputTypeError, "dimensions must be an integer or None, not bool"),
        ({"dimensions": 16.0}, InputTypeError, "dimensions must be an integer or None, not float"),
        ({"quantization": "int4"}, InputError, "quantization='int4' is unknown; use"),
        ({"quantization": "ubinary", "normalize": True}, InputError, "packed bits"),
    ],
)
def test_bad_options(
    encoder_context_v1: PplxEncoder, way: str, options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    for nothing_or_something in ([], [["a"]] if "documents" in way else ["a"]):
        with pytest.raises(kind, match=message):
            call(encoder_context_v1, way, nothing_or_something, **options)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"dtype": "float16"}, InputError, "overflows"),
        ({"dtype": torch.float16}, InputError, "overflows"),
        ({"dtype": "float64"}, InputError, "is unknown; use"),
        ({"max_tokens": 0}, InputError, "max_tokens=0 is out of range; it must be 1 to 32768"),
        ({"max_tokens": 32769}, InputError, "max_tokens=32769 is out of range; it must be 1 to 32768"),
        ({"max_tokens": True}, InputTypeError, "max_tokens must be an integer, not bool"),
        ({"max_tokens": 5.0}, InputTypeError, "max_tokens must be an integer, not float"),
        ({"batch_tokens": 0}, InputError, "batch_tokens=0 is out of range"),
        ({"batch_tokens": -5}, InputError, "batch_tokens=-5 is out of range"),
        ({"batch_tokens": False}, InputTypeError, "batch_tokens must be an integer, not bool"),
        ({"revision": "main"}, CheckpointError, "which has no revisions"),
    ],
)
def test_bad_settings_are_refused_at_once(
    replica_v1: Path, options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        PplxEncoder(replica_v1, **options)


@pytest.mark.parametrize("device", ["cuda:99", "mps:7", "teapot", "", "meta", "xpu", -1, 3.5])
def test_a_device_that_is_not_there(replica_v1: Path, device: Any) -> None:
    with pytest.raises(InputError, match="device="):
        PplxEncoder(replica_v1, device=device).encode(["a"])


def test_anything_with_an_order_is_taken(encoder_v1: PplxEncoder) -> None:
    texts = ["one", "two", "three"]
    expected = encoder_v1.encode(texts)
    for other in (
        tuple(texts),
        (text for text in texts),
        np.array(texts),
        dict(zip("abc", texts, strict=True)).values(),
    ):
        np.testing.assert_array_equal(encoder_v1.encode(other), expected)  # type: ignore[arg-type]


def test_chunks_in_context_need_a_contextual_checkpoint(encoder_v1: PplxEncoder) -> None:
    for documents in ([["a", "b"]], [], None):
        with pytest.raises(NotContextualError, match=r'use a contextual checkpoint such as "context-v1-0.6b"'):
            encoder_v1.encode_documents(documents)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        " ",
        "\n\n\t",
        "\x00",
        "a\x00b",
        "\ufeff",
        "\u200b",
        "🧑‍🚀👩‍👩‍👧‍👦",
        "漢字かな交じり文",
        "שלום עולם مرحبا",
        "e\u0301",
        "\U0010ffff",
        "a" * 3000,
    ],
)
def test_any_text_is_embedded_as_it_is(encoder_v1: PplxEncoder, text: str) -> None:
    vector = encoder_v1.encode([text], quantization=None)[0]
    assert np.isfinite(vector).all()
    beside = encoder_v1.encode([text + "x", text], quantization=None)
    np.testing.assert_allclose(beside[1], vector, atol=2e-5)
    assert np.abs(beside[0] - vector).max() > 1e-4


def test_white_space_counts_and_is_not_stripped(encoder_v1: PplxEncoder) -> None:
    vectors = encoder_v1.encode(["a b", " a b", "a b\n", "a  b"], quantization=None)
    gaps = [np.abs(left - right).max() for i, left in enumerate(vectors) for right in vectors[:i]]
    assert min(gaps) > 1e-3


def test_both_normal_forms_of_a_text_are_one(encoder_v1: PplxEncoder) -> None:
    text = "Ångström, café, ﬁ"
    forms = [unicodedata.normalize(form, text) for form in ("NFC", "NFD")]
    assert forms[0] != forms[1]
    composed, decomposed = encoder_v1.encode(forms)
    np.testing.assert_array_equal(composed, decomposed)  # the tokenizer's own normalisation


def test_a_text_that_spells_the_separator_is_plain_text(encoder_context_v1: PplxEncoder) -> None:
    chunks = [f"first {SEPARATOR} still first", f"{SEPARATOR}{SEPARATOR}", "last"]
    [matrix] = encoder_context_v1.encode_documents([chunks], quantization=None)
    assert matrix.shape == (3, 32)
    loaded = encoder_context_v1.load()._loaded
    assert loaded is not None
    [sequence] = next(loaded.tokenizer.document_slices(encoder_context_v1._limits, [chunks]))
    assert (sequence.ids == loaded.tokenizer.separator).sum() == 2  # the real ones
    [forged] = encoder_context_v1.encode_documents([[f"first{SEPARATOR}second"]], quantization=None)
    [true] = encoder_context_v1.encode_documents([["first", "second"]], quantization=None)
    assert len(forged) == 1
    assert np.abs(forged[0] - true.mean(0)).max() > 1e-2
    for special in ("<|im_start|>", "<|im_end|>"):
        assert encoder_context_v1.count_tokens([special])[0] > 1


def test_a_megabyte_is_refused_with_its_tokens_or_cut(replica_v1: Path) -> None:
    text = "late chunking " * 75_000
    encoder = PplxEncoder(replica_v1, dtype="float32", max_tokens=64)
    [tokens] = encoder.count_tokens([text])
    with pytest.raises(
        InputError, match=rf"text 1 has {tokens} tokens and the limit is 64; split it, or pass truncate"
    ):
        encoder.encode(["fits", text])
    with pytest.raises(InputError, match="tokens and the limit is 32768"):
        PplxEncoder(replica_v1).encode([text])
    cut = PplxEncoder(replica_v1, dtype="float32", max_tokens=64, truncate=True)
    short = text[: text.index("late", 300)]
    assert cut.count_tokens([short])[0] > 64
    np.testing.assert_array_equal(cut.encode([text]), cut.encode([short]))


def test_a_chunk_that_is_too_long_is_named(replica_context_v1: Path) -> None:
    encoder = PplxEncoder(replica_context_v1, dtype="float32", max_tokens=20)
    with pytest.raises(InputError, match=r"chunk 1 of document 2 has \d+ tokens and the limit is 20"):
        encoder.encode_documents([["a"], [], ["b", "word " * 30]])


@pytest.mark.parametrize("budget", [1, 3, 10**12])
def test_a_budget_smaller_than_one_text_works(replica_v1: Path, encoder_v1: PplxEncoder, budget: int) -> None:
    texts = ["a", "a much longer text than the budget", "b"]
    got = PplxEncoder(replica_v1, dtype="float32", batch_tokens=budget).encode(texts, quantization=None)
    np.testing.assert_allclose(got, encoder_v1.encode(texts, quantization=None), atol=2e-5)


def test_a_long_document_is_read_in_windows(
    replica_context_v1: Path, encoder_context_v1: PplxEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    chunks = [f"Paragraph {i} tells of number {i * i}. " * (1 + i % 4) for i in range(40)]
    encoder = PplxEncoder(replica_context_v1, dtype="float32", max_tokens=150)
    with caplog.at_level(logging.INFO, logger="pplx_embed_integrations"):
        short, matrix = encoder.encode_documents([["short"], chunks], quantization=None)
    windows = plan_windows(encoder.count_tokens(chunks), max_tokens=150)
    assert len(windows) > 5
    assert f"document 1 is longer than 150 tokens and is read in {len(windows)} overlapping windows" in caplog.text
    assert "document 0" not in caplog.text
    assert "Paragraph" not in caplog.text
    assert (len(short), len(matrix)) == (1, 40)
    for window in windows:
        [alone] = encoder_context_v1.encode_documents([chunks[window.start : window.end]], quantization=None)
        for chunk in window.owned:
            np.testing.assert_allclose(matrix[chunk], alone[chunk - window.start], atol=2e-5)


def test_a_document_at_the_limit_is_read_whole(replica_context_v1: Path, caplog: pytest.LogCaptureFixture) -> None:
    chunks = ["one two three", "four five", "six"]
    exact = sum(PplxEncoder(replica_context_v1).count_tokens(chunks)) + 2
    with caplog.at_level(logging.INFO, logger="pplx_embed_integrations"):
        PplxEncoder(replica_context_v1, max_tokens=exact).encode_documents([chunks])
        assert "windows" not in caplog.text
        PplxEncoder(replica_context_v1, max_tokens=exact - 1).encode_documents([chunks])
        assert "windows" in caplog.text


def test_weights_that_give_no_number_are_an_error_naming_the_input(replica_v1: Path) -> None:
    encoder = PplxEncoder(replica_v1, dtype="float32", batch_tokens=1).load()
    loaded = encoder._loaded
    assert loaded is not None
    run = loaded.scheduler._run
    loaded.scheduler._run = lambda batch: run(batch) * (np.nan if 2 in batch[0].rows else 1.0)
    for form in ("int8", "binary", "ubinary", None):
        with pytest.raises(EncodingError, match="NaN or infinite values for vector 2;"):
            encoder.encode(["a", "b", "c", "d"], quantization=form)  # type: ignore[arg-type]
    assert encoder.encode(["a", "b"]).shape == (2, 32)


def test_settings_are_shown_and_secrets_are_not(replica_v1: Path) -> None:
    encoder = PplxEncoder(replica_v1, token="hf_secret", dtype="bfloat16")
    assert repr(encoder) == "PplxEncoder('replica-v1', device=None, dtype='bfloat16')"


def test_copies_carry_the_settings_and_not_the_weights(replica_context_v1: Path) -> None:
    encoder = PplxEncoder(replica_context_v1, dtype="float32", max_tokens=99, batch_tokens=33, truncate=True).load()
    pickled = pickle.dumps(encoder)
    assert len(pickled) < 2000
    expected = encoder.encode_documents([["a", "b"]])[0]
    for other in (pickle.loads(pickled), copy.deepcopy(encoder), copy.copy(encoder)):
        assert other._loaded is None
        assert (other.max_tokens, other.batch_tokens, other.truncate) == (99, 33, True)
        assert other.checkpoint == encoder.checkpoint
        np.testing.assert_array_equal(other.encode_documents([["a", "b"]])[0], expected)


def test_a_relative_folder_means_the_same_after_a_change_of_directory(
    replica_v1: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(replica_v1.parent)
    encoder = PplxEncoder("replica-v1")
    monkeypatch.chdir(tmp_path)
    assert encoder.encode(["a"]).shape == (1, 32)


def test_racing_threads_load_once(
    replica_v1: Path, copy_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = []
    load_network: Callable[..., Any] = loading.load_network

    def counted(*args: Any, **options: Any) -> Any:
        loads.append(threading.get_ident())
        return load_network(*args, **options)

    monkeypatch.setattr(loading, "load_network", counted)
    encoder = PplxEncoder(copy_of(replica_v1), dtype="float32")
    assert encoder.dimension == 32
    assert not loads
    barrier = threading.Barrier(16)
    results: list[np.ndarray] = []

    def work() -> None:
        barrier.wait()
        results.append(encoder.encode(["a text"]))

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1
    assert len(results) == 16
    assert all((result == results[0]).all() for result in results)


def test_a_failed_load_can_be_tried_again(copy_of: Callable[..., Path], replica_v1: Path) -> None:
    folder = copy_of(replica_v1, without=("tokenizer.json",))
    encoder = PplxEncoder(folder)
    with pytest.raises(CheckpointError, match=r"has no tokenizer\.json"):
        encoder.encode(["a"])
    (folder / "tokenizer.json").write_bytes((replica_v1 / "tokenizer.json").read_bytes())
    assert encoder.encode(["a"]).shape == (1, 32)


def test_progress_counts_every_token(encoder_context_v1: PplxEncoder, capsys: pytest.CaptureFixture[str]) -> None:
    encoder_context_v1.encode(["a", "b"])
    assert capsys.readouterr() == ("", "")
    encoder_context_v1.encode_documents([["one two", "three"]], show_progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "100%" in shown.err


def test_no_global_setting_of_torch_is_left_changed(replica_v1: Path) -> None:
    before = (
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.get_float32_matmul_precision(),
    )
    PplxEncoder(replica_v1, dtype="bfloat16").encode(["a"])
    after = (
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.get_float32_matmul_precision(),
    )
    assert after == before
