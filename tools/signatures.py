"""Extension of `make docs`: a class made from options is shown with each of them, its type, default and description.

Knows griffe and how options are declared; must not know any option.
"""

from __future__ import annotations

import ast
import inspect
import re
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any

import griffe

from pplx_embed_integrations import options
from pplx_embed_integrations.schema import Option, options_of

MADE_FROM = re.compile(r"documented\((\w+)\)")
MODULES = re.compile(r"\b(?:[a-z_]\w*\.)+(?=\w)")
"""What stands before the name of a type."""
KINDS = {
    inspect.Parameter.POSITIONAL_OR_KEYWORD: griffe.ParameterKind.positional_or_keyword,
    inspect.Parameter.KEYWORD_ONLY: griffe.ParameterKind.keyword_only,
}
ALIASES = {
    node.target.id: ast.unparse(node.value)
    for node in ast.walk(ast.parse(Path(options.__file__).read_text(encoding="utf-8")))
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None
    if ast.unparse(node.annotation) == "TypeAlias"
}
"""Names of types in the declarations of options, and what they stand for."""


class Signatures(griffe.Extension):
    """Gives a class with the decorator `documented` the signature and the arguments that it has once imported."""

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        """Fill in what static reading does not see."""
        schemas = [found[1] for each in cls.decorators if (found := MADE_FROM.fullmatch(str(each.value)))]
        if not schemas or cls.docstring is None:
            return
        made = getattr(import_module(cls.module.path), cls.name)
        schema = getattr(import_module(cls.module.path), schemas[0])
        parameters = [each for each in inspect.signature(made).parameters.values() if each.kind in KINDS]
        table = options_of(schema)
        shown = [read(each, declared([*schema.__mro__, *made.__mro__], each.name, table)) for each in parameters]
        first = griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword)
        cls.set_member("__init__", griffe.Function("__init__", parameters=griffe.Parameters(first, *shown)))
        lines = [f"    {name}: {described(each)}" for name, each in table.items()]
        cls.docstring.value = re.sub(r" +\*\*options: .*", lambda _: "\n".join(lines), cls.docstring.value, count=1)


def described(option: Option) -> str:
    """Return an option's description, with what its default means where the value does not say it."""
    return f"{option.description}{f'; by default {option.absent}' if option.absent else ''}."


def declared(classes: list[type], name: str, table: dict[str, Option]) -> str | None:
    """Return the type of an argument as the first of the classes declares it."""
    notes = [note for each in classes if isinstance(note := vars(each).get("__annotations__", {}).get(name), str)]
    if name in table and (choices := table[name].choices):
        text = " | ".join(f'"{each}"' for each in choices)
        return f"{text} | None" if "None" in notes[0] else text
    return re.sub(r"\w+", lambda word: ALIASES.get(word[0], word[0]), notes[0]) if notes else None


def read(parameter: inspect.Parameter, annotation: str | None) -> griffe.Parameter:
    """Return a parameter as griffe has it."""
    default = parameter.default.value if isinstance(parameter.default, Enum) else parameter.default
    shown = repr(default).replace("'", '"')
    return griffe.Parameter(
        parameter.name,
        kind=KINDS[parameter.kind],
        annotation=annotation or MODULES.sub("", inspect.formatannotation(parameter.annotation)),
        default=None if default is inspect.Parameter.empty else "..." if shown.startswith("<") else shown,
    )
