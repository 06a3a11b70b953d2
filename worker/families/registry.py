"""The families that there are, by `model_type`, and what is found by a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import worker.families.gpt2 as gpt2
import worker.families.llama as llama
from worker.describe.architecture import Architecture
from worker.describe.config import Config, ConfigError, values_in
from worker.families.family import Family, Preset

FAMILIES: Mapping[str, Family] = MappingProxyType({family.name: family for family in (gpt2.FAMILY, llama.FAMILY)})

#: Every published model by its id, in the order of the families and of their sizes.
PRESETS: Mapping[str, Preset] = MappingProxyType(
    {preset.id: preset for family in FAMILIES.values() for preset in family.presets}
)
#: What a configuration without `model_type` is.
DEFAULT_MODEL_TYPE = next(name for name, family in FAMILIES.items() if family.Config.is_default)


def family_of(config: Config) -> Family:
    """The family of a configuration."""
    return FAMILIES[config.model_type]


@lru_cache(maxsize=32)
def describe(config: Config) -> Architecture:
    """The architecture of a configuration."""
    return family_of(config).describe(config)


def config_from_mapping(values: Mapping[str, Any]) -> Config:
    """The configuration that a (partial) mapping describes; `model_type` names its family, by default GPT-2's.

    Raises ConfigError.
    """
    values = dict(values)
    name = values.pop("model_type", DEFAULT_MODEL_TYPE)
    if not isinstance(name, str) or name not in FAMILIES:
        raise ConfigError({"model_type": [f"{name!r} is not known: one of {', '.join(FAMILIES)}."]})
    return FAMILIES[name].Config.from_mapping(values)


def config_from_text(text: str) -> Config:
    """The configuration in a line such as `n_layer=3,n_head=3,n_embd=48`. Raises ConfigError."""
    return config_from_mapping(values_in(text))
