"""Every option once: its type, default, check and description, and whether it changes a vector.

Knows what can be checked of an option without a checkpoint; must not know checkpoints, models or frameworks.
"""

from __future__ import annotations

import difflib
import inspect
import os
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from numbers import Integral
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from typing_extensions import dataclass_transform

from .errors import InputError, InputTypeError
from .inputs import check_positive, check_text
from .registry import BACKENDS, BackendName

__all__ = [
    "BiEncoderOptions",
    "EncoderOptions",
    "HubOptions",
    "Option",
    "Options",
    "PairOptions",
    "Quantization",
    "SideOptions",
    "check_quantization",
    "documented",
    "fields_of",
    "option",
    "options_of",
    "refuse_unknown",
    "values_of",
]

Quantization = Literal["int8", "binary", "ubinary"]
"""`"int8"` codes, `"binary"` ±1 as int8, `"ubinary"` bits packed into uint8, most significant bit first."""

if TYPE_CHECKING:
    import torch

    from .embedder import Embedder

    Dtype: TypeAlias = str | torch.dtype
    Model: TypeAlias = str | Path | Embedder
else:
    Dtype = str  # torch takes a second to import
    Model = Any  # what an embedder is, the pair knows

_Made = TypeVar("_Made", bound=type)
_KINDS = {bool: "True or False", int: "an integer", str: "a string", Path: "a path", NoneType: "None"}


@dataclass(frozen=True)
class Option:
    """One option.

    Attributes:
        description: What it is, without a full stop.
        default: What it is where it is not given.
        absent: What the default means, where its value does not say it.
        check: Returns a value as it is kept, or raises; by default the type is checked.
        changes_vectors: Whether vectors made with different values differ.
        secret: Whether it is never shown or dumped.
        page: Where the documentation says more.
        kw_only: Whether it is given by name alone.
        kind: Its type; filled in from the annotation.
    """

    description: str
    default: Any = inspect.Parameter.empty
    absent: str = ""
    check: Callable[[Any], Any] | None = None
    changes_vectors: bool = False
    secret: bool = False
    page: str = ""
    kw_only: bool = True
    kind: Any = None

    @property
    def choices(self) -> tuple[str, ...]:
        """The values there are, where they can be listed."""
        return tuple(each for kind in self._kinds if get_origin(kind) is Literal for each in get_args(kind))

    @property
    def shown_default(self) -> str:
        """The default as documentation shows it."""
        return self.absent or f"`{self.default!r}`".replace("'", '"')

    def checked(self, name: str, value: Any) -> Any:
        """Return a value as it is kept.

        Raises:
            InputError: It is out of range.
            InputTypeError: It has the wrong type.
        """
        if value is None and NoneType in self._kinds:
            return None
        if self.check is not None:
            return self.check(value)
        if int in self._kinds and isinstance(value, Integral) and value is not True and value is not False:
            return int(value)
        if isinstance(value, str) and value in self.choices:
            return value
        if self.choices:
            raise InputError(f"{name}={value!r} is unknown; use {_either(self.choices)}, or leave it out")
        if isinstance(value, tuple(kind for kind in self._kinds if kind is not int)):
            return str(value) if isinstance(value, Path) else value
        wanted = " or ".join(_KINDS[kind] for kind in self._kinds)
        raise InputTypeError(f"{name} must be {wanted}, not {type(value).__name__}")

    @property
    def _kinds(self) -> tuple[Any, ...]:
        return get_args(self.kind) if get_origin(self.kind) in (Union, UnionType) else (self.kind,)


def option(description: str, *, default: Any = inspect.Parameter.empty, kw_only: bool = True, **more: Any) -> Any:
    """Declare an option in the body of a class of options; see `Option` for the arguments."""
    return Option(description, default, kw_only=kw_only, **more)


def _left(value: Any) -> Any:
    """Check nothing yet: it depends on the checkpoint."""
    return value


