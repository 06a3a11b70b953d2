"""Configurations of GPTs: every published preset, and any other size, as a mapping or in a line of text.

Names are those of Hugging Face's `GPT2Config`. `d_head` stands apart from `n_embd / n_head` because a
configuration may break the equality.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

import orjson

ACTIVATION_FUNCTIONS = ("gelu_new", "gelu", "relu", "silu")

#: The largest value of each size. Every one is at least 1.
LIMITS: Mapping[str, int] = MappingProxyType(
    {
        "n_layer": 10_000,
        "n_head": 1_000_000,
        "n_embd": 1_000_000,
        "d_head": 1_000_000,
        "n_inner": 10_000_000,
        "n_positions": 1_000_000,
        "vocab_size": 10_000_000,
    }
)
MAX_BATCH = 64


class ConfigError(ValueError):
    """A configuration that cannot be: `errors` says for each field what is wrong and what is allowed; the field "" is
    all of it.
    """

    def __init__(self, errors: Mapping[str, list[str]]) -> None:
        self.errors = dict(errors)
        super().__init__("; ".join(f"{field}: {text}" for field, texts in self.errors.items() for text in texts))


@dataclass(frozen=True, kw_only=True)
class Config:
    """The sizes of a GPT. What is left out is GPT-2's; `d_head` and `n_inner` follow from the width.

    Raises ConfigError, naming every field that is wrong.
    """

    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    d_head: int = 0  # 0: n_embd / n_head
    n_inner: int = 0  # 0: 4 · n_embd
    n_positions: int = 1024
    vocab_size: int = 50257
    layer_norm_epsilon: float = 1e-5
    activation_function: str = "gelu_new"
    tie_word_embeddings: bool = True

    def __post_init__(self) -> None:
        errors = {field: [text] for field, text in self._wrong().items()}
        if errors:
            raise ConfigError(errors)
        if not self.d_head:
            object.__setattr__(self, "d_head", self.n_embd // self.n_head)
        if not self.n_inner:
            object.__setattr__(self, "n_inner", 4 * self.n_embd)
        object.__setattr__(self, "layer_norm_epsilon", float(self.layer_norm_epsilon))

    def _wrong(self) -> dict[str, str]:
        wrong = {}
        for field, most in LIMITS.items():
            value = getattr(self, field)
            derived = field in ("d_head", "n_inner") and value == 0 and type(value) is int
            if not derived and (type(value) is not int or not 1 <= value <= most):
                wrong[field] = f"{value!r} is not allowed: a whole number from 1 to {most:,}."
        epsilon = self.layer_norm_epsilon
        if isinstance(epsilon, bool) or not isinstance(epsilon, int | float) or not 0 < epsilon < 1:
            wrong["layer_norm_epsilon"] = f"{epsilon!r} is not allowed: a number above 0 and below 1."
        if self.activation_function not in ACTIVATION_FUNCTIONS:
            allowed = ", ".join(ACTIVATION_FUNCTIONS)
            wrong["activation_function"] = f"{self.activation_function!r} is not known: one of {allowed}."
        if not isinstance(self.tie_word_embeddings, bool):
            wrong["tie_word_embeddings"] = f"{self.tie_word_embeddings!r} is not allowed: true or false."
        if not self.d_head and not {"n_head", "n_embd", "d_head"} & wrong.keys() and self.n_embd % self.n_head:
            wrong["n_head"] = (
                f"{self.n_head} heads do not divide the width n_embd = {self.n_embd}: "
                "choose a divisor of it, or say d_head."
            )
        return wrong

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Config:
        """The configuration that a (partial) mapping of names to values describes; unknown names are refused.

        `d_head` and `n_inner` may be null, which is to leave them out.
        """
        known = [field.name for field in fields(cls)]
        unknown = [name for name in values if name not in known]
        if unknown:
            raise ConfigError({str(name): [f"Unknown field: one of {', '.join(known)}."] for name in unknown})
        given = {k: v for k, v in values.items() if not (v is None and k in ("d_head", "n_inner"))}
        zeros = [k for k in ("d_head", "n_inner") if given.get(k) == 0]
        if zeros:
            raise ConfigError({k: [f"0 is not allowed: a whole number from 1 to {LIMITS[k]:,}."] for k in zeros})
        return cls(**given)

    def to_mapping(self) -> dict[str, Any]:
        """Every field by name, defaults resolved: equal configurations give equal mappings."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_text(cls, text: str) -> Config:
        """The same of a line, `n_layer=3,n_head=3,n_embd=48`, in any order: values as in JSON, but for quotes."""
        values: dict[str, Any] = {}
        for pair in text.split(","):
            name, equals, value = pair.partition("=")
            if not equals:
                raise ConfigError({"": [f"{pair!r} is no name=value, of which commas make a list: {_IN_TEXT}."]})
            if name in values:
                raise ConfigError({name: ["It is there more than once, and may be once."]})
            values[name] = _value(value)
        return cls.from_mapping(values)

    def to_text(self) -> str:
        """The line that `from_text` reads as this configuration: its sizes, and what else is not GPT-2's."""
        usual = {field.name: field.default for field in fields(self)}
        usual |= {"d_head": self.n_embd / self.n_head, "n_inner": 4 * self.n_embd}
        told = {k: v for k, v in self.to_mapping().items() if k in ("n_layer", "n_head", "n_embd") or v != usual[k]}
        return ",".join(f"{k}={v if isinstance(v, str) else orjson.dumps(v).decode()}" for k, v in told.items())


