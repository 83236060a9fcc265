"""What requests have used: tokens, and what they cost where a server says so.

Knows how an answer tells it, and how usages add up; must not know what was asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .protocol import field_of


@dataclass(frozen=True)
class Usage:
    """What requests have used; usages add up.

    Attributes:
        prompt_tokens: Tokens of the texts.
        total_tokens: The same, in APIs that also write text.
        input_cost: Price of the input.
        total_cost: Price.
        currency: Of the prices; None where there are none.

    Example:
        >>> Usage(3, 3) + Usage(4, 4, input_cost=0.5, total_cost=0.5, currency="USD")
        Usage(prompt_tokens=7, total_tokens=7, input_cost=0.5, total_cost=0.5, currency='USD')
    """

    prompt_tokens: int = 0
    total_tokens: int = 0
    input_cost: float = 0.0
    total_cost: float = 0.0
    currency: str | None = None

    @classmethod
    def of(cls, answer: object) -> Usage:
        """Read the usage of an answer; what is missing or malformed counts nothing.

        Example:
            >>> Usage.of({"usage": {"prompt_tokens": 2, "total_tokens": 2}}).prompt_tokens
            2
        """
        usage = field_of(answer, "usage")
        cost = field_of(usage, "cost")
        currency = field_of(cost, "currency")
        return cls(
            prompt_tokens=int(_number(usage, "prompt_tokens")),
            total_tokens=int(_number(usage, "total_tokens")),
            input_cost=_number(cost, "input_cost"),
            total_cost=_number(cost, "total_cost"),
            currency=currency if isinstance(currency, str) else None,
        )

    def __add__(self, other: Usage) -> Usage:
        """Return what both have used; amounts of different currencies do not add up."""
        if None not in (self.currency, other.currency) and self.currency != other.currency:
            raise ValueError(f"{self.currency} and {other.currency} do not add up")
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.total_tokens + other.total_tokens,
            self.input_cost + other.input_cost,
            self.total_cost + other.total_cost,
            self.currency or other.currency,
        )

    def as_json(self) -> dict[str, Any]:
        """Return it as it stands in an answer.

        Example:
            >>> Usage(2, 2).as_json()
            {'prompt_tokens': 2, 'total_tokens': 2}
        """
        usage: dict[str, Any] = {"prompt_tokens": self.prompt_tokens, "total_tokens": self.total_tokens}
        if self.currency is not None:
            costs = {"input_cost": self.input_cost, "total_cost": self.total_cost, "currency": self.currency}
            usage["cost"] = costs
        return usage


def _number(value: object, name: str) -> float:
    number = field_of(value, name)
    return number if type(number) in (int, float) and 0 <= number < float("inf") else 0
