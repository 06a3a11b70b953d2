"""Gemma 2 (Gemma Team 2024, arXiv:2408.00118)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any, ClassVar

import numpy as np

from worker.describe.config import MAX_WIDTH, Choice, Flag, Nullable, Number, Whole, config_field, other_default
from worker.describe.functions import FUNCTIONS
from worker.families.family import Preset
from worker.families.parts.rms_config import FULL, SLIDING, LayerTypesConfig
from worker.families.parts.rms_decoder import Decoder
from worker.families.parts.rms_hub import rms_fields
from worker.families.rms_family import rms_family


@dataclass(frozen=True, kw_only=True)
class GemmaConfig(LayerTypesConfig):
    """The fields of Gemma 2 and 3. The embedding is multiplied by √hidden_size, rounded to `dtype`."""

    num_hidden_layers: int = other_default(LayerTypesConfig, "num_hidden_layers", 26)
    num_attention_heads: int = other_default(LayerTypesConfig, "num_attention_heads", 8)
    num_key_value_heads: int = other_default(LayerTypesConfig, "num_key_value_heads", 4)
    hidden_size: int = other_default(LayerTypesConfig, "hidden_size", 2304)
    head_dim: int = config_field(Whole(MAX_WIDTH), 256, "Head width")
    intermediate_size: int = other_default(LayerTypesConfig, "intermediate_size", 9216)
    rms_norm_eps: float = other_default(LayerTypesConfig, "rms_norm_eps", 1e-6)
    tie_word_embeddings: bool = other_default(LayerTypesConfig, "tie_word_embeddings", True)
    query_pre_attn_scalar: float = config_field(Number(below=1e6), 256.0, "Divisor of scores, squared")
    final_logit_softcapping: float | None = config_field(Nullable(Number(below=1e6)), None, "Soft cap of logits")
    hidden_activation: str = config_field(Choice((*FUNCTIONS,)), "gelu_new", "Activation function")
    attention_bias: bool = config_field(Flag(), False, "Attention biases")
    dtype: str = config_field(
        Choice(("float32", "float16", "bfloat16")), "bfloat16", "Precision of the embedding's factor"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.embed_scale == rounded(sqrt(self.hidden_size), "float32"):  # then the dtype makes no difference
            object.__setattr__(self, "dtype", "float32")

    @property
    def embed_scale(self) -> float:
        return rounded(sqrt(self.hidden_size), self.dtype)

    @property
    def score_scale(self) -> float | None:
        """The factor of scores; None for the usual one."""
        return None if self.query_pre_attn_scalar == self.head_dim else self.query_pre_attn_scalar**-0.5


def rounded(value: float, dtype: str) -> float:
    """Return a number rounded to a floating-point type, to the nearest and then to even."""
    if dtype != "bfloat16":
        return float(np.dtype(dtype).type(value))
    bits = int(np.float32(value).view(np.uint32))  # bfloat16 has the upper half of them
    bits = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16
    return float(np.uint32(bits).view(np.float32))


def gemma_decoder(config: GemmaConfig, **more: Any) -> Decoder:
    """Return the common decoder with gains of 1 + γ, norms of what is added, and a scaled embedding."""
    return Decoder(
        config=config,
        function=config.hidden_activation,
        qkv_bias=config.attention_bias,
        out_bias=config.attention_bias,
        post_norms=True,
        gain=1.0,
        embed_scale=config.embed_scale,
        score_scale=config.score_scale,
        logit_cap=config.final_logit_softcapping,
        windows=config.windows,
        **more,
    )


def gemma_fields(config: type[GemmaConfig], hub_config: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Return the fields of a configuration from a `config.json`, without a dtype that of the float32 default."""
    fields = rms_fields(config, hub_config, function="hidden_activation", ignored=("hidden_act",), **more)
    dtype = hub_config.get("dtype") or hub_config.get("torch_dtype") or "float32"
    return fields | {"dtype": dtype.removeprefix("torch.") if isinstance(dtype, str) else dtype}


@dataclass(frozen=True, kw_only=True)
class Gemma2Config(GemmaConfig):
    """Hugging Face's Gemma2Config with its defaults."""

    model_type: ClassVar[str] = "gemma2"

    max_position_embeddings: int = other_default(GemmaConfig, "max_position_embeddings", 8192)
    vocab_size: int = other_default(GemmaConfig, "vocab_size", 256000)
    final_logit_softcapping: float | None = other_default(GemmaConfig, "final_logit_softcapping", 30.0)
    attn_logit_softcapping: float | None = config_field(Nullable(Number(below=1e6)), 50.0, "Soft cap of scores")

    def usual_layer_types(self) -> tuple[str, ...]:
        return tuple(FULL if layer % 2 else SLIDING for layer in range(self.num_hidden_layers))


def decoder(config: Gemma2Config) -> Decoder:
    """Return Gemma's decoder with capped scores and logits."""
    return gemma_decoder(config, score_cap=config.attn_logit_softcapping)


def from_hub(hub_config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a configuration from a `config.json`. Raises UnsupportedConfigError."""
    return gemma_fields(Gemma2Config, hub_config)


FAMILY = rms_family(
    "Gemma 2",
    "A decoder with norms before and after attention and MLP, soft caps, and local and global layers in turn.",
    Gemma2Config,
    (Preset("gemma-2-2b", "Gemma 2 2B", "gemma2", Gemma2Config()),),
    decoder,
    from_hub,
)
