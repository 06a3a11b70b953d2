"""Llama (Touvron et al. 2023, arXiv:2302.13971, arXiv:2307.09288)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from numpy.typing import NDArray

import worker.families.parts.attention as attention
import worker.families.parts.mlp as mlp
import worker.families.parts.norms as norms
import worker.families.parts.prediction as prediction
import worker.families.parts.stream as stream
import worker.families.parts.tour as tour
from worker.describe.architecture import RESIDUAL, Architecture, Section
from worker.describe.blocks import Spot, Tensor
from worker.describe.config import (
    MAX_HEADS,
    MAX_INNER,
    MAX_LAYERS,
    MAX_POSITIONS,
    MAX_TOKENS,
    MAX_WIDTH,
    Choice,
    Config,
    Flag,
    Number,
    Whole,
    config_field,
    short_json,
)  # fmt: skip
from worker.describe.functions import FUNCTIONS
from worker.families.family import Family, VocabularyKind
from worker.families.parts.hub import UnsupportedConfigError, hub_fields
from worker.families.parts.labels import decoder_labels
from worker.families.parts.notation import HEAD, KV_HEAD, LAYER, kind, value, weight
from worker.families.parts.rotary import Rotary, fill_rotary, rotary_kinds, rotary_values, rotate, rotated_kinds
from worker.families.parts.stream import Tensors
from worker.weights.synthetic import Initial

if TYPE_CHECKING:
    from worker.engine.numpy_engine import Engine


@dataclass(frozen=True, kw_only=True)
class LlamaConfig(Config):
    """Hugging Face's LlamaConfig with the values of Llama 2 7B as defaults."""

    model_type: ClassVar[str] = "llama"

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
    hidden_act: str = config_field(Choice((*FUNCTIONS,)), "silu", "Activation function")
    attention_bias: bool = config_field(Flag(), False, "Attention biases")
    mlp_bias: bool = config_field(Flag(), False, "MLP biases")
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


# ----------------------------------------------------------------------------------------------------- description

_W = "model.layers.{layer}"  # Hugging Face's weight names; linear weights are (out, in)


def describe(config: LlamaConfig) -> Architecture:
    """Return the tensors and blocks of a configuration."""
    c = config
    sizes = {
        "C": c.hidden_size, "H": c.num_attention_heads, "G": c.num_key_value_heads, "A": c.head_dim,
        "R": c.num_attention_heads // c.num_key_value_heads, "F": c.intermediate_size, "V": c.vocab_size,
        "N": c.max_position_embeddings,
    }  # fmt: skip
    sections = (_embedding(config), _layers(config), _unembedding(config))
    return Architecture(sizes, sections, decoder_labels(*sections), tour.GATED_DECODER)


def _rotary(config: LlamaConfig) -> Rotary:
    return Rotary(config.rope_theta, config.head_dim)


def _embedding(config: LlamaConfig) -> Section:
    return Section(
        "embedding",
        weights=(weight("model.embed_tokens.weight", "V C", "embedding", table=True),),
        values=(stream.tokens_value(), value("embed", "B T C"), *rotary_values()),
        kinds=(
            stream.tokens_kind(),
            kind("embed_tokens", "Token Embed", "weight", "V C 1", "model.embed_tokens.weight: i j",
                 Spot("norm", "right"), "tables"),
            stream.embedding_kind(("embed_tokens", "s j 0")),
            *rotary_kinds(_rotary(config), "tables", "sines"),
        ),
        shelves={
            "tokens": "top",
            "tables": "top + (s + m)",
            "sines": "tables + A*s + m",
            "end": "max(tables + C*s, sines + A*s) + 3*m",
        },
    )  # fmt: skip


