from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pplx_embed_integrations import FakeEmbedder
from pplx_embed_integrations.llama_index import PplxEmbedding


@pytest.fixture
def make_model(replica_v1: Path, replica_context_v1: Path) -> Callable[..., PplxEmbedding]:
    """Makes a model of the replica pair with the options given."""

    def make(**options: Any) -> PplxEmbedding:
        pair = {"query_model": replica_v1, "document_model": replica_context_v1, "dtype": "float32"}
        return PplxEmbedding(**{**pair, **options})

    return make


@pytest.fixture
def exact_model(make_model: Callable[..., PplxEmbedding]) -> PplxEmbedding:
    """Gives floats, which another batch moves by less than 1e-5; an int8 code at a rounding border may move by one."""
    return make_model(quantization=None)


@pytest.fixture
def embed_model(make_model: Callable[..., PplxEmbedding]) -> PplxEmbedding:
    return make_model()


@pytest.fixture(scope="session")
def fake_model() -> PplxEmbedding:
    """Floats without a model, which still show every neighbour and place of a chunk; for what the stores keep."""
    return PplxEmbedding(FakeEmbedder(32, max_tokens=400), quantization=None)
