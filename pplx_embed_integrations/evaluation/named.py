"""Someone else's object by name: `module:Class(argument="value")`, as one types it on a command line.

Knows how such a call is written and what can go wrong with it; must not know what the object is for. Nothing but the
import and the call is ever run: arguments are literals.
"""

from __future__ import annotations

import ast
import importlib
import re
from dataclasses import dataclass, field
from typing import Any

from ..errors import InputError

_FORM = 'wanted is module:Class or module:Class(argument="value"), with plain values (strings, numbers, lists …)'
_CALL = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)(\(.*\))?", re.DOTALL)


@dataclass(frozen=True)
class Named:
    """A class that is not imported yet, and what it is called with.

    Attributes:
        module: Where the class is.
        name: The class.
        arguments: By name; they may hold a key, so they are in no repr and no error.
    """

    module: str
    name: str
    arguments: dict[str, Any] = field(repr=False)

    def make(self, *, wanted: tuple[str, ...]) -> Any:
        """Import the class and call it.

        Args:
            wanted: Methods that the object must have.

        Raises:
            InputError: The module is not installed or has no such class, the class refuses the arguments, or the
                object lacks a method.
        """
        try:
            module = importlib.import_module(self.module)
        except ImportError as error:
            raise InputError(self._not_installed(error)) from error
        made = getattr(module, self.name, None)
        if not callable(made):
            raise InputError(f"{self.module} has no class {self.name}")
        try:
            one = made(**self.arguments)
        except ImportError as error:
            raise InputError(f"{self.module}:{self.name} needs what is not installed: {self._told(error)}") from error
        except Exception as error:  # noqa: BLE001 - whatever a class of someone else raises
            raise InputError(f"{self.module}:{self.name} refuses: {self._told(error)}") from None
        missing = [method for method in wanted if not callable(getattr(one, method, None))]
        if missing:
            raise InputError(f"{self.module}:{self.name} is not what is wanted here: it has no {', '.join(missing)}")
        return one

    def _not_installed(self, error: ImportError) -> str:
        package = self.module.partition(".")[0]
        if isinstance(error, ModuleNotFoundError) and error.name == package:
            return (
                f"{package} is not installed; type: pip install {package.replace('_', '-')} (or, if it is a module of "
                "your own, put its folder into PYTHONPATH)"
            )
        if isinstance(error, ModuleNotFoundError) and str(error.name).startswith(f"{package}."):
            return f"{package} has no module {error.name}"
        return f"{self.module} needs what is not installed: {error}"

    def _told(self, error: Exception) -> str:
        """Say what went wrong in one line, without what the arguments hold."""
        problems = getattr(error, "errors", None)  # pydantic's, whose text repeats what was given, and cut short
        if callable(problems):
            told = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in problems())
        else:
            told = " ".join(str(error).split()) or type(error).__name__
        for value in _strings(list(self.arguments.values())):
            told = told.replace(value, "…")
        return told


def parse(text: str) -> Named:
    """Read `module:Class` or `module:Class(argument="value", …)`.

    Raises:
        InputError: It is something else. The message does not repeat the arguments.

    Example:
        >>> parse('langchain_huggingface:HuggingFaceEmbeddings(model_name="all-MiniLM-L6-v2")')
        Named(module='langchain_huggingface', name='HuggingFaceEmbeddings')
    """
    found = _CALL.fullmatch(text.strip())
    if not found:
        raise InputError(f"{text.partition('(')[0]!r} names no class; {_FORM}")
    module, name, call = found.groups()
    arguments: dict[str, Any] = {}
    try:
        tree = ast.parse(f"f{call or '()'}", mode="eval").body
        if not isinstance(tree, ast.Call) or tree.args or any(each.arg is None for each in tree.keywords):
            raise ValueError
        for each in tree.keywords:
            arguments[str(each.arg)] = ast.literal_eval(each.value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise InputError(f"the arguments of {module}:{name} cannot be read; {_FORM}") from None
    return Named(module, name, arguments)


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value] if value else []
    if isinstance(value, dict):
        value = list(value.values())
    return [each for part in value for each in _strings(part)] if isinstance(value, (list, tuple, set)) else []
