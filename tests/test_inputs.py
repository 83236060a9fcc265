"""What may be embedded, and what an error says about what may not."""

from collections import UserDict
from collections.abc import Iterator

import numpy as np
import pytest

from pplx_embed_integrations.errors import InputError, InputTypeError
from pplx_embed_integrations.inputs import check_documents, check_positive, check_text, check_texts


def one_by_one(*texts: str) -> Iterator[str]:
    yield from texts


@pytest.mark.parametrize(
    "texts",
    [["a", "b"], ("a", "b"), one_by_one("a", "b"), np.array(["a", "b"]), {"x": "a", "y": "b"}.values()],
    ids=lambda texts: type(texts).__name__,
)
def test_anything_with_an_order_is_a_list_of_texts(texts: object) -> None:
    assert check_texts(texts) == ["a", "b"]


def test_texts_are_never_altered_and_the_list_is_a_new_one() -> None:
    given = [" a ", "\n", "e\u0301", "\x00", "b" * 1_000_000]
    checked = check_texts(given)
    assert checked == given
    assert checked is not given


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("abc", "a list of strings is wanted, not a bare str; put it in a list"),
        (None, "a list of strings is wanted, not NoneType"),
        (3, "not int"),
        (b"abc", "not bytes"),
        (bytearray(b"abc"), "not bytearray"),
        ({"a": "b"}, "not dict"),
        (UserDict(a="b"), "not UserDict"),
        ({"a", "b"}, "not set"),
        (frozenset("ab"), "not frozenset"),
        ({"a": "b"}.keys(), "not dict_keys"),
        (np.array("a"), "not ndarray"),
        (["a", None], "text 1 must be a str, not NoneType"),
        (["a", "b", 3], "text 2 must be a str, not int"),
        ([b"a"], "text 0 must be a str, not bytes"),
        ([["a"]], "text 0 must be a str, not list; a document of several chunks goes through encode_documents"),
        ([("a", "b")], "text 0 must be a str, not tuple; a document of several chunks goes through"),
        (np.array([["a"]]), "text 0 must be a str, not ndarray"),
        (np.array([1.5]), "text 0 must be a str, not float64"),
    ],
)
def test_a_wrong_type_is_named_with_its_position(texts: object, message: str) -> None:
    with pytest.raises(InputTypeError, match=message):
        check_texts(texts)


def test_an_empty_text_is_named_with_its_position() -> None:
    with pytest.raises(InputError, match=r"text 2 is empty; .* leave it out"):
        check_texts(["a", " ", ""])
    with pytest.raises(InputError, match="the query is empty"):
        check_text("", name="the query")


@pytest.mark.parametrize("query", [None, 1, b"a", ["a"], {"a": 1}])
def test_one_text_must_be_a_string(query: object) -> None:
    with pytest.raises(InputTypeError, match=f"the query must be a str, not {type(query).__name__}$"):
        check_text(query, name="the query")


def test_documents_of_any_ordered_kind() -> None:
    documents = (chunks for chunks in [("a", "b"), one_by_one("c"), [], np.array(["d"])])
    assert check_documents(documents) == [["a", "b"], ["c"], [], ["d"]]


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ("abc", "a list of documents, each a list of chunks .* is wanted, not a bare str"),
        (None, "a list of documents"),
        (["a chunk"], "for document 0 a list of chunks is wanted, not a bare str; put it in a list"),
        ([["a"], None], "for document 1 a list of chunks is wanted, not NoneType"),
        ([["a"], {"b": 1}], "for document 1 a list of chunks is wanted, not dict"),
        ([["a"], ["b", 3]], "chunk 1 of document 1 must be a str, not int"),
        ([[["a"]]], "chunk 0 of document 0 must be a str, not list"),
    ],
)
def test_wrong_nesting_names_document_and_chunk(documents: object, message: str) -> None:
    with pytest.raises(InputTypeError, match=message):
        check_documents(documents)


def test_an_empty_chunk_is_named_with_document_and_chunk() -> None:
    with pytest.raises(InputError, match="chunk 1 of document 2 is empty"):
        check_documents([["a"], [], ["a", ""]])


@pytest.mark.parametrize("value", [0, -1, 11])
def test_a_number_out_of_range_names_the_range(value: int) -> None:
    with pytest.raises(InputError, match=f"max_tokens={value} is out of range; it must be 1 to 10"):
        check_positive("max_tokens", value, largest=10)


@pytest.mark.parametrize("value", [True, 1.0, "1", None])
def test_a_number_must_be_an_integer(value: object) -> None:
    with pytest.raises(InputTypeError, match="batch_tokens must be an integer, not"):
        check_positive("batch_tokens", value)


def test_an_integer_of_numpy_is_one() -> None:
    number = check_positive("batch_tokens", np.int64(7))
    assert (number, type(number)) == (7, int)
