"""A pair of models inside other benchmarks' own runners: MTEB's encoder, ConTEB's contextual embedder.

Knows the methods that these runners call; must not know their tasks, nor import them before they are asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    import torch

    from ..biencoder import PplxBiEncoder
    from ..vectors import Vectors


class MTEBEncoder:
    """A pair as an encoder for `mteb.evaluate` (mteb 2).

    Queries go through the query model and documents through the document model, each as a document of one chunk, as
    MTEB's documents are. Texts that are neither (similarity, classification, clustering) go through the query model:
    v1, which is for single texts. Vectors are unit-length floats of the quantised values, in the pair's width and form.

    Results are kept under a revision that changes with the weights, the width and the form, so that no cached figure
    stands for another model.

    Args:
        pair: The models.

    Raises:
        InputError: The pair gives packed bits; `quantization="binary"` ranks the same.

    Example:
        >>> from pplx_embed_integrations import PplxBiEncoder
        >>> encoder = MTEBEncoder(PplxBiEncoder("miniature", dimensions=128))
        >>> encoder.encode([{"text": ["tides", "the moon"]}, {"text": ["ships"]}]).shape
        (3, 128)
        >>> encoder.similarity(encoder.encode([{"text": ["tides"]}]), encoder.encode([{"text": ["tides"]}])).shape
        torch.Size([1, 1])
    """

    def __init__(self, pair: PplxBiEncoder) -> None:
        pair.check_floats()
        self._pair = pair

    @property
    def mteb_model_meta(self) -> Any:
        """Name, revision and width, as MTEB keeps them with results.

        Raises:
            ImportError: `mteb` is not installed.
        """
        from mteb.models.model_meta import ModelMeta, ScoringFunction

        from .searching import names_of

        names = names_of(self._pair).values()
        identity = f"{self._pair.query.identity()}\n{self._pair.identity()}"
        return ModelMeta.create_empty(
            {
                "name": f"pplx-embed-integrations/{'-to-'.join(name.replace('/', '_') for name in names)}",
                "revision": hashlib.sha256(identity.encode()).hexdigest()[:16],
                "embed_dim": self._pair.dimension,
                "similarity_fn_name": ScoringFunction.COSINE,
                "use_instructions": False,
                "framework": ["PyTorch"],
            }
        )

    def encode(self, inputs: Iterable[dict[str, Any]], *, prompt_type: Any = None, **_: Any) -> Vectors:
        """Embed a loader's batches: `[texts, dimensions]` float32 of unit length.

        Args:
            inputs: Batches with their `"text"`.
            prompt_type: MTEB's query or document, or None.

        Raises:
            InputError: A text is empty or too long.
        """
        texts = [text for batch in inputs for text in batch["text"]]
        if getattr(prompt_type, "value", prompt_type) == "document":
            return self._pair.encode_texts(texts, normalize=True, show_progress=False)
        return self._pair.encode_queries(texts, normalize=True)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """Return the cosine of every row with every other: `[n, m]`."""
        left, right = _unit(embeddings1), _unit(embeddings2)
        return left @ right.T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """Return the cosine of each row with its partner: `[n]`."""
        left, right = _unit(embeddings1), _unit(embeddings2)
        return (left * right).sum(dim=-1)


def _unit(rows: Any) -> torch.Tensor:
    import torch

    matrix = torch.atleast_2d(torch.as_tensor(rows, dtype=torch.float32))
    return torch.nn.functional.normalize(matrix, dim=-1)


def conteb_embedder(pair: PplxBiEncoder) -> Any:
    """Return a pair as an `Embedder` for ConTEB's `compute_metrics_e2e` (package `cde_benchmark`).

    Where the document model is contextual, the runner hands over documents as lists of chunks, which are embedded
    together; otherwise it hands over chunks, each by itself. Vectors are unit-length floats of the quantised values, as
    the runner compares by inner product.

    Args:
        pair: The models.

    Raises:
        InputError: `cde_benchmark` is not installed, or the pair gives packed bits.

    Example:
        >>> from pplx_embed_integrations import PplxBiEncoder
        >>> conteb_embedder(PplxBiEncoder("miniature"))  # doctest: +SKIP
        <….PplxEmbedder object at …>
    """
    try:
        from cde_benchmark.embedders.base_embedder import Embedder
    except ImportError:
        raise InputError(
            "cde_benchmark is not installed; type: pip install git+https://github.com/illuin-tech/conteb"
        ) from None
    pair.check_floats()

    class PplxEmbedder(Embedder):  # type: ignore[misc]  # the package has no types
        def __init__(self) -> None:
            super().__init__(is_contextual_model=pair.contextual)

        def embed_queries(self, queries: Sequence[str]) -> torch.Tensor:
            return _unit(pair.encode_queries(list(queries), normalize=True))

        def embed_documents(self, documents: Sequence[Any]) -> list[torch.Tensor] | torch.Tensor:
            if self.is_contextual_model:
                return [_unit(matrix) for matrix in pair.encode_documents(documents, normalize=True)]
            return _unit(pair.encode_texts(list(documents), normalize=True))

    return PplxEmbedder()
