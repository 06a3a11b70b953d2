"""GPT-NeoX and Pythia (Black et al. 2022, arXiv:2204.06745; Biderman et al. 2023, arXiv:2304.01373)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, Any, ClassVar

from numpy.typing import NDArray

from worker.describe.architecture import RESIDUAL, Architecture, Section
from worker.describe.blocks import Kind, Step, Tensor
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
)  # fmt: skip
from worker.describe.functions import FUNCTIONS
from worker.describe.rotary import RopeParameters, RotaryScaling
from worker.families.family import Family, Preset
from worker.families.parts import attention, defaults, mlp, norms, prediction, residual, sections, stream, tour
from worker.families.parts.hub import ROTARY, hub_fields, rotary_fields
from worker.families.parts.labels import decoder_labels
from worker.families.parts.notation import ATTENTION, HEAD, LAYER, read, value, weight
from worker.families.parts.rotary import Rotary, fill_rotary, partial_width_error, rotate, rotated_kinds
from worker.families.parts.stream import Tensors

if TYPE_CHECKING:
    from worker.engine.numpy_engine import Engine


@dataclass(frozen=True, kw_only=True)
class GPTNeoXConfig(Config):
    """Hugging Face's GPTNeoXConfig with the values of GPT-NeoX 20B as defaults."""

    model_type: ClassVar[str] = "gpt_neox"

    num_hidden_layers: int = config_field(Whole(MAX_LAYERS), 44, "Layers", main=True)
    num_attention_heads: int = config_field(Whole(MAX_HEADS), 64, "Heads", main=True)
    hidden_size: int = config_field(Whole(MAX_WIDTH), 6144, "Width", main=True)
    intermediate_size: int = config_field(Whole(MAX_INNER), 24576, "MLP width", main=True)
    max_position_embeddings: int = config_field(Whole(MAX_POSITIONS), 2048, "Context length")
    vocab_size: int = config_field(Whole(MAX_TOKENS), 50432, "Vocabulary size")
    rotary_pct: float = config_field(Number(most=1), 0.25, "Rotated share of a head")
    rotary_emb_base: float = config_field(Number(below=1e12), 10000.0, "Rotary base")
    rope_parameters: RotaryScaling | None = config_field(RopeParameters(), None, "Rotary scaling", rare=True)
    layer_norm_eps: float = config_field(Number(below=1), 1e-5, "Layer norm epsilon")
    hidden_act: str = config_field(Choice((*FUNCTIONS,)), "gelu", "Activation function")
    use_parallel_residual: bool = config_field(Flag(), True, "Attention and MLP in parallel")
    attention_bias: bool = config_field(Flag(), True, "Attention biases")
    tie_word_embeddings: bool = config_field(Flag(), False, "Tied embeddings")

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def rotary(self) -> Rotary:
        return Rotary(self.rotary_emb_base, int(self.head_dim * self.rotary_pct), scaling=self.rope_parameters)

    def conflicts(self, errors: Mapping[str, str]) -> dict[str, str]:
        if {"num_attention_heads", "hidden_size", "rotary_pct"} & errors.keys():
            return {}
        if self.hidden_size % self.num_attention_heads:
            allowed = f"a divisor of hidden_size = {self.hidden_size}"
            return {"num_attention_heads": f"{self.num_attention_heads} is not allowed: must be {allowed}."}
        return partial_width_error("rotary_pct", self.rotary_pct, self.head_dim)


# ----------------------------------------------------------------------------------------------------- description

_W = "gpt_neox.layers.{layer}"  # Hugging Face's weight names; linear weights are (out, in)
_HEAD, _TABLE = "embed_out", "gpt_neox.embed_in.weight"


def describe(config: GPTNeoXConfig) -> Architecture:
    """Return the tensors and blocks of a configuration."""
    c = config
    sizes = {
        "C": c.hidden_size, "H": c.num_attention_heads, "A": c.head_dim, "F": c.intermediate_size, "V": c.vocab_size,
        "N": c.max_position_embeddings, "G": c.num_attention_heads, "R": 1,
    }  # fmt: skip
    tied = _TABLE if c.tie_word_embeddings else None
    embedding = sections.rotary_embedding(_TABLE, "embed_in", c.rotary)
    unembedding = sections.unembedding("gpt_neox.final_layer_norm", c.layer_norm_eps, _HEAD, tied_to=tied)
    layers, steps = _layers(config), tuple(_steps(config))
    return Architecture(sizes, (embedding, layers, unembedding), decoder_labels(embedding, layers, unembedding), steps)


