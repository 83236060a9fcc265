"""Conditions on metadata, written as dictionaries, in LanceDB's SQL.

Knows operators, their names in MongoDB's manner and how the metadata column is laid out; must not know tables.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..errors import InputError, InputTypeError
from .metadata import LIST, MARK, NAN, marked

Where = str | Mapping[str, Any]
"""A condition: `{"year": {"$gt": 1840}, "lang": "en"}`, or SQL such as `document = 'ada'`."""

_COMPARISONS = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_EXACT = 2**53
"""Integers below this are the same number in 64-bit floats."""


def literal(text: str) -> str:
    """Quote a string for SQL.

    Example:
        >>> literal("Ada's notes")
        "'Ada''s notes'"
    """
    return "'" + text.replace("'", "''") + "'"


def one_of(column: str, values: Iterable[str]) -> str:
    """Ask for a column that is one of some strings.

    Example:
        >>> one_of("id", ["a", "b"])
        "id IN ('a', 'b')"
    """
    quoted = ", ".join(map(literal, values))
    return f"{column} IN ({quoted})" if quoted else "false"


def condition(where: Where | None) -> str | None:
    """Write a condition as SQL.

    A dictionary asks for all of its entries. A plain value means equality; a dictionary of operators may hold `$eq`,
    `$ne`, `$gt`, `$gte`, `$lt`, `$lte`, `$in`, `$nin`, `$exists`, `$empty` (not there, None, "" or an empty list),
    `$contains` (a list holds the value, a string the substring), `$icontains` (a string, in any case), `$any`, `$all`
    (a list holds any or all of the values), `$like` and `$ilike` (SQL patterns with `%`). `$and`, `$or` take lists of
    conditions and `$not` one. A key that a chunk lacks, or that is None there, equals nothing: it matches `$ne`,
    `$nin`, `{"$exists": False}` and `{"$empty": True}` alone.

    Args:
        where: The condition; a string is SQL already.

    Returns:
        SQL that is true or false for every row; None for no condition.

    Raises:
        InputError: An operator is unknown, or its value not what it takes.
        InputTypeError: `where` is neither string nor dictionary, or a value nothing that can be compared.

    Example:
        >>> condition({"lang": "en"})
        "coalesce(json_get_string(metadata, 'lang') = 'en', false)"
    """
    if where is None:
        return None
    if isinstance(where, str):
        if not where.strip():
            raise InputError("the filter is an empty string; leave it out, or write SQL such as \"document = 'a'\"")
        return f"({where})"
    if not isinstance(where, Mapping):
        raise InputTypeError(
            f"a filter must be a dictionary or a string of SQL, not {type(where).__name__}; "
            'for example {"year": {"$gt": 1840}}'
        )
    return _joined("AND", [_entry(key, value) for key, value in where.items()]) or None


def _entry(key: str, value: Any) -> str:
    if key in ("$and", "$or"):
        if not isinstance(value, (list, tuple)) or not value:
            raise InputError(f"{key} takes a list of conditions, not {value!r}")
        return _joined(key[1:].upper(), [condition(each) or "true" for each in value])
    if key == "$not":
        return f"NOT {condition(value) or 'true'}"
    if not isinstance(key, str) or key.startswith("$"):
        raise InputError(f"{key!r} is no key of metadata; conditions are joined with $and, $or and $not")
    if isinstance(value, Mapping):
        if not value:
            raise InputError(f'the condition on {key!r} is empty; write {{"{key}": value}}')
        return _joined("AND", [_operator(key, name, operand) for name, operand in value.items()])
    return _operator(key, "$eq", value)


def _joined(word: str, parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"({f' {word} '.join(parts)})" if parts else ""


def _operator(key: str, name: str, operand: Any) -> str:
    if name in _COMPARISONS:
        return _true(_compared(key, _COMPARISONS[name], operand))
    if name not in _OPERATORS:
        known = ", ".join([*_OPERATORS, *_COMPARISONS])
        raise InputError(f"the operator {name!r} on {key!r} is unknown; use {known}")
    return _OPERATORS[name](key, operand)


def _true(sql: str) -> str:
    """Take a comparison with nothing for false, so that NOT turns it around."""
    return f"coalesce({sql}, false)"


def _value(key: str) -> str:
    return f"json_get_string(metadata, {literal(key)})"


def _number(key: str) -> str:
    return f"try_cast({_value(key)} AS DOUBLE)"


def _scalar(key: str, operand: Any) -> Any:
    if isinstance(operand, (str, bool, int, float)) and operand == operand:
        return operand
    raise InputTypeError(
        f"the value for {key!r} in the filter is {operand!r}; strings, numbers, True and False can be compared"
    )


def _equal(key: str, operand: Any) -> str:
    if operand is None:
        return f"NOT {_exists(key, True)}"
    return _true(_same(key, operand))


def _same(key: str, operand: Any) -> str:
    value = _scalar(key, operand)
    if isinstance(value, bool):
        return f"{_value(key)} = '{str(value).lower()}'"
    if isinstance(value, str):
        return f"{_value(key)} = {literal(marked(value))}"
    if isinstance(value, int) and abs(value) >= _EXACT:
        return f"{_value(key)} = '{value}'"
    return f"{_number(key)} = {float(value)!r}"


def _compared(key: str, sign: str, operand: Any) -> str:
    value = _scalar(key, operand)
    if isinstance(value, bool):
        raise InputTypeError(f"{key!r} cannot be compared with {value!r} by {sign}; use a number or a string")
    if not isinstance(value, str):
        return f"{_number(key)} {sign} {float(value)!r}"
    return _text(key, lambda column: f"{column} {sign} {literal(value)}")


def _text(key: str, test: Callable[[str], str]) -> str:
    """Ask for a string, marked or not, that passes a test."""
    column, mark = _value(key), literal(MARK)
    others = ", ".join(map(literal, ("true", "false", NAN)))
    plain = f"{_number(key)} IS NULL AND {column} NOT IN ({others}) AND NOT starts_with({column}, {mark})"
    return f"(({plain} AND {test(column)}) OR (starts_with({column}, {mark}) AND {test(f'substr({column}, 2)')}))"


def _listed(key: str, operand: Any) -> list[Any]:
    if isinstance(operand, (str, bytes, Mapping)) or not isinstance(operand, Iterable):
        raise InputTypeError(f"the filter on {key!r} wants a list of values, not {operand!r}")
    return list(operand)


def _in(key: str, operand: Any) -> str:
    values = _listed(key, operand)
    strings = [marked(value) for value in values if isinstance(value, str)]
    parts = [one_of(_value(key), strings)] if strings else []
    parts += [_same(key, value) for value in values if value is not None and not isinstance(value, str)]
    found = _true(_joined("OR", parts)) if parts else "false"
    return f"({found} OR NOT {_exists(key, True)})" if None in values else found


def _exists(key: str, operand: Any) -> str:
    if not isinstance(operand, bool):
        raise InputTypeError(f"$exists on {key!r} takes True or False, not {operand!r}")
    there = f"({_value(key)} IS NOT NULL OR json_exists(metadata, {_path(key + LIST)}))"
    return there if operand else f"NOT {there}"


def _path(key: str) -> str:
    return literal(f"$.{json.dumps(key, ensure_ascii=False)}")


def _holds(key: str, operand: Any) -> str:
    value = _scalar(key, operand)
    wanted = json.dumps(marked(value), ensure_ascii=False) if isinstance(value, str) else json.dumps(value)
    return f"json_array_contains(metadata, {_path(key + LIST)}, {literal(wanted)})"


def _contains(key: str, operand: Any) -> str:
    held = _holds(key, operand)
    if not isinstance(operand, str):
        return _true(held)
    within = _text(key, lambda column: f"contains({column}, {literal(operand)})")
    return f"({_true(held)} OR {_true(within)})"


def _contains_any_case(key: str, operand: Any) -> str:
    if not isinstance(operand, str):
        raise InputTypeError(f"$icontains on {key!r} takes a string, not {operand!r}")
    return _true(_text(key, lambda column: f"contains(lower({column}), lower({literal(operand)}))"))


def _empty(key: str, operand: Any) -> str:
    if not isinstance(operand, bool):
        raise InputTypeError(f"$empty on {key!r} takes True or False, not {operand!r}")
    length = _true(f"json_extract(metadata, {_path(key + LIST)}) = '[]'")
    nothing = f"(NOT {_exists(key, True)} OR {_equal(key, '')} OR {length})"
    return nothing if operand else f"NOT {nothing}"


def _like(key: str, operand: Any, word: str) -> str:
    if not isinstance(operand, str):
        raise InputTypeError(f"${word.lower()} on {key!r} takes a pattern such as '%notes%', not {operand!r}")
    return _true(_text(key, lambda column: f"{column} {word} {literal(operand)}"))


_OPERATORS: dict[str, Callable[[str, Any], str]] = {
    "$eq": _equal,
    "$ne": lambda key, operand: f"NOT {_equal(key, operand)}",
    "$in": _in,
    "$nin": lambda key, operand: f"NOT {_in(key, operand)}",
    "$exists": _exists,
    "$empty": _empty,
    "$contains": _contains,
    "$icontains": _contains_any_case,
    "$any": lambda key, operand: _joined("OR", [_true(_holds(key, each)) for each in _listed(key, operand)]) or "false",
    "$all": lambda key, operand: _joined("AND", [_true(_holds(key, each)) for each in _listed(key, operand)]) or "true",
    "$like": lambda key, operand: _like(key, operand, "LIKE"),
    "$ilike": lambda key, operand: _like(key, operand, "ILIKE"),
}