def _layers(config: LlamaConfig) -> Section:
    at, epsilon, biased = f"{LAYER}.attn", config.rms_norm_eps, config.attention_bias
    queries, q_biases = attention.separate(f"{_W}.self_attn", HEAD, "q")
    keys, k_biases = attention.separate(f"{_W}.self_attn", KV_HEAD, "kv")
    return Section(
        "blocks",
        layers=config.num_hidden_layers,
        enters="embedding",
        leaves=f"{LAYER}.resid_post",
        weights=tuple(_layer_weights(config)),
        values=(
            value(f"{LAYER}.resid_pre", "B T C", landmark="entering"),
            *norms.rms_norm_values(f"{LAYER}.ln1"),
            value(f"{at}.q", "B T H A"),
            value(f"{at}.k", "B T G A"),
            value(f"{at}.v", "B T G A", read_later=True),
            value(f"{at}.rot_q", "B T H A"),
            value(f"{at}.rot_k", "B T G A", read_later=True),
            *attention.attention_values(),
            value(f"{LAYER}.attn_out", "B T C"),
            value(f"{LAYER}.resid_mid", "B T C"),
            *norms.rms_norm_values(f"{LAYER}.ln2"),
            *mlp.gated_mlp_values(),
            value(f"{LAYER}.resid_post", "B T C", landmark="leaving"),
        ),
        kinds=(
            *norms.rms_norm_kinds(f"{LAYER}.ln1", RESIDUAL, f"{_W}.input_layernorm", epsilon, "ln1"),
            *attention.vector_kinds(KV_HEAD, keys, k_biases if biased else {}),
            *rotated_kinds(KV_HEAD, "k", _rotary(config)),
            *attention.vector_kinds(HEAD, queries, q_biases if biased else {}),
            *rotated_kinds(HEAD, "q", _rotary(config)),
            *attention.shared_attention_kinds("rot_q", "rot_k", config.head_dim),
            *attention.projection_kinds(
                f"{_W}.self_attn.o_proj.weight: j i", f"{_W}.self_attn.o_proj.bias" if biased else None
            ),
            stream.resid_mid_kind(),
            *norms.rms_norm_kinds(
                f"{LAYER}.ln2", f"{LAYER}.resid_mid", f"{_W}.post_attention_layernorm", epsilon, "ln2"
            ),
            *mlp.gated_mlp_kinds(f"{_W}.mlp", config.hidden_act, config.mlp_bias),
            stream.resid_post_kind(),
        ),
        shelves=norms.rms_norm_shelves("ln1", "top + 2*m") | {
            "q": "ln1_out",
            "k": "q + A*s*deep",  # several columns of layers: below each other, to save depth
            "v": "k + A*s*deep",
            "rot_q": "v + A*s + m",
            "rot_k": "rot_q + A*s*deep",
            "scores": "rot_k + A*s + m",
            "z": "scores + T*s + m",
            "attn_out": "max(z + A*s + 2*m, q + C*s + m)",
        } | norms.rms_norm_shelves("ln2", "attn_out + C*s + m") | mlp.gated_mlp_shelves("ln2_out") | {
            "end": "mlp_out + C*s + m",
        },
    )  # fmt: skip


def _layer_weights(config: LlamaConfig) -> Iterator[Tensor]:
    yield weight(f"{_W}.input_layernorm.weight", "C", "rms_norm")
    for name, rows, part in (("q", "HA", "query"), ("k", "GA", "key"), ("v", "GA", "value"), ("o", "C", "output")):
        yield weight(f"{_W}.self_attn.{name}_proj.weight", f"{rows} {'HA' if name == 'o' else 'C'}", part)
        if config.attention_bias:
            yield weight(f"{_W}.self_attn.{name}_proj.bias", rows, "biases")
    yield weight(f"{_W}.post_attention_layernorm.weight", "C", "rms_norm")
    yield from mlp.gated_mlp_weights(f"{_W}.mlp", config.mlp_bias)


def _unembedding(config: LlamaConfig) -> Section:
    tied = "model.embed_tokens.weight" if config.tie_word_embeddings else None
    return Section(
        "unembedding",
        weights=(
            weight("model.norm.weight", "C", "rms_norm"),
            weight("lm_head.weight", "V C", "unembedding", table=True, alias_of=tied),
        ),
        values=(*norms.rms_norm_values("ln_final"), *prediction.prediction_values()),
        kinds=(
            *norms.rms_norm_kinds("ln_final", RESIDUAL, "model.norm", config.rms_norm_eps, "ln_final"),
            *prediction.prediction_kinds("lm_head.weight"),
        ),
        shelves=norms.rms_norm_shelves("ln_final", "top + 2*m") | prediction.prediction_shelves("ln_final_out"),
    )


# ---------------------------------------------------------------------------------------------------- forward pass