def _layers(config: GPTNeoXConfig) -> Section:
    beside = config.use_parallel_residual
    return Section(
        "blocks",
        layers=config.num_hidden_layers,
        enters="embedding",
        leaves=f"{LAYER}.resid_post",
        weights=tuple(_layer_weights(config)),
        values=(
            value(f"{LAYER}.resid_pre", "B T C", landmark="entering"),
            *norms.layer_norm_values(f"{LAYER}.ln1"),
            *attention.vector_values(rotated=True),
            *attention.attention_values(),
            value(f"{LAYER}.attn_out", "B T C"),
            *(() if beside else (value(f"{LAYER}.resid_mid", "B T C"),)),
            *norms.layer_norm_values(f"{LAYER}.ln2"),
            *mlp.mlp_values(),
            value(f"{LAYER}.resid_post", "B T C", landmark="leaving"),
        ),
        kinds=tuple(_layer_kinds(config)),
        shelves=residual.parallel_shelves() if beside else residual.serial_shelves(rotated=True),
    )


def _layer_kinds(config: GPTNeoXConfig) -> Iterator[Kind]:
    beside, epsilon = config.use_parallel_residual, config.layer_norm_eps
    weights, biases = attention.fused(f"{_W}.attention.query_key_value")
    before, after = f"{_W}.input_layernorm", f"{_W}.post_attention_layernorm"
    yield from norms.layer_norm_kinds(f"{LAYER}.ln1", RESIDUAL, before, epsilon, "ln1")
    yield from attention.vector_kinds(HEAD, weights, biases if config.attention_bias else {})
    yield from rotated_kinds(HEAD, "qk", config.rotary)
    yield from attention.attention_kinds(
        read(f"{HEAD}.rot_q", "j s k"), read(f"{HEAD}.rot_k", "i s k"), read(f"{HEAD}.v", "s j k"),
        1 / sqrt(config.head_dim),
    )  # fmt: skip
    dense = f"{_W}.attention.dense"
    yield from attention.projection_kinds(f"{dense}.weight: j i", f"{dense}.bias" if config.attention_bias else None)
    if beside:
        yield from norms.layer_norm_kinds(f"{LAYER}.ln2", RESIDUAL, after, epsilon, "ln1", residual.MLP_NORM)
    else:
        yield stream.resid_mid_kind()
        yield from norms.layer_norm_kinds(f"{LAYER}.ln2", f"{LAYER}.resid_mid", after, epsilon, "ln2")
    spot = residual.mlp_spot(own_norm=True) if beside else ATTENTION
    yield from mlp.mlp_kinds(f"{_W}.mlp.dense_h_to_4h", f"{_W}.mlp.dense_4h_to_h", config.hidden_act, spot=spot)
    yield residual.parallel_sum_kind() if beside else stream.resid_post_kind()


def _layer_weights(config: GPTNeoXConfig) -> Iterator[Tensor]:
    at = f"{_W}.attention"
    yield from norms.layer_norm_weights(f"{_W}.input_layernorm")
    yield weight(f"{at}.query_key_value.weight", "3HA C", "query", "key", "value")
    yield weight(f"{at}.dense.weight", "C HA", "output")
    for name, rows in ((f"{at}.query_key_value", "3HA"), (f"{at}.dense", "C")) if config.attention_bias else ():
        yield weight(f"{name}.bias", rows, "biases")
    yield from norms.layer_norm_weights(f"{_W}.post_attention_layernorm")
    yield from mlp.mlp_weights(f"{_W}.mlp.dense_h_to_4h", f"{_W}.mlp.dense_4h_to_h")


def _steps(config: GPTNeoXConfig) -> Iterator[Step]:
    qkv = tour.FUSED_QKV if config.attention_bias else tour.PLAIN_QKV
    yield from (tour.TOKENS, tour.LOOKUP, tour.NORM, qkv, tour.rotate_part(), *tour.ATTEND, tour.PROJECT)
    if config.use_parallel_residual:
        yield from tour.parallel_mlp("the same stream through a norm of its own")
    else:
        yield from (tour.RESIDUAL, *tour.MLP)
    yield from (tour.LAST, *tour.PREDICT)


# ---------------------------------------------------------------------------------------------------- forward pass


