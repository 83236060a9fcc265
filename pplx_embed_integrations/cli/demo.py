"""`pplx-embed demo`: this project's documentation indexed four ways, and the rankings side by side.

Knows the questions, where the pages are and how rankings are shown; must not know how anything is embedded.
"""

from __future__ import annotations

import argparse
import re
import shutil
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ContextWarning, MissingDependencyError
from .folder import TextFile, read_folder
from .splitting import Splitter
from .terminal import shown, text_width, wrapped

if TYPE_CHECKING:
    from langchain_core.documents import Document

    from ..langchain import PplxEmbeddings
    from ..llama_index import PplxEmbedding

__all__ = ["QUESTIONS", "Question", "rankings", "run"]

CHUNK_TOKENS = 192
TOP = 3
_MODEL = "miniature"

Rank = Callable[[str], list["Hit"]]


@dataclass(frozen=True)
class Question:
    """A question and where its answer stands.

    Attributes:
        text: The question.
        source: The page with the answer.
        answer: Words of the passage that answers.
    """

    text: str
    source: str
    answer: str


@dataclass(frozen=True)
class Hit:
    """A passage that was found.

    Attributes:
        source: Its page.
        text: Its text.
    """

    source: str
    text: str

    def answers(self, question: Question) -> bool:
        """Tell whether this is the passage that answers."""
        return self.source == question.source and question.answer in " ".join(self.text.split())


SHOWN = 5
"""So many of the questions are printed with their rankings; all are counted."""

QUESTIONS = [
    Question(
        "Is a fine-tuned copy of a checkpoint recognised?", "choosing-a-model.md", "a renamed or fine-tuned copy works"
    ),
    Question(
        "Which metric ranks raw int8 codes rightly?",
        "dimensions-and-quantization.md",
        "Raw int8 codes rank differently under L2",
    ),
    Question(
        "LlamaIndex: may nodes be split before num_workers?",
        "contextual-llama-index.md",
        "Do not split before `num_workers`",
    ),
    Question(
        "How much retrieval quality does binary quantisation cost?",
        "dimensions-and-quantization.md",
        "binary costs 2 to 4.4",
    ),
    Question("How do I test my application offline with pytest?", "testing-offline.md", "run `pytest test_search.py`"),
    Question("What happens to a text of too many tokens?", "errors.md", "`truncate=True` embeds its beginning"),
    Question("How do I turn the warning about context into an error?", "errors.md", "To make it an error:"),
    Question("Which folder layout does evaluate read?", "evaluate.md", "It wants a folder in the BEIR layout"),
    Question(
        "Why must the chunks of a document reach the model together?",
        "contextual-langchain.md",
        "give each chunk a vector that knows the others",
    ),
    Question(
        "Can threads share one LangChain embeddings object?", "langchain.md", "It can be shared by threads and tasks"
    ),
    Question(
        "Does embed_documents know which texts belong together?",
        "langchain.md",
        "A flat list is a list of independent texts, always",
    ),
    Question("Which weights does the miniature come from?", "miniature.md", "that **this project trained itself**"),
]
"""Fixed before the present miniature pair was trained; the first five were picked on an earlier pair's rankings."""


def run(arguments: argparse.Namespace) -> int:
    """Index, ask, print, count."""
    pages = _pages()
    print(
        f"{len(pages)} pages of this project's documentation, in chunks of at most {CHUNK_TOKENS} tokens, embedded by "
        f'the "{_MODEL}" pair:\nsmall checkpoints that come with this package, trained by this project, not the '
        "vendor's. No network is used.\n\nIndexing with LangChain and LlamaIndex, plain and in context …",
        flush=True,
    )
    start = time.perf_counter()
    indexes = rankings(pages)
    print(f"Done in {time.perf_counter() - start:.0f} s, imports included. ✓ marks the passage that answers.\n")
    right = dict.fromkeys(indexes, 0)
    for number, question in enumerate(QUESTIONS):
        found = {name: rank(question.text) for name, rank in indexes.items()}
        for name, hits in found.items():
            right[name] += any(hit.answers(question) for hit in hits[:TOP])
        if number >= SHOWN:
            continue
        print(f"{question.text}\n")
        for framework in ("LangChain", "LlamaIndex"):
            plain, contextual = (found[framework, mode] for mode in ("plain", "in context"))
            print(_side_by_side(plain, contextual, (f"{framework}, plain", f"{framework}, in context"), question))
    print(f"Answered among the first {TOP} passages, of {len(QUESTIONS)} questions in all:")
    for (framework, mode), count in right.items():
        print(f"  {framework:10}  {mode:10}  {count} of {len(QUESTIONS)}")
    print(
        "\nThe questions stood before the pair was trained. These pages are all on one subject and name it often, so "
        "context\nhas little to add here; it adds most where passages leave their subject unnamed (docs/miniature.md)."
    )
    print("\nYour own files: pplx-embed index DIR --store ./store --model miniature")
    return 0


