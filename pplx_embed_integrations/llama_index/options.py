"""What `PplxEmbedding` is made with: its fields, their checks, and what becomes of them in copies and pickles.

Knows the bi-encoder's options and LlamaIndex's, and how they clash; must not know nodes, vectors or events.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.callbacks import CallbackManager
from llama_index.core.schema import MetadataMode

from ..biencoder import PplxBiEncoder
from ..checkpoints import hub_id, list_checkpoints, resolve, resolve_pair
from ..errors import InputError, InputTypeError
from ..vectors import Quantization
from .keys import located, spelled_out

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["EmbeddingOptions"]


_BIENCODER_OPTIONS = (
    "query_model",
    "document_model",
    "dimensions",
    "quantization",
    "normalize",
    "device",
    "devices",
    "dtype",
    "weights",
    "backend",
    "attention",
    "max_tokens",
    "batch_tokens",
    "truncate",
    "query_revision",
    "document_revision",
    "cache_folder",
    "local_files_only",
    "token",
    "query_cache",
)


_DECISIVE = frozenset(
    ("quantization", "normalize", "weights", "backend", "truncate", "metadata_mode", "metadata_per_document")
)
"""Options that change a vector, beside those that depend on the models."""


class EmbeddingOptions(BaseEmbedding):
    """The options of a `PplxEmbedding`, where they are described; holds the bi-encoder made from them."""

    query_model: str = Field(description="Checkpoint that embeds queries.")
    document_model: str = Field(description="Checkpoint that embeds documents.")
    dimensions: int | None = Field(default=None, description="Width of the vectors; None for all.")
    quantization: Quantization | None = Field(default="int8", description="int8, binary or None.")
    normalize: bool = Field(default=True, description="Whether vectors have unit length.")
    metadata_mode: MetadataMode = Field(default=MetadataMode.EMBED, description="Metadata embedded with a node.")
    metadata_per_document: bool = Field(default=False, description="Whether shared metadata is read once a document.")
    device: str | None = Field(default=None, description="Where both sides run.")
    devices: list[str] | None = Field(default=None, description="Several devices, a worker process each.")
    dtype: str = Field(default="auto", description="Precision of the forward pass.")
    weights: Literal["int8"] | None = Field(default=None, description="int8 for linear layers in 8 bits.")
    backend: Literal["torch", "openvino"] = Field(default="torch", description="What runs the models.")
    attention: Literal["sdpa", "blocked", "varlen"] | None = Field(
        default=None, description="A kernel in place of the fastest."
    )
    max_tokens: int | None = Field(default=None, description="Longest sequence.")
    batch_tokens: int | None = Field(default=None, description="Tokens in a forward pass.")
    truncate: bool = Field(default=False, description="Whether what is too long is cut.")
    query_revision: str | None = Field(default=None, description="Commit of the query side.")
    document_revision: str | None = Field(default=None, description="Commit of the document side.")
    cache_folder: str | None = Field(default=None, description="The hub's cache folder.")
    local_files_only: bool = Field(default=False, description="Whether the network is never touched.")
    token: str | bool | None = Field(default=None, exclude=True, repr=False, description="Access token for the hub.")
    query_cache: int = Field(default=0, description="Query vectors that are kept.")

    _biencoder: PplxBiEncoder = PrivateAttr()

    def __init__(
        self,
        model_name: str | Path = "0.6b",
        *,
        query_model: str | Path | None = None,
        document_model: str | Path | None = None,
        dimensions: int | None = None,
        quantization: Quantization | None = "int8",
        normalize: bool = True,
        metadata_mode: MetadataMode | str = MetadataMode.EMBED,
        metadata_per_document: bool = False,
        device: str | None = None,
        devices: Sequence[str] | None = None,
        dtype: str = "auto",
        weights: Literal["int8"] | None = None,
        backend: Literal["torch", "openvino"] = "torch",
        attention: Literal["sdpa", "blocked", "varlen"] | None = None,
        max_tokens: int | None = None,
        batch_tokens: int | None = None,
        truncate: bool = False,
        query_revision: str | None = None,
        document_revision: str | None = None,
        cache_folder: str | Path | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        query_cache: int = 0,
        embed_batch_size: int = 256,
        callback_manager: CallbackManager | None = None,
        num_workers: int | None = None,
        embeddings_cache: Any = None,
        rate_limiter: Any = None,
        **unknown: Any,
    ) -> None:
        unknown.pop("class_name", None)  # `model_dump` writes it
        if unknown:
            raise InputTypeError(unknown_option(next(iter(unknown)), type(self).model_fields))
        given = {name: value for name, value in locals().items() if name in _BIENCODER_OPTIONS}
        pair = resolve_pair(model_name) if query_model is None or document_model is None else ("", "")
        given["query_model"] = canonical_name(pair[0] if query_model is None else query_model)
        given["document_model"] = canonical_name(pair[1] if document_model is None else document_model)
        given["cache_folder"] = None if cache_folder is None else str(cache_folder)
        given["dtype"] = str(dtype).removeprefix("torch.")
        biencoder = PplxBiEncoder(**given)
        _check_clashes(biencoder, metadata_per_document=metadata_per_document)
        check_cache(embeddings_cache, biencoder)
        given |= {name: biencoder.options[name] for name in ("query_revision", "document_revision")}
        given |= {
            "model_name": label(given["query_model"], given["document_model"]),
            "metadata_mode": metadata_mode_of(metadata_mode),
            "metadata_per_document": metadata_per_document,
            "embed_batch_size": embed_batch_size,
            "callback_manager": callback_manager or CallbackManager([]),
            "num_workers": num_workers,
            "embeddings_cache": embeddings_cache,
            "rate_limiter": rate_limiter,
        }
        given["devices"] = None if devices is None else list(devices)
        super().__init__(**given)
        self._biencoder = biencoder

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _BIENCODER_OPTIONS:
            raise InputError(
                f"{name} cannot be changed: vectors already stored would no longer match; make a new object, "
                f"for example embed_model.model_copy(update={{{name!r}: ...}})"
            )
        if name == "embeddings_cache":
            check_cache(value, self._biencoder)
        super().__setattr__(name, value)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy the object; with `update`, make one anew from the changed options, checked as by the constructor."""
        if not update:
            return super().model_copy(deep=deep)
        fields = dict(self.__dict__)
        for side in ("query", "document"):
            if "model_name" in update:
                del fields[f"{side}_model"]
            if "model_name" in update or f"{side}_model" in update:
                del fields[f"{side}_revision"]
        copy = type(self)(**{**fields, **update})
        copy._biencoder.hold(self._biencoder)
        return copy

    def to_dict(self, **options: Any) -> dict[str, Any]:
        """Return what decides a vector and nothing else, which LlamaIndex's ingestion cache takes for a key.

        Options are in it as what they came to mean, checkpoints by their commit or the content of their folder; loads
        no weights. `from_dict` makes an object that gives the same vectors of it. Every option as it was given is in
        `model_dump()`.

        Raises:
            CheckpointError: The files of a checkpoint have changed since it was loaded, or are damaged.
        """
        data = {name: value for name, value in super().to_dict(**options).items() if name in _DECISIVE}
        data |= spelled_out(self._biencoder)
        data["dimensions"] = self._biencoder.dimension
        data["model_name"] = label(data["query_model"], data["document_model"])  # tracers show it
        return {**data, "class_name": self.class_name()}

    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> Self:
        """Make an object of what `to_dict` gave.

        Args:
            data: What it gave. Of a local folder that is its content, so the folder must have been seen in this
                process, or be given.
            **kwargs: Options in place of those in `data`, for example `document_model` or `device`.

        Raises:
            CheckpointError: A checkpoint is another one now, or its folder is not known.
        """
        return super().from_dict(located(data, kwargs))

    def copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False, **_: Any) -> Self:
        """`model_copy` under the name it had in pydantic 1, which LlamaIndex's users know."""
        return self.model_copy(update=update, deep=deep)

    def __getstate__(self) -> dict[str, Any]:
        # LlamaIndex builds the object anew from the fields when it is unpickled.
        return {**super().__getstate__(), "__pydantic_private__": None}


