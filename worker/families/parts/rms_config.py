"""Configuration fields of decoders with RMS norms and rotary positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from worker.describe.config import (
    MAX_HEADS,
    MAX_INNER,
    MAX_LAYERS,
    MAX_POSITIONS,
    MAX_TOKENS,
    MAX_WIDTH,
    Config,
    Flag,
    Nullable,
    Number,
    Whole,
    Words,
    config_field,
)  # fmt: skip
from worker.describe.rotary import RopeParameters, RotaryScaling
from worker.families.parts.rotary import Rotary

FULL, SLIDING = "full_attention", "sliding_attention"


@dataclass(frozen=True, kw_only=True)
class RmsConfig(Config):
    """The fields that all have, with the values of Llama 2 7B as defaults."""

    num_hidden_layers: int = config_field(Whole(MAX_LAYERS), 32, "Layers", main=True)
    num_attention_heads: int = config_field(Whole(MAX_HEADS), 32, "Heads", main=True)
    num_key_value_heads: int = config_field(Whole(MAX_HEADS, derived="num_attention_heads"), 0, "Key/value heads")
    hidden_size: int = config_field(Whole(MAX_WIDTH), 4096, "Width", main=True)
    head_dim: int = config_field(Whole(MAX_WIDTH, derived="hidden_size / num_attention_heads"), 0, "Head width")
    intermediate_size: int = config_field(Whole(MAX_INNER), 11008, "MLP width")
    max_position_embeddings: int = config_field(Whole(MAX_POSITIONS), 4096, "Context length")
    vocab_size: int = config_field(Whole(MAX_TOKENS), 32000, "Vocabulary size")
    rms_norm_eps: float = config_field(Number(below=1), 1e-5, "RMS norm epsilon")
    rope_theta: float = config_field(Number(below=1e12), 10000.0, "Rotary base")
    rope_parameters: RotaryScaling | None = config_field(RopeParameters(), None, "Rotary scaling", rare=True)
    tie_word_embeddings: bool = config_field(Flag(), False, "Tied embeddings")

    def conflicts(self, errors: Mapping[str, str]) -> dict[str, str]:
        if {"num_attention_heads", "num_key_value_heads", "hidden_size", "head_dim"} & errors.keys():
            return {}
        heads, kv_heads = self.num_attention_heads, self.num_key_value_heads or self.num_attention_heads
        if heads % kv_heads:
            allowed = f"a divisor of num_attention_heads = {heads}"
            return {"num_key_value_heads": f"{kv_heads} is not allowed: must be {allowed}."}
        if not self.head_dim and self.hidden_size % heads:
            allowed = f"a divisor of hidden_size = {self.hidden_size}, or set head_dim"
            return {"num_attention_heads": f"{heads} is not allowed: must be {allowed}."}
        width = self.head_dim or self.hidden_size // heads
        if width % 2:
            return {"head_dim": f"{width} is not allowed: must be even, because channels are rotated in pairs."}
        return {}

    @property
    def rotary(self) -> Rotary:
        return Rotary(self.rope_theta, self.head_dim, scaling=self.rope_parameters)


@dataclass(frozen=True, kw_only=True)
class LayerTypesConfig(RmsConfig):
    """With local layers, in which attention sees a window, and global ones: `layer_types` says which, by default what
    `usual_layer_types` says.
    """

    sliding_window: int | None = config_field(Nullable(Whole(MAX_POSITIONS)), 4096, "Attention window")
    layer_types: tuple[str, ...] | None = config_field(
        Nullable(Words((FULL, SLIDING))), None, "Local and global layers", rare=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layer_types == self.usual_layer_types():
            object.__setattr__(self, "layer_types", None)

    def conflicts(self, errors: Mapping[str, str]) -> dict[str, str]:
        if {"num_hidden_layers", "layer_types"} & errors.keys():
            return super().conflicts(errors)
        found, layers = self.layer_types or (), self.num_hidden_layers
        if found and len(found) != layers:
            wrong = {"layer_types": f"{len(found)} layers are not allowed: must be num_hidden_layers = {layers}."}
        elif SLIDING in found and self.window is None:
            wrong = {"layer_types": f"{SLIDING} is not allowed: there is no sliding_window."}
        else:
            wrong = {}
        return wrong | super().conflicts(errors)

    def usual_layer_types(self) -> tuple[str, ...]:
        """Return the types of layers if `layer_types` is not set."""
        raise NotImplementedError

    @property
    def window(self) -> int | None:
        """The number of positions that local layers see."""
        return self.sliding_window

    @property
    def windows(self) -> tuple[int | None, ...]:
        """The number of positions that each layer sees; None for all."""
        types = self.layer_types or self.usual_layer_types()
        return tuple(self.window if kind == SLIDING else None for kind in types)
