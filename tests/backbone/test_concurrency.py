"""One encoder under many threads and tasks: the same vectors, shared passes, a free event loop."""

import asyncio
import io
import logging
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pplx_embed_integrations import PplxBiEncoder, PplxEncoder
from pplx_embed_integrations.backbone import progress
from pplx_embed_integrations.backbone.backends.base import Pooled
from pplx_embed_integrations.backbone.sequences import TokenSequence
from pplx_embed_integrations.backbone.tokenizer import TextTokenizer
from pplx_embed_integrations.backbone.weights import Weights
from pplx_embed_integrations.errors import EncodingError, InputError

SAME = 2e-5


@contextmanager
def watched(encoder: PplxEncoder, *, seconds: float = 0.0, breaks_at: int = 10**9) -> Iterator[list[int]]:
    """Count the sequences of each forward pass; make each take a while, and run out of memory beyond some tokens."""
    loaded = encoder.load()._loaded
    assert loaded is not None
    run, sizes = loaded.scheduler._run, list[int]()

    def counted(batch: list[TokenSequence]) -> Pooled:
        sizes.append(len(batch))
        time.sleep(seconds)
        if sum(len(each.ids) for each in batch) > breaks_at:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(batch)

    loaded.scheduler._run = counted
    try:
        yield sizes
    finally:
        loaded.scheduler._run = run


def test_32_threads(replica_v1: Path) -> None:
    encoder = PplxEncoder(replica_v1, dtype="float32")
    calls = [[f"text {i} " * (1 + (i * j) % 9) for j in range(i % 5 + 1)] for i in range(160)]
    expected = [encoder.encode(texts, quantization=None) for texts in calls]
    barrier = threading.Barrier(32)

    def work(first: int) -> list[np.ndarray]:
        barrier.wait()
        return [encoder.encode(calls[i], quantization=None) for i in range(first, len(calls), 32)]

    with watched(encoder, seconds=0.001) as sizes, ThreadPoolExecutor(32) as pool:
        for first, matrices in enumerate(pool.map(work, range(32))):
            for matrix, i in zip(matrices, range(first, len(calls), 32), strict=True):
                np.testing.assert_allclose(matrix, expected[i], atol=SAME)
    assert len(sizes) < len(calls) / 2  # gathered


def test_threads_with_texts_and_documents_on_one_checkpoint(replica_context_v1: Path) -> None:
    encoder = PplxEncoder(replica_context_v1, dtype="float32", batch_tokens=60)
    document, texts = [f"chunk {i}" for i in range(9)], [f"text {i}" for i in range(9)]
    [chunks], plain = encoder.encode_documents([document], quantization=None), encoder.encode(texts, quantization=None)

    def work(i: int) -> None:
        if i % 2:
            np.testing.assert_allclose(encoder.encode_documents([document], quantization=None)[0], chunks, atol=SAME)
        else:
            np.testing.assert_allclose(encoder.encode(texts, quantization=None), plain, atol=SAME)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(40)))


@contextmanager
def who_works(encoder: PplxEncoder) -> Iterator[dict[str, set[int]]]:
    """Note the threads that load, tokenise and compute for an encoder."""
    did: dict[str, set[int]] = {"load": set(), "tokenise": set(), "compute": set()}
    load, encode = PplxEncoder._load, TextTokenizer.encode

    def loading(self: PplxEncoder) -> Weights:
        if self._loaded is None:
            did["load"].add(threading.get_ident())
        loaded = load(self)
        if not isinstance(loaded.scheduler._run, _Noting):
            loaded.scheduler._run = _Noting(loaded.scheduler._run, did["compute"])
        return loaded

    def tokenising(self: TextTokenizer, *given: Any, **options: Any) -> list[list[int]]:
        did["tokenise"].add(threading.get_ident())
        return encode(self, *given, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PplxEncoder, "_load", loading)
        patch.setattr(TextTokenizer, "encode", tokenising)
        yield did


class _Noting:
    """Computes a batch and notes in which thread."""

    def __init__(self, run: Any, threads: set[int]) -> None:
        self.run, self.threads = run, threads

    def __call__(self, batch: list[TokenSequence]) -> Pooled:
        self.threads.add(threading.get_ident())
        pooled: Pooled = self.run(batch)
        return pooled


