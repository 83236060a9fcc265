"""What gives vectors for texts and for documents, wherever its weights are, and what makes two vectors comparable.

Knows the methods that every source of vectors has, and the form of an identity; must not know any source.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from typing import Any, Protocol, TypedDict, cast

import numpy as np
from typing_extensions import Self, Unpack

from .errors import InputTypeError, NotContextualError
from .inputs import Role, check_positive
from .vectors import Quantization, Vectors, check_dimensions, quantize

_FORMAT = "pplx-embed-1"
"""Changes when the way from a text to its vector does, so that older vectors are no longer taken for new ones."""


class Form(TypedDict, total=False):
    """What may be chosen in a call of an `encode*` method; see `Embedder.encode`."""

    quantization: Quantization | None
    dimensions: int | None
    normalize: bool
    show_progress: bool


class Embedder(Protocol):
    """A source of vectors: `PplxEncoder`, which has weights in this process, or anything else with these methods."""

    @property
    def dimension(self) -> int:
        """Width of the full vector."""

    @property
    def min_dimension(self) -> int:
        """Smallest width to which a vector may be cut."""

    @property
    def contextual(self) -> bool:
        """Whether the chunks of a document can be embedded together."""

    def identity(self) -> str:
        """Return everything besides the text that decides a full float32 vector, as `identify` writes it."""

    def check_documents(self, documents: Sequence[Sequence[str]], *, names: Sequence[str] | None = None) -> None:
        """Raise one `InputError` for everything that `encode_documents` would refuse."""

    def encode(self, texts: Sequence[str], *, role: Role | None = None, **form: Unpack[Form]) -> Vectors:
        """Embed texts, each by itself: `[texts, dimensions]`, packed bits `[texts, ceil(dimensions / 8)]`.

        In the role of a document a text has the vector of a document of one chunk. `quantization` is `"int8"` unless
        given, `dimensions` the full width; `normalize` and `show_progress` are False.
        """

    def encode_documents(
        self, documents: Sequence[Sequence[str]], *, names: Sequence[str] | None = None, **form: Unpack[Form]
    ) -> list[Vectors]:
        """Embed the chunks of each document together: a matrix for each, as from `encode`."""

    async def aencode(self, texts: Sequence[str], *, role: Role | None = None, **form: Unpack[Form]) -> Vectors:
        """`encode` without blocking the event loop."""

    async def aencode_documents(
        self, documents: Sequence[Sequence[str]], *, names: Sequence[str] | None = None, **form: Unpack[Form]
    ) -> list[Vectors]:
        """`encode_documents` without blocking the event loop."""

    def close(self) -> None:
        """Release what is held; the next call takes it up again."""


def as_embedder(given: object, *, name: str) -> Embedder | None:
    """Return what was given if it is an embedder, None if it has nothing of one.

    Args:
        given: Perhaps a name or a path.
        name: How an error calls it.

    Raises:
        InputError: Its dimension is no positive number.
        InputTypeError: It has some, but not all that an embedder has.
    """
    members = [member for member in vars(Embedder) if not member.startswith("_")]
    missing = [member for member in members if not hasattr(given, member)]
    if len(missing) == len(members) or isinstance(given, (str, type)):
        return None
    if missing:
        raise InputTypeError(
            f"{name}={given!r} is no embedder: {type(given).__name__} lacks {', '.join(missing)}; "
            "see pplx_embed_integrations.Embedder"
        )
    embedder = cast("Embedder", given)
    check_positive(f"the dimension of {name}", embedder.dimension)
    return embedder


@dataclass(frozen=True)
class OutputForm:
    """What the vectors of a call look like, checked.

    Attributes:
        dimensions: Width to which they are cut.
        quantization: Form of their values.
        normalize: Whether they are scaled to unit length.
        show_progress: Whether a bar is shown until they are there.
        vectors: `vectors.quantize` for this form; takes pooled floats, and `rows` and `quantizer` as it does.
        width: Columns of its result.
        dtype: Numbers of its result.
    """

    dimensions: int
    quantization: Quantization | None
    normalize: bool
    show_progress: bool
    vectors: Callable[..., Vectors]
    width: int
    dtype: np.dtype[Any]

    @classmethod
    def of(
        cls,
        embedder: Embedder,
        quantization: Quantization | None = "int8",
        dimensions: int | None = None,
        normalize: bool = False,
        show_progress: bool = False,
    ) -> Self:
        """Check what a caller asks of an embedder's vectors.

        Raises:
            InputError: An option is out of range, or two exclude each other.
            InputTypeError: `dimensions` is no integer.
        """
        columns = check_dimensions(dimensions, smallest=embedder.min_dimension, largest=embedder.dimension)
        vectors = partial(quantize, dimensions=columns, quantization=quantization, normalize=normalize)
        none = vectors(np.empty((0, embedder.dimension)))
        return cls(columns, quantization, normalize, show_progress, vectors, none.shape[1], none.dtype)


def split(matrix: Vectors, documents: Sequence[Sequence[Any]]) -> list[Vectors]:
    """Cut a matrix into one for each document, with a row for each of its chunks.

    Example:
        >>> [part.tolist() for part in split(np.array([[1], [2], [3]]), [["a", "b"], [], ["c"]])]
        [[[1], [2]], [], [[3]]]
    """
    borders = accumulate(map(len, documents), initial=0)
    return [matrix[start:end] for start, end in pairwise(borders)]


def check_contextual(embedder: Embedder, *, name: str) -> None:
    """Refuse documents where an embedder takes single texts alone.

    Raises:
        NotContextualError: It does.
    """
    if not embedder.contextual:
        raise NotContextualError(
            f"{name} was trained for single texts, not for chunks in context; use a contextual checkpoint such as "
            '"context-v1-0.6b", or encode() for each chunk by itself'
        )


def identify(checkpoint: str, **decisive: str | int | bool | None) -> str:
    """Return an identity: a line of JSON, equal for two sources exactly if they give equal vectors for equal texts.

    Args:
        checkpoint: The weights and the tokenizer: by commit on the hub, by content on this machine.
        **decisive: Every option that changes a vector, as what it came to mean; those that change none have no place.

    Example:
        >>> identify("someone/model@1234", dtype="float32")
        '{"checkpoint": "someone/model@1234", "dtype": "float32", "format": "pplx-embed-1"}'
    """
    return json.dumps({"checkpoint": checkpoint, **decisive, "format": _FORMAT}, sort_keys=True)


def in_form(identity: str, *, dimensions: int, quantization: Quantization | None) -> str:
    """Return the identity of vectors that were cut and quantised.

    Example:
        >>> in_form(identify("someone/model@1234"), dimensions=256, quantization="int8")
        '{"checkpoint": "someone/model@1234", "dimensions": 256, "format": "pplx-embed-1", "quantization": "int8"}'
    """
    return json.dumps({**json.loads(identity), "dimensions": dimensions, "quantization": quantization}, sort_keys=True)


def checkpoint_of(identity: str) -> str:
    """Return the checkpoint in an identity: `owner/name@commit`, or `sha256:` and a hash of a folder's content.

    Example:
        >>> checkpoint_of(identify("someone/model@1234", dtype="float32"))
        'someone/model@1234'
    """
    return str(json.loads(identity)["checkpoint"])


def differences(stored: str, wanted: str) -> list[str]:
    """Say in what two identities differ, for an error that refuses to mix their vectors.

    Args:
        stored: Identity of vectors that are there.
        wanted: Identity of those that would be compared with them.

    Returns:
        A phrase for each difference; none if the vectors are comparable.

    Example:
        >>> differences(identify("a", dtype="float32"), identify("a", dtype="bfloat16"))
        ["dtype 'float32', not 'bfloat16'"]
    """
    one, other = json.loads(stored), json.loads(wanted)
    names = sorted({*one, *other})
    return [f"{name} {one.get(name)!r}, not {other.get(name)!r}" for name in names if one.get(name) != other.get(name)]
