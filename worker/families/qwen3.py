"""Qwen3 (Qwen Team 2025, arXiv:2505.09388)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from worker.describe.config import MAX_WIDTH, Flag, Whole, config_field
from worker.families.family import Preset
from worker.families.parts.rms_decoder import Decoder
from worker.families.parts.rms_gguf import rms_format
from worker.families.parts.rms_hub import rms_fields
from worker.families.qwen2 import QwenConfig
from worker.families.rms_family import rms_family


@dataclass(frozen=True, kw_only=True)
class Qwen3Config(QwenConfig):
    """Hugging Face's Qwen3Config with its defaults."""

    model_type: ClassVar[str] = "qwen3"

    head_dim: int = config_field(Whole(MAX_WIDTH), 128, "Head width")
    attention_bias: bool = config_field(Flag(), False, "Attention biases")


def decoder(config: Qwen3Config) -> Decoder:
    """Return the common decoder, with norms of each head's query and key."""
    return Decoder(
        config=config, function=config.hidden_act, qkv_bias=config.attention_bias, out_bias=config.attention_bias,
        head_norms=True, windows=config.windows,
    )  # fmt: skip


def from_hub(hub_config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a configuration from a `config.json`. Raises UnsupportedConfigError."""
    return {"num_key_value_heads": 32} | rms_fields(Qwen3Config, hub_config)


def _qwen3(id: str, name: str, layers: int, heads: int, width: int, inner: int, *, tied: bool = False) -> Preset:
    config = Qwen3Config(
        num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=8, hidden_size=width,
        intermediate_size=inner, max_position_embeddings=40960, rope_theta=1e6, max_window_layers=layers,
        tie_word_embeddings=tied,
    )  # fmt: skip
    return Preset(id, name, "qwen3", config)


FAMILY = rms_family(
    "Qwen3",
    "Llama's decoder with RMS norms of each head's query and key; some layers may see a window only.",
    Qwen3Config,
    (
        _qwen3("qwen3-0.6b", "Qwen3 0.6B", 28, 16, 1024, 3072, tied=True),
        _qwen3("qwen3-32b", "Qwen3 32B", 64, 64, 5120, 25600),
    ),
    decoder,
    from_hub,
    rms_format(
        "qwen3",
        modules={f"model.layers.{{layer}}.self_attn.{n}_norm": f"blk.{{layer}}.attn_{n}_norm" for n in "qk"},
    ),
)
