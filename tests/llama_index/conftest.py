from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pplx_embed_integrations.llama_index import PplxEmbedding


@pytest.fixture
def make_model(replica_v1: Path, replica_context_v1: Path) -> Callable[..., PplxEmbedding]:
    """Makes a model of the replica pair with the options given."""

    def make(**options: Any) -> PplxEmbedding:
        pair = {"query_model": replica_v1, "document_model": replica_context_v1, "dtype": "float32"}
        return PplxEmbedding(**{**pair, **options})

    return make


@pytest.fixture
def embed_model(make_model: Callable[..., PplxEmbedding]) -> PplxEmbedding:
    return make_model()