def check_quantization(quantization: object) -> Quantization | None:
    """Return `quantization` if it is one, and refuse anything else.

    Raises:
        InputError: It is not `"int8"`, `"binary"`, `"ubinary"` or `None`.

    Example:
        >>> check_quantization("int8")
        'int8'
    """
    if quantization is None or quantization in get_args(Quantization):
        return cast("Quantization | None", quantization)
    raise InputError(f'quantization={quantization!r} is unknown; use "int8", "binary", "ubinary" or None (float32)')


def _check_device(device: object) -> str:
    if not isinstance(device, str) and type(device).__module__ != "torch":
        raise InputError(f'device={device!r} is unknown; use "cpu", "cuda", "cuda:1" or "mps"')
    return str(device)


def _check_devices(devices: object) -> tuple[str, ...]:
    if isinstance(devices, str) or not isinstance(devices, Sequence):
        raise InputTypeError(
            f'devices={devices!r} must be a list of names, as in devices=["cuda:0", "cuda:1"] or ["cpu", "cpu"]; one '
            "name is for device="
        )
    for position, name in enumerate(devices):
        check_text(name, name=f"device {position} of devices")
    if not devices:
        raise InputError(
            'devices=[] is empty; name a device for each worker, as in ["cuda:0", "cuda:1"], or leave it out'
        )
    # The first says what this process may use, and is not there on every system.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for name, count in Counter(devices).items():
        most = max(2, cores) if name.partition(":")[0] == "cpu" else 4
        if count > most:
            raise InputError(f"devices has {name!r} {count} times; on this machine {most} times is the most")
    return tuple(devices)


def _check_backend(backend: object) -> str:
    if backend not in tuple(BACKENDS):  # one that is registered at run time is in no Literal
        raise InputError(f"backend={backend!r} is unknown; use {_either(tuple(BACKENDS))}, or leave it out")
    return str(backend)


def _check_dtype(dtype: object) -> str:
    name = str(dtype).removeprefix("torch.")
    if name in ("float16", "half", "fp16"):
        raise InputError(
            'dtype="float16" overflows in these models and gives NaN vectors; use "bfloat16" (same size) or "float32"'
        )
    if name not in ("auto", "float32", "bfloat16"):
        raise InputError(f'dtype={dtype!r} is unknown; use "auto", "float32" or "bfloat16"')
    return name


def _either(choices: Sequence[str]) -> str:
    *rest, last = [f'"{choice}"' for choice in choices]
    return f"{', '.join(rest)} or {last}" if rest else last


@cache
def options_of(schema: type) -> dict[str, Option]:
    """Return the options that a class and those above it declare, its own first.

    Example:
        >>> list(options_of(HubOptions))
        ['cache_folder', 'local_files_only', 'token']
    """
    kinds: dict[str, Any] = {}
    found: dict[str, Option] = {}
    for each in schema.__mro__:
        declared = {name: value for name, value in vars(each).items() if isinstance(value, Option)}
        if declared:
            kinds = get_type_hints(each) | kinds
        found |= {name: value for name, value in declared.items() if name not in found}
    return {name: replace(value, kind=kinds[name]) for name, value in found.items()}


def _signature(schema: type) -> inspect.Signature:
    by_kind = sorted(options_of(schema).items(), key=lambda each: each[1].kw_only)
    return inspect.Signature(
        [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY if each.kw_only else inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=each.default,
                annotation=each.kind,
            )
            for name, each in by_kind
        ]
    )


@dataclass_transform(kw_only_default=True, field_specifiers=(option,))
class Options:
    """What is made from options: they are its arguments, and afterwards its attributes.

    Raises:
        InputError: A value is out of range, or options exclude each other.
        InputTypeError: There is no such option, or a value has the wrong type.
    """

    if not TYPE_CHECKING:  # type checkers derive the arguments from the options

        def __init__(self, *positional, **named):
            refuse_unknown(named, options_of(type(self)))
            given = inspect.signature(type(self)).bind(*positional, **named).arguments
            for name, each in options_of(type(self)).items():
                setattr(self, name, each.checked(name, given[name]) if name in given else each.default)
            self.__post_init__()

    def __init_subclass__(cls) -> None:
        """Give the class its signature."""
        cls.__signature__ = _signature(cls)  # type: ignore[attr-defined]

    def __post_init__(self) -> None:
        """Make of the options what they are for."""


