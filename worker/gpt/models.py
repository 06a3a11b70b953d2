"""A model is a configuration, weights and a vocabulary: every preset, and any configuration of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import worker.gpt.tokens as tokens
import worker.gpt.weights as weights
from worker.gpt.config import PRESETS, Config, Preset

Source = Literal["trained", "checkpoint", "synthetic"]


class UnknownModelError(LookupError):
    """No model of this id; says which there are."""

    def __init__(self, id: str) -> None:
        super().__init__(f"There is no model {id!r}: the models are {', '.join(PRESETS)}.")


@dataclass(frozen=True)
class Model:
    """What a request names. `id` is None for a configuration that no preset has."""

    id: str | None
    config: Config
    source: Source
    seed: int = 0

    @property
    def preset(self) -> Preset | None:
        return PRESETS[self.id] if self.id else None

    @property
    def digest(self) -> str:
        """What the weights are known by: equal digests and configurations, equal weights."""
        return weights.nano_digest() if self.source == "trained" else weights.synthetic_digest(self.seed)

    @property
    def note(self) -> str:
        if self.source == "trained":
            return "Trained to sort six letters; the file's metadata holds the facts of the training."
        return (
            f"Made from seed {self.seed} with the mean and deviation of GPT-2's initialisation: "
            "the sizes are real, the values and what they predict are not."
        )

    @property
    def vocabulary(self) -> tokens.Vocabulary:
        return tokens.of(self.config, sorts=self.id == "nano-gpt")

    def canonical(self) -> dict[str, Any]:
        """What of the model decides a result: its sizes and which weights."""
        return {"config": self.config.to_mapping(), "weights": self.digest}

    def weights(self) -> weights.Weights:
        """The weights themselves; synthetic ones are made as they are read."""
        return weights.nano() if self.source == "trained" else weights.SyntheticWeights(self.config, self.seed)


def find(id: str) -> Model:
    """The model of a preset. Raises UnknownModelError."""
    if id not in PRESETS:
        raise UnknownModelError(id)
    return Model(id, PRESETS[id].config, "trained" if id == "nano-gpt" else "synthetic")


def resolve(spec: str | Mapping[str, Any], *, synthetic_seed: int | None = None) -> Model:
    """The model that a request means by an id or a (partial) configuration; a preset's own sizes mean the preset.

    Raises UnknownModelError and ConfigError. `synthetic_seed` asks for synthetic weights in any case.
    """
    if isinstance(spec, str):
        model = find(spec)
    else:
        config = Config.from_mapping(spec)
        same = next((preset.id for preset in PRESETS.values() if preset.config == config), None)
        model = find(same) if same else Model(None, config, "synthetic")
    return model if synthetic_seed is None else Model(model.id, model.config, "synthetic", synthetic_seed)


def from_canonical(request: Mapping[str, Any]) -> Model:
    """The model whose `canonical()` is part of a request. Raises ValueError where its weights are others now."""
    digest = request["weights"]
    prefix = weights.synthetic_digest(0).removesuffix("0")
    seed = int(digest.removeprefix(prefix)) if digest.startswith(prefix) else None
    model = resolve(request["config"], synthetic_seed=seed)
    if model.digest != digest:
        raise ValueError(f"the weights {digest} are not here any more: this model's are {model.digest}")
    return model


def all_models() -> list[Model]:
    """Every preset's model, in the order of their sizes."""
    return [find(id) for id in PRESETS]
