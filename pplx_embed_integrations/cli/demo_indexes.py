"""The same passages in both frameworks and in the quantised store, plain and in context.

Knows how each is filled and asked; must not know the questions, what counts, or how a result is shown.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from ..errors import ContextWarning, MissingDependencyError
from ..evaluation.results import Measurement, Passage

if TYPE_CHECKING:
    from langchain_core.documents import Document
    from llama_index.core.schema import TextNode

    from ..langchain import PplxEmbeddings
    from ..llama_index import PplxEmbedding
    from ..stores import Keep
    from ..vectors import Quantization

Mode = Literal["plain", "in context"]
MODES: tuple[Mode, ...] = ("in context", "plain")
STORED: dict[str, tuple[Quantization, Keep]] = {
    "int8 and bits": ("int8", "both"),
    "int8": ("int8", "int8"),
    "bits": ("binary", "bits"),
}
"""What the quantised store keeps: the form of the embeddings, and `keep=`."""
_DEPTH = 10
_FLOAT_BYTES = 4

Ranking = list[tuple[tuple[str, int, int], float]]


@dataclass(frozen=True)
class Index:
    """Passages, indexed one way.

    Attributes:
        row: What it is, without figures.
        ask: Returns the best passages for a question, each as document, start and end, with its score.
    """

    row: Measurement
    ask: Callable[[str], Ranking]


def label(kind: str, mode: Mode) -> str:
    """Return what a row is called.

    Args:
        kind: `"LangChain"`, `"LlamaIndex"`, or what the quantised store keeps.
        mode: Whether passages were embedded in context.

    Example:
        >>> label("LangChain", "plain"), label("int8", "in context")
        ('LangChain, plain', 'quantised store, int8, in context')
    """
    return f"quantised store, {kind}, {mode}" if kind in STORED else f"{kind}, {mode}"


def plans(passages: Sequence[Passage], *, model: str, plain_model: str, folder: Path) -> list[Callable[[], Index]]:
    """Return what makes each index; the first one in context, the second the same plain.

    Args:
        passages: Document by document, in reading order.
        model: A pair.
        plain_model: A model for both sides of one more plain index.
        folder: An empty folder for the quantised stores.

    Raises:
        MissingDependencyError: A framework is not installed.
    """
    try:
        from ..langchain import PplxEmbeddings
        from ..llama_index import PplxEmbedding
    except MissingDependencyError as error:
        raise MissingDependencyError(str(error).split()[0], extra="all") from error
    chunks = [_document(passage) for passage in passages]
    embeddings, embed_model = PplxEmbeddings(model), PplxEmbedding(model)
    every: list[Callable[[], Index]] = [partial(_langchain, chunks, embeddings, mode) for mode in MODES]
    every.append(partial(_plainly, chunks, PplxEmbeddings(plain_model)))
    every += [partial(_llama_index, passages, embed_model, mode) for mode in MODES]
    for kind, (form, _) in STORED.items():
        coded = PplxEmbeddings(model, quantization=form)
        every += [partial(_quantised, chunks, coded, kind, mode, folder / f"{kind} {mode}") for mode in MODES]
    return every


def _document(passage: Passage) -> Document:
    from langchain_core.documents import Document

    return Document(passage.text, metadata={"source": passage.document, "start_index": passage.start})


def _langchain(chunks: list[Document], embeddings: PplxEmbeddings, mode: Mode) -> Index:
    from langchain_core.vectorstores import InMemoryVectorStore

    store = InMemoryVectorStore(embeddings)
    _fill(store, chunks, mode)
    return Index(_row("LangChain", mode, embeddings, "float32"), _asker(store))


def _plainly(chunks: list[Document], embeddings: PplxEmbeddings) -> Index:
    from langchain_core.vectorstores import InMemoryVectorStore

    store = InMemoryVectorStore(embeddings)
    store.add_documents(chunks)
    row = _row("LangChain", "plain", embeddings, "float32")
    return Index(replace(row, label=f"{row.query_model} on both sides, plain"), _asker(store))


def _quantised(chunks: list[Document], embeddings: PplxEmbeddings, kind: str, mode: Mode, folder: Path) -> Index:
    from ..langchain import QuantizedVectorStore

    form, keep = STORED[kind]
    store = QuantizedVectorStore(embeddings, folder, keep=keep)
    _fill(store, chunks, mode)
    stats = store.stats()
    row = replace(
        _row(kind, mode, embeddings, str(form)),
        system="QuantizedVectorStore",
        bytes_per_vector=sum(stats.bytes_by_form.values()) // stats.rows,
    )
    return Index(row, _asker(store))


def _fill(store: Any, chunks: list[Document], mode: Mode) -> None:
    from ..langchain import add_documents

    add_documents(store, chunks, group_by="source" if mode == "in context" else range(len(chunks)))


def _asker(store: Any) -> Callable[[str], Ranking]:
    def ask(question: str) -> Ranking:
        found = store.similarity_search_with_score(question, k=_DEPTH)
        return [(_place(each.metadata["source"], each.metadata["start_index"], each.page_content), score)
                for each, score in found]  # fmt: skip

    return ask


def _llama_index(passages: Sequence[Passage], embed_model: PplxEmbedding, mode: Mode) -> Index:
    from llama_index.core import VectorStoreIndex, schema

    nodes = [
        schema.TextNode(
            text=passage.text,
            start_char_idx=passage.start,
            relationships={schema.NodeRelationship.SOURCE: schema.RelatedNodeInfo(node_id=passage.document)},
        )
        for passage in passages
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ContextWarning)  # that passages come without their document is the point here
        index = VectorStoreIndex(embed_model(nodes) if mode == "in context" else nodes, embed_model=embed_model)
    retriever = index.as_retriever(similarity_top_k=_DEPTH)

    def ask(question: str) -> Ranking:
        found = retriever.retrieve(question)
        return [(_of_node(cast("TextNode", each.node)), each.score or 0.0) for each in found]

    return Index(_row("LlamaIndex", mode, embed_model, "float32"), ask)


def _of_node(node: TextNode) -> tuple[str, int, int]:
    return _place(str(node.ref_doc_id), node.start_char_idx or 0, node.text)


def _place(document: str, start: int, text: str) -> tuple[str, int, int]:
    return document, start, start + len(text)


def _row(kind: str, mode: Mode, adapter: Any, form: str) -> Measurement:
    pair = adapter.biencoder
    return Measurement(
        label=label(kind, mode),
        system=kind,
        query_model=str(pair.query.checkpoint.name),
        document_model=str(pair.document.checkpoint.name),
        contextual=mode == "in context",
        dimensions=pair.dimension,
        form=form,
        bytes_per_vector=_FLOAT_BYTES * pair.dimension,
    )
