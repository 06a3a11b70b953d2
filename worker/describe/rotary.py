"""Frequencies of rotary positions, and how they are scaled for longer contexts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import ceil, floor, log, pi
from typing import Any

import numpy as np

from worker.describe.rules import MAX_POSITIONS, Choice, Flag, Number, Rule, Whole, short_json

_CONTEXT = "original_max_position_embeddings"
_FIELDS: Mapping[str, Rule] = {
    "factor": Number(below=1e6),
    _CONTEXT: Whole(MAX_POSITIONS),
    "low_freq_factor": Number(below=1e6),
    "high_freq_factor": Number(below=1e6),
    "beta_fast": Number(below=1e6),
    "beta_slow": Number(below=1e6),
    "truncate": Flag(),
    "attention_factor": Number(below=1e6),
}
#: The types, each with its required and its optional fields.
_TYPES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "linear": (("factor",), ()),
    "dynamic": (("factor",), ()),
    "llama3": (("factor", _CONTEXT, "low_freq_factor", "high_freq_factor"), ()),
    "yarn": (("factor", _CONTEXT), ("beta_fast", "beta_slow", "truncate", "attention_factor")),
}
ROPE_TYPES = ("default", *_TYPES)


@dataclass(frozen=True, kw_only=True)
class RotaryScaling:
    """A scaling of rotary frequencies, with the names of transformers' `rope_parameters`.

    A frequency θ becomes θ · (w + (1 − w) / factor), where w depends on the type and the pair of channels:

    linear    0 (Chen et al. 2023, arXiv:2306.15595)
    dynamic   1: the scaling begins after the context, and no trace is longer
    llama3    1 for wavelengths below context / high_freq_factor, 0 above context / low_freq_factor, linear in the
              turns per context between them (Llama Team 2024, arXiv:2407.21783)
    yarn      1 for pairs that make more than beta_fast turns in the context, 0 below beta_slow, linear in the pair
              between them; cosines and sines are multiplied by attention_factor (Peng et al. 2023, arXiv:2309.00071)
    """

    rope_type: str
    factor: float
    original_max_position_embeddings: int | None = None
    low_freq_factor: float | None = None
    high_freq_factor: float | None = None
    beta_fast: float | None = None
    beta_slow: float | None = None
    truncate: bool | None = None
    attention_factor: float | None = None

    def to_mapping(self) -> dict[str, Any]:
        """Return the fields of its type."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def kept(self, base: float, width: int, pair: Any) -> Any:
        """Return w, the share of the frequency of each pair that is not divided by the factor."""
        pair = np.asarray(pair, np.float64)
        if self.rope_type in ("linear", "dynamic"):
            return np.full(pair.shape, float(self.rope_type == "dynamic"))
        context = self.original_max_position_embeddings or 1
        if self.rope_type == "llama3":
            low, high = self.low_freq_factor or 0.0, self.high_freq_factor or 0.0
            turns = context * base ** (-2 * pair / width) / (2 * pi)
            return np.clip((turns - low) / (high - low), 0, 1)
        first, last = (
            width * log(context / (turns * 2 * pi)) / (2 * log(base))
            for turns in (self.beta_fast or 0.0, self.beta_slow or 0.0)
        )
        if self.truncate:
            first, last = floor(first), ceil(last)
        first, last = max(first, 0), min(last, width - 1)
        return 1 - np.clip((pair - first) / (last - first or 0.001), 0, 1)


def frequencies(base: float, width: int, pair: Any, scaling: RotaryScaling | None) -> Any:
    """Return the angle per position by which each pair of `width` channels turns."""
    plain = base ** (-2.0 * np.asarray(pair) / width)
    if scaling is None:
        return plain
    kept = scaling.kept(base, width, pair)
    return plain * (kept + (1 - kept) / scaling.factor)


@dataclass(frozen=True)
class RopeParameters(Rule):
    """A RotaryScaling, an object in JSON; None, in JSON null or the type "default", is none."""

    def error(self, value: Any) -> str | None:
        if value is None or isinstance(value, RotaryScaling):
            return None
        if not isinstance(value, Mapping):
            return f"{short_json(value)} is not allowed: must be an object or null."
        kind: Any = value.get("rope_type")
        if wrong := Choice(ROPE_TYPES).error(kind):
            return f"rope_type {wrong}"
        required, optional = _TYPES.get(kind, ((), ()))
        given = value.keys() - {"rope_type"}
        if missing := [name for name in required if name not in given]:
            return f"{', '.join(missing)} of the type {kind} must be set."
        if unknown := sorted(given - {*required, *optional}):
            allowed = ", ".join((*required, *optional)) or "no other field"
            return f"{', '.join(map(str, unknown))} is not allowed: the type {kind} has {allowed}."
        wrong = next((f"{name} {error}" for name in given if (error := _FIELDS[name].error(value[name]))), None)
        return wrong or self._conflict(kind, value)

    @staticmethod
    def _conflict(kind: str, value: Mapping[str, Any]) -> str | None:
        low, high = ("low_freq_factor", "high_freq_factor") if kind == "llama3" else ("beta_slow", "beta_fast")
        least, most = (value.get(name, usual) for name, usual in ((low, 1), (high, 32)))
        return f"{low} {least:g} is not allowed: must be below {high} {most:g}." if least >= most else None

    def schema(self) -> dict[str, Any]:
        names = {"rope_type": Choice(ROPE_TYPES), **_FIELDS}
        return {
            "type": ["object", "null"],
            "properties": {name: rule.schema() for name, rule in names.items()},
            "required": ["rope_type"],
            "additionalProperties": False,
        }

    def made(self, value: Any) -> RotaryScaling | None:
        if value is None or isinstance(value, RotaryScaling):
            return value
        fields: dict[str, Any] = {name: _FIELDS[name].made(value[name]) for name in value if name != "rope_type"}
        kind = value["rope_type"]
        if kind == "yarn":
            usual = {"beta_fast": 32.0, "beta_slow": 1.0, "truncate": True}
            fields = usual | {"attention_factor": attention_factor(fields["factor"])} | fields
        return None if kind == "default" else RotaryScaling(rope_type=kind, **fields)

    def as_json(self, value: RotaryScaling | None) -> dict[str, Any] | None:
        return None if value is None else value.to_mapping()


def attention_factor(factor: float, mscale: float = 1.0) -> float:
    """Return YaRN's factor of cosines and sines."""
    return 0.1 * mscale * log(factor) + 1 if factor > 1 else 1.0
