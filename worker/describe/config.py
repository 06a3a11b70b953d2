"""Model configurations: fields, validation, and text form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from math import inf
from reprlib import Repr
from typing import Any, ClassVar, Protocol, Self

import orjson

from worker.describe.expression import Expression

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
_EXAMPLE = "as in n_layer=3,n_head=3,n_embd=48"


class ConfigError(ValueError):
    """An invalid configuration: `errors` maps fields to messages; the field "" is the configuration as a whole."""

    def __init__(self, errors: Mapping[str, list[str]]) -> None:
        self.errors = dict(errors)
        super().__init__("; ".join(f"{field}: {text}" for field, texts in self.errors.items() for text in texts))


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


class Rule(Protocol):
    """The values that a field may have."""

    def error(self, value: Any) -> str | None:
        """Return why a value is not allowed, or None if it is."""

    def schema(self) -> dict[str, Any]:
        """Return the rule as JSON Schema."""


@dataclass(frozen=True)
class Whole:
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
class Number:
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


@dataclass(frozen=True)
class Choice:
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
class Flag:
    """True or false."""

    def error(self, value: Any) -> str | None:
        return None if isinstance(value, bool) else f"{_short_repr(value)} is not allowed: must be true or false."

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}


def config_field(rule: Rule, default: Any, title: str, *, main: bool = False) -> Any:
    """Return a dataclass field with a rule, default and display name; the text form always contains a `main` field."""
    return field(default=default, metadata={"rule": rule, "title": title, "main": main})


@dataclass(frozen=True, kw_only=True)
class Config:
    """Base class of a family's configuration: fields made by `config_field`, named as in Hugging Face's class.

    Raises ConfigError, with every invalid field.
    """

    model_type: ClassVar[str]
    is_default: ClassVar[bool] = False  # the family of a configuration without model_type

    def __post_init__(self) -> None:
        errors = {name: [text] for name, text in self._errors().items()}
        if errors:
            raise ConfigError(errors)
        for name, value in self.derived().items():
            if not getattr(self, name):
                object.__setattr__(self, name, int(value))
        for each in fields(self):
            if isinstance(each.metadata["rule"], Number):
                object.__setattr__(self, each.name, float(getattr(self, each.name)))

    def derived(self) -> dict[str, float]:
        """Return the default of each derived field, computed from the other fields."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {
            name: Expression(rule.derived, frozenset(values), "* /").evaluate(values)
            for name, rule in self.rules().items()
            if isinstance(rule, Whole) and rule.derived
        }

    def conflicts(self, errors: Mapping[str, str]) -> dict[str, str]:
        """Return errors between fields; `errors` are those of single fields."""
        return {}

    def _errors(self) -> dict[str, str]:
        found = {each.name: each.metadata["rule"].error(getattr(self, each.name)) for each in fields(self)}
        errors = {name: text for name, text in found.items() if text}
        return errors | self.conflicts(errors)

    @classmethod
    def json_schema(cls, partial: bool) -> dict[str, Any]:
        """Return the JSON Schema of a configuration; a `partial` one may omit fields."""
        own = {each.name: {"title": each.metadata["title"]} | each.metadata["rule"].schema() for each in fields(cls)}
        if not partial:
            own = {name: rule | {"type": "integer"} if "null" in rule["type"] else rule for name, rule in own.items()}
        named = {"model_type": {"type": "string", "enum": [cls.model_type]}}
        required = [*(() if cls.is_default else ("model_type",)), *(() if partial else own)]
        found: dict[str, Any] = {"type": "object", "properties": named | own}
        return found | ({"required": required} if required else {}) | {"additionalProperties": False}

    @classmethod
    def rules(cls) -> dict[str, Rule]:
        """Return the rule of each field."""
        return {each.name: each.metadata["rule"] for each in fields(cls)}

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Return the configuration with these values, and defaults for the fields not in them.

        None omits a derived field. Raises ConfigError.
        """
        rules = cls.rules()
        unknown = [name for name in values if name not in rules]
        if unknown:
            raise ConfigError({str(name): [f"Unknown field: must be one of {', '.join(rules)}."] for name in unknown})
        derived = {name: rule for name, rule in rules.items() if isinstance(rule, Whole) and rule.derived}
        given = {k: v for k, v in values.items() if not (v is None and k in derived)}
        zeros = [k for k in derived if given.get(k) == 0 and type(given[k]) is int]
        if zeros:
            raise ConfigError({k: [f"0 is not allowed: must be {derived[k].allowed}."] for k in zeros})
        return cls(**given)

    def to_mapping(self) -> dict[str, Any]:
        """Return every field by name, with defaults filled in: equal configurations give equal mappings."""
        named = {} if self.is_default else {"model_type": self.model_type}
        return named | {each.name: getattr(self, each.name) for each in fields(self)}

    def to_text(self) -> str:
        """Return the text form, for `parse_values`: the main fields and those that differ from their default."""
        defaults = {each.name: each.default for each in fields(self) if each.default is not MISSING} | self.derived()
        main = {each.name for each in fields(self) if each.metadata["main"]} | {"model_type"}
        shown = {k: v for k, v in self.to_mapping().items() if k in main or v != defaults[k]}
        return ",".join(f"{k}={v if isinstance(v, str) else orjson.dumps(v).decode()}" for k, v in shown.items())


def parse_values(text: str) -> dict[str, Any]:
    """Parse fields from text such as `n_layer=3,n_head=3,n_embd=48`, in any order; values are JSON, strings unquoted.

    Raises ConfigError.
    """
    values: dict[str, Any] = {}
    for pair in text.split(","):
        name, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError({"": [f"{pair!r} is not name=value: must be a comma-separated list, {_EXAMPLE}."]})
        if name in values:
            raise ConfigError({name: ["This field is given more than once."]})
        values[name] = _parse_value(value)
    return values


def _parse_value(text: str) -> Any:
    """Parse a value as JSON; return the text itself if it is not JSON."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
