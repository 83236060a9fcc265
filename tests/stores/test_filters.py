"""Conditions on metadata: what LanceDB finds against what Python finds."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pplx_embed_integrations import InputError, InputTypeError
from pplx_embed_integrations.stores import Chunk, ChunkTable
from pplx_embed_integrations.stores.metadata import dump, load

VALUES: list[Any] = [
    1990, 1990.0, 1991, -3, 0, 0.5, 2**53 + 1, "1990", "1990.0", "true", "en", "de", "", "a'b", 'a"b', "a%b", "é", "zz",
    " 12", "nan", "inf", "2024-01-05", True, False, None, ["en", "x"], ["1990"], [1990, 2], [], {"deep": ["en"]},
]  # fmt: skip
KEYS = ["key", "a.b", "it's", 'q"uote', "year[]", "ключ"]
COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "$gt": lambda a, b: a > b,
    "$gte": lambda a, b: a >= b,
    "$lt": lambda a, b: a < b,
    "$lte": lambda a, b: a <= b,
}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> ChunkTable:
    """A row for each value, under each key in turn, and one without any metadata."""
    table = ChunkTable(tmp_path_factory.mktemp("filters"), made_by={}, dimensions=8)
    chunks = [Chunk(f"{key}/{n}", "text", {key: value}) for key in KEYS for n, value in enumerate(VALUES)]
    chunks.append(Chunk("none", "text"))
    table.upsert(chunks, np.ones((len(chunks), 8), np.int8))
    return table


def found(table: ChunkTable, key: str, condition: Any) -> set[int]:
    ids = [hit.id for hit in table.get(where=condition)]
    return {int(name.removeprefix(f"{key}/")) for name in ids if name.startswith(f"{key}/")}


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def same(a: Any, b: Any) -> bool:
    return (is_number(a) and is_number(b) and a == b) or (type(a) is type(b) and a == b)


def naive(test: Callable[[Any], bool]) -> set[int]:
    return {n for n, value in enumerate(VALUES) if test(value)}


SCALARS = [value for value in VALUES if isinstance(value, (str, int, float))]


@pytest.mark.parametrize("key", KEYS)
def test_equality_knows_numbers_from_strings(table: ChunkTable, key: str) -> None:
    for value in SCALARS if key == "key" else [1990, "1990", "en", True]:
        assert found(table, key, {key: value}) == naive(lambda v, value=value: same(v, value)), value
        assert found(table, key, {key: {"$ne": value}}) == naive(lambda v, value=value: not same(v, value)), value


@pytest.mark.parametrize("name", COMPARISONS)
def test_ranges(table: ChunkTable, name: str) -> None:
    compare = COMPARISONS[name]
    for value in (1990, 0.5, -3):
        assert found(table, "key", {"key": {name: value}}) == naive(
            lambda v, value=value: is_number(v) and compare(v, value)
        ), value
    for text in ("en", "", "1990", "2024", "a"):
        assert found(table, "key", {"key": {name: text}}) == naive(
            lambda v, text=text: isinstance(v, str) and compare(v, text)
        ), text


def test_in_and_not_in(table: ChunkTable) -> None:
    wanted = ["en", 1990, True, "1990", "nowhere"]
    assert found(table, "key", {"key": {"$in": wanted}}) == naive(lambda v: any(same(v, w) for w in wanted))
    assert found(table, "key", {"key": {"$nin": wanted}}) == naive(lambda v: not any(same(v, w) for w in wanted))
    assert found(table, "key", {"key": {"$in": []}}) == set()
    assert found(table, "key", {"key": {"$in": [None, "en"]}}) == naive(lambda v: v is None or same(v, "en"))


@pytest.mark.parametrize("key", KEYS)
def test_exists_and_lists(table: ChunkTable, key: str) -> None:
    assert found(table, key, {key: {"$exists": True}}) == naive(lambda v: v is not None)
    assert found(table, key, {key: {"$exists": False}}) == naive(lambda v: v is None)
    assert found(table, key, {key: None}) == naive(lambda v: v is None)
    for value in ("en", "1990", 1990, "x"):
        held = naive(
            lambda v, value=value: (
                (isinstance(v, list) and any(same(each, value) for each in v))
                or (isinstance(v, str) and isinstance(value, str) and value in v)
            )
        )
        assert found(table, key, {key: {"$contains": value}}) == held, value
    blank = naive(lambda v: v is None or v in ("", []))
    assert found(table, key, {key: {"$empty": True}}) == blank
    assert found(table, key, {key: {"$empty": False}}) == naive(lambda v: True) - blank
    for text in ("EN", "é", "NaN"):
        assert found(table, key, {key: {"$icontains": text}}) == naive(
            lambda v, text=text: isinstance(v, str) and text.lower() in v.lower()
        )
    assert found(table, key, {key: {"$any": ["en", 2]}}) == naive(
        lambda v: isinstance(v, list) and ("en" in v or 2 in v)
    )
    assert found(table, key, {key: {"$all": ["en", "x"]}}) == naive(
        lambda v: isinstance(v, list) and "en" in v and "x" in v
    )


def test_joining(table: ChunkTable) -> None:
    either = {"$or": [{"key": "en"}, {"key": {"$gt": 1990}}]}
    assert found(table, "key", either) == naive(lambda v: same(v, "en") or (is_number(v) and v > 1990))
    assert found(table, "key", {"$not": either}) == naive(lambda v: not (same(v, "en") or (is_number(v) and v > 1990)))
    both = {"$and": [{"key": {"$gte": 0, "$lt": 1991}}, {"$not": {"key": 0}}]}
    assert found(table, "key", both) == naive(lambda v: is_number(v) and 0 < v < 1991)


def test_sql_and_patterns(table: ChunkTable) -> None:
    assert {hit.id for hit in table.get(where="id = 'none' OR document = 'key/0'")} == {"none", "key/0"}
    assert found(table, "key", {"key": {"$ilike": "EN"}}) == naive(lambda v: isinstance(v, str) and v.lower() == "en")
    assert found(table, "key", {"key": {"$like": "a%"}}) == naive(lambda v: isinstance(v, str) and v.startswith("a"))


@pytest.mark.parametrize(
    ("condition", "error", "message"),
    [
        ({"key": {"$near": 1}}, InputError, r"\$near.*unknown; use \$eq"),
        ({"$nor": []}, InputError, "joined with"),
        ({"$or": []}, InputError, "list of conditions"),
        ({"key": {}}, InputError, "empty"),
        ({"key": {"$in": "en"}}, InputTypeError, "list of values"),
        ({"key": {"$gt": True}}, InputTypeError, "number or a string"),
        ({"key": {"$gt": None}}, InputTypeError, "can be compared"),
        ({"key": {"$exists": 1}}, InputTypeError, "True or False"),
        ({"key": b"x"}, InputTypeError, "can be compared"),
        ("", InputError, "empty string"),
        ("nonsense = 1", InputError, "no SQL that LanceDB understands.*nonsense"),
        ("id = ", InputError, "no SQL"),
        (["id"], InputTypeError, "dictionary or a string"),
    ],
)
def test_what_is_no_condition(table: ChunkTable, condition: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        table.get(where=condition)
    with pytest.raises(error, match=message):
        table.search(np.ones(8, np.int8), k=1, where=condition)


SCALAR = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63) + 1, 2**63 - 1), st.text(st.characters(exclude_categories=["Cs"])),
    st.floats(allow_nan=False, allow_infinity=False),
)  # fmt: skip
METADATA = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"])).filter(lambda key: not key.endswith("[]")),
    st.one_of(SCALAR, st.lists(SCALAR), st.dictionaries(st.text("ab"), st.lists(SCALAR))),
)


@given(METADATA)
def test_metadata_comes_back_as_it_was(metadata: dict[str, Any]) -> None:
    assert load(dump(metadata, chunk="c")) == metadata


@settings(max_examples=15)
@given(metadata=METADATA)
def test_metadata_comes_back_from_the_table(table: ChunkTable, metadata: dict[str, Any]) -> None:
    table.upsert([Chunk("property", "text", metadata)], np.ones((1, 8), np.int8))
    got = table.get(ids=["property"])[0].metadata
    assert got == metadata
    assert {key: type(value) for key, value in got.items()} == {key: type(value) for key, value in metadata.items()}
    table.delete(ids=["property"])


def test_nan_is_kept_and_equals_nothing(table: ChunkTable) -> None:
    table.upsert([Chunk("nan", "text", {"price": math.nan})], np.ones((1, 8), np.int8))
    assert math.isnan(table.get(ids=["nan"])[0].metadata["price"])
    assert table.count({"price": {"$gt": 0}}) == table.count({"price": {"$lt": 0}}) == 0


@pytest.mark.parametrize(
    ("metadata", "error", "message"),
    [
        ({"when": np.datetime64("2024-01-01")}, InputTypeError, "'when' of chunk 'c' is a datetime64.*isoformat"),
        ({1: "a"}, InputTypeError, "keys must be strings"),
        ({"n": 2**70}, InputError, "64-bit"),
        ({"n": math.inf}, InputError, "64-bit"),
        ({"a": [1], "a[]": 2}, InputError, "another key"),
        ({"a": {1: 2}}, InputTypeError, "no strings"),
    ],
)
def test_what_metadata_cannot_be(metadata: dict[Any, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        dump(metadata, chunk="c")
