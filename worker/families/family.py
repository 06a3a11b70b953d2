"""What a family of models is: all that the rest of the worker needs to know of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from numpy.typing import NDArray

from worker.describe.architecture import Architecture
from worker.describe.config import Config
from worker.weights.synthetic import Initial

if TYPE_CHECKING:
    from worker.engine.numpy_engine import Engine

VocabularyKind = Literal["gpt2", "ids"]


class Tensors(Protocol):
    """Arrays by name: an arena."""

    def __getitem__(self, name: str, /) -> NDArray[Any]: ...


@dataclass(frozen=True)
class Preset:
    """A published model: its id, a name for people, its series, its sizes and what is odd about it.

    `trained` is a file with its weights, where they come with this package.
    """

    id: str
    name: str
    series: str
    config: Config
    note: str = ""
    trained: Path | None = None
    trained_note: str = ""
    letters: str = ""  # its vocabulary, where that is letters


class UnsupportedConfigError(ValueError):
    """A `config.json` that asks for something that is not computed here; says what, and what is."""


@dataclass(frozen=True)
class Family:
    """One family of models. `config` is any of its `Config`; shapes are those of worker.describe.expression.

    describe      the architecture of a configuration
    forward       (config, engine, tensors, rows, after_layer): fill these positions of every value from `tokens`,
                  calling `after_layer` as each layer ends
    predict       (config, engine, residual [B, n, C], tensors): the end of the pass, from any residual stream
    initial       the distribution of a weight, by its name
    from_hub      the fields of a configuration from a `config.json`; raises UnsupportedConfigError
    prefix        which names of weights in a checkpoint begin with, or do not
    vocabulary    what turns text into tokens of a configuration
    """

    title: str
    sentence: str  # what it computes
    Config: type[Config]
    presets: tuple[Preset, ...]
    describe: Callable[[Any], Architecture]
    forward: Callable[[Any, Engine, Tensors, slice, Callable[[], None]], None]
    predict: Callable[[Any, Engine, NDArray[Any], Tensors], None]
    initial: Callable[[Any, str], Initial]
    from_hub: Callable[[Mapping[str, Any]], dict[str, Any]]
    prefix: str
    vocabulary: Callable[[Any], VocabularyKind]

    @property
    def name(self) -> str:
        """As `model_type` in a `config.json`."""
        return self.Config.model_type