class HubOptions(Options):
    """Where files come from."""

    cache_folder: str | Path | None = option("The hub's cache folder", default=None, absent="the hub's own")
    local_files_only: bool = option("Never touch the network", default=False)
    token: str | bool | None = option(
        "Access token for the hub, in no dump", default=None, absent="the hub's own", secret=True
    )


class SideOptions(HubOptions):
    """How a model runs: the same for both sides of a pair."""

    device: str | None = option(
        'Where it runs: `"cpu"`, `"cuda"`, `"cuda:1"` or `"mps"`', default=None, absent="the best", check=_check_device
    )
    devices: Sequence[str] | None = option(
        'Several devices in place of one, `["cuda:0", "cuda:1"]` or `["cpu", "cpu"]`: a worker process on each, which '
        "loads the weights at first use and keeps them until `close`; for corpus jobs",
        default=None,
        absent="none",
        check=_check_devices,
        page="performance.md#several-devices",
    )
    dtype: Dtype = option(
        'Arithmetic: `"float32"`, `"bfloat16"`, or `"auto"`, which is bfloat16 where the processor computes in it '
        "natively and the model is large, else float32. float16 is refused: it overflows",
        default="auto",
        check=_check_dtype,
        changes_vectors=True,
    )
    weights: Literal["int8"] | None = option(
        '`"int8"` rounds the weights of the linear layers, and what they multiply, to 8 bits: faster on a CPU, '
        "slightly less exact",
        default=None,
        absent="those of `dtype`",
        changes_vectors=True,
        page="performance.md#faster-on-a-cpu",
    )
    # The arithmetic of backends differs by more than the order of additions: cosines of 0.998 were measured.
    backend: BackendName = option(
        '`"torch"`, or `"openvino"`: faster on a CPU, needs the extra of that name',
        default="torch",
        check=_check_backend,
        changes_vectors=True,
        page="performance.md#faster-on-a-cpu",
    )
    attention: Literal["sdpa", "blocked", "varlen"] | None = option(
        '`"sdpa"`, `"blocked"` or `"varlen"` in place of the kernel that is fastest on the device',
        default=None,
        absent="the fastest",
    )
    max_tokens: int | None = option(
        "Longest sequence; a longer document is read in overlapping windows",
        default=None,
        absent="the model's",
        check=_left,
        changes_vectors=True,
    )
    batch_tokens: int | None = option(
        "Tokens in a forward pass, which bounds memory; a longer sequence goes alone",
        default=None,
        absent="the device's",
        check=partial(check_positive, "batch_tokens"),
    )
    truncate: bool = option(
        "Cut a text or chunk of more than `max_tokens` tokens instead of refusing it",
        default=False,
        changes_vectors=True,
    )

    def __post_init__(self) -> None:
        """Refuse options that exclude each other."""
        if self.devices is not None and self.device is not None:
            raise InputError(
                f"device={self.device!r} and devices={list(self.devices)!r} exclude each other; leave one of them out"
            )
        if self.attention is not None and self.backend != "torch":
            raise InputError(
                f"attention={self.attention!r} is for torch, and backend={self.backend!r} has its own; leave it out"
            )


class EncoderOptions(SideOptions):
    """One checkpoint."""

    model: str | Path = option(
        "Name, hub id, or path of a local folder", kw_only=False, check=_left, changes_vectors=True
    )
    revision: str | None = option(
        "Commit, tag or branch on the hub", default=None, absent="pinned", check=_left, changes_vectors=True
    )