def config_from_mapping(values: Mapping[str, Any]) -> Config:
    """The configuration that a (partial) mapping of names to values describes. Raises ConfigError."""
    return Config.from_mapping(values)


_IN_TEXT = "as in n_layer=3,n_head=3,n_embd=48"


def _value(text: str) -> Any:
    """A value as JSON has it, or else the text itself."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


@dataclass(frozen=True)
class Preset:
    """A published model: its id, a name for people, its family, its sizes and what is odd about it."""

    id: str
    name: str
    family: str
    config: Config
    note: str = ""


def _gpt2(id: str, name: str, n_layer: int, n_embd: int, n_head: int, note: str = "", family: str = "gpt2") -> Preset:
    return Preset(id, name, family, Config(n_layer=n_layer, n_embd=n_embd, n_head=n_head), note)


def _gpt3(id: str, name: str, n_layer: int, n_embd: int, n_head: int, note: str = "") -> Preset:
    return Preset(id, name, "gpt3", Config(n_layer=n_layer, n_embd=n_embd, n_head=n_head, n_positions=2048), note)


_NANO = Config(n_layer=3, n_embd=48, n_head=3, n_positions=11, vocab_size=3, tie_word_embeddings=False)
_XL_NOTE = (
    "The paper's Table 2.1 prints 24 heads of 128, which make 3072 and not the width of 2048; "
    "16 heads fit the width and the 1.3 billion parameters."
)
_13B_NOTE = "The paper's Table 2.1 prints a width of 5140; 40 heads of 128 make 5120."

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        preset.id: preset
        for preset in (
            Preset("nano-gpt", "nano-gpt", "nano", _NANO, "Sorts six letters A, B, C; its head is not tied."),
            _gpt2("gpt-micro", "GPT micro", 4, 128, 4, family="minigpt"),
            _gpt2("gpt-mini", "GPT mini", 6, 192, 6, family="minigpt"),
            _gpt2("gopher-44m", "Gopher 44M", 8, 512, 16, "Gopher's sizes on GPT-2's architecture.", "gopher"),
            _gpt2("gpt2", "GPT-2", 12, 768, 12),
            _gpt2("gpt2-medium", "GPT-2 medium", 24, 1024, 16),
            _gpt2("gpt2-large", "GPT-2 large", 36, 1280, 20),
            _gpt2("gpt2-xl", "GPT-2 XL", 48, 1600, 25),
            _gpt3("gpt3-small", "GPT-3 small", 12, 768, 12),
            _gpt3("gpt3-medium", "GPT-3 medium", 24, 1024, 16),
            _gpt3("gpt3-large", "GPT-3 large", 24, 1536, 16),
            _gpt3("gpt3-xl", "GPT-3 XL", 24, 2048, 16, _XL_NOTE),
            _gpt3("gpt3-2.7b", "GPT-3 2.7B", 32, 2560, 32),
            _gpt3("gpt3-6.7b", "GPT-3 6.7B", 32, 4096, 32),
            _gpt3("gpt3-13b", "GPT-3 13B", 40, 5120, 40, _13B_NOTE),
            _gpt3("gpt3-175b", "GPT-3 175B", 96, 12288, 96),
        )
    }
)
