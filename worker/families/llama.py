"""Llama (Touvron et al. 2023, arXiv:2302.13971, arXiv:2307.09288; Llama Team 2024, arXiv:2407.21783)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from worker.describe.config import Choice, Flag, config_field
from worker.describe.functions import FUNCTIONS
from worker.describe.rotary import RotaryScaling
from worker.families.family import Preset
from worker.families.parts.rms_config import RmsConfig
from worker.families.parts.rms_decoder import Decoder
from worker.families.parts.rms_gguf import rms_format
from worker.families.parts.rms_hub import rms_fields
from worker.families.rms_family import rms_family


@dataclass(frozen=True, kw_only=True)
class LlamaConfig(RmsConfig):
    """Hugging Face's LlamaConfig with the values of Llama 2 7B as defaults."""

    model_type: ClassVar[str] = "llama"

    hidden_act: str = config_field(Choice((*FUNCTIONS,)), "silu", "Activation function")
    attention_bias: bool = config_field(Flag(), False, "Attention biases")
    mlp_bias: bool = config_field(Flag(), False, "MLP biases")


def decoder(config: LlamaConfig) -> Decoder:
    """Return the common decoder, with optional biases."""
    return Decoder(
        config=config,
        function=config.hidden_act,
        qkv_bias=config.attention_bias,
        out_bias=config.attention_bias,
        mlp_bias=config.mlp_bias,
    )


def from_hub(hub_config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a configuration from a `config.json`. Raises UnsupportedConfigError."""
    return {"rms_norm_eps": 1e-6, "max_position_embeddings": 2048} | rms_fields(LlamaConfig, hub_config)


def _llama2(id: str, name: str, layers: int, heads: int, width: int, inner: int, kv_heads: int = 0) -> Preset:
    config = LlamaConfig(
        num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv_heads, hidden_size=width,
        intermediate_size=inner,
    )  # fmt: skip
    return Preset(id, name, "llama2", config)


_SCALING = RotaryScaling(
    rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192
)


def _llama3(id: str, name: str, layers: int, heads: int, width: int, inner: int) -> Preset:
    config = LlamaConfig(
        num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=8, hidden_size=width,
        intermediate_size=inner, vocab_size=128256, max_position_embeddings=131072, rope_theta=5e5,
        rope_parameters=_SCALING,
    )  # fmt: skip
    return Preset(id, name, "llama3.1", config)


_SMOLLM2_135M = LlamaConfig(
    num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3, hidden_size=576, intermediate_size=1536,
    vocab_size=49152, max_position_embeddings=8192, rope_theta=1e5, tie_word_embeddings=True,
)  # fmt: skip

FAMILY = rms_family(
    "Llama",
    "A pre-norm decoder with RMS norms, rotary positions, grouped-query attention and a gated MLP.",
    LlamaConfig,
    (
        Preset("smollm2-135m", "SmolLM2 135M", "smollm2", _SMOLLM2_135M, "Llama's architecture."),
        _llama2("llama-2-7b", "Llama 2 7B", 32, 32, 4096, 11008),
        _llama2("llama-2-13b", "Llama 2 13B", 40, 40, 5120, 13824),
        _llama2("llama-2-70b", "Llama 2 70B", 80, 64, 8192, 28672, 8),
        _llama3("llama-3.1-8b", "Llama 3.1 8B", 32, 32, 4096, 14336),
        _llama3("llama-3.1-70b", "Llama 3.1 70B", 80, 64, 8192, 28672),
        _llama3("llama-3.1-405b", "Llama 3.1 405B", 126, 128, 16384, 53248),
    ),
    decoder,
    from_hub,
    rms_format(
        "llama",
        pairs_are_neighbours=True,
        optional={"blk.0.attn_q.bias": "attention_bias", "blk.0.ffn_gate.bias": "mlp_bias"},
    ),
)
