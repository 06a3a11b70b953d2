"""OPT (Zhang et al. 2022, arXiv:2205.01068): GPT-3's sizes with ReLU; the 350M has its norms after the sums.

transformers scales queries before their product with keys; here the scores are scaled, which is the same.
"""

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
    Whole,
    config_field,
)  # fmt: skip
from worker.describe.functions import FUNCTIONS
from worker.families.family import Family, Preset
from worker.families.parts import attention, defaults, mlp, norms, prediction, residual, sections, stream, tour
from worker.families.parts.hub import hub_fields
from worker.families.parts.labels import decoder_labels
from worker.families.parts.notation import HEAD, LAYER, read, value, weight
from worker.families.parts.stream import Tensors

if TYPE_CHECKING:
    from worker.engine.numpy_engine import Engine


@dataclass(frozen=True, kw_only=True)
class OPTConfig(Config):
    """Hugging Face's OPTConfig and its defaults, those of OPT 125M."""

    model_type: ClassVar[str] = "opt"

    num_hidden_layers: int = config_field(Whole(MAX_LAYERS), 12, "Layers", main=True)
    num_attention_heads: int = config_field(Whole(MAX_HEADS), 12, "Heads", main=True)
    hidden_size: int = config_field(Whole(MAX_WIDTH), 768, "Width", main=True)
    ffn_dim: int = config_field(Whole(MAX_INNER), 3072, "MLP width", main=True)
    word_embed_proj_dim: int = config_field(Whole(MAX_WIDTH, derived="hidden_size"), 0, "Width of token vectors")
    max_position_embeddings: int = config_field(Whole(MAX_POSITIONS), 2048, "Context length")
    vocab_size: int = config_field(Whole(MAX_TOKENS), 50272, "Vocabulary size")
    activation_function: str = config_field(Choice((*FUNCTIONS,)), "relu", "Activation function")
    do_layer_norm_before: bool = config_field(Flag(), True, "Norms before attention and MLP")
    _remove_final_layer_norm: bool = config_field(Flag(), False, "No final norm")
    enable_bias: bool = config_field(Flag(), True, "Biases")
    layer_norm_elementwise_affine: bool = config_field(Flag(), True, "Norms with gain and shift")
    tie_word_embeddings: bool = config_field(Flag(), True, "Tied embeddings")

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def projects(self) -> bool:
        """Whether token vectors have another width than the stream."""
        return self.word_embed_proj_dim != self.hidden_size

    @property
    def has_final_norm(self) -> bool:
        return self.do_layer_norm_before and not self._remove_final_layer_norm

    def conflicts(self, errors: Mapping[str, str]) -> dict[str, str]:
        heads = self.num_attention_heads
        if {"num_attention_heads", "hidden_size"} & errors.keys() or self.hidden_size % heads == 0:
            return {}
        allowed = f"a divisor of hidden_size = {self.hidden_size}"
        return {"num_attention_heads": f"{heads} is not allowed: must be {allowed}."}


# ----------------------------------------------------------------------------------------------------- description

_M = "model.decoder"  # Hugging Face's weight names; linear weights are (out, in)
_W = f"{_M}.layers.{{layer}}"
_TABLE, _POSITIONS = f"{_M}.embed_tokens.weight", f"{_M}.embed_positions.weight"
_EPSILON = 1e-5
_SHIFT = 2  # the row of the first position


def describe(config: OPTConfig) -> Architecture:
    """Return the tensors and blocks of a configuration."""
    c = config
    sizes = {
        "C": c.hidden_size, "H": c.num_attention_heads, "A": c.head_dim, "F": c.ffn_dim, "V": c.vocab_size,
        "N": c.max_position_embeddings, "G": c.num_attention_heads, "R": 1, "P": c.word_embed_proj_dim,
    }  # fmt: skip
    project_in, project_out = ((f"{_M}.{n}.weight" if c.projects else None) for n in ("project_in", "project_out"))
    layers, embedding = _layers(config), sections.learned_embedding(_TABLE, _POSITIONS, _SHIFT, project_in)
    unembedding = sections.unembedding(
        f"{_M}.final_layer_norm" if c.has_final_norm else None, _EPSILON, "lm_head",
        tied_to=_TABLE if c.tie_word_embeddings else None, affine=c.layer_norm_elementwise_affine,
        projection=project_out,
    )  # fmt: skip
    labels, steps = decoder_labels(embedding, layers, unembedding), tuple(_steps(config))
    return Architecture(sizes, (embedding, layers, unembedding), labels, steps)


