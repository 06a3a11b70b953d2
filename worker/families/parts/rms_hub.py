"""Reading a `config.json` of decoders with RMS norms and rotary positions."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from worker.describe.config import short_json
from worker.families.parts.hub import ROTARY, UnsupportedConfigError, hub_fields, rotary_fields
from worker.families.parts.rms_config import FULL, RmsConfig


def rms_fields(
    config: type[RmsConfig],
    hub_config: Mapping[str, Any],
    *,
    function: str = "hidden_act",
    layer_type: str = FULL,
    fixed: Mapping[str, Any] | None = None,
    ignored: Collection[str] = (),
) -> dict[str, Any]:
    """Return the fields of a decoder with RMS norms and rotary positions from a `config.json`.

    `layer_type` is that of all layers, in a family without `layer_types`; more as for `hub_fields`. Raises
    UnsupportedConfigError.
    """
    context = hub_config.get("max_position_embeddings", config.defaults()["max_position_embeddings"])
    rotary = rotary_fields(hub_config, context)
    fields = hub_fields(config, hub_config, dict(fixed or {}), {}, function, (*ROTARY, "layer_types", *ignored))
    if rotary.pop("partial_rotary_factor", 1) != 1:
        raise UnsupportedConfigError("has a partial_rotary_factor, and only 1.0 is supported")
    others = [kind for kind in hub_config.get("layer_types") or () if kind != layer_type]
    if "layer_types" not in config.rules() and others:
        raise UnsupportedConfigError(f"has layer_types {short_json([*others])}, and only {layer_type} is supported")
    if fields.get("num_key_value_heads", 0) is None:
        fields["num_key_value_heads"] = fields.get("num_attention_heads")
    return fields | rotary