class PairOptions(SideOptions):
    """A checkpoint for queries and one for documents, and the form of their vectors."""

    query_model: Model | None = option(
        "Checkpoint, folder or `Embedder` for queries",
        default=None,
        absent="the pair's",
        check=_left,
        changes_vectors=True,
    )
    document_model: Model | None = option(
        "Checkpoint, folder or `Embedder` for documents",
        default=None,
        absent="the pair's",
        check=_left,
        changes_vectors=True,
    )
    query_revision: str | None = option(
        "Commit on the hub for the query side", default=None, absent="pinned", check=_left, changes_vectors=True
    )
    document_revision: str | None = option(
        "Commit on the hub for the document side", default=None, absent="pinned", check=_left, changes_vectors=True
    )
    dimensions: int | None = option(
        "Cut vectors to their first numbers (Matryoshka), for example 512",
        default=None,
        absent="all",
        check=_left,
        changes_vectors=True,
        page="dimensions-and-quantization.md",
    )
    quantization: Quantization | None = option(
        '`"int8"`, `"binary"` (±1) or `None` (float32)',
        default="int8",
        check=check_quantization,
        changes_vectors=True,
        page="dimensions-and-quantization.md",
    )
    normalize: bool = option(
        "Scale vectors to unit length, so that cosine, inner product and L2 rank alike",
        default=True,
        changes_vectors=True,
    )
    query_cache: int = option(
        "How many query vectors are kept for queries that come again, until `close`",
        default=0,
        check=partial(check_positive, "query_cache", smallest=0),
        page="performance.md#queries-under-load",
    )


class BiEncoderOptions(PairOptions):
    """A pair by its name."""

    model: Model = option(
        'A pair (`"0.6b"`, `"4b"`, `"miniature"`), or one checkpoint, folder or `Embedder` for both sides',
        default="0.6b",
        kw_only=False,
        check=_left,
        changes_vectors=True,
    )
    show_progress: bool = option("Show a bar that counts tokens while documents are embedded", default=False)


def values_of(made: object, schema: type, *, decisive: bool = False) -> dict[str, Any]:
    """Return the values that options have in an object.

    Args:
        made: What was made with them.
        schema: The class that declares them.
        decisive: Only those that change a vector.
    """
    names = [name for name, each in options_of(schema).items() if each.changes_vectors or not decisive]
    return {name: getattr(made, name) for name in names}


def refuse_unknown(given: Mapping[str, Any], known: Iterable[str]) -> None:
    """Refuse options that do not exist, naming the nearest that do.

    Raises:
        InputTypeError: There are some.

    Example:
        >>> try:
        ...     refuse_unknown({"dimension": 128}, ["dimensions", "device"])
        ... except InputTypeError as error:
        ...     print(error)
        there is no option 'dimension' (did you mean 'dimensions'?); there are: device, dimensions
    """
    names = sorted(known)
    for name in given:
        if name not in names:
            nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
            hint = f" (did you mean {nearest[0]!r}?)" if nearest else ""
            raise InputTypeError(f"there is no option {name!r}{hint}; there are: {', '.join(names)}")


def fields_of(schema: type, field: Callable[..., Any]) -> dict[str, Any]:
    """Return the options as `pydantic.create_model` takes fields.

    Args:
        schema: The class that declares them.
        field: `pydantic.Field`.
    """
    return {
        name: (
            # What has a check of its own has passed it: a backend may be registered that is in no Literal.
            Any if each.check is not None and each.choices else each.kind,
            field(
                default=each.default, description=each.description, exclude=each.secret or None, repr=not each.secret
            ),
        )
        for name, each in options_of(schema).items()
    }


def documented(schema: type) -> Callable[[_Made], _Made]:
    """Write the options into the docstring of a class, in place of the line `{options}`.

    Args:
        schema: The class that declares them.
    """
    lines = []
    for name, each in options_of(schema).items():
        default = "" if each.default is inspect.Parameter.empty else f" (default: {each.shown_default})"
        lines.append(
            textwrap.fill(
                f"{name}: {each.description}{default}.", 116, initial_indent=" " * 8, subsequent_indent=" " * 12
            )
        )

    def write(made: _Made) -> _Made:
        made.__doc__ = (made.__doc__ or "").replace("        {options}", "\n".join(lines))  # none with python -OO
        return made

    return write