def _layers(config: OPTConfig) -> Section:
    before = config.do_layer_norm_before
    leaves = "resid_post" if before else "ln2.out"
    resid_mid = value(f"{LAYER}.resid_mid", "B T C")
    resid_post = value(f"{LAYER}.resid_post", "B T C", landmark="leaving" if before else None)
    ln1 = norms.layer_norm_values(f"{LAYER}.ln1")
    ln2 = norms.layer_norm_values(f"{LAYER}.ln2", None if before else "leaving")
    vectors = (*attention.vector_values(), *attention.attention_values(), value(f"{LAYER}.attn_out", "B T C"))
    return Section(
        "blocks",
        layers=config.num_hidden_layers,
        enters="embedding",
        leaves=f"{LAYER}.{leaves}",
        weights=tuple(_layer_weights(config)),
        values=(
            value(f"{LAYER}.resid_pre", "B T C", landmark="entering"),
            *((*ln1, *vectors, resid_mid, *ln2) if before else (*vectors, resid_mid, *ln1)),
            *mlp.mlp_values(),
            *((resid_post,) if before else (resid_post, *ln2)),
        ),
        kinds=tuple(_layer_kinds(config)),
        shelves=residual.serial_shelves(rotated=False) if before else residual.post_norm_shelves(),
    )


def _layer_kinds(config: OPTConfig) -> Iterator[Kind]:
    at, biased, before = f"{_W}.self_attn", config.enable_bias, config.do_layer_norm_before
    mid, normed = f"{LAYER}.resid_mid", f"{LAYER}.ln1.out"
    weights, biases = attention.separate(at, HEAD, "qkv")
    if before:
        yield from _norm(config, "ln1", RESIDUAL, "self_attn_layer_norm")
    yield from attention.vector_kinds(HEAD, weights, biases if biased else {}, normed if before else RESIDUAL)
    query, key, v = read(f"{HEAD}.q", "j s k"), read(f"{HEAD}.k", "i s k"), read(f"{HEAD}.v", "s j k")
    yield from attention.attention_kinds(query, key, v, 1 / sqrt(config.head_dim))
    yield from attention.projection_kinds(f"{at}.out_proj.weight: j i", f"{at}.out_proj.bias" if biased else None)
    yield stream.resid_mid_kind()
    if before:
        yield from _norm(config, "ln2", mid, "final_layer_norm")
    else:
        yield from _norm(config, "ln1", mid, "self_attn_layer_norm")
    source = f"{LAYER}.ln2.out" if before else normed
    yield from mlp.mlp_kinds(
        f"{_W}.fc1", f"{_W}.fc2", config.activation_function, source=source, biased=biased
    )  # fmt: skip
    yield stream.resid_post_kind(f"{LAYER}.mlp_out", mid if before else normed)
    if not before:
        yield from _norm(config, "ln2", f"{LAYER}.resid_post", "final_layer_norm")


def _norm(config: OPTConfig, name: str, source: str, weights: str) -> tuple[Kind, ...]:
    return norms.layer_norm_kinds(f"{LAYER}.{name}", source, _affine(config, f"{_W}.{weights}"), _EPSILON, name)


def _affine(config: OPTConfig, weights: str) -> str | None:
    return weights if config.layer_norm_elementwise_affine else None


def _layer_weights(config: OPTConfig) -> Iterator[Tensor]:
    at = f"{_W}.self_attn"
    affine = config.layer_norm_elementwise_affine
    yield from norms.layer_norm_weights(f"{_W}.self_attn_layer_norm") if affine else ()
    for name, part in (("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value"), ("out_proj", "output")):
        yield weight(f"{at}.{name}.weight", "C HA" if name == "out_proj" else "HA C", part)
        if config.enable_bias:
            yield weight(f"{at}.{name}.bias", "C" if name == "out_proj" else "HA", "biases")
    yield from mlp.mlp_weights(f"{_W}.fc1", f"{_W}.fc2", config.enable_bias)
    yield from norms.layer_norm_weights(f"{_W}.final_layer_norm") if affine else ()


def _steps(config: OPTConfig) -> Iterator[Step]:
    yield tour.TOKENS
    yield tour.WIDENED if config.projects else tour.EMBEDDED
    qkv = tour.QKV if config.enable_bias else tour.PLAIN_QKV
    yield from (tour.NORM, qkv) if config.do_layer_norm_before else (qkv,)
    yield from (*tour.ATTEND, tour.PROJECT, tour.RESIDUAL)
    yield from tour.MLP if config.do_layer_norm_before else (tour.NORM_AFTER, *tour.MLP, tour.NORM_AFTER_MLP)
    yield from (tour.LAST,) if config.has_final_norm else ()
    yield from (tour.NARROWED,) if config.projects else ()
    yield from tour.PREDICT


# ---------------------------------------------------------------------------------------------------- forward pass


