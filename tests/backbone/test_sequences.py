"""Batches, windows and spans, against specifications that are slow and plain."""

from itertools import chain, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pplx_embed_integrations.backbone.sequences import (
    Window,
    document_sequences,
    plan_batches,
    plan_windows,
    share_out,
)

SEPARATOR = 0
lengths = st.lists(st.integers(1, 60), max_size=40)


@given(lengths, st.integers(1, 120))
def test_batches_hold_everything_once_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = plan_batches(lengths, budget=budget)
    assert sorted(chain.from_iterable(batches)) == list(range(len(lengths)))
    for batch in batches:
        assert batch
        assert len(batch) == 1 or sum(lengths[index] for index in batch) <= budget
    in_order = [lengths[index] for index in chain.from_iterable(batches)]
    assert in_order == sorted(lengths, reverse=True)
    # No batch could have been filled from the next one's head.
    for batch, after in pairwise(batches):
        assert sum(lengths[index] for index in batch) + lengths[after[0]] > budget


def test_equal_lengths_keep_their_order() -> None:
    assert plan_batches([2, 5, 2, 5, 2], budget=7) == [[1], [3, 0], [2, 4]]
    assert plan_batches([], budget=7) == []


def naive_tokens(lengths: list[int], start: int, end: int) -> int:
    return sum(lengths[start:end]) + max(0, end - start - 1)


def naive_context(lengths: list[int], window: Window, chunk: int) -> tuple[float, float]:
    left = float("inf") if window.start == 0 else sum(length + 1 for length in lengths[window.start : chunk])
    right = (
        float("inf") if window.end == len(lengths) else sum(length + 1 for length in lengths[chunk + 1 : window.end])
    )
    return min(left, right), max(left, right)


@st.composite
def documents(draw: st.DrawFn) -> tuple[list[int], int]:
    max_tokens = draw(st.integers(1, 60))
    return draw(st.lists(st.integers(1, max_tokens), min_size=1, max_size=30)), max_tokens


@given(documents())
def test_windows_fit_and_own_every_chunk_once(document: tuple[list[int], int]) -> None:
    lengths, max_tokens = document
    windows = plan_windows(lengths, max_tokens=max_tokens)
    assert list(chain.from_iterable(window.owned for window in windows)) == list(range(len(lengths)))
    for window in windows:
        assert window.owned
        assert all(window.start <= chunk < window.end for chunk in window.owned)
        assert naive_tokens(lengths, window.start, window.end) <= max_tokens
    if naive_tokens(lengths, 0, len(lengths)) <= max_tokens:
        assert windows == [Window(0, len(lengths), tuple(range(len(lengths))))]


@given(documents())
def test_a_chunk_is_owned_where_its_poorer_side_is_richest(document: tuple[list[int], int]) -> None:
    lengths, max_tokens = document
    windows = plan_windows(lengths, max_tokens=max_tokens)
    for window in windows:
        for chunk in window.owned:
            holding = [other for other in windows if other.start <= chunk < other.end]
            best = max(naive_context(lengths, other, chunk) for other in holding)
            assert naive_context(lengths, window, chunk) == best


@given(documents())
def test_no_chunk_is_read_alone_that_fits_beside_its_neighbour(document: tuple[list[int], int]) -> None:
    lengths, max_tokens = document
    for window in plan_windows(lengths, max_tokens=max_tokens):
        for chunk in window.owned:
            first = max(chunk - 1, 0)
            if len(lengths) > 1 and naive_tokens(lengths, first, first + 2) <= max_tokens:
                assert window.end - window.start > 1


