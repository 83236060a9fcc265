"""Grouping, ordering, hashing and overlap against naive implementations."""

from __future__ import annotations

import hashlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pplx_embed_integrations.documents import (
    content_hash,
    find_overlap,
    group,
    overlap,
    ungroup,
)
from pplx_embed_integrations.errors import InputError, InputTypeError
from pplx_embed_integrations.overlaps import MINIMUM_OVERLAP

keys = st.lists(st.integers(0, 6) | st.sampled_from("abc"), max_size=60)


@given(keys, st.data())
def test_grouping_then_ungrouping_is_the_identity(flat, data):
    positions = data.draw(st.none() | st.lists(st.none() | st.integers(0, 9), min_size=len(flat), max_size=len(flat)))
    groups = group(flat, positions)
    assert ungroup(groups, [[(flat[i], i) for i in indices] for indices in groups]) == [
        (key, i) for i, key in enumerate(flat)
    ]
    for indices in groups:
        assert len({flat[i] for i in indices}) == 1
    assert len(groups) == len(set(flat))


@given(keys)
def test_without_positions_input_order_stands(flat):
    assert group(flat) == [[i for i, other in enumerate(flat) if other == key] for key in dict.fromkeys(flat)]


@given(st.lists(st.integers(1, 12), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_positions_restore_the_reading_order_of_any_shuffle(sizes, shuffler: random.Random):
    chunks = [(document, place) for document, size in enumerate(sizes) for place in range(size)]
    shuffler.shuffle(chunks)
    groups = group([document for document, _ in chunks], [place * 10 for _, place in chunks])
    for indices in groups:
        assert [chunks[i][1] for i in indices] == list(range(len(indices)))


def test_positions_count_only_where_all_chunks_have_distinct_ones():
    assert group(["a"] * 3, [2, None, 0]) == [[0, 1, 2]]
    assert group(["a"] * 3, [2, 1, 1]) == [[0, 1, 2]]
    assert group(["a", "a", "b", "b"], [2, 1, None, 0]) == [[1, 0], [2, 3]]


def test_grouping_refuses_what_it_cannot_align():
    with pytest.raises(InputError, match="2 entries for 3 chunks"):
        group(["a", "b", "c"], [1, 2])
    with pytest.raises(InputTypeError, match="chunk 1 is a list"):
        group(["a", ["b"]])
    with pytest.raises(InputError, match="one row per chunk"):
        ungroup([[0, 1]], [["only"]])


texts = st.text(alphabet=st.characters(), max_size=8)


@given(st.lists(texts, max_size=5), st.lists(texts, max_size=5))
def test_hashes_are_equal_exactly_for_equal_documents(one, other):
    assert (content_hash(one) == content_hash(other)) == (one == other)


def test_hash_is_the_documented_one():
    expected = hashlib.sha256()
    for text in ("plain", "Füße", "\ud800"):
        data = text.encode("utf-8", "surrogatepass")
        expected.update(len(data).to_bytes(8, "big") + data)
    assert content_hash(["plain", "Füße", "\ud800"]) == expected.hexdigest()


def _naive_overlap(left: str, right: str) -> int:
    for length in range(min(len(left), len(right)) - 1, MINIMUM_OVERLAP - 1, -1):
        if left[-length:] == right[:length]:
            return length
    return 0


@given(st.text("ab ü", max_size=70), st.text("ab ü", max_size=70), st.text("ab ü", max_size=40))
def test_overlap_is_the_longest_end_that_begins_the_next(left, right, shared):
    left, right = left + shared, shared + right
    found = overlap(left, right)
    naive = _naive_overlap(left, right)
    text = right[:naive]
    starts = (
        [at for at in range(len(right)) if right.startswith(text, at)],
        [at for at in range(len(left)) if left.startswith(text, at)],
    )
    again = [at for at in range(1, naive) if text.startswith(text[:MINIMUM_OVERLAP], at)]
    if len(right[:MINIMUM_OVERLAP].split()) >= 2:
        assert found == (naive if [len(at) for at in starts] == [1, 1] and not again else 0)
    assert found == 0 or (left[-found:] == right[:found] and found >= MINIMUM_OVERLAP)


@given(st.text("abc ", min_size=1, max_size=80), st.integers(1, 20), st.integers(0, 19))
def test_offsets_prove_every_overlap_of_a_sliding_window(text, size, shared):
    step = max(1, size - min(shared, size - 1))
    starts = list(range(0, len(text), step))
    chunks = [text[start : start + size] for start in starts]
    expected = next(
        (
            min(size - step, len(chunks[i]))
            for i in range(1, len(chunks))
            if starts[i] < starts[i - 1] + len(chunks[i - 1])
        ),
        None,
    )
    found = find_overlap([chunks], [starts])
    assert (found.characters if found else None) == expected


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("Terms of use apply to all of this.", "Terms of use apply to all of this."),  # a footer repeated whole
        ("he went to the", "the other side of the river was far away"),  # chance
        ("----------------------------------", "----------------------------------------"),  # a rule
        ("start\n" + "GET /health 200 by the balancer\n" * 3, "GET /health 200 by the balancer\n" * 2 + "stop"),
        ("short", ""),
        ("", "short"),
    ],
)
def test_incidental_repeats_are_not_overlap(left, right):
    assert overlap(left, right) == 0


def test_offsets_that_restart_on_every_page_are_not_overlap():
    assert overlap("page one has this text", "page two has another", starts=(0, 0)) == 0
    assert overlap("page one has this text", "page two has another", starts=(0, 5)) == 0


def test_a_line_that_a_third_chunk_has_too_is_a_repetition():
    line = "GET /health 200 by the balancer\n"
    chunks = ["started\n" + line, line + "stopped\n", "again\n" + line + "gone\n"]
    assert find_overlap([chunks]) is None
    assert find_overlap([chunks[:2]]) == (0, 1, len(line))
    assert find_overlap([chunks], [[0, len("started\n"), 90]]) == (0, 1, len(line))  # offsets prove it


def test_overlap_is_looked_for_inside_documents_only():
    border = "a sentence that both of the chunks contain"
    assert find_overlap([["first " + border], [border + " second"]]) is None
    assert find_overlap([["zero"], ["first " + border, border + " second"]]) == (1, 1, len(border))