def _check_clashes(biencoder: PplxBiEncoder, *, metadata_per_document: bool) -> None:
    if biencoder.quantization == "ubinary":
        raise InputError(
            'quantization="ubinary" gives packed bits, and LlamaIndex takes lists of floats; use "binary", which ranks '
            'the same, and encode_documents(..., quantization="ubinary") for the bits themselves'
        )
    if metadata_per_document and not biencoder.contextual:
        raise InputError(
            f"metadata_per_document=True needs a contextual document model; {biencoder.options['document_model']!r} "
            "reads each chunk by itself, so shared metadata would reach none of them"
        )


def check_cache(cache: object, biencoder: PplxBiEncoder) -> None:
    """Refuse an `embeddings_cache` that would hand out wrong vectors.

    It looks a vector up by the bare text, queries and texts in one collection.

    Raises:
        InputError: The document model is contextual, or queries and documents go through different models.
    """
    if cache is None:
        return
    if biencoder.contextual:
        raise InputError(
            "embeddings_cache looks vectors up by the text alone, and a chunk's vector depends on its whole document: "
            "the same footer in two documents would get one vector. Use an IngestionPipeline, whose cache and docstore "
            "know whole documents, or a document model that is not contextual"
        )
    options = biencoder.options
    if any(options[f"query_{what}"] != options[f"document_{what}"] for what in ("model", "revision")):
        raise InputError(
            "embeddings_cache keeps queries and texts under one key, and here different models embed them; use an "
            "IngestionPipeline's cache, or the same query_model and document_model"
        )


def canonical_name(model: str | Path) -> str:
    """Return the one name of a checkpoint, the same on every machine and in every letter case, or a folder's path.

    Example:
        >>> canonical_name("Perplexity-AI/PPLX-Embed-V1-4B")
        'v1-4b'
    """
    if source := hub_id(model):
        return source
    spec = resolve(model)
    return spec.name if spec in list_checkpoints() else spec.source


def label(query_model: str, document_model: str) -> str:
    """Return what the object is called in events and payloads.

    Example:
        >>> label("v1-0.6b", "context-v1-0.6b")
        'v1-0.6b + context-v1-0.6b'
    """
    return document_model if query_model == document_model else f"{query_model} + {document_model}"


def metadata_mode_of(value: MetadataMode | str) -> MetadataMode:
    """Return the mode that a name stands for.

    Raises:
        InputError: There is no such mode.

    Example:
        >>> metadata_mode_of("none")
        <MetadataMode.NONE: 'none'>
    """
    try:
        return MetadataMode(value)
    except ValueError:
        allowed = ", ".join(repr(mode.value) for mode in MetadataMode)
        raise InputError(f"metadata_mode={value!r} is unknown; use one of {allowed}") from None


def unknown_option(name: str, known: Iterable[str]) -> str:
    """Return what to tell somebody who gave an option that does not exist.

    Example:
        >>> unknown_option("dimension", ["dimensions", "device"])
        "there is no option 'dimension' (did you mean 'dimensions'?); there are: device, dimensions"
    """
    names = sorted(known)
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f" (did you mean {nearest[0]!r}?)" if nearest else ""
    return f"there is no option {name!r}{hint}; there are: {', '.join(names)}"