def block(l: int, config: OPTConfig, engine: Engine, a: Tensors, new: Tensors, rows: slice) -> None:  # noqa: E741 - the papers' letter
    """Compute one transformer block; `new` is `a` restricted to `rows`.

    resid_pre [B, n, C] -> resid_post or, with the norms after the sums, ln2.out [B, n, C].
    """
    here, weights, biased = f"blocks.{l}", f"{_M}.layers.{l}", config.enable_bias
    before, at = config.do_layer_norm_before, f"{weights}.self_attn"
    resid_pre, resid_mid, resid_post, attn_out = (
        new[f"{here}.{name}"] for name in ("resid_pre", "resid_mid", "resid_post", "attn_out")
    )

    def norm(x: NDArray[Any], number: int) -> NDArray[Any]:
        name = _affine(config, f"{weights}.{'self_attn_layer_norm' if number == 1 else 'final_layer_norm'}")
        return norms.layer_norm(engine, x, name, _EPSILON, new, f"{here}.ln{number}")

    x = norm(resid_pre, 1) if before else resid_pre
    for n in "qkv":
        engine.project(x, f"{at}.{n}_proj", stream.merge_heads(new[f"{here}.attn.{n}"]), bias=biased)
    attention.attend(engine, rows, a, here)
    engine.project(stream.merge_heads(new[f"{here}.attn.z"]), f"{at}.out_proj", attn_out, bias=biased)
    engine.add(attn_out, resid_pre, resid_mid)

    x = norm(resid_mid, 2 if before else 1)
    up, down = f"{weights}.fc1", f"{weights}.fc2"
    mlp_out = mlp.mlp(engine, x, up, down, config.activation_function, new, here, biased=biased)
    engine.add(mlp_out, resid_mid if before else x, resid_post)
    if not before:
        norm(resid_post, 2)


def forward(
    config: OPTConfig, engine: Engine, a: Tensors, rows: slice, after_layer: Callable[[], None] = lambda: None
) -> None:
    """Compute the positions `rows` of every tensor in `a` from its `tokens`; call `after_layer` after each layer."""
    new = stream.restricted(a, rows)
    embed, pos_embed, resid = (new[name] for name in ("embed", "pos_embed", "blocks.0.resid_pre"))
    engine.embed(_TABLE, new["tokens"], embed)
    engine.embed(_POSITIONS, slice(rows.start + _SHIFT, rows.stop + _SHIFT), pos_embed)
    if config.projects:
        engine.project(embed, f"{_M}.project_in", resid)
        embed = resid
    engine.add(embed, pos_embed, resid)
    last = stream.run_layers(
        config.num_hidden_layers, lambda layer: block(layer, config, engine, a, new, rows), new, after_layer,
        "resid_post" if config.do_layer_norm_before else "ln2.out",
    )  # fmt: skip
    predict(config, engine, last, new)


def predict(config: OPTConfig, engine: Engine, resid: NDArray[Any], new: Tensors) -> None:
    """Compute `logits` and `probs` [B, n, V] from a residual stream [B, n, C]."""
    if config.has_final_norm:
        name = _affine(config, f"{_M}.final_layer_norm")
        resid = norms.layer_norm(engine, resid, name, _EPSILON, new, "ln_final")
    if config.projects:
        engine.project(resid, f"{_M}.project_out", new["projected"])
        resid = new["projected"]
    prediction.unembed(engine, resid, new)


# ---------------------------------------------------------------------------------------- checkpoints and presets


def from_hub(hub_config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a configuration from a `config.json`. Raises UnsupportedConfigError."""
    return hub_fields(OPTConfig, hub_config, {"model_type": "opt"}, {}, "activation_function")


def _opt(size: str, layers: int, width: int, heads: int, **more: Any) -> Preset:
    config = OPTConfig(
        num_hidden_layers=layers, hidden_size=width, num_attention_heads=heads, ffn_dim=4 * width, **more
    )
    return Preset(f"opt-{size}", f"OPT {size.upper()}", "opt", config)


FAMILY = Family(
    title="OPT",
    description="A decoder with layer norms, learned positions, ReLU and, in one size, norms after the sums.",
    Config=OPTConfig,
    presets=(
        _opt("125m", 12, 768, 12),
        _opt("350m", 24, 1024, 16, word_embed_proj_dim=512, do_layer_norm_before=False),
        _opt("1.3b", 24, 2048, 32),
        _opt("2.7b", 32, 2560, 32),
        _opt("6.7b", 32, 4096, 32),
        _opt("13b", 40, 5120, 40),
        _opt("30b", 48, 7168, 56),
        _opt("66b", 64, 9216, 72),
        _opt("175b", 96, 12288, 96),
    ),
    describe=describe,
    forward=forward,
    predict=predict,
    initial=defaults.initial,
    from_hub=from_hub,
    prefix="model.",
    vocabulary=defaults.vocabulary,
)
