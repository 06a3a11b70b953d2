"""The interface of a model family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from numpy.typing import NDArray

from worker.describe.architecture import Architecture
from worker.describe.config import Config
from worker.families.parts.gguf import GgufFormat
from worker.families.parts.stream import Tensors
from worker.weights.synthetic import Initial

if TYPE_CHECKING:
    from worker.engine.numpy_engine import Engine

VocabularyKind = Literal["gpt2", "ids"]


@dataclass(frozen=True)
class Preset:
    """A published model: id, display name, series, configuration and remarks.

    `trained` is the file of its weights, if they are part of this package.
    """

    id: str
    name: str
    series: str
    config: Config
    note: str = ""
    trained: Path | None = None
    trained_note: str = ""
    letters: str = ""  # its vocabulary, if that is letters


@dataclass(frozen=True)
class Family:
    """One family of models. The letters of shapes are those of worker.describe.expression.

    describe      (config): return its Architecture
    forward       (config, engine, tensors, rows, after_layer): compute the positions `rows` of every value from
                  `tokens`; call `after_layer` after each layer
    predict       (config, engine, residual [B, n, C], tensors): compute the final norm and predictions
    initial       (config, name): return the distribution that a weight is initialised from
    from_hub      (config.json): return the fields of a configuration; raises UnsupportedConfigError
    prefix        optional prefix of weight names in checkpoints
    vocabulary    (config): return the kind of its vocabulary
    gguf          its GGUF files, if llama.cpp has the family
    """

    title: str
    description: str
    Config: type[Config]
    presets: tuple[Preset, ...]
    describe: Callable[[Any], Architecture]
    forward: Callable[[Any, Engine, Tensors, slice, Callable[[], None]], None]
    predict: Callable[[Any, Engine, NDArray[Any], Tensors], None]
    initial: Callable[[Any, str], Initial]
    from_hub: Callable[[Mapping[str, Any]], dict[str, Any]]
    prefix: str
    vocabulary: Callable[[Any], VocabularyKind]
    gguf: GgufFormat | None = None

    @property
    def name(self) -> str:
        """Its `model_type` in a `config.json`."""
        return self.Config.model_type
