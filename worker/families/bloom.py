"""BLOOM (BigScience 2022, arXiv:2211.05100): ALiBi in place of positions, and a norm on the embedding."""

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
    MAX_LAYERS,
    MAX_POSITIONS,
    MAX_TOKENS,
    MAX_WIDTH,
    Config,
    Flag,
    Number,
    Whole,
    config_field,
)  # fmt: skip
from worker.describe.formula import Formula
from worker.families.family import Family, Preset
from worker.families.parts import alibi, attention, defaults, mlp, norms, prediction, residual, sections, stream, tour
from worker.families.parts.hub import hub_fields
from worker.families.parts.labels import decoder_labels
from worker.families.parts.notation import HEAD, LAYER, STREAM, ids, kind, read, value, weight
from worker.families.parts.stream import Tensors

if TYPE_CHECKING:
    from worker.engine.numpy_engine import Engine


@dataclass(frozen=True, kw_only=True)
class BloomConfig(Config):
    """Hugging Face's BloomConfig and its defaults; `seq_length` is the length of training, as in published files."""

    model_type: ClassVar[str] = "bloom"

    n_layer: int = config_field(Whole(MAX_LAYERS), 2, "Layers", main=True)
    n_head: int = config_field(Whole(MAX_HEADS), 8, "Heads", main=True)
    hidden_size: int = config_field(Whole(MAX_WIDTH), 64, "Width", main=True)
    seq_length: int = config_field(Whole(MAX_POSITIONS), 2048, "Context length")
    vocab_size: int = config_field(Whole(MAX_TOKENS), 250880, "Vocabulary size")
    layer_norm_epsilon: float = config_field(Number(below=1), 1e-5, "Layer norm epsilon")
    apply_residual_connection_post_layernorm: bool = config_field(Flag(), False, "Stream continues after the norms")
    tie_word_embeddings: bool = config_field(Flag(), True, "Tied embeddings")

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.n_head

    def conflicts(self, errors: Mapping[str, str]) -> dict[str, str]:
        if {"n_head", "hidden_size"} & errors.keys() or self.hidden_size % self.n_head == 0:
            return {}
        return {"n_head": f"{self.n_head} is not allowed: must be a divisor of hidden_size = {self.hidden_size}."}


# ----------------------------------------------------------------------------------------------------- description

_W = "h.{layer}"  # Hugging Face's weight names without `transformer.`; linear weights are (out, in)
_TABLE, _FUNCTION = "word_embeddings.weight", "gelu_new"


def describe(config: BloomConfig) -> Architecture:
    """Return the tensors and blocks of a configuration."""
    c = config
    sizes = {
        "C": c.hidden_size, "H": c.n_head, "A": c.head_dim, "F": 4 * c.hidden_size, "V": c.vocab_size,
        "N": c.seq_length, "G": c.n_head, "R": 1,
    }  # fmt: skip
    tied = _TABLE if c.tie_word_embeddings else None
    embedding, layers = _embedding(config), _layers(config)
    unembedding = sections.unembedding("ln_f", c.layer_norm_epsilon, "lm_head", tied_to=tied)
    return Architecture(sizes, (embedding, layers, unembedding), decoder_labels(embedding, layers, unembedding), STEPS)


def _embedding(config: BloomConfig) -> Section:
    lookup = Formula("embed", (read("tokens", "i 0 k"), read("word_embeddings", "s j 0")))
    return Section(
        "embedding",
        weights=(
            weight(_TABLE, "V C", "embedding", table=True),
            *norms.layer_norm_weights("word_embeddings_layernorm"),
        ),
        values=(
            stream.tokens_value(),
            value("embed", "B T C"),
            *norms.norm_statistics("embed_ln"),
            alibi.slopes_value(),
        ),
        kinds=(
            stream.tokens_kind(),
            stream.table_kind("word_embeddings", _TABLE),
            kind("embed", "Input Embed", "activation", "T C B", "embed: k i j", STREAM, "tables", lookup,
                 part="embedding"),
            alibi.slopes_kind(config.n_head, "tables"),
            *norms.layer_norm_kinds(
                "embed_ln", "embed", "word_embeddings_layernorm", config.layer_norm_epsilon, "embed_ln",
                tensor="blocks.0.resid_pre",
            ),
        ),
        shelves={"tokens": "top", "tables": "top + (s + m)"}
        | norms.layer_norm_shelves("embed_ln", "tables + C*s + m")
        | {"end": "embed_ln_out + C*s + 3*m"},
    )  # fmt: skip


