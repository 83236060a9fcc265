"""LlamaIndex's metadata filters as conditions of a table of codes.

Knows every operator and how conditions nest; must not know tables or nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters

from ..errors import InputError, InputTypeError

_SIMPLE = {
    FilterOperator.EQ: "$eq",
    FilterOperator.NE: "$ne",
    FilterOperator.GT: "$gt",
    FilterOperator.GTE: "$gte",
    FilterOperator.LT: "$lt",
    FilterOperator.LTE: "$lte",
    FilterOperator.IN: "$in",
    FilterOperator.NIN: "$nin",
    FilterOperator.CONTAINS: "$contains",
    FilterOperator.TEXT_MATCH: "$contains",
    FilterOperator.TEXT_MATCH_INSENSITIVE: "$icontains",
}
_JOINED: dict[FilterCondition, Callable[[list[dict[str, Any]]], dict[str, Any]]] = {
    FilterCondition.AND: lambda parts: {"$and": parts},
    FilterCondition.OR: lambda parts: {"$or": parts},
    FilterCondition.NOT: lambda parts: {"$not": {"$or": parts}},
}


def condition_of(filters: MetadataFilters | None) -> dict[str, Any] | None:
    """Write filters as `stores.filters.condition` takes them.

    Args:
        filters: Filters, nested at will; with the condition `not` none of them may match.

    Returns:
        The condition; None for no filter.

    Raises:
        InputError: An operator or a condition is unknown.
        InputTypeError: A filter's value is nothing that its operator takes.

    Example:
        >>> condition_of(MetadataFilters(filters=[MetadataFilter(key="year", operator=">", value=1840)]))
        {'$and': [{'year': {'$gt': 1840}}]}
    """
    if filters is None:
        return None
    parts = [condition_of(each) if isinstance(each, MetadataFilters) else _condition(each) for each in filters.filters]
    there = [part for part in parts if part is not None]
    if not there:
        return None
    return _JOINED[filters.condition or FilterCondition.AND](there)


def _condition(one: MetadataFilter) -> dict[str, Any]:
    if one.operator in _SIMPLE:
        return {one.key: {_SIMPLE[one.operator]: one.value}}
    if one.operator == FilterOperator.IS_EMPTY:
        return {one.key: {"$empty": True}}
    if one.operator in (FilterOperator.ANY, FilterOperator.ALL):
        if not isinstance(one.value, list):
            raise InputTypeError(f"the filter {one.operator.value!r} on {one.key!r} wants a list, not {one.value!r}")
        held = [{one.key: {"$contains": value}} for value in one.value]
        if not held:  # any of none is false, all of none is true
            return {one.key: {"$in": []}} if one.operator == FilterOperator.ANY else {one.key: {"$nin": []}}
        return {"$or" if one.operator == FilterOperator.ANY else "$and": held}
    raise InputError(f"the filter operator {one.operator!r} is unknown")
