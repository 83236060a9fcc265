"""The wire's format, against bytes made by hand, the vendor's SDK types, and answers that are wrong."""

import base64
import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from perplexity.types import ContextualizedEmbeddingCreateResponse, EmbeddingCreateResponse

from pplx_embed_integrations.errors import EncodingError
from pplx_embed_integrations.remote.encoding import (
    FORMS,
    decode_vectors,
    encode_vectors,
    read_documents,
    read_vectors,
)
from pplx_embed_integrations.remote.protocol import EncodingFormat, error_answer, message_of
from pplx_embed_integrations.remote.usage import Usage
from pplx_embed_integrations.vectors import quantize, unpack_bits

FORMATS: list[EncodingFormat] = list(FORMS)

pooled = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=40),
    elements=st.floats(0.015625, 4, width=32) | st.floats(-4, -0.015625, width=32),
)


@given(floats=pooled, encoding_format=st.sampled_from(FORMATS))
def test_what_is_written_is_read(floats: np.ndarray, encoding_format: EncodingFormat) -> None:
    quantization, normalize = FORMS[encoding_format]
    vectors = quantize(floats, quantization=quantization, normalize=normalize)
    written = json.loads(json.dumps(encode_vectors(vectors, encoding_format)))
    read = decode_vectors(written, encoding_format, dimensions=floats.shape[1])
    assert read.dtype == vectors.dtype
    np.testing.assert_array_equal(read, vectors)


@given(floats=pooled)
def test_bits_are_least_significant_first_as_published(floats: np.ndarray) -> None:
    [*written] = encode_vectors(quantize(floats, quantization="ubinary"), "base64_binary")
    for row, text in zip(floats, written, strict=True):
        number = int.from_bytes(base64.b64decode(text), "little")
        assert [number >> place & 1 for place in range(len(row))] == [int(value >= 0) for value in row]
    packed = decode_vectors(written, "base64_binary", dimensions=floats.shape[1])
    np.testing.assert_array_equal(unpack_bits(packed, dimensions=floats.shape[1]) > 0, floats >= 0)


def test_floats_as_struct_unpacks_them() -> None:
    [written] = encode_vectors(np.array([[0.5, -0.25]], dtype=np.float32), "base64")
    assert struct.unpack("<2f", base64.b64decode(written)) == (0.5, -0.25)


def test_no_vectors() -> None:
    for encoding_format in FORMATS:
        assert len(decode_vectors([], encoding_format)) == 0
    assert decode_vectors([], "base64_int8", dimensions=8).shape == (0, 8)
    assert read_documents({"data": []}, chunks=[]) == []


def item(index: object, embedding: object = "AQI=") -> dict[str, object]:
    return {"object": "embedding", "index": index, "embedding": embedding}


def test_answers_that_the_vendors_sdk_reads_in_any_order() -> None:
    answer = {"object": "list", "model": "m", "data": [item(1, "AwQ="), item(0)], "usage": Usage(3, 3).as_json()}
    assert EmbeddingCreateResponse.model_validate(answer).model_dump()["data"][0]["embedding"] == "AwQ="
    np.testing.assert_array_equal(read_vectors(answer, count=2, dimensions=2), [[1, 2], [3, 4]])
    nested = {"data": [{"index": 1, "data": [item(0)]}, {"index": 0, "data": [item(1), item(0, "AwQ=")]}]}
    assert ContextualizedEmbeddingCreateResponse.model_validate(nested).data is not None
    [first, second] = read_documents(nested, chunks=[2, 1])
    np.testing.assert_array_equal(first, [[3, 4], [1, 2]])
    np.testing.assert_array_equal(second, [[1, 2]])


