"""Vectors in native form from an adapter of a framework, which has them from the pair of encoders that it holds.

Knows that there is a pair; must not know which framework it is adapted to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .biencoder import PplxBiEncoder
    from .embedder import Form
    from .remote.usage import Usage
    from .vectors import Vectors

__all__ = ["NativeForms"]


class NativeForms:
    """An adapter's methods that give codes, bits or floats as numpy arrays, with the options of `PplxBiEncoder`."""

    if TYPE_CHECKING:

        @property
        def biencoder(self) -> PplxBiEncoder:
            """The pair."""

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
