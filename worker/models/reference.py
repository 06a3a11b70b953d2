"""Which model a request is about: its configuration, and its weights by their digest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from worker.describe.config import Config
from worker.families.registry import config_from_mapping


@dataclass(frozen=True)
class ModelRef:
    """What of a model decides a result. Equal references mean equal weights."""

    config: Config
    weights: str  # the digest

    def to_json(self) -> dict[str, Any]:
        """The part of a request's canonical form that names the model."""
        return {"config": self.config.to_mapping(), "weights": self.weights}

    @classmethod
    def from_json(cls, form: Mapping[str, Any]) -> ModelRef:
        """The reference in the canonical form of a request."""
        return cls(config_from_mapping(form["config"]), form["weights"])
