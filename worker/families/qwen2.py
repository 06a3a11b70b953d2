"""Qwen2 and Qwen2.5 (Qwen Team 2024, arXiv:2407.10671, arXiv:2412.15115)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from worker.describe.config import MAX_LAYERS, Choice, Flag, Whole, config_field, other_default
from worker.describe.functions import FUNCTIONS
from worker.families.family import Preset
from worker.families.parts.rms_config import FULL, SLIDING, LayerTypesConfig
from worker.families.parts.rms_decoder import Decoder
from worker.families.parts.rms_gguf import rms_format
from worker.families.parts.rms_hub import rms_fields
from worker.families.rms_family import rms_family


@dataclass(frozen=True, kw_only=True)
class QwenConfig(LayerTypesConfig):
    """The fields of Qwen2 and Qwen3: with `use_sliding_window`, layers from `max_window_layers` on are local."""

    intermediate_size: int = other_default(LayerTypesConfig, "intermediate_size", 22016)
    max_position_embeddings: int = other_default(LayerTypesConfig, "max_position_embeddings", 32768)
    vocab_size: int = other_default(LayerTypesConfig, "vocab_size", 151936)
    rms_norm_eps: float = other_default(LayerTypesConfig, "rms_norm_eps", 1e-6)
    use_sliding_window: bool = config_field(Flag(), False, "Window in some layers")
    max_window_layers: int = config_field(Whole(MAX_LAYERS), 28, "First layer with a window")
    hidden_act: str = config_field(Choice((*FUNCTIONS,)), "silu", "Activation function")

    def __post_init__(self) -> None:
        if self.use_sliding_window is False:  # then the other two say nothing
            for name in ("sliding_window", "max_window_layers"):
                object.__setattr__(self, name, self.defaults()[name])
        super().__post_init__()

    @property
    def window(self) -> int | None:
        return self.sliding_window if self.use_sliding_window else None

    def usual_layer_types(self) -> tuple[str, ...]:
        first = self.num_hidden_layers if self.window is None else self.max_window_layers
        return tuple(SLIDING if layer >= first else FULL for layer in range(self.num_hidden_layers))


@dataclass(frozen=True, kw_only=True)
class Qwen2Config(QwenConfig):
    """Hugging Face's Qwen2Config with its defaults."""

    model_type: ClassVar[str] = "qwen2"


def decoder(config: Qwen2Config) -> Decoder:
    """Return the common decoder, with biases of queries, keys and values."""
    return Decoder(config=config, function=config.hidden_act, qkv_bias=True, windows=config.windows)


def from_hub(hub_config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a configuration from a `config.json`. Raises UnsupportedConfigError."""
    return {"num_key_value_heads": 32} | rms_fields(Qwen2Config, hub_config)


_25_05B = Qwen2Config(
    num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2, hidden_size=896, intermediate_size=4864,
    rope_theta=1e6, max_window_layers=24, tie_word_embeddings=True,
)  # fmt: skip

FAMILY = rms_family(
    "Qwen2",
    "Llama's decoder with biases of queries, keys and values; some layers may see a window only.",
    Qwen2Config,
    (Preset("qwen2.5-0.5b", "Qwen2.5 0.5B", "qwen2.5", _25_05B),),
    decoder,
    from_hub,
    rms_format("qwen2"),
)
