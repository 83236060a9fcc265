"""What `PplxEmbeddings` is made with: its fields, their checks, and what becomes of them in copies and pickles.

Knows the bi-encoder's options and pydantic; must not know documents, blocks' contents or stores.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from langchain_core.stores import BaseStore, ByteStore
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, create_model
from typing_extensions import Self

from ..biencoder import PplxBiEncoder
from ..errors import InputTypeError, warn
from ..options import BiEncoderOptions
from ..schema import fields_of, options_of, refuse_unknown
from ..vectors import vector_dtype
from .cache import DocumentCache
from .contextual import is_open

_OPTIONS = options_of(BiEncoderOptions)

if TYPE_CHECKING:

    class _Options(BiEncoderOptions, BaseModel): ...

else:
    _Options = create_model("_Options", **fields_of(BiEncoderOptions, Field))


class EmbeddingsOptions(_Options):
    """A LangChain embedding model as its options; holds the bi-encoder made from them, and the cache."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    # Like every field it is checked before pydantic sees it.
    token: SecretStr | str | bool | None = Field(  # type: ignore[assignment]
        default=None, repr=False, description=_OPTIONS["token"].description, union_mode="left_to_right"
    )
    cache: ByteStore | None = Field(default=None, exclude=True, repr=False)

    _biencoder: PplxBiEncoder = PrivateAttr()
    _document_cache: DocumentCache | None = PrivateAttr(default=None)

    if not TYPE_CHECKING:  # type checkers derive the arguments from the fields

        def __init__(self, model=_OPTIONS["model"].default, *, cache=None, **options):
            refuse_unknown(options, type(self).model_fields)
            if isinstance(token := options.get("token"), SecretStr):
                options["token"] = token.get_secret_value()
            biencoder = PplxBiEncoder(model, **options)
            biencoder.check_floats()
            if cache is not None and not isinstance(cache, BaseStore):
                raise InputTypeError(f"cache must be a ByteStore of langchain_core, not {type(cache).__name__}")
            super().__init__(model=model, cache=cache, **{name: getattr(biencoder, name) for name in options})
            self._biencoder = biencoder
            if cache is not None:
                dtype = vector_dtype(self.quantization, normalize=False)
                self._document_cache = DocumentCache(
                    cache, identity=biencoder.identity, width=biencoder.dimension, dtype=dtype
                )

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        if is_open(self):
            warn(
                "PplxEmbeddings is being pickled inside its documents(...) block: the copy, in another process for "
                "example, does not know the documents, and embeds each text by itself. Open the block there",
            )
        return partial(type(self), **{name: getattr(self, name) for name in self.model_fields_set - {"cache"}}), ()

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.__dict__ == other.__dict__  # the options, whatever is loaded

    def __hash__(self) -> int:
        return hash(repr(self))

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        return self.model_copy()  # immutable, so a copy may share the loaded models and the cache

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

    def copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False, **_: Any) -> Self:
        """`model_copy` under the name it had in pydantic 1, whose own would set fields and leave the models."""
        return self.model_copy(update=update, deep=deep)