@given(st.integers(1, 8), st.integers(2, 200), st.integers(40, 400))
def test_neighbouring_windows_of_small_chunks_share_about_half(size: int, count: int, max_tokens: int) -> None:
    lengths = [size] * count
    windows = plan_windows(lengths, max_tokens=max_tokens)
    for left, right in pairwise(windows):
        shared = naive_tokens(lengths, right.start, left.end)
        assert shared >= max_tokens // 2 - size - 1
    # Half shared means about twice as many windows as without sharing, not more: each goes on by half its length.
    assert len(windows) <= 2 + naive_tokens(lengths, 0, count) / (max_tokens // 2 - size - 1)


def test_a_chunk_that_fills_the_window_stands_alone() -> None:
    assert plan_windows([10, 10, 1, 10], max_tokens=10) == [
        Window(0, 1, (0,)),
        Window(1, 2, (1,)),
        Window(2, 3, (2,)),
        Window(3, 4, (3,)),
    ]


def test_no_chunks_need_no_window() -> None:
    assert plan_windows([], max_tokens=5) == []
    assert document_sequences([], separator=SEPARATOR, max_tokens=5, first_row=0) == []


def test_planning_is_linear_enough() -> None:
    windows = plan_windows([50] * 100_000, max_tokens=32768)
    assert sum(len(window.owned) for window in windows) == 100_000


@st.composite
def chunked(draw: st.DrawFn) -> tuple[list[list[int]], int]:
    lengths, max_tokens = draw(documents())
    token = st.integers(1, 999)
    return [draw(st.lists(token, min_size=n, max_size=n)) for n in lengths], max_tokens


@given(chunked(), st.integers(0, 10**6))
def test_spans_tile_the_documents_tokens_without_overlap(document: tuple[list[list[int]], int], first_row: int) -> None:
    chunks, max_tokens = document
    sequences = document_sequences(chunks, separator=SEPARATOR, max_tokens=max_tokens, first_row=first_row)
    rows = [row for sequence in sequences for row in sequence.rows]
    assert rows == list(range(first_row, first_row + len(chunks)))
    for sequence in sequences:
        assert len(sequence.ids) <= max_tokens
        assert sequence.ids.dtype == np.int32
        assert len(sequence.rows) == len(sequence.spans)
        for row, (start, end) in zip(sequence.rows, sequence.spans, strict=True):
            assert sequence.ids[start:end].tolist() == chunks[row - first_row]
        # Between two spans of neighbours stands one separator and nothing else.
        for (_, end), (start, _) in zip(sequence.spans, sequence.spans[1:], strict=False):
            assert start == end + 1
            assert sequence.ids[end] == SEPARATOR
        assert SEPARATOR not in (sequence.ids[0], sequence.ids[-1])
    if len(sequences) == 1:
        [sequence] = sequences
        joined = list(chain.from_iterable([SEPARATOR, *chunk] for chunk in chunks))[1:]
        assert sequence.ids.tolist() == joined
        assert sum(end - start for start, end in sequence.spans) == sum(map(len, chunks))


@pytest.mark.parametrize("max_tokens", [14, 15, 19])
def test_windows_by_hand(max_tokens: int) -> None:
    expected = {
        14: [Window(0, 3, (0, 1)), Window(1, 4, (2, 3))],
        15: [Window(0, 3, (0, 1)), Window(1, 4, (2, 3))],
        19: [Window(0, 4, (0, 1, 2, 3))],
    }
    assert plan_windows([4, 4, 4, 4], max_tokens=max_tokens) == expected[max_tokens]


@given(lengths, st.integers(1, 5), st.integers(1, 60))
def test_shares_hold_everything_once(lengths: list[int], workers: int, at_least: int) -> None:
    shares = share_out(lengths, workers, at_least=at_least)
    assert sorted(chain.from_iterable(shares)) == list(range(len(lengths)))
    assert len(shares) in (1, workers)
    if len(shares) > 1:
        assert min(sum(lengths[index] for index in share) for share in shares) >= at_least


@given(st.integers(1, 500), st.integers(2, 8), st.integers(1, 6))
def test_equal_texts_are_shared_out_equally(length: int, workers: int, each: int) -> None:
    shares = share_out([length] * workers * each, workers, at_least=length * each)
    assert [len(share) for share in shares] == [each] * workers


@given(st.lists(st.integers(1, 60), min_size=2, max_size=20))
def test_a_long_text_is_everybodys_work(short: list[int]) -> None:
    assert len(share_out([*short, 60 * 60], 2, at_least=1)) == 1
