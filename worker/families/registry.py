"""All model families, and lookup by configuration."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import worker.families.bloom as bloom
import worker.families.gemma2 as gemma2
import worker.families.gemma3 as gemma3
import worker.families.gpt2 as gpt2
import worker.families.gpt_neox as gpt_neox
import worker.families.gptj as gptj
import worker.families.llama as llama
import worker.families.mistral as mistral
import worker.families.opt as opt
import worker.families.phi as phi
import worker.families.qwen2 as qwen2
import worker.families.qwen3 as qwen3
from worker.describe.architecture import Architecture
from worker.describe.config import Config, ConfigError, parse_values
from worker.families.family import Family, Preset

_FAMILIES = (
    gpt2.FAMILY,
    llama.FAMILY,
    mistral.FAMILY,
    qwen2.FAMILY,
    qwen3.FAMILY,
    gemma2.FAMILY,
    gemma3.FAMILY,
    gpt_neox.FAMILY,
    gptj.FAMILY,
    phi.FAMILY,
    opt.FAMILY,
    bloom.FAMILY,
)
#: Every family by its `model_type`.
FAMILIES: Mapping[str, Family] = MappingProxyType({family.name: family for family in _FAMILIES})

#: Every published model by id, ordered by family and size.
PRESETS: Mapping[str, Preset] = MappingProxyType(
    {preset.id: preset for family in FAMILIES.values() for preset in family.presets}
)
#: The `model_type` of a configuration that does not set it.
DEFAULT_MODEL_TYPE = next(name for name, family in FAMILIES.items() if family.Config.is_default)


def family_of(config: Config) -> Family:
    """Return the family of a configuration."""
    return FAMILIES[config.model_type]


@lru_cache(maxsize=32)
def describe(config: Config) -> Architecture:
    """Return the architecture of a configuration."""
    return family_of(config).describe(config)


def config_from_mapping(values: Mapping[str, Any]) -> Config:
    """Return the configuration with these values, and defaults for other fields; `model_type` is its family.

    Raises ConfigError.
    """
    values = dict(values)
    name = values.pop("model_type", DEFAULT_MODEL_TYPE)
    if not isinstance(name, str) or name not in FAMILIES:
        raise ConfigError({"model_type": [f"{name!r} is not allowed: must be one of {', '.join(FAMILIES)}."]})
    return FAMILIES[name].Config.from_mapping(values)


def config_from_text(text: str) -> Config:
    """Return the configuration in text such as `n_layer=3,n_head=3,n_embd=48`. Raises ConfigError."""
    return config_from_mapping(parse_values(text))