def _layers(config: BloomConfig) -> Section:
    return Section(
        "blocks",
        layers=config.n_layer,
        enters="embed_ln.out",
        leaves=f"{LAYER}.resid_post",
        weights=tuple(_layer_weights()),
        values=(
            value(f"{LAYER}.resid_pre", "B T C", landmark="entering"),
            *norms.layer_norm_values(f"{LAYER}.ln1"),
            *attention.vector_values(),
            *attention.attention_values(),
            value(f"{LAYER}.attn_out", "B T C"),
            value(f"{LAYER}.resid_mid", "B T C"),
            *norms.layer_norm_values(f"{LAYER}.ln2"),
            *mlp.mlp_values(),
            value(f"{LAYER}.resid_post", "B T C", landmark="leaving"),
        ),
        kinds=tuple(_layer_kinds(config)),
        shelves=residual.serial_shelves(rotated=False),
    )


def _layer_kinds(config: BloomConfig) -> Iterator[Kind]:
    at, epsilon, normed = f"{_W}.self_attention", config.layer_norm_epsilon, _continues_normed(config)
    mid = f"{LAYER}.resid_mid"
    yield from norms.layer_norm_kinds(f"{LAYER}.ln1", RESIDUAL, f"{_W}.input_layernorm", epsilon, "ln1")
    yield from attention.vector_kinds(HEAD, *attention.fused(f"{at}.query_key_value"))
    yield from attention.attention_kinds(
        read(f"{HEAD}.q", "j s k"), read(f"{HEAD}.k", "i s k"), read(f"{HEAD}.v", "s j k"), 1 / sqrt(config.head_dim),
        alibi.SLOPE,
    )  # fmt: skip
    yield from attention.projection_kinds(f"{at}.dense.weight: j i", f"{at}.dense.bias")
    yield stream.resid_mid_kind(stream=f"{LAYER}.ln1.out" if normed else RESIDUAL)
    yield from norms.layer_norm_kinds(f"{LAYER}.ln2", mid, f"{_W}.post_attention_layernorm", epsilon, "ln2")
    yield from mlp.mlp_kinds(f"{_W}.mlp.dense_h_to_4h", f"{_W}.mlp.dense_4h_to_h", _FUNCTION)
    yield stream.resid_post_kind(f"{LAYER}.mlp_out", f"{LAYER}.ln2.out" if normed else mid)


def _continues_normed(config: BloomConfig) -> bool:
    """Return whether attention and MLP are added to what the norms give, not to what they read."""
    return config.apply_residual_connection_post_layernorm


def _layer_weights() -> Iterator[Tensor]:
    at = f"{_W}.self_attention"
    yield from norms.layer_norm_weights(f"{_W}.input_layernorm")
    yield weight(f"{at}.query_key_value.weight", "3HA C", "query", "key", "value")
    yield weight(f"{at}.query_key_value.bias", "3HA", "biases")
    yield weight(f"{at}.dense.weight", "C HA", "output")
    yield weight(f"{at}.dense.bias", "C", "biases")
    yield from norms.layer_norm_weights(f"{_W}.post_attention_layernorm")
    yield from mlp.mlp_weights(f"{_W}.mlp.dense_h_to_4h", f"{_W}.mlp.dense_4h_to_h")


STEPS = (
    tour.TOKENS,
    Step("normed_lookup", "Embedding", "Each token is replaced by a vector from a table, which is brought to the same "
         "scale at once. Where it stands is not added, here or later: only scores will depend on distance.",
         "x = norm(E[token])", ("embed", *ids("embed_ln", "out", "mean", "scale"))),
    tour.NORM,
    tour.FUSED_QKV,
    Step("alibi_scores", "Attention scores", "Each position's query is compared with the keys of those up to it, and "
         "the score falls with their distance. It falls fast in some heads and slowly in others, at slopes that are "
         "not learned.", "s(i, j) = q(i) · k(j) / √d − m_h · (i − j)", (*ids(HEAD, "scores"), "alibi.slopes")),
    *tour.ATTEND[1:],
    tour.PROJECT,
    tour.RESIDUAL,
    *tour.MLP,
    tour.LAST,
    *tour.PREDICT,
)  # fmt: skip

# ---------------------------------------------------------------------------------------------------- forward pass


