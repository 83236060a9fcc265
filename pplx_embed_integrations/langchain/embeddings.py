"""PplxEmbeddings: the bi-encoder as a LangChain embedding model, with documents whose chunks are embedded in context.

Knows LangChain's `Embeddings` interface and `documents(...)` blocks; must not know stores or how a checkpoint is run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from pydantic import PrivateAttr
from typing_extensions import Unpack

from ..biencoder import NativeForms
from ..embedder import Form
from ..errors import InputError, InputTypeError, NotContextualError, calling_line, warn
from ..flow import Flow, arun, either, in_worker, run
from ..inputs import check_documents, check_texts
from ..options import BiEncoderOptions
from ..schema import documented
from ..vectors import Vectors, to_lists
from .contextual import OnMiss, Scope, find, open_scope, tell_apart
from .grouping import GroupBy
from .grouping import check_documents as check_langchain_documents
from .options import EmbeddingsOptions
from .splitters import is_splitting
from .splitting import ChunkedDocument, chunk_documents

__all__ = ["PplxEmbeddings"]


@documented(BiEncoderOptions)
class PplxEmbeddings(EmbeddingsOptions, NativeForms, Embeddings):
    """pplx-embed as a LangChain embedding model: queries through a v1 model, documents through a context-v1 model.

    `embed_documents` takes a flat list for a list of independent texts. Chunks get the context of their document
    inside a `documents(...)` block, through `add_documents` and its siblings, or from `embed_document_chunks`.

    Objects are immutable, safe to share between threads and tasks, and load nothing before the first vector. Pickles
    carry the options, neither weights nor the cache.

    Args:
        **options: By name; every one is in the tables of options on the pages of both frameworks.
        cache: A `ByteStore` in which document vectors are kept; a document found there is not embedded again.

    Raises:
        CheckpointError: A name is unknown, or the two sides cannot be compared.
        InputError: An option is out of range.
        InputTypeError: There is no such option, or its value has the wrong type.

    Example:
        >>> embeddings = PplxEmbeddings("miniature", dimensions=128)
        >>> len(embeddings.embed_query("Who wrote notes?"))
        128
        >>> [chunks] = embeddings.embed_document_chunks([["Ada Lovelace wrote notes.", "She called it a science."]])
        >>> len(chunks), len(chunks[0])
        (2, 128)
    """

    _told_of_flat_lists: set[tuple[str, int]] = PrivateAttr(default_factory=set)

    @property
    def contextual(self) -> bool:
        """Whether the document side embeds chunks in the context of their document."""
        return self._biencoder.contextual

    def vector_identity(self) -> str:
        """Name the document side's checkpoint and every option that decides a document's vectors."""
        return self._biencoder.identity()

    @contextmanager
    def documents(
        self, documents: Iterable[Document], *, group_by: GroupBy | None = None, on_miss: OnMiss = "warn"
    ) -> Iterator[None]:
        """Within this block `embed_documents` gives each of these chunks the context of its document.

        Add exactly these documents to any vector store inside the block. Each document is embedded once, when the
        first of its chunks is asked for; at the end everything is dropped. The block holds for the running thread or
        task and what inherits its context, and may be nested.

        Args:
            documents: The chunks, as they go into the store. Chunks of equal text get a string object each.
            group_by: What makes chunks one document: a metadata key, a function of the chunk, or one key per chunk. By
                default the stamp that `split_documents` writes. Inside a document the stamp gives the order, else
                `start_index` where it can be offsets in one text, else the input order.
            on_miss: What becomes of a text that is none of these chunks: with `"warn"` it is embedded without context
                and a warning is issued once, with `"error"` it is refused.

        Raises:
            InputError: Which chunks belong together is not known, or one cannot be embedded.
            InputTypeError: `documents` is no list of LangChain documents.
            NotContextualError: The document side was not trained for this.

        Example:
            >>> from langchain_core.vectorstores import InMemoryVectorStore
            >>> embeddings = PplxEmbeddings("miniature")
            >>> chunks = [Document("Ada Lovelace wrote notes.", metadata={"source": "ada"}),
            ...           Document("She called it a science.", metadata={"source": "ada"})]
            >>> store = InMemoryVectorStore(embeddings)
            >>> with embeddings.documents(chunks, group_by="source"):
            ...     len(store.add_documents(chunks))
            2
        """
        if isinstance(documents, Iterator):
            raise InputTypeError("an iterator would be used up before the store sees it; pass list(documents) to both")
        self._check_contextual()
        found = chunk_documents(check_langchain_documents(documents), group_by=group_by)
        with self._scope(found, on_miss=on_miss) as scope:
            yield
            if scope.unasked:
                warn(
                    f"{scope.unasked} of the {scope.asked + scope.unasked} chunks given to documents(...) were not "
                    "embedded inside the block. If they are in the store, something else gave their vectors: a cache "
                    "that finds them by text, another embeddings object, or an earlier run whose vectors have not read "
                    "the chunks that changed. Pass the chunks that are added, whole documents of them",
                )

    def _check_contextual(self) -> None:
        if not self.contextual:
            raise NotContextualError(
                f"{self._biencoder.options['document_model']} was trained for single texts, not for chunks in context; "
                'use a contextual document_model such as "context-v1-0.6b", or the store\'s own add_documents'
            )

    @contextmanager
    def _scope(
        self, documents: Sequence[ChunkedDocument], *, on_miss: OnMiss = "warn", in_turn: bool = False
    ) -> Iterator[Scope]:
        """Open a block; the chunks' places, where they have any, give the input order."""
        if on_miss not in ("warn", "error"):
            raise InputError(f'on_miss={on_miss!r} is unknown; use "warn" or "error"')
        self._check_contextual()
        places = [(number, row) for number, document in enumerate(documents) for row in range(len(document.chunks))]
        given = [place for document in documents for place in document.places]
        if given:
            places = [place for _, place in sorted(zip(given, places, strict=True))]
        tell_apart(documents[number].chunks[row] for number, row in places)
        scope = Scope(self, [document.texts for document in documents], places, on_miss=on_miss, in_turn=in_turn)
        with open_scope(scope):
            yield scope

    def embed_query(self, text: str) -> list[float]:
        """Embed a query.

        Args:
            text: The query.

        Returns:
            Python floats, `dimensions` of them.
        """
        return self._biencoder.embed_query(text)

    async def aembed_query(self, text: str) -> list[float]:
        """`embed_query` without blocking the event loop; concurrent calls share forward passes."""
        return await self._biencoder.aembed_query(text)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts, each by itself, or in a `documents(...)` block each in the context of its document.

        Args:
            texts: Non-empty strings.

        Returns:
            For each text a list of Python floats.

        Raises:
            InputError: A text is empty, or no chunk of the block's documents with `on_miss="error"`.
            InputTypeError: `texts` is no list of strings.
        """
        return run(self._floats(self._rows(checked))) if (checked := check_texts(texts)) else []

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """`embed_documents` without blocking the event loop."""
        return await arun(self._floats(self._rows(checked))) if (checked := check_texts(texts)) else []

    def _floats(self, rows: Flow[Vectors]) -> Flow[list[list[float]]]:
        codes = yield from rows
        lists: list[list[float]] = yield in_worker(partial(to_lists, codes, normalize=self.normalize))
        return lists

    def _rows(self, texts: list[str]) -> Flow[Vectors]:
        """Embed as `embed_documents` does, in native form."""
        lookup = find(self, texts, alone=self._tell_of_flat_list)
        if lookup is None:
            return (yield from self._alone(texts))
        matrices = {}
        for scope, wanted in lookup.wanted():
            matrices[scope] = yield from scope.matrices(wanted, self._together)
        return lookup.rows(matrices, (yield from self._alone(lookup.misses)) if lookup.misses else None)

    def embed_document_chunks(self, documents: list[list[str]]) -> list[list[list[float]]]:
        """Embed documents of chunks in context, for stores that take ready vectors.

        Args:
            documents: Documents, each a list of its chunks in reading order, without overlap.

        Returns:
            For each document a list of Python floats per chunk.

        Raises:
            NotContextualError: The document side was not trained for this.
        """
        return run(self._chunks(check_documents(documents)))

    async def aembed_document_chunks(self, documents: list[list[str]]) -> list[list[list[float]]]:
        """`embed_document_chunks` without blocking the event loop."""
        return await arun(self._chunks(check_documents(documents)))

    def _chunks(self, documents: list[list[str]]) -> Flow[list[list[list[float]]]]:
        matrices = yield from self._together(documents)
        lists: list[list[list[float]]] = yield in_worker(
            lambda: [to_lists(matrix, normalize=self.normalize) for matrix in matrices]
        )
        return lists

    def _tell_of_flat_list(self, texts: list[str]) -> None:
        """Warn once for each calling line outside LangChain."""
        if len(texts) < 2 or not self.contextual or is_splitting():
            return
        line = calling_line()
        if line in self._told_of_flat_lists:
            return
        self._told_of_flat_lists.add(line)
        warn(
            f"{len(texts)} texts are embedded each by itself, without the context of a document. Chunks of documents "
            "go through add_documents(store, documents, splitter=...), its siblings, or a documents(...) block; "
            "LangChain parts that embed texts anew, such as EmbeddingsFilter, have no context to give. Where each text "
            'is a whole document this is right: warnings.filterwarnings("ignore", message=".*each by itself")',
        )

    def _together(self, documents: list[list[str]], **form: Unpack[Form]) -> Flow[list[Vectors]]:
        """Embed documents of chunks in context, in native form, as far as the cache does not have them."""

        def encode(missing: list[list[str]]) -> Flow[list[Vectors]]:
            matrices: list[Vectors] = yield either(
                self._biencoder.encode_documents, self._biencoder.aencode_documents, missing, **form
            )
            return matrices

        cache = self._document_cache
        return (yield from cache.encode(documents, encode) if cache else encode(documents))

    def _alone(self, texts: list[str]) -> Flow[Vectors]:
        """Embed texts by themselves, in native form; to the cache each is a document of one chunk."""

        def encode(missing: list[list[str]]) -> Flow[list[Vectors]]:
            rows = yield either(
                self._biencoder.encode_texts, self._biencoder.aencode_texts, [text for [text] in missing]
            )
            return list(rows[:, None])

        cache, documents = self._document_cache, [[text] for text in texts]
        return np.concatenate((yield from cache.encode(documents, encode) if cache else encode(documents)))
