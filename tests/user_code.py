"""Ordinary user code, never run: `make check` shows that it type-checks as it stands, under mypy --strict."""

from pathlib import Path

import numpy as np
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core import Document as LlamaDocument
from llama_index.core import VectorStoreIndex

from pplx_embed_integrations import (
    CheckpointSpec,
    InputError,
    PplxBiEncoder,
    PplxEncoder,
    RemoteEncoder,
    list_checkpoints,
)
from pplx_embed_integrations.evaluation import Measurement, Passage, Study, evaluate, load_collection
from pplx_embed_integrations.langchain import PplxEmbeddings, add_documents
from pplx_embed_integrations.llama_index import PplxEmbedding, contextual_index


def core(folder: Path) -> list[list[float]]:
    specs: list[CheckpointSpec] = list_checkpoints()
    encoder = PplxEncoder(folder, max_tokens=specs[0].max_tokens)
    codes: np.ndarray = encoder.encode(["text"], quantization="int8", dimensions=128)
    [chunks] = encoder.encode_documents([["one", "two"]], quantization=None, normalize=True)
    pair = PplxBiEncoder("0.6b", dimensions=256, quantization="binary")
    try:
        pair.embed_query("")
    except InputError as error:
        raise SystemExit(str(error)) from error
    return [*codes.tolist(), *chunks.tolist(), pair.embed_query("question")]


def langchain(chunks: list[Document]) -> list[Document]:
    embeddings = PplxEmbeddings("miniature", dimensions=128)
    store = InMemoryVectorStore(embeddings)
    add_documents(store, chunks, group_by="source")
    with embeddings.documents(chunks, group_by="source"):
        store.add_documents(chunks)
    return store.similarity_search("question", k=1)


def llama_index(documents: list[LlamaDocument]) -> list[str]:
    embed_model = PplxEmbedding("miniature", quantization=None)
    index: VectorStoreIndex = contextual_index(documents, embed_model=embed_model)
    return [found.node.get_content() for found in index.as_retriever(similarity_top_k=1).retrieve("question")]


def elsewhere() -> int:
    documents = RemoteEncoder("context-v1-0.6b", base_url="http://gpu:8080", api_key="key", timeout=60)
    split = PplxEmbeddings("0.6b", document_model=documents)
    hosted = PplxEmbedding("0.6b", base_url="perplexity", api_key="key")
    return split.usage.total_tokens + hosted.usage.total_tokens + len(documents.encode(["text"], role="document"))


def evaluation(folder: str, mine: dict[str, list[tuple[Passage, float]]]) -> list[float]:
    collection = load_collection(folder, split="dev")
    found = evaluate(collection, embedder=PplxBiEncoder("miniature"), split=lambda text: [(0, len(text))], against=())
    first, second = found.measurements[:2]
    study = Study(collection, split=lambda text: [(0, len(text))])
    row = study.rank(Measurement("my store", "LangChain"), mine)
    return [found.comparison(first.label, second.label).low, row.means["documents"]["nDCG@10"]]
