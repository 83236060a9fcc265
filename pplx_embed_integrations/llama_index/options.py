"""What `PplxEmbedding` is made with: its fields, their checks, and what becomes of them in copies and pickles.

Knows the bi-encoder's options and LlamaIndex's, and how they clash; must not know nodes, vectors or events.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import Field, PrivateAttr, create_model
from llama_index.core.schema import MetadataMode
from typing_extensions import Self

from ..biencoder import PplxBiEncoder
from ..checkpoints import hub_id, list_checkpoints, resolve
from ..embedder import Embedder, as_embedder
from ..errors import InputError
from ..inputs import check_positive
from ..options import BiEncoderOptions, Model, PairOptions
from ..pair import models_of
from ..schema import decisive, fields_of, option, options_of, refuse_unknown
from .keys import located, spelled_out

_MODEL = options_of(BiEncoderOptions)["model"]
_FIXED = options_of(PairOptions)
"""Options that stay as they are: a vector is compared with those that were made before."""


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


class NodeOptions(PairOptions):
    """A pair by its name, and how nodes are read."""

    model_name: Model = decisive(_MODEL.description, default=_MODEL.default, kw_only=False)
    metadata_mode: MetadataMode | str = decisive(
        "Which metadata of a node is embedded", default=MetadataMode.EMBED, absent='`"embed"`', check=metadata_mode_of
    )
    metadata_per_document: bool = decisive(
        "Read metadata that all chunks of a document share once, before the first of them, not with each", default=False
    )
    embed_batch_size: int = option(
        "Texts between two reports of progress, at most 2048; the encoder packs them to a token budget by itself",
        default=256,
        check=partial(check_positive, "embed_batch_size", largest=2048),
    )


_OPTIONS = options_of(NodeOptions)
_DECISIVE = [name for name, each in _OPTIONS.items() if each.changes_vectors]

if TYPE_CHECKING:

    class _Options(NodeOptions, BaseEmbedding): ...  # type: ignore[misc]  # a name may be a path

else:
    _Options = create_model("_Options", __base__=BaseEmbedding, **fields_of(NodeOptions, Field))


class EmbeddingOptions(_Options):
    """A LlamaIndex embedding model as its options; holds the bi-encoder made from them."""

    _biencoder: PplxBiEncoder = PrivateAttr()

    if not TYPE_CHECKING:  # type checkers derive the arguments from the fields

        def __init__(self, model_name=_MODEL.default, **options):
            options.pop("class_name", None)  # `model_dump` writes it
            refuse_unknown(options, type(self).model_fields)
            models = models_of(model_name, options.get("query_model"), options.get("document_model"))
            query, document = map(canonical_name, models)
            options |= {"query_model": query, "document_model": document}
            biencoder = PplxBiEncoder(**{name: value for name, value in options.items() if name in _FIXED})
            biencoder.check_floats()
            fields = {
                name: getattr(biencoder, name) if name in _FIXED else _checked(name, value, biencoder)
                for name, value in options.items()
                if name != "callback_manager" or value is not None
            }
            fields |= {name: biencoder.options[name] for name in ("query_revision", "document_revision")}
            super().__init__(model_name=label(query, document), **fields)
            super().__setattr__("_biencoder", biencoder)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _FIXED:
            raise InputError(
                f"{name} cannot be changed: vectors already stored would no longer match; make a new object, "
                f"for example embed_model.model_copy(update={{{name!r}: ...}})"
            )
        super().__setattr__(name, _checked(name, value, self._biencoder))

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

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        # LlamaIndex's own way takes what cannot be pickled out of the very object, hence a copy, and makes of fields
        # that are refused an object without models.
        fields = self.model_copy().__getstate__()["__dict__"]
        return partial(type(self), **fields), ()


def _checked(name: str, value: Any, biencoder: PplxBiEncoder) -> Any:
    """Return what may be set later, too, as it is kept; refuse what these models have no use for."""
    if name == "embeddings_cache":
        check_cache(value, biencoder)
    if name in _OPTIONS:
        value = _OPTIONS[name].checked(name, value)
    if name == "metadata_per_document" and value and not biencoder.contextual:
        raise InputError(
            f"metadata_per_document=True needs a contextual document model; {biencoder.options['document_model']!r} "
            "reads each chunk by itself, so shared metadata would reach none of them"
        )
    return value


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
    if not biencoder.symmetric:
        raise InputError(
            "embeddings_cache keeps queries and texts under one key, and here different models may embed them, or one "
            "that reads them differently; use an IngestionPipeline's cache, or one checkpoint for both sides"
        )


def canonical_name(model: Model) -> str | Embedder:
    """Return the one name of a checkpoint, the same on every machine and in every letter case, or a folder's path.

    An embedder has no other name than itself.

    Example:
        >>> canonical_name("Perplexity-AI/PPLX-Embed-V1-4B")
        'v1-4b'
    """
    embedder = as_embedder(model, name="the model")
    if embedder is not None:
        return embedder
    name = cast("str | Path", model)
    if source := hub_id(name):
        return source
    spec = resolve(name)
    return spec.name if spec in list_checkpoints() else spec.source


def label(query_model: str | Embedder, document_model: str | Embedder) -> str:
    """Return what the object is called in events and payloads.

    Example:
        >>> label("v1-0.6b", "context-v1-0.6b")
        'v1-0.6b + context-v1-0.6b'
    """
    query, document = (
        model if isinstance(model, str) else type(model).__name__ for model in (query_model, document_model)
    )
    return document if query == document else f"{query} + {document}"
