"""Gemma 3 (Gemma Team 2025, arXiv:2503.19786), its models of text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from worker.describe.config import Number, config_field, other_default, short_json
from worker.families.family import Preset
from worker.families.gemma2 import GemmaConfig, gemma_decoder, gemma_fields
from worker.families.parts.hub import UnsupportedConfigError, rotary_fields
from worker.families.parts.rms_config import FULL, SLIDING
from worker.families.parts.rms_decoder import Decoder
from worker.families.parts.rotary import Rotary
from worker.families.rms_family import rms_family

_PERIOD = 6  # every sixth layer is global


@dataclass(frozen=True, kw_only=True)
class Gemma3Config(GemmaConfig):
    """Hugging Face's Gemma3TextConfig with its defaults; `rope_parameters` are those of global layers."""

    model_type: ClassVar[str] = "gemma3_text"

    max_position_embeddings: int = other_default(GemmaConfig, "max_position_embeddings", 131072)
    vocab_size: int = other_default(GemmaConfig, "vocab_size", 262208)
    rope_theta: float = other_default(GemmaConfig, "rope_theta", 1e6)
    rope_local_base_freq: float = config_field(Number(below=1e12), 10000.0, "Rotary base of local layers")

    def usual_layer_types(self) -> tuple[str, ...]:
        return _layer_types(self.num_hidden_layers, _PERIOD)


def _layer_types(layers: int, period: int) -> tuple[str, ...]:
    return tuple(SLIDING if (layer + 1) % period else FULL for layer in range(layers))


def decoder(config: Gemma3Config) -> Decoder:
    """Return Gemma's decoder with norms of queries and keys, and another rotation in local layers."""
    local = Rotary(config.rope_local_base_freq, config.head_dim, name="rotary_local")
    return gemma_decoder(config, head_norms=True, local_rotary=local)


def from_hub(hub_config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a configuration from a `config.json`. Raises UnsupportedConfigError."""
    rotary, plain = _rotary(hub_config), {**hub_config}
    for name in ("rope_parameters", "rope_scaling"):
        plain.pop(name, None)
    period = plain.pop("sliding_window_pattern", None)
    fields = gemma_fields(Gemma3Config, plain, fixed={"attn_logit_softcapping": None}) | rotary
    layers = fields.get("num_hidden_layers", Gemma3Config.defaults()["num_hidden_layers"])
    if fields.get("layer_types") is None and type(period) is int and period > 0 and type(layers) is int:
        fields["layer_types"] = _layer_types(layers, period)
    return fields


def _rotary(hub_config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of both rotations: in `rope_parameters` by type of layer, or apart, as in older files."""
    nested = hub_config.get("rope_parameters") or {}
    if nested and (not isinstance(nested, dict) or nested.keys() - {FULL, SLIDING}):
        raise UnsupportedConfigError(f"has rope_parameters: {short_json(nested)}, which must be by type of layer")
    context = hub_config.get("max_position_embeddings", Gemma3Config.defaults()["max_position_embeddings"])
    scaling, older = hub_config.get("rope_scaling") or {}, {"rope_theta": hub_config.get("rope_theta")}
    if not isinstance(scaling, dict):
        raise UnsupportedConfigError(f"has rope_scaling: {short_json(scaling)}, which must be an object or null")
    everywhere = rotary_fields(older | {"rope_parameters": {**(nested.get(FULL) or {}), **scaling}}, context)
    local = rotary_fields({"rope_parameters": nested.get(SLIDING)}, context)
    if local.pop("rope_parameters") is not None:
        raise UnsupportedConfigError(f"has a scaled rotation in {SLIDING} layers, which is not supported")
    base = local.get("rope_theta", hub_config.get("rope_local_base_freq"))
    for fields in (everywhere, local):
        if fields.pop("partial_rotary_factor", 1) != 1:
            raise UnsupportedConfigError("has a partial_rotary_factor, and only 1.0 is supported")
    return everywhere | ({} if base is None else {"rope_local_base_freq": base})


_270M = Gemma3Config(
    num_hidden_layers=18, num_attention_heads=4, num_key_value_heads=1, hidden_size=640, intermediate_size=2048,
    max_position_embeddings=32768, vocab_size=262144, sliding_window=512,
)  # fmt: skip

FAMILY = rms_family(
    "Gemma 3",
    "Gemma 2's decoder without caps of scores, with norms of queries and keys, and two rotations: global and local.",
    Gemma3Config,
    (Preset("gemma-3-270m", "Gemma 3 270M", "gemma3", _270M),),
    decoder,
    from_hub,
)
