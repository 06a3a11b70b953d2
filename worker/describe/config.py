"""Model configurations: fields, validation, and text form."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self

import orjson

from worker.describe.expression import Expression
from worker.describe.rules import (
    MAX_BATCH,
    MAX_HEADS,
    MAX_INNER,
    MAX_LAYERS,
    MAX_POSITIONS,
    MAX_TOKENS,
    MAX_WIDTH,
    Choice,
    Flag,
    Nullable,
    Number,
    Rule,
    Whole,
    Words,
    short_json,
)  # fmt: skip

__all__ = [
    "MAX_BATCH", "MAX_HEADS", "MAX_INNER", "MAX_LAYERS", "MAX_POSITIONS", "MAX_TOKENS", "MAX_WIDTH", "Choice", "Config",
    "ConfigError", "Flag", "Nullable", "Number", "Rule", "Whole", "Words", "config_field", "other_default",
    "parse_values", "short_json",
]  # fmt: skip

_COMMA = re.compile(r",(?![^\[{]*[\]}])")  # not in a list or an object
_EXAMPLE = "as in n_layer=3,n_head=3,n_embd=48"


class ConfigError(ValueError):
    """An invalid configuration: `errors` maps fields to messages; the field "" is the configuration as a whole."""

    def __init__(self, errors: Mapping[str, list[str]]) -> None:
        self.errors = dict(errors)
        super().__init__("; ".join(f"{field}: {text}" for field, texts in self.errors.items() for text in texts))


def config_field(rule: Rule, default: Any, title: str, *, main: bool = False, rare: bool = False) -> Any:
    """Return a dataclass field with a rule, default and display name.

    The text form always contains a `main` field. The mapping leaves out a `rare` field that has its default, so that
    the ids of requests do not depend on it.
    """
    return field(default=default, metadata={"rule": rule, "title": title, "main": main, "rare": rare})


def other_default(config: type[Config], name: str, default: Any) -> Any:
    """Return a field of another configuration with another default."""
    metadata = next(each.metadata for each in fields(config) if each.name == name)
    return field(default=default, metadata=metadata)


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
        for name, rule in self.rules().items():
            object.__setattr__(self, name, rule.made(getattr(self, name)))

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
            own = {name: rule | {"type": "integer"} if "x-derived" in rule else rule for name, rule in own.items()}
        named = {"model_type": {"type": "string", "enum": [cls.model_type]}}
        always = [each.name for each in fields(cls) if not each.metadata["rare"]]
        required = [*(() if cls.is_default else ("model_type",)), *(() if partial else always)]
        found: dict[str, Any] = {"type": "object", "properties": named | own}
        return found | ({"required": required} if required else {}) | {"additionalProperties": False}

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Return the default of each field that is not derived."""
        return {each.name: each.default for each in fields(cls)}

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
        return named | {
            each.name: each.metadata["rule"].as_json(value)
            for each in fields(self)
            if (value := getattr(self, each.name)) != each.default or not each.metadata["rare"]
        }

    def to_text(self) -> str:
        """Return the text form, for `parse_values`: the main fields and those that differ from their default."""
        defaults = self.defaults() | self.derived()
        main = {each.name for each in fields(self) if each.metadata["main"]} | {"model_type"}
        shown = {k: v for k, v in self.to_mapping().items() if k in main or getattr(self, k) != defaults[k]}
        return ",".join(f"{k}={v if isinstance(v, str) else orjson.dumps(v).decode()}" for k, v in shown.items())


def parse_values(text: str) -> dict[str, Any]:
    """Parse fields from text such as `n_layer=3,n_head=3,n_embd=48`, in any order; values are JSON, strings unquoted.

    Raises ConfigError.
    """
    values: dict[str, Any] = {}
    for pair in _COMMA.split(text):
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
