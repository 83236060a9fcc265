"""PplxEmbeddings: the bi-encoder as a LangChain embedding model, with documents whose chunks are embedded in context.

Knows LangChain's `Embeddings` interface, pydantic fields and who may wrap the object; must not know stores or how a
checkpoint is run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.stores import BaseStore, ByteStore
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, create_model
from typing_extensions import Self, Unpack

from ..biencoder import Form, PplxBiEncoder
from ..errors import InputError, InputTypeError, NotContextualError, calling_line, warn
from ..inputs import check_documents, check_texts
from ..options import BiEncoderOptions
from ..schema import documented, fields_of, options_of, refuse_unknown
from ..threads import in_thread
from ..vectors import Vectors, to_lists, vector_dtype
from .cache import DocumentCache
from .contextual import OnMiss, Scope, find, is_open, open_scope, tell_apart
from .grouping import GroupBy
from .grouping import check_documents as check_langchain_documents
from .splitting import ChunkedDocument, chunk_documents, is_splitting

__all__ = ["PplxEmbeddings"]


_OPTIONS = options_of(BiEncoderOptions)

if TYPE_CHECKING:

    class _Options(BiEncoderOptions, BaseModel): ...

else:
    _Options = create_model("_Options", **fields_of(BiEncoderOptions, Field))


@documented(BiEncoderOptions)
class PplxEmbeddings(_Options, Embeddings):
    """pplx-embed as a LangChain embedding model: queries through a v1 model, documents through a context-v1 model.

    `embed_documents` takes a flat list for a list of independent texts. Chunks get the context of their document
    inside a `documents(...)` block, through `add_documents` and its siblings, or from `embed_document_chunks`.

    Objects are immutable, safe to share between threads and tasks, and load nothing before the first vector. Pickles
    carry the options, neither weights nor the cache.

    Attributes:
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

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    # Like every field it is checked before pydantic sees it.
    token: SecretStr | str | bool | None = Field(  # type: ignore[assignment]
        default=None, repr=False, description=_OPTIONS["token"].description
    )
    cache: ByteStore | None = Field(default=None, exclude=True, repr=False)

    _biencoder: PplxBiEncoder = PrivateAttr()
    _document_cache: DocumentCache | None = PrivateAttr(default=None)
    _told_of_flat_lists: set[tuple[str, int]] = PrivateAttr(default_factory=set)

    if not TYPE_CHECKING:  # type checkers derive the arguments from the fields

        def __init__(self, model=_OPTIONS["model"].default, *, cache=None, **options):
            refuse_unknown(options, type(self).model_fields)
            if isinstance(token := options.get("token"), SecretStr):
                options["token"] = token.get_secret_value()
            biencoder = PplxBiEncoder(model, **options)
            biencoder.check_floats()
            fields = {name: getattr(biencoder, name) for name in options}
            if isinstance(biencoder.token, str):
                fields["token"] = SecretStr(biencoder.token)
            if cache is not None:
                if not isinstance(cache, BaseStore):
                    raise InputTypeError(f"cache must be a ByteStore of langchain_core, not {type(cache).__name__}")
                fields["cache"] = cache
            super().__init__(model=model, **fields)
            self._connect(biencoder)

    def _connect(self, biencoder: PplxBiEncoder) -> None:
        self._biencoder = biencoder
        if self.cache is not None:
            self._document_cache = DocumentCache(
                self.cache,
                identity=self.vector_identity,
                width=self._biencoder.dimension,
                dtype=vector_dtype(self.quantization, normalize=False),
            )

    def __getstate__(self) -> dict[Any, Any]:
        if is_open(self):
            warn(
                "PplxEmbeddings is being pickled inside its documents(...) block: the copy, in another process for "
                "example, does not know the documents, and embeds each text by itself. Open the block there",
            )
        return {"fields": {name: getattr(self, name) for name in self.model_fields_set if name != "cache"}}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        self.__init__(**state["fields"])  # type: ignore[misc]  # fields are all that there is to a pickle

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.__dict__ == other.__dict__  # the options, whatever is loaded

    def __hash__(self) -> int:
        return hash(repr(self))

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        return self.model_copy()  # immutable, so a copy may share the loaded models and the cache

    @property
    def biencoder(self) -> PplxBiEncoder:
        """The bi-encoder behind this object, with its encoders as `.query` and `.document`."""
        return self._biencoder

    @property
    def contextual(self) -> bool:
        """Whether the document side embeds chunks in the context of their document."""
        return self._biencoder.contextual

    def vector_identity(self) -> str:
        """Name the document side's checkpoint and every option that decides a document's vectors."""
        return self._biencoder.identity()

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy the object; without `update` the copy shares the loaded models.

        Args:
            update: Options to change; unlike pydantic's own, they are checked and take effect.
            deep: Makes no difference, since nothing in the object changes.
        """
        if not update:
            return super().model_copy()
        given = {name: getattr(self, name) for name in self.model_fields_set}
        copy = type(self)(**{**given, **update})
        copy._biencoder.hold(self._biencoder)
        return copy

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
        flat = [(number, row) for number, document in enumerate(documents) for row in range(len(document.chunks))]
        places = [place for document in documents for place in document.places]
        if places:
            flat = [each for _, each in sorted(zip(places, flat, strict=True))]
        chunks = [documents[number].chunks[row] for number, row in flat]
        groups = [[0] * len(document.chunks) for document in documents]
        for index, (number, row) in enumerate(flat):
            groups[number][row] = index
        tell_apart(chunks)
        scope = Scope(self, [chunk.page_content for chunk in chunks], groups, on_miss=on_miss, in_turn=in_turn)
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
        return self._floats(self._rows(checked)) if (checked := check_texts(texts)) else []

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """`embed_documents` without blocking the event loop."""
        return await in_thread(self._floats, await self._arows(checked)) if (checked := check_texts(texts)) else []

    def _rows(self, texts: list[str]) -> Vectors:
        """What `embed_documents` gives, in native form."""
        lookup = find(self, texts, alone=self._tell_of_flat_list)
        if lookup is None:
            return self._encode_alone(texts)
        matrices = {scope: scope.matrices(wanted, self._encode_together) for scope, wanted in lookup.wanted()}
        return lookup.rows(matrices, self._encode_alone(lookup.misses) if lookup.misses else None)

    async def _arows(self, texts: list[str]) -> Vectors:
        lookup = find(self, texts, alone=self._tell_of_flat_list)
        if lookup is None:
            return await self._aencode_alone(texts)
        matrices = {}
        for scope, wanted in lookup.wanted():
            matrices[scope] = await scope.amatrices(wanted, self._aencode_together)
        return lookup.rows(matrices, await self._aencode_alone(lookup.misses) if lookup.misses else None)

    def embed_document_chunks(self, documents: list[list[str]]) -> list[list[list[float]]]:
        """Embed documents of chunks in context, for stores that take ready vectors.

        Args:
            documents: Documents, each a list of its chunks in reading order, without overlap.

        Returns:
            For each document a list of Python floats per chunk.

        Raises:
            NotContextualError: The document side was not trained for this.
        """
        return [self._floats(matrix) for matrix in self._encode_together(check_documents(documents))]

    async def aembed_document_chunks(self, documents: list[list[str]]) -> list[list[list[float]]]:
        """`embed_document_chunks` without blocking the event loop."""
        matrices = await self._aencode_together(check_documents(documents))
        return await in_thread(lambda: [self._floats(matrix) for matrix in matrices])

    def encode_query(self, text: str, **form: Unpack[Form]) -> Vectors:
        """Embed a query in native form: int8 codes, ±1, packed bits or float32; see `PplxBiEncoder.encode_query`."""
        return self._biencoder.encode_query(text, **form)

    def encode_queries(self, texts: list[str], **form: Unpack[Form]) -> Vectors:
        """Embed queries in native form, a row each; see `PplxBiEncoder.encode_query`."""
        return self._biencoder.encode_queries(texts, **form)

    def encode_documents(self, documents: list[list[str]], **form: Unpack[Form]) -> list[Vectors]:
        """Embed documents of chunks in native form, a matrix each; see `PplxBiEncoder.encode_documents`."""
        return self._biencoder.encode_documents(documents, **form)

    def encode_texts(self, texts: list[str], **form: Unpack[Form]) -> Vectors:
        """Embed independent texts in native form, a row each; see `PplxBiEncoder.encode_texts`."""
        return self._biencoder.encode_texts(texts, **form)

    def _tell_of_flat_list(self, texts: list[str]) -> None:
        """Warn, once for each line outside LangChain that brings it about."""
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

    def _floats(self, codes: Vectors) -> list[list[float]]:
        return to_lists(codes, normalize=self.normalize)

    def _encode_together(self, documents: list[list[str]], **form: Unpack[Form]) -> list[Vectors]:
        encode = partial(self._biencoder.encode_documents, **form)
        return self._document_cache.encode(documents, encode) if self._document_cache else encode(documents)

    async def _aencode_together(self, documents: list[list[str]], **form: Unpack[Form]) -> list[Vectors]:
        encode = partial(self._biencoder.aencode_documents, **form)
        return await (self._document_cache.aencode(documents, encode) if self._document_cache else encode(documents))

    # For callers that draw a bar of their own.
    def _encode_quietly(self, documents: list[list[str]]) -> list[Vectors]:
        return self._encode_together(documents, show_progress=False)

    async def _aencode_quietly(self, documents: list[list[str]]) -> list[Vectors]:
        return await self._aencode_together(documents, show_progress=False)

    # Alone a text is a document of one chunk, and is cached as such.
    def _encode_alone(self, texts: list[str]) -> Vectors:
        if not self._document_cache:
            return self._biencoder.encode_texts(texts)

        def encode(documents: list[list[str]]) -> list[Vectors]:
            return list(self._biencoder.encode_texts([text for [text] in documents])[:, None])

        return np.concatenate(self._document_cache.encode([[text] for text in texts], encode))

    async def _aencode_alone(self, texts: list[str]) -> Vectors:
        if not self._document_cache:
            return await self._biencoder.aencode_texts(texts)

        async def encode(documents: list[list[str]]) -> list[Vectors]:
            return list((await self._biencoder.aencode_texts([text for [text] in documents]))[:, None])

        return np.concatenate(await self._document_cache.aencode([[text] for text in texts], encode))
