"""PplxBiEncoder: a query encoder and a document encoder that agree on form, ready for any framework.

Knows what leaves as numpy and what as lists of floats, in which form, itself and through an adapter; must not know
frameworks, or where a side is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from typing_extensions import Unpack

from .embedder import Form
from .errors import InputError
from .flow import in_thread
from .inputs import check_text
from .options import BiEncoderOptions
from .pair import Pair
from .query_cache import QueryCache
from .schema import documented
from .vectors import Vectors, to_lists

if TYPE_CHECKING:
    from .remote.usage import Usage


@documented(BiEncoderOptions)
class PplxBiEncoder(Pair):
    """A pair of models: one embeds queries, one embeds documents.

    By default queries go through a v1 model and documents through the context-v1 model of the same size. Any
    checkpoint may stand on either side, and any `Embedder`; the same one on both sides is loaded once. Nothing is
    loaded, downloaded or imported before the first vector, except the `config.json` of a repository on the hub that is
    not in the list of checkpoints: it says whether the two sides agree.

    `encode_*` methods return numpy arrays in their native form (int8 codes, packed bits); `embed_*` methods return
    lists of Python floats, by default of unit length, as the frameworks' stores want them. Each has an `a...` twin
    that does not block the event loop.

    Args:
        **options: By name; every one is in the tables of options on the pages of both frameworks.

    Raises:
        CheckpointError: A name is unknown, or the two sides cannot be compared.
        InputError: An option is out of range.
        InputTypeError: There is no such option, or its value has the wrong type.

    Example:
        >>> pair = PplxBiEncoder("miniature", dimensions=128)
        >>> [chunks] = pair.encode_documents([["Ada Lovelace wrote notes.", "She called it poetical science."]])
        >>> chunks.shape, len(pair.embed_query("Who wrote notes?"))
        ((2, 128), 128)
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self._native: Form = {"dimensions": self.dimension, "quantization": self.quantization}
        self._shown: Form = {**self._native, "show_progress": self.show_progress}
        self._query_cache = QueryCache(self.query_cache)

    def close(self) -> None:
        """Release both sides' weights, end their worker processes and close connections; the next call begins anew.

        An embedder that was given stays as it is.
        """
        self._query_cache.clear()
        super().close()

    def check_floats(self) -> None:
        """Refuse what has no form as floats, before any work.

        Raises:
            InputError: Vectors are packed bits.
        """
        if self.quantization == "ubinary":
            raise InputError(
                'quantization="ubinary" comes from encode_* alone; use "binary", which ranks the same, and '
                'encode_documents(..., quantization="ubinary") for the bits themselves'
            )

    def encode_query(self, text: str, **form: Unpack[Form]) -> Vectors:
        """Embed a query: `[dimension]`, in native form.

        Args:
            text: The query.
            **form: `dimensions`, `quantization`, `normalize` or `show_progress`, in place of the object's.
                `normalize` is False here unless given.

        Raises:
            InputError: The text is empty or too long.
            InputTypeError: It is no string.
        """
        return cast("Vectors", self.encode_queries([check_text(text, name="the query")], **form)[0])

    def encode_queries(self, texts: Sequence[str], **form: Unpack[Form]) -> Vectors:
        """Embed queries: `[n, dimension]`, in native form; see `encode_query`."""
        form = {**self._native, **form}
        return self.query.encode(texts, role="query", **form)

    def encode_texts(self, texts: Sequence[str], **form: Unpack[Form]) -> Vectors:
        """Embed texts with the document side, each by itself: `[n, dimension]`; see `encode_query`."""
        form = {**self._shown, **form}
        return self.document.encode(texts, role="document", **form)

    def encode_documents(
        self, documents: Sequence[Sequence[str]], *, names: Sequence[str] | None = None, **form: Unpack[Form]
    ) -> list[Vectors]:
        """Embed documents of chunks in context: for each `[chunks, dimension]`; see `encode_query`.

        Args:
            documents: Documents, each a list of its chunks.
            names: How an error calls each document, by default `document 0` and so on.
            **form: As for `encode_query`.

        Raises:
            NotContextualError: The document side was not trained for this.
        """
        form = {**self._shown, **form}
        return self.document.encode_documents(documents, names=names, **form)

    async def aencode_query(self, text: str, **form: Unpack[Form]) -> Vectors:
        """`encode_query` without blocking the event loop."""
        vectors = await self.aencode_queries([check_text(text, name="the query")], **form)
        return cast("Vectors", vectors[0])

    async def aencode_queries(self, texts: Sequence[str], **form: Unpack[Form]) -> Vectors:
        """`encode_queries` without blocking the event loop."""
        embedder = await self._aside("query")
        form = {**self._native, **form}
        return await embedder.aencode(texts, role="query", **form)

    async def aencode_texts(self, texts: Sequence[str], **form: Unpack[Form]) -> Vectors:
        """`encode_texts` without blocking the event loop."""
        embedder = await self._aside("document")
        form = {**self._shown, **form}
        return await embedder.aencode(texts, role="document", **form)

    async def aencode_documents(
        self, documents: Sequence[Sequence[str]], *, names: Sequence[str] | None = None, **form: Unpack[Form]
    ) -> list[Vectors]:
        """`encode_documents` without blocking the event loop."""
        embedder = await self._aside("document")
        form = {**self._shown, **form}
        return await embedder.aencode_documents(documents, names=names, **form)

    def embed_query(self, text: str) -> list[float]:
        """Embed a query: `dimension` Python floats."""
        vector = self._query_cache.get(check_text(text, name="the query"))
        if vector is None:
            [vector] = self.embed_queries([text])
            self._query_cache.put(text, vector)
        return vector

    def embed_queries(self, texts: Sequence[str]) -> list[list[float]]:
        """Embed queries, each to `dimension` Python floats."""
        return self._floats(self.encode_queries(texts, **self._float_form()))

    def embed_texts(self, texts: Sequence[str]) -> list[list[float]]:
        """Embed texts with the document side, each by itself, to `dimension` Python floats."""
        return self._floats(self.encode_texts(texts, **self._float_form()))

    def embed_documents(self, documents: Sequence[Sequence[str]]) -> list[list[list[float]]]:
        """Embed documents of chunks in context, each chunk to `dimension` Python floats."""
        return [self._floats(matrix) for matrix in self.encode_documents(documents, **self._float_form())]

    async def aembed_query(self, text: str) -> list[float]:
        """`embed_query` without blocking the event loop."""
        vector = self._query_cache.get(check_text(text, name="the query"))
        if vector is None:
            [vector] = self._floats(await self.aencode_queries([text], **self._float_form()))
            self._query_cache.put(text, vector)
        return vector

    async def aembed_queries(self, texts: Sequence[str]) -> list[list[float]]:
        """`embed_queries` without blocking the event loop."""
        return await in_thread(self._floats, await self.aencode_queries(texts, **self._float_form()))

    async def aembed_texts(self, texts: Sequence[str]) -> list[list[float]]:
        """`embed_texts` without blocking the event loop."""
        return await in_thread(self._floats, await self.aencode_texts(texts, **self._float_form()))

    async def aembed_documents(self, documents: Sequence[Sequence[str]]) -> list[list[list[float]]]:
        """`embed_documents` without blocking the event loop."""
        matrices = await self.aencode_documents(documents, **self._float_form())
        return await in_thread(lambda: [self._floats(matrix) for matrix in matrices])

    def _float_form(self) -> Form:
        self.check_floats()
        return {}

    def _floats(self, codes: Vectors) -> list[list[float]]:
        return to_lists(codes, normalize=self.normalize)


