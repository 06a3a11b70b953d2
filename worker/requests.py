"""Requests: created by the service, computed by the worker.

A request is created once, from validated fields, and sent as JSON, its canonical form. The form contains exactly what
determines the result, and its hash is the id of the request. A field that is added later must be left out of the form
where it is not given, so that existing requests keep their ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from worker.describe.config import Config
from worker.families.registry import config_from_mapping
from worker.models.reference import ModelRef
from worker.trace.sampling import Sampling, positions

RequestKind = Literal["trace", "layout", "lens"]
Style = Literal["columns", "llm-viz"]


@dataclass(frozen=True)
class LayoutRequest:
    """A layout: the positions of all blocks of a model for a number of tokens."""

    kind: ClassVar[RequestKind] = "layout"

    config: Config
    tokens: int
    batch: int = 1
    style: Style = "columns"

    def to_json(self) -> dict[str, Any]:
        """Return the canonical form."""
        return {
            "config": self.config.to_mapping(),
            "tokens": self.tokens,
            "batch": self.batch,
            "style": self.style,
        }

    @classmethod
    def from_json(cls, form: Mapping[str, Any]) -> Self:
        """Parse a canonical form."""
        return cls(config_from_mapping(form["config"]), form["tokens"], form["batch"], form["style"])


@dataclass(frozen=True)
class LensRequest:
    """A logit lens: what each layer of a model would predict after these tokens if it were the last layer."""

    kind: ClassVar[RequestKind] = "lens"

    model: ModelRef
    tokens: tuple[int, ...]

    @property
    def config(self) -> Config:
        """The configuration of the model."""
        return self.model.config

    def to_json(self) -> dict[str, Any]:
        """Return the canonical form."""
        return self.model.to_json() | {"tokens": list(self.tokens)}

    @classmethod
    def from_json(cls, form: Mapping[str, Any]) -> Self:
        """Parse a canonical form."""
        return cls(ModelRef.from_json(form), tuple(form["tokens"]))


@dataclass(frozen=True)
class TraceRequest:
    """A trace: the intermediate values of a model's inference over these tokens and those that it generates.

    `capture` has patterns of the names of the values to store, `dtype` is the type in which they are stored.
    """

    kind: ClassVar[RequestKind] = "trace"

    model: ModelRef
    tokens: tuple[int, ...]
    generate: Sampling | None = None
    capture: tuple[str, ...] = ("*",)
    dtype: str = "float32"

    @property
    def config(self) -> Config:
        """The configuration of the model."""
        return self.model.config

    @property
    def sampling(self) -> Sampling:
        """How new tokens are drawn; by default none are."""
        return self.generate or Sampling()

    @property
    def positions(self) -> int:
        """The number of positions that the model computes."""
        return positions(len(self.tokens), self.sampling)

    def layout(self) -> LayoutRequest:
        """Return the layout for the blocks of this trace."""
        return LayoutRequest(self.config, self.positions)

    def lens(self, fed: Iterable[int]) -> LensRequest:
        """Return the lens over the prompt and the generated tokens that were fed to the model."""
        return LensRequest(self.model, (*self.tokens, *fed))

    def to_json(self) -> dict[str, Any]:
        """Return the canonical form."""
        return self.model.to_json() | {
            "tokens": list(self.tokens),
            "generate": None if self.generate is None else dict(vars(self.generate)),
            "capture": list(self.capture),
            "dtype": self.dtype,
        }

    @classmethod
    def from_json(cls, form: Mapping[str, Any]) -> Self:
        """Parse a canonical form."""
        generate = None if form["generate"] is None else Sampling(**form["generate"])
        model, tokens, capture = ModelRef.from_json(form), tuple(form["tokens"]), tuple(form["capture"])
        return cls(model, tokens, generate, capture, form["dtype"])


Request = TraceRequest | LayoutRequest | LensRequest
_TYPES: Mapping[RequestKind, type[Request]] = {type.kind: type for type in (TraceRequest, LayoutRequest, LensRequest)}


def from_json(kind: RequestKind, form: Mapping[str, Any]) -> Request:
    """Parse the canonical form of a request of a kind."""
    return _TYPES[kind].from_json(form)
