"""Reading a `config.json` of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from worker.describe.config import Config, short_json
from worker.describe.functions import SYNONYMS


class UnsupportedConfigError(ValueError):
    """A `config.json` with a setting that is not supported."""


def hub_fields(
    config: type[Config],
    hub_config: Mapping[str, Any],
    fixed: Mapping[str, Any],
    renamed: Mapping[str, str],
    function: str,
) -> dict[str, Any]:
    """Return the fields of a configuration from a `config.json`.

    `fixed` are other settings that change the computation, each with its only supported value; `renamed` maps aliases
    to fields; `function` is the field of the activation function. Raises UnsupportedConfigError.
    """
    for name, supported in fixed.items():
        if hub_config.get(name, supported) != supported:
            found, wanted = (short_json(value) for value in (hub_config[name], supported))
            raise UnsupportedConfigError(f"has {name}: {found}, and only {wanted} is supported")
    hub_config = {renamed.get(name, name): value for name, value in hub_config.items()}
    values = {name: hub_config[name] for name in config.rules() if name in hub_config}
    if isinstance(values.get(function), str):
        values[function] = SYNONYMS.get(values[function], values[function])
    return values


def rope_parameters(hub_config: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Return those of these settings of rotary positions that a `config.json` nests. Raises UnsupportedConfigError."""
    where = next((name for name in ("rope_scaling", "rope_parameters") if hub_config.get(name)), None)
    rotary = hub_config[where] if where else {}
    if not isinstance(rotary, dict):
        raise UnsupportedConfigError(f"has {where}: {short_json(rotary)}, which must be an object or null")
    kind = rotary.get("rope_type", rotary.get("type", "default"))
    if kind != "default":
        raise UnsupportedConfigError(f'has {where}: {short_json(kind)}, and only "default" is supported')
    return {name: rotary[name] for name in names if name in rotary}