def rankings(pages: list[TextFile], *, model: str = _MODEL) -> dict[tuple[str, str], Rank]:
    """Index pages with both frameworks, plain and in context.

    Args:
        pages: The pages.
        model: A pair.

    Returns:
        For each framework and mode, a function from a question to the best passages.

    Raises:
        MissingDependencyError: A framework is not installed.
    """
    try:
        from ..biencoder import PplxBiEncoder
        from ..langchain import PplxEmbeddings
        from ..llama_index import PplxEmbedding
    except MissingDependencyError as error:
        raise MissingDependencyError(str(error).split()[0], extra="all") from error
    from langchain_core.documents import Document

    count = PplxBiEncoder(model).document.count_tokens
    chunks = [
        Document(chunk.text, metadata={"source": page.source, "start_index": chunk.start})
        for page in pages
        for chunk in Splitter(chunk_tokens=CHUNK_TOKENS, count_tokens=count, markdown=page.markdown).split(page.text)
    ]
    return {**_langchain(chunks, PplxEmbeddings(model)), **_llama_index(chunks, PplxEmbedding(model))}


def _langchain(chunks: list[Document], embeddings: PplxEmbeddings) -> dict[tuple[str, str], Rank]:
    from langchain_core.vectorstores import InMemoryVectorStore

    from ..langchain import add_documents

    plain, contextual = InMemoryVectorStore(embeddings), InMemoryVectorStore(embeddings)
    add_documents(plain, chunks, group_by=range(len(chunks)))  # each chunk a document of its own
    add_documents(contextual, chunks, group_by="source")

    def ranker(store: InMemoryVectorStore) -> Rank:
        return lambda question: [
            Hit(found.metadata["source"], found.page_content) for found in store.similarity_search(question, k=TOP)
        ]

    return {("LangChain", "plain"): ranker(plain), ("LangChain", "in context"): ranker(contextual)}


def _llama_index(chunks: list[Document], embed_model: PplxEmbedding) -> dict[tuple[str, str], Rank]:
    from llama_index.core import VectorStoreIndex
    from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode

    def nodes() -> list[TextNode]:
        return [
            TextNode(
                text=chunk.page_content,
                start_char_idx=chunk.metadata["start_index"],
                relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=chunk.metadata["source"])},
            )
            for chunk in chunks
        ]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ContextWarning)  # that chunks come without their document is the point here
        plain = VectorStoreIndex(nodes(), embed_model=embed_model)
    contextual = VectorStoreIndex(embed_model(nodes()), embed_model=embed_model)

    def ranker(index: VectorStoreIndex) -> Rank:
        retriever = index.as_retriever(similarity_top_k=TOP)
        return lambda question: [
            Hit(str(found.node.ref_doc_id), found.node.get_content()) for found in retriever.retrieve(question)
        ]

    return {("LlamaIndex", "plain"): ranker(plain), ("LlamaIndex", "in context"): ranker(contextual)}


def _pages() -> list[TextFile]:
    """Read the documentation: beside the package in a checkout, inside it where it is installed."""
    package = Path(str(resources.files("pplx_embed_integrations")))
    inside, beside = package / "pages", package.parent / "docs"
    pages, _ = read_folder(inside if inside.is_dir() else beside)
    return pages


def _side_by_side(left: list[Hit], right: list[Hit], titles: tuple[str, str], question: Question) -> str:
    width = (min(max(shutil.get_terminal_size().columns, 80), 132) - 6) // 2
    columns = [_column(title, hits, question, width) for title, hits in zip(titles, (left, right), strict=True)]
    return "".join(
        f"  {a}{' ' * (width - text_width(a))}  {b}".rstrip() + "\n" for a, b in zip_longest(*columns, fillvalue="")
    )


def _column(title: str, hits: list[Hit], question: Question, width: int) -> list[str]:
    lines = [title]
    for rank, hit in enumerate(hits, 1):
        text = wrapped(shown(" ".join(re.sub("[#`*]+", "", hit.text).split())), width - 5)[:2]
        lines += [f"{'✓' if hit.answers(question) else ' '} {rank}. {hit.source}", *(f"     {line}" for line in text)]
        lines += [""] * (2 - len(text))
    return lines