WRONG = {
    "no object": ([], "no data"),
    "no data": ({}, "no data"),
    "short": ({"data": [item(0)]}, "1 entries where one for each text is wanted: 2"),
    "long": ({"data": [item(0), item(1), item(2)]}, "3 entries"),
    "doubled": ({"data": [item(0), item(0)]}, "index 0"),
    "beyond": ({"data": [item(0), item(2)]}, "index 2"),
    "negative": ({"data": [item(0), item(-1)]}, "index -1"),
    "no index": ({"data": [item(0), item(None)]}, "index None"),
    "an index that is true": ({"data": [item(0), item(True)]}, "index True"),
    "no base64": ({"data": [item(0), item(1, "é")]}, "vector 1 .* format 'base64_int8'"),
    "base64 that is cut": ({"data": [item(0), item(1, "AQ")]}, "vector 1 .* format"),
    "other characters": ({"data": [item(0), item(1, "A Q=")]}, "vector 1 .* format"),
    "no string": ({"data": [item(0), item(1, [1, 2])]}, "vector 1 .* format"),
    "nothing": ({"data": [item(0), item(1, None)]}, "vector 1 .* format"),
    "another width": ({"data": [item(0), item(1, "AQID")]}, "vector 1 .* 3 numbers, not 2"),
    "empty": ({"data": [item(0, ""), item(1, "")]}, "vector 0 .* 0 numbers"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_answers_are_refused(case: str) -> None:
    answer, said = WRONG[case]
    with pytest.raises(EncodingError, match=said):
        read_vectors(answer, count=2)


def test_an_agreed_width() -> None:
    with pytest.raises(EncodingError, match=r"vector 0 .* 2 numbers, not 3"):
        read_vectors({"data": [item(0)]}, count=1, dimensions=3)
    bits = encode_vectors(np.array([[0b11110000]], dtype=np.uint8), "base64_binary")
    assert decode_vectors(bits, "base64_binary", dimensions=4).tolist() == [[0b11110000]]
    with pytest.raises(EncodingError, match="more than 3 bits"):
        decode_vectors(bits, "base64_binary", dimensions=3)
    with pytest.raises(EncodingError, match="1 bytes, not 2"):
        decode_vectors(bits, "base64_binary", dimensions=9)


@pytest.mark.parametrize(
    ("encoding_format", "value"),
    [
        ("float", [1.0, float("nan")]),
        ("float", [1.0, float("inf")]),
        ("float", [1.0, 1e300]),
        ("base64", base64.b64encode(struct.pack("<2f", 1.0, float("nan"))).decode()),
        ("base64_float32", base64.b64encode(struct.pack("<2f", float("-inf"), 1.0)).decode()),
    ],
)
def test_values_that_are_no_numbers(encoding_format: EncodingFormat, value: object) -> None:
    with pytest.raises(EncodingError, match="vector 0 of the answer holds NaN or infinite"):
        decode_vectors([value], encoding_format)


@pytest.mark.parametrize("value", ["AQI=", [1.0, "2"], [1.0, None], [True, False], [[1.0]], {"0": 1.0}])
def test_what_is_no_list_of_numbers(value: object) -> None:
    with pytest.raises(EncodingError, match="format 'float'"):
        decode_vectors([value], "float")


def test_base64_of_a_length_that_no_floats_have() -> None:
    with pytest.raises(EncodingError, match="format 'base64'"):
        decode_vectors(["AQI="], "base64")


def test_a_documents_chunks_are_counted() -> None:
    nested = {"data": [{"index": 0, "data": [item(0)]}]}
    with pytest.raises(EncodingError, match="1 entries where one for each chunk of document 0 is wanted: 2"):
        read_documents(nested, chunks=[2])
    with pytest.raises(EncodingError, match="for each document is wanted: 2"):
        read_documents(nested, chunks=[1, 1])


def test_usage_adds_up_and_survives_nonsense() -> None:
    cost = {"input_cost": 0.25, "total_cost": 0.5, "currency": "USD"}
    answer = {"usage": {"prompt_tokens": 3, "total_tokens": 4, "cost": cost}}
    used = Usage.of(answer)
    assert used == Usage(3, 4, 0.25, 0.5, "USD")
    assert used.as_json() == answer["usage"]
    assert used + Usage() == used
    assert used + used == Usage(6, 8, 0.5, 1.0, "USD")
    for nonsense in (None, [], {}, {"usage": None}, {"usage": {"prompt_tokens": "3", "total_tokens": -1, "cost": 3}}):
        assert Usage.of(nonsense) == Usage()
    assert Usage.of({"usage": {"prompt_tokens": float("nan"), "total_tokens": float("inf")}}) == Usage()
    with pytest.raises(ValueError, match="USD and EUR"):
        used + Usage(currency="EUR")


def test_messages_of_errors_in_every_form() -> None:
    detail = [
        {"loc": ["body", "input", 1, 2], "msg": "is empty", "type": "value_error", "input": "a secret text"},
        {"loc": ["body", "model"], "msg": "Field required", "type": "missing"},
    ]
    both = error_answer("the request is malformed", kind="invalid_request_error", detail=detail)
    assert message_of(both) == "the request is malformed"
    assert message_of({"detail": detail}) == "input.1.2: is empty; model: Field required"
    assert message_of({"detail": "Not Found"}) == "Not Found"
    assert message_of({"error": "Input validation error", "error_type": "Validation"}) == "Input validation error"
    assert message_of({"message": "two\nlines", "code": 40301}) == "two lines"
    assert len(message_of("x" * 100_000)) < 600
    for silent in (None, 3, [], {}, {"error": None}, {"error": {}}, {"detail": [3]}):
        assert message_of(silent) == ""