def block(l: int, config: BloomConfig, engine: Engine, a: Tensors, new: Tensors, rows: slice) -> None:  # noqa: E741 - the papers' letter
    """Compute one transformer block: resid_pre [B, n, C] -> resid_post [B, n, C]; `new` is `a` restricted to `rows`."""
    here, weights, epsilon = f"blocks.{l}", f"h.{l}", config.layer_norm_epsilon
    resid_pre, resid_mid, attn_out = (new[f"{here}.{name}"] for name in ("resid_pre", "resid_mid", "attn_out"))
    normed = norms.layer_norm(engine, resid_pre, f"{weights}.input_layernorm", epsilon, new, f"{here}.ln1")
    attention.project_fused(engine, normed, f"{weights}.self_attention.query_key_value", new, here, biased=True)
    attention.attend(engine, rows, a, here, slopes=alibi.slopes_of(a))
    z = stream.merge_heads(new[f"{here}.attn.z"])
    engine.project(z, f"{weights}.self_attention.dense", attn_out, bias=True)
    engine.add(attn_out, normed if _continues_normed(config) else resid_pre, resid_mid)

    normed = norms.layer_norm(engine, resid_mid, f"{weights}.post_attention_layernorm", epsilon, new, f"{here}.ln2")
    up, down = f"{weights}.mlp.dense_h_to_4h", f"{weights}.mlp.dense_4h_to_h"
    mlp_out = mlp.mlp(engine, normed, up, down, _FUNCTION, new, here)
    engine.add(mlp_out, normed if _continues_normed(config) else resid_mid, new[f"{here}.resid_post"])


def forward(
    config: BloomConfig, engine: Engine, a: Tensors, rows: slice, after_layer: Callable[[], None] = lambda: None
) -> None:
    """Compute the positions `rows` of every tensor in `a` from its `tokens`; call `after_layer` after each layer."""
    new = stream.restricted(a, rows)
    alibi.fill_slopes(a)
    engine.embed(_TABLE, new["tokens"], new["embed"])
    mean, scale, out = (new[name] for name in ("embed_ln.mean", "embed_ln.scale", "blocks.0.resid_pre"))
    engine.layer_norm(new["embed"], "word_embeddings_layernorm", config.layer_norm_epsilon, mean, scale, out)
    resid = stream.run_layers(
        config.n_layer, lambda layer: block(layer, config, engine, a, new, rows), new, after_layer
    )
    predict(config, engine, resid, new)


def predict(config: BloomConfig, engine: Engine, resid: NDArray[Any], new: Tensors) -> None:
    """Compute `ln_final`, `logits` and `probs` [B, n, V] from a residual stream [B, n, C]."""
    normed = norms.layer_norm(engine, resid, "ln_f", config.layer_norm_epsilon, new, "ln_final")
    prediction.unembed(engine, normed, new)


# ---------------------------------------------------------------------------------------- checkpoints and presets

#: Settings of training that transformers does not read.
_IGNORED = (
    "attention_softmax_in_fp32", "bias_dropout_fusion", "masked_softmax_fusion", "offset_alibi", "skip_bias_add",
    "skip_bias_add_qkv", "slow_but_exact",
)  # fmt: skip
_RENAMED = {"n_embed": "hidden_size", "num_attention_heads": "n_head", "num_hidden_layers": "n_layer"}


def from_hub(hub_config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a configuration from a `config.json`. Raises UnsupportedConfigError."""
    unused = "n_embed" if hub_config.get("n_embed") is None else "hidden_size"
    given = {name: setting for name, setting in hub_config.items() if name != unused}
    fixed: dict[str, Any] = {"model_type": "bloom"}
    if hub_config.get("pretraining_tp", 1) != 1:
        fixed["slow_but_exact"] = False  # sums of slices, which transformers computes without the biases
    return hub_fields(BloomConfig, given, fixed, _RENAMED, "", _IGNORED)


def _bloom(size: str, layers: int, width: int, heads: int) -> Preset:
    config = BloomConfig(n_layer=layers, hidden_size=width, n_head=heads)
    return Preset(f"bloom-{size}", f"BLOOM {size.upper()}", "bloom", config)


FAMILY = Family(
    title="BLOOM",
    description="A pre-norm decoder whose scores fall with distance (ALiBi), with a norm on the embedding.",
    Config=BloomConfig,
    presets=(
        _bloom("560m", 24, 1024, 16),
        _bloom("1b1", 24, 1536, 16),
        _bloom("1b7", 24, 2048, 16),
        _bloom("3b", 30, 2560, 32),
        _bloom("7b1", 30, 4096, 32),
        _bloom("176b", 70, 14336, 112),
    ),
    describe=describe,
    forward=forward,
    predict=predict,
    initial=defaults.initial,
    from_hub=from_hub,
    prefix="transformer.",
    vocabulary=defaults.vocabulary,
)