async def test_200_concurrent_queries(biencoder: PplxBiEncoder) -> None:
    queries = [f"question {i} " * (1 + i % 7) for i in range(200)]
    expected = biencoder.embed_queries(queries)
    with watched(biencoder.query, seconds=0.01) as sizes:
        got = await asyncio.gather(*(biencoder.aembed_query(query) for query in queries))
    np.testing.assert_allclose(got, expected, atol=0.02)  # a code at a rounding border may be one off
    assert len(sizes) < 60
    assert sum(sizes) == 200


@pytest.mark.parametrize("count", [1, 5000])
async def test_the_event_loops_thread_neither_loads_nor_tokenises_nor_computes(count: int, replica_v1: Path) -> None:
    encoder = PplxEncoder(replica_v1, device="cpu", batch_tokens=1000)
    with who_works(encoder) as did:
        matrix = await encoder.aencode([f"text {i}" for i in range(count)])
    assert matrix.shape == (count, 32)
    assert all(did.values())
    assert threading.get_ident() not in set().union(*did.values())


async def test_the_event_loop_turns_while_a_batch_is_computed(encoder_v1: PplxEncoder) -> None:
    loaded = encoder_v1.load()._loaded
    assert loaded is not None
    run, turned = loaded.scheduler._run, threading.Event()

    def until_the_loop_turns(batch: list[TokenSequence]) -> Pooled:
        assert turned.wait(60)
        return run(batch)

    loaded.scheduler._run = until_the_loop_turns
    try:
        task = asyncio.create_task(encoder_v1.aencode(["a text"]))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not task.done()
        turned.set()
        assert (await task).shape == (1, 32)
    finally:
        loaded.scheduler._run = run


def test_a_query_overtakes_a_corpus(replica_v1: Path) -> None:
    encoder = PplxEncoder(replica_v1, dtype="float32", batch_tokens=50)
    with watched(encoder, seconds=0.02) as sizes, ThreadPoolExecutor(1) as pool:
        corpus = pool.submit(encoder.encode, [f"a text of the corpus, number {i}" for i in range(300)])
        while len(sizes) < 3:
            time.sleep(0.005)
        before = len(sizes)
        for i in range(5):
            encoder.encode([f"query {i}"])
        assert len(sizes) - before <= 20  # each waited for a batch or two
        assert not corpus.done()
        assert corpus.result().shape == (300, 32)
        assert len(sizes) > 50


async def test_a_task_query_overtakes_a_task_corpus(replica_v1: Path) -> None:
    encoder = PplxEncoder(replica_v1, dtype="float32", batch_tokens=50)
    with watched(encoder, seconds=0.02) as sizes:
        corpus = asyncio.create_task(encoder.aencode([f"a text of the corpus, number {i}" for i in range(200)]))
        while len(sizes) < 3:
            await asyncio.sleep(0.005)
        before = len(sizes)
        await encoder.aencode(["query"])
        assert len(sizes) - before <= 5
        assert not corpus.done()
        corpus.cancel()
        with pytest.raises(asyncio.CancelledError):
            await corpus
        stopped_at = len(sizes)
        await encoder.aencode(["another"])
        assert len(sizes) <= stopped_at + 3