def block(l: int, config: LlamaConfig, engine: Engine, a: Tensors, new: Tensors, rows: slice) -> None:  # noqa: E741 - the papers' letter
    """Compute one transformer block: resid_pre [B, n, C] -> resid_post [B, n, C]; `new` is `a` restricted to `rows`."""
    here, weights, epsilon = f"blocks.{l}", f"model.layers.{l}", config.rms_norm_eps
    resid_pre, resid_mid, attn_out = (new[f"{here}.{name}"] for name in ("resid_pre", "resid_mid", "attn_out"))
    normed = norms.rms_norm(engine, resid_pre, f"{weights}.input_layernorm", epsilon, new, f"{here}.ln1")
    for n in "qkv":
        out = stream.merge_heads(new[f"{here}.attn.{n}"])
        engine.project(normed, f"{weights}.self_attn.{n}_proj", out, bias=config.attention_bias)
    rotate(engine, _rotary(config), here, new)
    attention.attend(engine, rows, a, here, "rot_q", "rot_k")
    z = stream.merge_heads(new[f"{here}.attn.z"])
    engine.project(z, f"{weights}.self_attn.o_proj", attn_out, bias=config.attention_bias)
    engine.add(attn_out, resid_pre, resid_mid)

    normed = norms.rms_norm(engine, resid_mid, f"{weights}.post_attention_layernorm", epsilon, new, f"{here}.ln2")
    mlp_out = mlp.gated_mlp(engine, normed, f"{weights}.mlp", config.hidden_act, config.mlp_bias, new, here)
    engine.add(mlp_out, resid_mid, new[f"{here}.resid_post"])


def forward(
    config: LlamaConfig, engine: Engine, a: Tensors, rows: slice, after_layer: Callable[[], None] = lambda: None
) -> None:
    """Compute the positions `rows` of every tensor in `a` from its `tokens`; call `after_layer` after each layer."""
    tokens = a["tokens"]
    new = stream.restricted(a, rows)
    engine.embed("model.embed_tokens.weight", tokens[:, rows], new["embed"])
    new["blocks.0.resid_pre"][:] = new["embed"]
    fill_rotary(_rotary(config), rows, new)
    resid = stream.run_layers(
        config.num_hidden_layers, lambda layer: block(layer, config, engine, a, new, rows), new, after_layer
    )
    predict(config, engine, resid, new)


def predict(config: LlamaConfig, engine: Engine, resid: NDArray[Any], new: Tensors) -> None:
    """Compute `ln_final`, `logits` and `probs` [B, n, V] from a residual stream [B, n, C]."""
    normed = norms.rms_norm(engine, resid, "model.norm", config.rms_norm_eps, new, "ln_final")
    prediction.unembed(engine, normed, new)


# ------------------------------------------------------------------------------------------ weights and vocabulary


def initial(config: LlamaConfig, name: str) -> Initial:
    """Return the initialisation in transformers: deviation 0.02; biases 0, gains 1."""
    if name.endswith(".bias"):
        return Initial(0.0, 0.0)
    return Initial(1.0, 0.0) if "norm" in name else Initial(0.0, 0.02)


_FIXED = {"model_type": "llama", "partial_rotary_factor": 1.0}


def from_hub(hub_config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a configuration from a `config.json`. Raises UnsupportedConfigError."""
    fields = hub_fields(LlamaConfig, hub_config, _FIXED, {}, "hidden_act")
    for name in ("rope_scaling", "rope_parameters"):
        rotary = hub_config.get(name) or {}
        if not isinstance(rotary, dict):
            raise UnsupportedConfigError(f"has {name}: {short_json(rotary)}, which must be an object or null")
        kind = rotary.get("rope_type", rotary.get("type", "default"))
        if kind != "default":
            raise UnsupportedConfigError(f'has {name}: {short_json(kind)}, and only "default" is supported')
        fields |= {"rope_theta": rotary["rope_theta"]} if "rope_theta" in rotary else {}
    return fields


def vocabulary(config: LlamaConfig) -> VocabularyKind:
    """Return "ids": a checkpoint's tokenizer is not read."""
    return "ids"


FAMILY = Family(
    title="Llama",
    description="A pre-norm decoder with RMS norms, rotary positions, grouped-query attention and a gated MLP.",
    Config=LlamaConfig,
    presets=(),
    describe=describe,
    forward=forward,
    predict=predict,
    initial=initial,
    from_hub=from_hub,
    prefix="model.",
    vocabulary=vocabulary,
)  # fmt: skip
