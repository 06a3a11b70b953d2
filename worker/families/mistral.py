"""Mistral (Jiang et al. 2023, arXiv:2310.06825)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from worker.describe.config import MAX_HEADS, MAX_POSITIONS, Choice, Nullable, Whole, config_field, other_default
from worker.describe.functions import FUNCTIONS
from worker.families.family import Preset
from worker.families.parts.rms_config import SLIDING, RmsConfig
from worker.families.parts.rms_decoder import Decoder
from worker.families.parts.rms_hub import rms_fields
from worker.families.rms_family import rms_family


@dataclass(frozen=True, kw_only=True)
class MistralConfig(RmsConfig):
    """Hugging Face's MistralConfig with its defaults."""

    model_type: ClassVar[str] = "mistral"

    num_key_value_heads: int = config_field(Whole(MAX_HEADS), 8, "Key/value heads")
    intermediate_size: int = other_default(RmsConfig, "intermediate_size", 14336)
    max_position_embeddings: int = other_default(RmsConfig, "max_position_embeddings", 131072)
    rms_norm_eps: float = other_default(RmsConfig, "rms_norm_eps", 1e-6)
    sliding_window: int | None = config_field(Nullable(Whole(MAX_POSITIONS)), 4096, "Attention window")
    hidden_act: str = config_field(Choice((*FUNCTIONS,)), "silu", "Activation function")


def decoder(config: MistralConfig) -> Decoder:
    """Return the common decoder; every layer sees a window."""
    return Decoder(
        config=config, function=config.hidden_act, windows=(config.sliding_window,) * config.num_hidden_layers
    )


def from_hub(hub_config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a configuration from a `config.json`. Raises UnsupportedConfigError."""
    return rms_fields(MistralConfig, hub_config, layer_type=SLIDING)


_7B = MistralConfig(max_position_embeddings=32768, rms_norm_eps=1e-5)

FAMILY = rms_family(
    "Mistral",
    "Llama's decoder, in which each position sees a window of positions before it.",
    MistralConfig,
    (Preset("mistral-7b", "Mistral 7B", "mistral", _7B),),
    decoder,
    from_hub,
)