async def test_one_callers_error_is_no_other_callers(encoder_v1: PplxEncoder) -> None:
    calls = [encoder_v1.aencode([f"text {i}"] if i % 10 else ["bad \ud800"]) for i in range(50)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    for i, result in enumerate(results):
        if i % 10:
            assert isinstance(result, np.ndarray)
        else:
            assert isinstance(result, InputError)


def test_memory_that_runs_out_costs_no_vector(replica_v1: Path, caplog: pytest.LogCaptureFixture) -> None:
    encoder = PplxEncoder(replica_v1, dtype="float32", batch_tokens=400)
    texts = [f"text {i} " * (1 + i % 5) for i in range(100)]
    expected = encoder.encode(texts, quantization=None)
    with watched(encoder, breaks_at=60):
        np.testing.assert_allclose(encoder.encode(texts, quantization=None), expected, atol=SAME)
    assert caplog.text.count("the device ran out of memory; going on with") == 3


def test_the_callers_arithmetic_context_does_not_reach_the_model(encoder_v1: PplxEncoder) -> None:
    expected = encoder_v1.encode(["a text"], quantization=None)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.device("meta"):
        np.testing.assert_allclose(encoder_v1.encode(["a text"], quantization=None), expected, atol=SAME)
    with torch.enable_grad():
        assert not encoder_v1.encode(["a text"]).dtype.hasobject


@pytest.fixture
def sliced(replica_context_v1: Path) -> PplxEncoder:
    """An encoder that tokenises a few texts at a time."""
    encoder = PplxEncoder(replica_context_v1, dtype="float32", batch_tokens=50, max_tokens=60).load()
    encoder._limits = replace(encoder._limits, characters=100)
    return encoder


def test_slices_change_no_vector(sliced: PplxEncoder, encoder_context_v1: PplxEncoder) -> None:
    texts = [f"text {i} " * (1 + i % 9) for i in range(100)]
    expected = encoder_context_v1.encode(texts, quantization=None)
    np.testing.assert_allclose(sliced.encode(texts, quantization=None), expected, atol=SAME)
    documents = [[f"chunk {j} of {i}" for j in range(i % 4)] for i in range(50)]
    for got, right in zip(
        asyncio.run(sliced.aencode_documents(documents, quantization=None)),
        encoder_context_v1.encode_documents(documents, quantization=None),
        strict=True,
    ):
        np.testing.assert_allclose(got, right, atol=SAME)


def test_an_error_in_a_late_slice_names_its_text(sliced: PplxEncoder) -> None:
    texts = [f"text {i}" for i in range(300)]
    with pytest.raises(InputError, match="text 300 has a lone surrogate"):
        sliced.encode([*texts, "bad \ud800", *texts])
    with pytest.raises(InputError, match=r"text 300 has \d+ tokens and the limit is 60"):
        asyncio.run(sliced.aencode([*texts, "long " * 100, *texts]))
    with pytest.raises(InputError, match=r"chunk 1 of document 301 has \d+ tokens and the limit is 60"):
        sliced.encode_documents([[], *([text] for text in texts), ["a", "long " * 100]])
    assert sliced._loaded is not None
    assert not sliced._loaded.scheduler._jobs
    assert sliced.encode(["again"]).shape == (1, 32)


def test_a_long_document_in_a_late_slice_is_named(sliced: PplxEncoder, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="pplx_embed_integrations"):
        sliced.encode_documents([*([f"text {i}"] for i in range(80)), [f"chunk {i}" for i in range(40)]])
    assert "document 80 is longer than 60 tokens" in caplog.text


class Bar(progress.tqdm):  # type: ignore[misc,type-arg]
    """A bar that remembers what it said."""

    made: list["Bar"]

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, file=io.StringIO())
        self.said: list[tuple[float, float]] = []
        self.made.append(self)

    def update(self, n: float | None = 1) -> bool | None:
        shown = super().update(n)
        assert self.total is not None
        self.said.append((self.n, self.total))
        return shown


@pytest.mark.parametrize("asynchronous", [False, True])
def test_progress_counts_tokens(asynchronous: bool, sliced: PplxEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bar, "made", [], raising=False)
    monkeypatch.setattr(progress, "tqdm", Bar)
    texts = [f"text {i} " * (1 + i % 9) for i in range(200)]
    tokens = sum(sliced.count_tokens(texts))
    if asynchronous:
        asyncio.run(sliced.aencode(texts, show_progress=True))
    else:
        sliced.encode(texts, show_progress=True)
    [bar] = Bar.made
    assert bar.said[-1] == (tokens, tokens)
    # While the last texts wait for the tokenizer the total is an estimate, near what it becomes.
    assert all(done <= total and tokens / 4 < total < tokens * 4 for done, total in bar.said)
    assert bar.format_dict["rate"] is None or bar.format_dict["rate"] > 0
    assert bar.disable or bar.last_print_n == tokens
    sliced.encode(texts)
    assert len(Bar.made) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_is_told_why_it_cannot_go_on(encoder_v1: PplxEncoder) -> None:
    encoder_v1.encode(["loaded before the fork"])
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            encoder_v1.encode(["in the child"])
        except EncodingError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as told:
        assert b'multiprocessing.get_context("spawn")' in told.read()
    assert encoder_v1.encode(["the parent goes on"]).shape == (1, 32)
