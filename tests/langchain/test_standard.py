"""LangChain's own standard suites for embedding models, on the replica pair."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests

from pplx_embed_integrations.langchain import PplxEmbeddings

# The suites hand a contextual model flat lists, as plain models get them.
pytestmark = pytest.mark.filterwarnings("ignore:.*each by itself")
GOLDEN = Path(__file__).parents[1] / "golden"


class _Replicas:
    @property
    def embeddings_class(self) -> type[PplxEmbeddings]:
        return PplxEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"query_model": GOLDEN / "replica-v1", "document_model": GOLDEN / "replica-context-v1"}


class TestUnit(_Replicas, EmbeddingsUnitTests):
    pass


class TestIntegration(_Replicas, EmbeddingsIntegrationTests):
    pass


class TestBinaryInSixteenDimensions(_Replicas, EmbeddingsIntegrationTests):
    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {**super().embedding_model_params, "dimensions": 16, "quantization": "binary"}
