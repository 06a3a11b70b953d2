"""The values that a field of a configuration may have."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import inf
from reprlib import Repr
from typing import Any

import orjson

MAX_LAYERS = 10_000
MAX_HEADS = 1_000_000
MAX_WIDTH = 1_000_000
MAX_INNER = 10_000_000
MAX_POSITIONS = 1_000_000
MAX_TOKENS = 10_000_000  # vocabulary size
MAX_BATCH = 64

_MAX_SHOWN = 80  # characters of a value in a message
_REPR = Repr()
_REPR.maxlevel, _REPR.maxstring, _REPR.maxother = 3, _MAX_SHOWN, _MAX_SHOWN


def short_json(value: Any) -> str:
    """Return a value as JSON for a message, truncated if it is long."""
    try:
        return _truncated(orjson.dumps(value).decode())
    except orjson.JSONEncodeError:  # nested too deeply
        return _short_repr(value)


def _short_repr(value: Any) -> str:
    return _truncated(_REPR.repr(value))


def _truncated(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 1]}…"


class Rule(ABC):
    """The values that a field may have."""

    @abstractmethod
    def error(self, value: Any) -> str | None:
        """Return why a value is not allowed, or None if it is."""

    @abstractmethod
    def schema(self) -> dict[str, Any]:
        """Return the rule as JSON Schema."""

    def made(self, value: Any) -> Any:
        """Return an allowed value in the form in which a configuration has it, which is immutable."""
        return value

    def as_json(self, value: Any) -> Any:
        """Return a configuration's value in the form in which JSON has it."""
        return value


@dataclass(frozen=True)
class Whole(Rule):
    """An integer from 1 to `maximum`.

    `derived` is the formula of the field's default, from other fields, such as "n_embd / n_head". Such a field may be
    omitted: 0 here, null in JSON.
    """

    maximum: int
    derived: str = ""

    def error(self, value: Any) -> str | None:
        if self.derived and value == 0 and type(value) is int:
            return None
        if type(value) is int and 1 <= value <= self.maximum:
            return None
        return f"{_short_repr(value)} is not allowed: must be {self.allowed}."

    @property
    def allowed(self) -> str:
        return f"a whole number from 1 to {self.maximum:,}"

    def schema(self) -> dict[str, Any]:
        kind = ["integer", "null"] if self.derived else "integer"
        formula = {"x-derived": self.derived} if self.derived else {}
        return {"type": kind, "minimum": 1, "maximum": self.maximum} | formula


@dataclass(frozen=True)
class Number(Rule):
    """A number above 0, and below `below` or at most `most`."""

    below: float = inf
    most: float = inf

    def error(self, value: Any) -> str | None:
        is_number = not isinstance(value, bool) and isinstance(value, int | float)
        if is_number and 0 < value < self.below and value <= self.most:
            return None
        limit = f"below {self.below:,g}" if self.below < inf else f"at most {self.most:,g}"
        return f"{_short_repr(value)} is not allowed: must be a number above 0 and {limit}."

    def schema(self) -> dict[str, Any]:
        limit = {"exclusiveMaximum": self.below} if self.below < inf else {"maximum": self.most}
        return {"type": "number", "exclusiveMinimum": 0, **limit}

    def made(self, value: Any) -> float:
        return float(value)


@dataclass(frozen=True)
class Choice(Rule):
    """One of several words."""

    words: tuple[str, ...]

    def error(self, value: Any) -> str | None:
        return (
            None
            if value in self.words
            else f"{_short_repr(value)} is not allowed: must be one of {', '.join(self.words)}."
        )

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "enum": [*self.words]}


@dataclass(frozen=True)
class Flag(Rule):
    """True or false."""

    def error(self, value: Any) -> str | None:
        return None if isinstance(value, bool) else f"{_short_repr(value)} is not allowed: must be true or false."

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}


@dataclass(frozen=True)
class Nullable(Rule):
    """A value of another rule, or None, in JSON null."""

    rule: Rule

    def error(self, value: Any) -> str | None:
        found = None if value is None else self.rule.error(value)
        return found and f"{found.removesuffix('.')}, or null."

    def schema(self) -> dict[str, Any]:
        of_rule = self.rule.schema()
        return of_rule | {"type": [of_rule["type"], "null"]}

    def made(self, value: Any) -> Any:
        return None if value is None else self.rule.made(value)

    def as_json(self, value: Any) -> Any:
        return None if value is None else self.rule.as_json(value)


@dataclass(frozen=True)
class Words(Rule):
    """A list of words, each one of several."""

    words: tuple[str, ...]

    def error(self, value: Any) -> str | None:
        if isinstance(value, list | tuple) and value and all(word in self.words for word in value):
            return None
        return f"{_short_repr(value)} is not allowed: must be a list of {' or '.join(self.words)}."

    def schema(self) -> dict[str, Any]:
        return {"type": "array", "minItems": 1, "items": {"type": "string", "enum": [*self.words]}}

    def made(self, value: Any) -> tuple[str, ...]:
        return tuple(value)

    def as_json(self, value: Any) -> list[str]:
        return list(value)
