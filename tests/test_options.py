"""Every option once: what derives from the table, and what a mistake says wherever it is made."""

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pplx_embed_integrations import PplxBiEncoder, PplxEncoder
from pplx_embed_integrations.errors import InputError, InputTypeError
from pplx_embed_integrations.langchain import PplxEmbeddings
from pplx_embed_integrations.llama_index import PplxEmbedding
from pplx_embed_integrations.llama_index.options import NodeOptions
from pplx_embed_integrations.options import BiEncoderOptions, EncoderOptions, PairOptions, SideOptions
from pplx_embed_integrations.schema import options_of
from tools.options import refreshed

DOCS = Path(__file__).parents[1] / "docs"
DTYPE = options_of(SideOptions)["dtype"]
MADE_WITH = {
    PplxEncoder: EncoderOptions,
    PplxBiEncoder: BiEncoderOptions,
    PplxEmbeddings: BiEncoderOptions,
    PplxEmbedding: NodeOptions,
}
SIDE_MISTAKES: list[tuple[dict[str, Any], type[Exception]]] = [
    ({"batch_token": 512}, InputTypeError),
    ({"batch_tokens": 0}, InputError),
    ({"batch_tokens": "512"}, InputTypeError),
    ({"max_tokens": 0}, InputError),
    ({"max_tokens": 1.5}, InputTypeError),
    ({"dtype": "float16"}, InputError),
    ({"dtype": "int4"}, InputError),
    ({"weights": "int4"}, InputError),
    ({"backend": "onnx"}, InputError),
    ({"backend": None}, InputError),
    ({"attention": "flash"}, InputError),
    ({"attention": "sdpa", "backend": "openvino"}, InputError),
    ({"device": 0}, InputError),
    ({"devices": "cpu"}, InputTypeError),
    ({"devices": []}, InputError),
    ({"device": "cpu", "devices": ["cpu"]}, InputError),
    ({"truncate": "yes"}, InputTypeError),
    ({"local_files_only": 1}, InputTypeError),
    ({"cache_folder": 3}, InputTypeError),
    ({"token": 3}, InputTypeError),
]
PAIR_MISTAKES: list[tuple[dict[str, Any], type[Exception]]] = [
    ({"dimension": 16}, InputTypeError),
    ({"dimensions": 10_000}, InputError),
    ({"dimensions": "16"}, InputTypeError),
    ({"quantization": "int4"}, InputError),
    ({"normalize": None}, InputTypeError),
    ({"query_cache": -1}, InputError),
    ({"query_cache": 1.0}, InputTypeError),
    ({"query_model": 5}, InputTypeError),
    ({"query_revision": 5}, InputTypeError),
]


def told(kind: Any, options: dict[str, Any], error: type[Exception]) -> str:
    with pytest.raises(error) as caught:
        kind("miniature-v1", **options)
    assert type(caught.value) is error
    return str(caught.value).partition("; there are:")[0]  # each has options of its own besides


@pytest.mark.parametrize(("options", "error"), SIDE_MISTAKES, ids=str)
def test_the_same_mistake_is_the_same_error_everywhere(options: dict[str, Any], error: type[Exception]) -> None:
    assert len({told(kind, options, error) for kind in MADE_WITH}) == 1


@pytest.mark.parametrize(("options", "error"), PAIR_MISTAKES, ids=str)
def test_mistakes_about_a_pair_are_the_same_too(options: dict[str, Any], error: type[Exception]) -> None:
    assert len({told(kind, options, error) for kind in (PplxBiEncoder, PplxEmbeddings, PplxEmbedding)}) == 1


def test_no_error_shows_a_token() -> None:
    for kind in MADE_WITH:
        assert "hf_secret" not in told(kind, {"token": ["hf_secret"]}, InputTypeError)
        assert "hf_secret" not in repr(kind("miniature-v1", token="hf_secret"))


@pytest.mark.parametrize("kind", MADE_WITH, ids=lambda kind: kind.__name__)
def test_help_and_editors_see_every_option(kind: type) -> None:
    options, parameters = options_of(MADE_WITH[kind]), inspect.signature(kind).parameters
    assert set(options) <= set(parameters)
    for name, option in options.items():
        assert parameters[name].default == option.default, name
        assert f"        {name}: {option.description.split()[0]}" in kind.__doc__, name
    assert "**options" not in kind.__doc__


def test_schemas_of_the_adapters_describe_every_option() -> None:
    for kind in (PplxEmbeddings, PplxEmbedding):
        for name, option in options_of(PairOptions).items():
            assert kind.model_fields[name].description == option.description


@pytest.mark.parametrize("page", ["langchain.md", "llama-index.md"])
def test_tables_in_the_documentation_are_fresh(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    assert "<!-- options: " in text
    assert refreshed(text) == text, "type: python tools/options.py docs/*.md"


@pytest.mark.parametrize("dtype", ["float16", "half", "fp16", torch.float16, torch.half])
def test_float16_is_refused_with_the_reason(dtype: object) -> None:
    with pytest.raises(InputError, match=r'overflows .* use "bfloat16" .* or "float32"'):
        DTYPE.checked("dtype", dtype)


@pytest.mark.parametrize("dtype", ["float64", "bf16", "", None, 32, np.float32])
def test_an_unknown_dtype_names_the_known(dtype: object) -> None:
    with pytest.raises(InputError, match='use "auto", "float32" or "bfloat16"'):
        DTYPE.checked("dtype", dtype)


def test_dtypes_by_name_and_as_torch_has_them() -> None:
    assert [DTYPE.checked("dtype", d) for d in ("auto", "float32", torch.float32, torch.bfloat16)] == [
        "auto",
        "float32",
        "float32",
        "bfloat16",
    ]
