"""Configurations: a family's sizes and choices, checked field by field, as a mapping or in a line of text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar, Protocol, Self

import orjson

MAX_LAYERS = 10_000
MAX_HEADS = 1_000_000
MAX_WIDTH = 1_000_000
MAX_INNER = 10_000_000
MAX_POSITIONS = 1_000_000
MAX_TOKENS = 10_000_000  # of a vocabulary
MAX_BATCH = 64

_IN_TEXT = "as in n_layer=3,n_head=3,n_embd=48"


class ConfigError(ValueError):
    """A configuration that is not allowed: `errors` says for each field what is wrong and what is allowed; the field
    "" is all of it.
    """

    def __init__(self, errors: Mapping[str, list[str]]) -> None:
        self.errors = dict(errors)
        super().__init__("; ".join(f"{field}: {text}" for field, texts in self.errors.items() for text in texts))


class Rule(Protocol):
    """What values a field may have."""

    def wrong(self, value: Any) -> str | None:
        """What is wrong with a value, and what is allowed; None where nothing is."""

    def schema(self) -> dict[str, Any]:
        """The same as JSON Schema."""


@dataclass(frozen=True)
class Whole:
    """A whole number from 1 to `most`. A derived one may be left out, which is 0 here and null in JSON."""

    most: int
    derived: bool = False

    def wrong(self, value: Any) -> str | None:
        if self.derived and value == 0 and type(value) is int:
            return None
        if type(value) is int and 1 <= value <= self.most:
            return None
        return f"{value!r} is not allowed: {self.allowed}."

    @property
    def allowed(self) -> str:
        return f"a whole number from 1 to {self.most:,}"

    def schema(self) -> dict[str, Any]:
        kind = ["integer", "null"] if self.derived else "integer"
        return {"type": kind, "minimum": 1, "maximum": self.most}


@dataclass(frozen=True)
class Number:
    """A number above 0 and below `below`."""

    below: float

    def wrong(self, value: Any) -> str | None:
        if not isinstance(value, bool) and isinstance(value, int | float) and 0 < value < self.below:
            return None
        return f"{value!r} is not allowed: a number above 0 and below {self.below:,g}."

    def schema(self) -> dict[str, Any]:
        return {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": self.below}


@dataclass(frozen=True)
class Choice:
    """One of some words."""

    words: tuple[str, ...]

    def wrong(self, value: Any) -> str | None:
        return None if value in self.words else f"{value!r} is not known: one of {', '.join(self.words)}."

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "enum": [*self.words]}


@dataclass(frozen=True)
class Flag:
    """True or false."""

    def wrong(self, value: Any) -> str | None:
        return None if isinstance(value, bool) else f"{value!r} is not allowed: true or false."

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}


def ruled(rule: Rule, default: Any, *, main: bool = False) -> Any:
    """A field with a rule and a default; a `main` one is always in the line of text."""
    return field(default=default, metadata={"rule": rule, "main": main})


@dataclass(frozen=True, kw_only=True)
class Config:
    """A family's configuration: its fields have the names of Hugging Face's class, each made by `ruled`.

    Raises ConfigError, naming every field that is wrong.
    """

    model_type: ClassVar[str]
    is_default: ClassVar[bool] = False  # of the family that a configuration without model_type means

    def __post_init__(self) -> None:
        errors = {name: [text] for name, text in self._wrong().items()}
        if errors:
            raise ConfigError(errors)
        for name, value in self.derived().items():
            if not getattr(self, name):
                object.__setattr__(self, name, int(value))
        for each in fields(self):
            if isinstance(each.metadata["rule"], Number):
                object.__setattr__(self, each.name, float(getattr(self, each.name)))

    def derived(self) -> dict[str, float]:
        """What the fields that were left out follow from."""
        return {}

    def conflicts(self, wrong: Mapping[str, str]) -> dict[str, str]:
        """What is wrong with fields beside each other, where `wrong` are those that are wrong by themselves."""
        return {}

    def _wrong(self) -> dict[str, str]:
        found = {each.name: each.metadata["rule"].wrong(getattr(self, each.name)) for each in fields(self)}
        wrong = {name: text for name, text in found.items() if text}
        return wrong | self.conflicts(wrong)

    @classmethod
    def json_schema(cls, partial: bool) -> dict[str, Any]:
        """A configuration as JSON Schema; a `partial` one may leave fields out."""
        own = {name: rule.schema() for name, rule in cls.rules().items()}
        if not partial:
            own = {name: rule | {"type": "integer"} if "null" in rule["type"] else rule for name, rule in own.items()}
        named = {"model_type": {"type": "string", "enum": [cls.model_type]}}
        required = [*(() if cls.is_default else ("model_type",)), *(() if partial else own)]
        found: dict[str, Any] = {"type": "object", "properties": named | own}
        return found | ({"required": required} if required else {}) | {"additionalProperties": False}

    @classmethod
    def rules(cls) -> dict[str, Rule]:
        """The rule of each field."""
        return {each.name: each.metadata["rule"] for each in fields(cls)}

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """The configuration that a (partial) mapping of names to values describes; unknown names are refused.

        A derived field may be null, which is to leave it out.
        """
        rules = cls.rules()
        unknown = [name for name in values if name not in rules]
        if unknown:
            raise ConfigError({str(name): [f"Unknown field: one of {', '.join(rules)}."] for name in unknown})
        derived = {name: rule for name, rule in rules.items() if isinstance(rule, Whole) and rule.derived}
        given = {k: v for k, v in values.items() if not (v is None and k in derived)}
        zeros = [k for k in derived if given.get(k) == 0 and type(given[k]) is int]
        if zeros:
            raise ConfigError({k: [f"0 is not allowed: {derived[k].allowed}."] for k in zeros})
        return cls(**given)

    def to_mapping(self) -> dict[str, Any]:
        """Every field by name, defaults resolved: equal configurations give equal mappings."""
        named = {} if self.is_default else {"model_type": self.model_type}
        return named | {each.name: getattr(self, each.name) for each in fields(self)}

    def to_text(self) -> str:
        """The line that `values_in` reads as this configuration: its main fields, and what is not as usual."""
        usual = {each.name: each.default for each in fields(self) if each.default is not MISSING} | self.derived()
        main = {each.name for each in fields(self) if each.metadata["main"]} | {"model_type"}
        shown = {k: v for k, v in self.to_mapping().items() if k in main or v != usual[k]}
        return ",".join(f"{k}={v if isinstance(v, str) else orjson.dumps(v).decode()}" for k, v in shown.items())


def values_in(text: str) -> dict[str, Any]:
    """The fields in a line such as `n_layer=3,n_head=3,n_embd=48`, in any order: values as in JSON, but for quotes.

    Raises ConfigError.
    """
    values: dict[str, Any] = {}
    for pair in text.split(","):
        name, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError({"": [f"{pair!r} is no name=value, of which commas make a list: {_IN_TEXT}."]})
        if name in values:
            raise ConfigError({name: ["It is there more than once, and may be once."]})
        values[name] = _value(value)
    return values


def _value(text: str) -> Any:
    """A value as JSON has it, or else the text itself."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
