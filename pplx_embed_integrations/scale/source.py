"""What embeds on the workers, and in which form: whatever a user has, brought down to an embedder of documents.

Knows pairs, adapters and embedders; must not know rows, tables or Ray.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..biencoder import PplxBiEncoder
from ..embedder import Embedder, as_embedder, check_contextual, differences
from ..errors import EncodingError, InputError, InputTypeError
from ..stores import StoredDocument
from ..vectors import Quantization, Vectors

_PROBE = "a text"


@dataclass(frozen=True)
class Source:
    """An embedder of documents, and the form of its vectors.

    Attributes:
        embedder: What embeds; pickles carry its options, no weights.
        dimensions: Width.
        quantization: `"int8"` or `"binary"`.
        identity: What it is on the machine that started the job.
        model: How an error calls it.
    """

    embedder: Embedder
    dimensions: int
    quantization: str
    identity: str
    model: str

    @classmethod
    def of(cls, embeddings: Any) -> Source:
        """Take an adapter of either framework, a bi-encoder, or an embedder.

        Raises:
            InputError: Its vectors are neither int8 nor binary.
            InputTypeError: It is nothing of that.
            NotContextualError: It was not trained for chunks in context.
        """
        pair = getattr(embeddings, "biencoder", embeddings)
        mode = getattr(embeddings, "metadata_mode", "none")
        if getattr(mode, "value", mode) != "none":
            raise InputError(
                "the text alone is embedded here, and this PplxEmbedding embeds metadata with it; pass "
                'PplxEmbedding(..., metadata_mode="none"), or use SplitAndEmbed in a RayIngestionPipeline'
            )
        model = type(embeddings).__name__
        if isinstance(pair, PplxBiEncoder):
            embedder, dimensions, quantization = pair.document, pair.dimension, pair.quantization
        else:
            found = as_embedder(pair, name="embeddings")
            if found is None:
                raise InputTypeError(
                    f"embeddings must be PplxEmbeddings, PplxEmbedding, PplxBiEncoder or an embedder, not {model}"
                )
            embedder, dimensions, quantization = found, found.dimension, "int8"
        if quantization not in ("int8", "binary"):
            raise InputError(
                f'{model}(quantization={quantization!r}) gives floats or bits that are packed already; use "int8" '
                '(codes and bits) or "binary" (bits)'
            )
        check_contextual(embedder, name=model)
        return cls(embedder, dimensions, quantization, embedder.identity(), model)

    @property
    def made_by(self) -> dict[str, Any]:
        """The identity as a dictionary."""
        return dict(json.loads(self.identity))

    def check_same(self) -> None:
        """Refuse to compute where vectors would differ from those of the machine that started the job.

        Raises:
            InputError: They would; the message says in what.
        """
        here = self.embedder.identity()
        if here != self.identity:
            raise InputError(
                "a worker would make other vectors than the machine that started the job: "
                f"{'; '.join(differences(here, self.identity))}. Say what is meant where the embeddings are made, for "
                'example dtype="bfloat16"'
            )

    def encode(self, documents: Sequence[StoredDocument]) -> list[Vectors | str]:
        """Embed documents.

        Returns:
            For each a matrix, `[chunks, d]` int8 or packed bits, or the reason why it has none.
        """
        try:
            return list(self._encode([document.texts for document in documents], documents))
        except (InputError, InputTypeError, EncodingError) as error:
            if len(documents) > 1:
                half = len(documents) // 2  # so that the others are still computed together
                return self.encode(documents[:half]) + self.encode(documents[half:])
            if isinstance(error, EncodingError):
                self._encode([[_PROBE]], documents)  # a device that has failed for good is not this document's fault
            return [str(error)]

    def _encode(self, texts: list[list[str]], documents: Sequence[StoredDocument]) -> list[Vectors]:
        form: Quantization = "int8" if self.quantization == "int8" else "ubinary"
        return self.embedder.encode_documents(
            texts,
            names=[f"document {document.key!r}" for document in documents],
            quantization=form,
            dimensions=self.dimensions,
        )
