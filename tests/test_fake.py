"""`FakeEmbedder` against the real encoder: the same forms and refusals, and vectors that know their document."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pplx_embed_integrations import FakeEmbedder, PplxEmbedError, PplxEncoder
from pplx_embed_integrations.vectors import cosine_similarity, pack_bits, quantize

WORDS = st.text(alphabet="abc .\n", min_size=1, max_size=20)
DOCUMENTS = st.lists(st.lists(WORDS, min_size=1, max_size=5), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def real() -> PplxEncoder:
    return PplxEncoder("miniature-context-v1", max_tokens=512)


@pytest.fixture
def fake(real: PplxEncoder) -> FakeEmbedder:
    return FakeEmbedder(real.dimension, max_tokens=512)


@pytest.mark.parametrize("quantization", ["int8", "binary", "ubinary", None])
@pytest.mark.parametrize("dimensions", [None, 48, 200])
@pytest.mark.parametrize("normalize", [False, True])
def test_forms_are_those_of_the_real_one(
    real: PplxEncoder, fake: FakeEmbedder, quantization: Any, dimensions: int | None, normalize: bool
) -> None:
    if quantization == "ubinary" and normalize:
        return
    form: dict[str, Any] = {"quantization": quantization, "dimensions": dimensions, "normalize": normalize}
    documents = [["one", "two three"], [], ["four"]]
    for embed in (lambda one: [one.encode(["a", "b"], **form)], lambda one: one.encode_documents(documents, **form)):
        shapes = [[(part.shape, part.dtype) for part in embed(one)] for one in (real, fake)]
        assert shapes[0] == shapes[1]
    assert real.encode([], **form).shape == fake.encode([], **form).shape
    full = fake.encode(["a b", "c"], quantization=None)
    expected = quantize(full, dimensions=dimensions, quantization=quantization, normalize=normalize)
    np.testing.assert_array_equal(fake.encode(["a b", "c"], **form), expected)
    if quantization == "ubinary":
        np.testing.assert_array_equal(expected, pack_bits(full[:, :dimensions]))


REFUSED: dict[str, Callable[[Any], object]] = {
    "bare string": lambda one: one.encode("text"),
    "empty text": lambda one: one.encode(["fine", ""]),
    "no string": lambda one: one.encode([3]),
    "surrogate": lambda one: one.encode(["fine", "a\ud800"]),
    "no list": lambda one: one.encode_documents(["text"]),
    "empty chunk": lambda one: one.encode_documents([["fine", ""]], names=["a.txt"]),
    "names": lambda one: one.encode_documents([["fine"]], names=[]),
    "all that is wrong": lambda one: one.check_documents([["", "fine"], ["\ud800"]], names=["a", "b"]),
    "dimensions": lambda one: one.encode(["text"], dimensions=47),
    "too wide": lambda one: one.encode(["text"], dimensions=385),
    "no integer": lambda one: one.encode(["text"], dimensions=48.0),
    "quantization": lambda one: one.encode(["text"], quantization="int4"),
    "packed and normalised": lambda one: one.encode(["text"], quantization="ubinary", normalize=True),
    "role": lambda one: one.encode(["text"], role="passage"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_refuses_in_the_words_of_the_real_one(real: PplxEncoder, fake: FakeEmbedder, case: str) -> None:
    errors = []
    for one in (real, fake):
        with pytest.raises(PplxEmbedError) as caught:
            REFUSED[case](one)
        errors.append((caught.type, str(caught.value)))
    assert errors[0] == errors[1]


def test_what_is_too_long_is_refused_by_name(fake: FakeEmbedder) -> None:
    text = "word " * 513
    with pytest.raises(PplxEmbedError, match=r"^text 1 has 514 tokens and the limit is 512; split it"):
        fake.encode(["fine", text])
    with pytest.raises(PplxEmbedError, match=r"^chunk 0 of long\.txt has 514 tokens"):
        fake.encode_documents([["fine"], [text]], names=["fine.txt", "long.txt"])


def test_documents_are_refused_where_it_is_not_contextual() -> None:
    with pytest.raises(PplxEmbedError, match=r"^FakeEmbedder\(dimension=1024, contextual=False.*single texts"):
        FakeEmbedder(contextual=False).encode_documents([["text"]])


@given(DOCUMENTS)
def test_a_vector_depends_on_its_whole_document_and_on_no_other(documents: list[list[str]]) -> None:
    fake = FakeEmbedder(64)
    before = fake.encode_documents(documents)
    for number in range(len(documents)):
        changed = [list(chunks) for chunks in documents]
        changed[number][-1] += "x"
        for other, (old, new) in enumerate(zip(before, fake.encode_documents(changed), strict=True)):
            assert bool((old != new).any(axis=1).all()) == (other == number)


@given(st.lists(WORDS, min_size=1, max_size=4))
def test_a_text_is_a_document_of_one_chunk(texts: list[str]) -> None:
    fake = FakeEmbedder(64)
    alone = fake.encode(texts, role="document", quantization=None)
    together = fake.encode_documents([[text] for text in texts], quantization=None)
    np.testing.assert_array_equal(alone, np.concatenate(together))
    np.testing.assert_array_equal(alone, asyncio.run(fake.aencode(texts, role="query", quantization=None)))


def test_order_and_place_count() -> None:
    [there, back] = FakeEmbedder().encode_documents([["a", "b"], ["b", "a"]])
    assert (there[0] != back[1]).any()
    [twice] = FakeEmbedder().encode_documents([["footer", "footer"]])
    assert (twice[0] != twice[1]).any()


def test_what_shares_words_is_nearer() -> None:
    fake = FakeEmbedder()
    chunks = np.concatenate(
        fake.encode_documents([["Mix flour and yeast.", "Bake it."], ["Repair the chain.", "Ride."]])
    )
    for query, best in (("which flour and yeast", 0), ("a broken chain of a bicycle", 2)):
        assert int(cosine_similarity(fake.encode([query]), chunks)[0].argmax()) == best


def test_pickles_and_processes_agree() -> None:
    fake = FakeEmbedder(128)
    again = pickle.loads(pickle.dumps(fake))
    assert again == fake
    assert again.identity() == fake.identity()
    others = [FakeEmbedder(256), FakeEmbedder(128, contextual=False), FakeEmbedder(128, max_tokens=9)]
    assert len({one.identity() for one in [fake, *others]}) == 4
    code = (
        "import sys; from pplx_embed_integrations import FakeEmbedder; "
        "print(FakeEmbedder(128).encode(['a b'], quantization='ubinary').tobytes().hex()); "
        "assert 'torch' not in sys.modules"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.strip() == fake.encode(["a b"], quantization="ubinary").tobytes().hex()


@pytest.mark.parametrize("wrong", [0, -1, True, 1.5, "wide"])
def test_sizes_are_checked(wrong: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="dimension"):
        FakeEmbedder(wrong)
