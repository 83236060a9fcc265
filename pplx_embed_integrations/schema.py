"""What an option is, and what derives from a class of them: arguments, attributes, checks, signatures and help.

Knows types and how to tell somebody of a mistake; must not know any option, nor pydantic.
"""

from __future__ import annotations

import difflib
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from numbers import Integral
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from typing_extensions import dataclass_transform

from .errors import InputError, InputTypeError

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
        kw_only: Whether it is given by name alone.
        kind: Its type; filled in from the annotation.
    """

    description: str
    default: Any = inspect.Parameter.empty
    absent: str = ""
    check: Callable[[Any], Any] | None = None
    changes_vectors: bool = False
    secret: bool = False
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
        if Any in self._kinds:  # what it may be is found out where it is used
            return value
        if int in self._kinds and isinstance(value, Integral) and value is not True and value is not False:
            return int(value)
        if isinstance(value, str) and value in self.choices:
            return value
        if self.choices:
            raise InputError(f"{name}={value!r} is unknown; use {either(self.choices)}, or leave it out")
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


def decisive(description: str, *, default: Any = inspect.Parameter.empty, kw_only: bool = True, **more: Any) -> Any:
    """Declare an option that changes vectors."""
    return Option(description, default, kw_only=kw_only, changes_vectors=True, **more)


@dataclass_transform(kw_only_default=True, field_specifiers=(option, decisive))
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


@cache
def options_of(schema: type) -> dict[str, Option]:
    """Return the options that a class and those above it declare, its own first.

    Example:
        >>> from pplx_embed_integrations.options import HubOptions
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
    """Write the options into the docstring of a class, in place of the line `**options: ...`.

    Args:
        schema: The class that declares them.
    """
    lines = []
    for name, each in options_of(schema).items():
        default = "" if each.default is inspect.Parameter.empty else f" (default: {each.shown_default})"
        text = f"{name}: {each.description}{default}."
        lines.append(textwrap.fill(text, 116, initial_indent=" " * 8, subsequent_indent=" " * 12))

    def write(made: _Made) -> _Made:
        doc = made.__doc__ or ""  # none with python -OO
        made.__doc__ = re.sub(r" +\*\*options: .*", lambda _: "\n".join(lines), doc, count=1)
        return made

    return write


def _signature(schema: type) -> inspect.Signature:
    kinds = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter(name, kinds[each.kw_only], default=each.default, annotation=each.kind)
        for name, each in options_of(schema).items()
    ]
    return inspect.Signature(sorted(parameters, key=lambda each: each.kind))


def either(choices: Sequence[str]) -> str:
    """Return choices as a sentence names them.

    Example:
        >>> either(["sdpa", "blocked"])
        '"sdpa" or "blocked"'
    """
    *rest, last = [f'"{choice}"' for choice in choices]
    return f"{', '.join(rest)} or {last}" if rest else last
