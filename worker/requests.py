"""What can be asked for: the requests that the service makes and the worker computes.

A request is made once, from checked fields, and travels as JSON. That JSON is its canonical form: it holds what decides
the result and nothing else, and its hash is the request's id. So a field that is added later enters it only where it is
given: without it a request keeps its id.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, Self

from worker.describe.config import Config
from worker.families.registry import config_from_mapping
from worker.models.reference import ModelRef
from worker.trace.sampling import Sampling, positions

RequestKind = Literal["trace", "layout", "lens"]
Style = Literal["columns", "llm-viz"]


@dataclass(frozen=True)
class LayoutRequest:
    """The positions of all blocks of a model that reads so many tokens."""

    kind: ClassVar[RequestKind] = "layout"

    config: Config
    tokens: int
    batch: int = 1
    style: Style = "columns"

    def to_json(self) -> dict[str, Any]:
        """The canonical form."""
        return {
            "config": self.config.to_mapping(),
            "tokens": self.tokens,
            "batch": self.batch,
            "style": self.style,
        }

    @classmethod
    def from_json(cls, form: Mapping[str, Any]) -> Self:
        """The request of a canonical form."""
        return cls(config_from_mapping(form["config"]), form["tokens"], form["batch"], form["style"])


@dataclass(frozen=True)
class LensRequest:
    """What each layer of a model would predict after these tokens, if it were the last."""

    kind: ClassVar[RequestKind] = "lens"

    model: ModelRef
    tokens: tuple[int, ...]

    @property
    def config(self) -> Config:
        """The model's."""
        return self.model.config

    def to_json(self) -> dict[str, Any]:
        """The canonical form."""
        return self.model.to_json() | {"tokens": list(self.tokens)}

    @classmethod
    def from_json(cls, form: Mapping[str, Any]) -> Self:
        """The request of a canonical form."""
        return cls(ModelRef.from_json(form), tuple(form["tokens"]))


@dataclass(frozen=True)
class TraceRequest:
    """The intermediate values of a model's inference over these tokens and those that it generates after them.

    `capture` has the patterns of the names to keep, `dtype` the type in which they are kept.
    """

    kind: ClassVar[RequestKind] = "trace"

    model: ModelRef
    tokens: tuple[int, ...]
    generate: Sampling | None = None
    capture: tuple[str, ...] = ("*",)
    dtype: str = "float32"

    @property
    def config(self) -> Config:
        """The model's."""
        return self.model.config

    @property
    def sampling(self) -> Sampling:
        """How new tokens are drawn; none are by default."""
        return self.generate or Sampling()

    @property
    def positions(self) -> int:
        """How many positions the model is fed."""
        return positions(len(self.tokens), self.sampling)

    def layout(self) -> LayoutRequest:
        """The layout whose blocks this trace fills."""
        return LayoutRequest(self.config, self.positions)

    def lens(self, fed: Iterable[int]) -> LensRequest:
        """The lens over the prompt and the generated tokens that were fed."""
        return LensRequest(self.model, (*self.tokens, *fed))

    def to_json(self) -> dict[str, Any]:
        """The canonical form."""
        return self.model.to_json() | {
            "tokens": list(self.tokens),
            "generate": None if self.generate is None else asdict(self.generate),
            "capture": list(self.capture),
            "dtype": self.dtype,
        }

    @classmethod
    def from_json(cls, form: Mapping[str, Any]) -> Self:
        """The request of a canonical form."""
        generate = None if form["generate"] is None else Sampling(**form["generate"])
        model, tokens, capture = ModelRef.from_json(form), tuple(form["tokens"]), tuple(form["capture"])
        return cls(model, tokens, generate, capture, form["dtype"])


Request = TraceRequest | LayoutRequest | LensRequest
_TYPES: Mapping[RequestKind, type[Request]] = {type.kind: type for type in (TraceRequest, LayoutRequest, LensRequest)}


def from_json(kind: RequestKind, form: Mapping[str, Any]) -> Request:
    """The request of a kind from its canonical form."""
    return _TYPES[kind].from_json(form)
