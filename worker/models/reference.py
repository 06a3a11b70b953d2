"""References to models: configuration and digest of weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from worker.describe.config import Config
from worker.families.registry import config_from_mapping


@dataclass(frozen=True)
class ModelRef:
    """A configuration and a digest: equal references have equal weights, so equal results."""

    config: Config
    weights: str  # the digest

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, for a canonical request."""
        return {"config": self._config, "weights": self.weights}

    @cached_property
    def _config(self) -> dict[str, Any]:  # thousands of requests may have the same model
        return self.config.to_mapping()

    @classmethod
    def from_json(cls, form: Mapping[str, Any]) -> ModelRef:
        """Return the reference from its JSON form."""
        return cls(config_from_mapping(form["config"]), form["weights"])