def block(l: int, config: GPTNeoXConfig, engine: Engine, a: Tensors, new: Tensors, rows: slice) -> None:  # noqa: E741 - the papers' letter
    """Compute one transformer block: resid_pre [B, n, C] -> resid_post [B, n, C]; `new` is `a` restricted to `rows`."""
    here, weights, epsilon = f"blocks.{l}", f"gpt_neox.layers.{l}", config.layer_norm_eps
    resid_pre, attn_out, biased = new[f"{here}.resid_pre"], new[f"{here}.attn_out"], config.attention_bias
    normed = norms.layer_norm(engine, resid_pre, f"{weights}.input_layernorm", epsilon, new, f"{here}.ln1")
    attention.project_fused(engine, normed, f"{weights}.attention.query_key_value", new, here, biased)
    rotate(engine, config.rotary, here, new)
    attention.attend(engine, rows, a, here, "rot_q", "rot_k")
    engine.project(stream.merge_heads(new[f"{here}.attn.z"]), f"{weights}.attention.dense", attn_out, bias=biased)

    resid_mid = resid_pre if config.use_parallel_residual else new[f"{here}.resid_mid"]
    if not config.use_parallel_residual:
        engine.add(attn_out, resid_pre, resid_mid)
    normed = norms.layer_norm(engine, resid_mid, f"{weights}.post_attention_layernorm", epsilon, new, f"{here}.ln2")
    up, down = f"{weights}.mlp.dense_h_to_4h", f"{weights}.mlp.dense_4h_to_h"
    mlp_out = mlp.mlp(engine, normed, up, down, config.hidden_act, new, here)
    if config.use_parallel_residual:
        residual.add_both(engine, new, here)
    else:
        engine.add(mlp_out, resid_mid, new[f"{here}.resid_post"])


def forward(
    config: GPTNeoXConfig, engine: Engine, a: Tensors, rows: slice, after_layer: Callable[[], None] = lambda: None
) -> None:
    """Compute the positions `rows` of every tensor in `a` from its `tokens`; call `after_layer` after each layer."""
    new = stream.restricted(a, rows)
    engine.embed(_TABLE, new["tokens"], new["embed"])
    new["blocks.0.resid_pre"][:] = new["embed"]
    fill_rotary(config.rotary, rows, new)
    resid = stream.run_layers(
        config.num_hidden_layers, lambda layer: block(layer, config, engine, a, new, rows), new, after_layer
    )
    predict(config, engine, resid, new)


def predict(config: GPTNeoXConfig, engine: Engine, resid: NDArray[Any], new: Tensors) -> None:
    """Compute `ln_final`, `logits` and `probs` [B, n, V] from a residual stream [B, n, C]."""
    epsilon = config.layer_norm_eps
    normed = norms.layer_norm(engine, resid, "gpt_neox.final_layer_norm", epsilon, new, "ln_final")
    prediction.unembed(engine, normed, new, _HEAD)


# ---------------------------------------------------------------------------------------- checkpoints and presets


def from_hub(hub_config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a configuration from a `config.json`. Raises UnsupportedConfigError."""
    fields = hub_fields(GPTNeoXConfig, hub_config, {"model_type": "gpt_neox"}, {}, "hidden_act", ROTARY)
    names = {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"}  # transformers' within an object
    nested = {name: setting for name, setting in hub_config.items() if name not in names}
    rotary = rotary_fields(nested, fields.get("max_position_embeddings", 2048))
    return fields | {names.get(name, name): setting for name, setting in rotary.items()}


def _pythia(size: str, layers: int, width: int, heads: int, vocabulary: int = 50304) -> Preset:
    config = GPTNeoXConfig(
        num_hidden_layers=layers, num_attention_heads=heads, hidden_size=width, intermediate_size=4 * width,
        vocab_size=vocabulary,
    )  # fmt: skip
    return Preset(f"pythia-{size}", f"Pythia {size[:-1]}{size[-1].upper()}", "pythia", config)


FAMILY = Family(
    title="GPT-NeoX",
    description="A pre-norm decoder with rotary positions on part of each head; attention and MLP run in parallel.",
    Config=GPTNeoXConfig,
    presets=(
        _pythia("70m", 6, 512, 8),
        _pythia("160m", 12, 768, 12),
        _pythia("410m", 24, 1024, 16),
        _pythia("1b", 16, 2048, 8),
        _pythia("1.4b", 24, 2048, 16),
        _pythia("2.8b", 32, 2560, 32),
        _pythia("6.9b", 32, 4096, 32, 50432),
        _pythia("12b", 36, 5120, 40, 50688),
        Preset("gpt-neox-20b", "GPT-NeoX 20B", "gpt-neox", GPTNeoXConfig(hidden_act="gelu_new")),
    ),
    describe=describe,
    forward=forward,
    predict=predict,
    initial=defaults.initial,
    from_hub=from_hub,
    prefix="gpt_neox.",
    vocabulary=defaults.vocabulary,
)