class NativeForms:
    """An adapter's pair, and its vectors as numpy arrays: codes, bits or floats, with `PplxBiEncoder`'s options."""

    if TYPE_CHECKING:
        _biencoder: PplxBiEncoder

    @property
    def biencoder(self) -> PplxBiEncoder:
        """The pair itself: async twins of `encode_*`, and the encoders of both sides as `.query` and `.document`."""
        return self._biencoder

    @property
    def usage(self) -> Usage:
        """Tokens, and cost where a server tells it, of what servers have embedded so far; see `PplxBiEncoder.usage`."""
        return self.biencoder.usage

    def encode_query(self, text: str, **form: Unpack[Form]) -> Vectors:
        """Embed a query in native form, by default `[dimension]` int8 codes; see `PplxBiEncoder.encode_query`."""
        return self.biencoder.encode_query(text, **form)

    def encode_queries(self, texts: Sequence[str], **form: Unpack[Form]) -> Vectors:
        """Embed queries in native form: `[n, dimension]`; see `PplxBiEncoder.encode_query`."""
        return self.biencoder.encode_queries(texts, **form)

    def encode_texts(self, texts: Sequence[str], **form: Unpack[Form]) -> Vectors:
        """Embed texts, each a document of its own, in native form: `[n, dimension]`."""
        return self.biencoder.encode_texts(texts, **form)

    def encode_documents(self, documents: Sequence[Sequence[str]], **form: Unpack[Form]) -> list[Vectors]:
        """Embed documents of chunks in context, in native form: for each `[chunks, dimension]`."""
        return self.biencoder.encode_documents(documents, **form)
