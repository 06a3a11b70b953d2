"""Phi 1, 1.5 and 2 (Gunasekar et al. 2023, arXiv:2306.11644; Li et al. 2023, arXiv:2309.05463)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
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
from worker.families.parts import (
    attention,
    defaults,
    head_norms,
    mlp,
    norms,
    prediction,
    residual,
    sections,
    stream,
    tour,
)
from worker.families.parts.hub import ROTARY, hub_fields, rotary_fields
from worker.families.parts.labels import decoder_labels
from worker.families.parts.notation import HEAD, KV_HEAD, LAYER, ids, value, weight
from worker.families.parts.rotary import Rotary, fill_rotary, partial_width_error, rotate, rotated_kinds
from worker.families.parts.stream import Tensors

if TYPE_CHECKING:
    from worker.engine.numpy_engine import Engine


@dataclass(frozen=True, kw_only=True)
class PhiConfig(Config):
    """Hugging Face's PhiConfig with the values of Phi 1 and 1.5 as defaults."""

    model_type: ClassVar[str] = "phi"

    num_hidden_layers: int = config_field(Whole(MAX_LAYERS), 24, "Layers", main=True)
    num_attention_heads: int = config_field(Whole(MAX_HEADS), 32, "Heads", main=True)
    num_key_value_heads: int = config_field(Whole(MAX_HEADS, derived="num_attention_heads"), 0, "Key/value heads")
    hidden_size: int = config_field(Whole(MAX_WIDTH), 2048, "Width", main=True)
    intermediate_size: int = config_field(Whole(MAX_INNER), 8192, "MLP width", main=True)
    max_position_embeddings: int = config_field(Whole(MAX_POSITIONS), 2048, "Context length")
    vocab_size: int = config_field(Whole(MAX_TOKENS), 51200, "Vocabulary size")
    partial_rotary_factor: float = config_field(Number(most=1), 0.5, "Rotated share of a head")
    rope_theta: float = config_field(Number(below=1e12), 10000.0, "Rotary base")
    rope_parameters: RotaryScaling | None = config_field(RopeParameters(), None, "Rotary scaling", rare=True)
    layer_norm_eps: float = config_field(Number(below=1), 1e-5, "Layer norm epsilon")
    hidden_act: str = config_field(Choice((*FUNCTIONS,)), "gelu_new", "Activation function")
    qk_layernorm: bool = config_field(Flag(), False, "Norms of queries and keys")
    tie_word_embeddings: bool = config_field(Flag(), False, "Tied embeddings")

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def rotary(self) -> Rotary:
        width = int(self.head_dim * self.partial_rotary_factor)
        return Rotary(self.rope_theta, width, scaling=self.rope_parameters)

    def conflicts(self, errors: Mapping[str, str]) -> dict[str, str]:
        names = {"num_attention_heads", "num_key_value_heads", "hidden_size", "partial_rotary_factor"}
        if names & errors.keys():
            return {}
        heads, kv_heads = self.num_attention_heads, self.num_key_value_heads or self.num_attention_heads
        if self.hidden_size % heads:
            allowed = f"a divisor of hidden_size = {self.hidden_size}"
            return {"num_attention_heads": f"{heads} is not allowed: must be {allowed}."}
        if heads % kv_heads:
            allowed = f"a divisor of num_attention_heads = {heads}"
            return {"num_key_value_heads": f"{kv_heads} is not allowed: must be {allowed}."}
        return partial_width_error("partial_rotary_factor", self.partial_rotary_factor, self.head_dim)


# ----------------------------------------------------------------------------------------------------- description

_W = "model.layers.{layer}"  # Hugging Face's weight names; linear weights are (out, in)
_TABLE = "model.embed_tokens.weight"


def describe(config: PhiConfig) -> Architecture:
    """Return the tensors and blocks of a configuration."""
    c = config
    sizes = {
        "C": c.hidden_size, "H": c.num_attention_heads, "G": c.num_key_value_heads, "A": c.head_dim,
        "R": c.num_attention_heads // c.num_key_value_heads, "F": c.intermediate_size, "V": c.vocab_size,
        "N": c.max_position_embeddings,
    }  # fmt: skip
    tied = _TABLE if c.tie_word_embeddings else None
    embedding = sections.rotary_embedding(_TABLE, "embed_tokens", c.rotary)
    unembedding = sections.unembedding("model.final_layernorm", c.layer_norm_eps, "lm_head", tied_to=tied, biased=True)
    layers, steps = _layers(config), tuple(_steps(config))
    return Architecture(sizes, (embedding, layers, unembedding), decoder_labels(embedding, layers, unembedding), steps)


def _layers(config: PhiConfig) -> Section:
    normed = head_norms.head_norm_shelves("v + A*s + m") if config.qk_layernorm else {}
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
            *(head_norms.head_norm_values() if config.qk_layernorm else ()),
            *attention.attention_values(),
            value(f"{LAYER}.attn_out", "B T C"),
            *mlp.mlp_values(),
            value(f"{LAYER}.resid_post", "B T C", landmark="leaving"),
        ),
        kinds=tuple(_layer_kinds(config)),
        shelves=residual.parallel_shelves(normed),
    )


def _layer_kinds(config: PhiConfig) -> Iterator[Kind]:
    at, epsilon, normed = f"{_W}.self_attn", config.layer_norm_eps, config.qk_layernorm
    yield from norms.layer_norm_kinds(f"{LAYER}.ln1", RESIDUAL, f"{_W}.input_layernorm", epsilon, "ln1")
    if normed:
        yield from head_norms.head_norm_gain_kinds(f"{at}.q_layernorm", f"{at}.k_layernorm")
    for head, names, turned in ((KV_HEAD, "kv", "k"), (HEAD, "q", "q")):
        yield from attention.vector_kinds(head, *attention.separate(at, head, names))
        if normed:
            yield from head_norms.head_norm_kinds(head, turned, epsilon)
        yield from rotated_kinds(head, turned, config.rotary, head_norms.OUT if normed else "")
    yield from attention.shared_attention_kinds("rot_q", "rot_k", config.head_dim**-0.5)
    yield from attention.projection_kinds(f"{at}.dense.weight: j i", f"{at}.dense.bias")
    yield from mlp.mlp_kinds(
        f"{_W}.mlp.fc1", f"{_W}.mlp.fc2", config.hidden_act, source=f"{LAYER}.ln1.out",
        spot=residual.mlp_spot(own_norm=False),
    )  # fmt: skip
    yield residual.parallel_sum_kind()


def _layer_weights(config: PhiConfig) -> Iterator[Tensor]:
    at = f"{_W}.self_attn"
    yield from norms.layer_norm_weights(f"{_W}.input_layernorm")
    for name, rows, part in (("q_proj", "HA", "query"), ("k_proj", "GA", "key"), ("v_proj", "GA", "value")):
        yield weight(f"{at}.{name}.weight", f"{rows} C", part)
        yield weight(f"{at}.{name}.bias", rows, "biases")
    for name in ("q_layernorm", "k_layernorm") if config.qk_layernorm else ():
        yield from norms.layer_norm_weights(f"{at}.{name}", "A")
    yield weight(f"{at}.dense.weight", "C HA", "output")
    yield weight(f"{at}.dense.bias", "C", "biases")
    yield from mlp.mlp_weights(f"{_W}.mlp.fc1", f"{_W}.mlp.fc2")


def _steps(config: PhiConfig) -> Iterator[Step]:
    at = (*ids(HEAD, "q"), *ids(KV_HEAD, "k", "v"))
    yield from (tour.TOKENS, tour.LOOKUP, tour.NORM, replace(tour.QKV, id="biased_qkv", kinds=at))
    if config.qk_layernorm:
        norm_ids = (*ids(HEAD, *_NORMED_QUERIES), *ids(KV_HEAD, *_NORMED_KEYS))
        yield Step("head_norm", "Norms of queries and keys", "Each head's queries and keys are brought to the same "
                   "scale. So scores cannot grow without limit in training.", "q ← (q − μ) / √(σ² + ε) · γ + β",
                   norm_ids)  # fmt: skip
    yield from (tour.rotate_part(shared=True), *tour.ATTEND, tour.PROJECT)
    yield from tour.parallel_mlp("the same normed vector as attention does")
    yield from (tour.LAST, *tour.PREDICT)


_NORMED_QUERIES, _NORMED_KEYS = (tuple(f"{n}_norm.{part}" for part in ("out", "mean", "scale")) for n in "qk")

# ---------------------------------------------------------------------------------------------------- forward pass


def block(l: int, config: PhiConfig, engine: Engine, a: Tensors, new: Tensors, rows: slice) -> None:  # noqa: E741 - the papers' letter
    """Compute one transformer block: resid_pre [B, n, C] -> resid_post [B, n, C]; `new` is `a` restricted to `rows`."""
    here, weights, epsilon = f"blocks.{l}", f"model.layers.{l}", config.layer_norm_eps
    at = f"{weights}.self_attn"
    normed = norms.layer_norm(
        engine, new[f"{here}.resid_pre"], f"{weights}.input_layernorm", epsilon, new, f"{here}.ln1"
    )
    for n in "qkv":
        engine.project(normed, f"{at}.{n}_proj", stream.merge_heads(new[f"{here}.attn.{n}"]), bias=True)
    if config.qk_layernorm:
        head_norms.head_norms(engine, f"{at}.q_layernorm", f"{at}.k_layernorm", epsilon, new, here)
    rotate(engine, config.rotary, here, new, head_norms.OUT if config.qk_layernorm else "")
    attention.attend(engine, rows, a, here, "rot_q", "rot_k")
    engine.project(stream.merge_heads(new[f"{here}.attn.z"]), f"{at}.dense", new[f"{here}.attn_out"], bias=True)
    mlp.mlp(engine, normed, f"{weights}.mlp.fc1", f"{weights}.mlp.fc2", config.hidden_act, new, here)
    residual.add_both(engine, new, here)


def forward(
    config: PhiConfig, engine: Engine, a: Tensors, rows: slice, after_layer: Callable[[], None] = lambda: None
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


def predict(config: PhiConfig, engine: Engine, resid: NDArray[Any], new: Tensors) -> None:
    """Compute `ln_final`, `logits` and `probs` [B, n, V] from a residual stream [B, n, C]."""
    normed = norms.layer_norm(engine, resid, "model.final_layernorm", config.layer_norm_eps, new, "ln_final")
    prediction.unembed(engine, normed, new, biased=True)


# ---------------------------------------------------------------------------------------- checkpoints and presets


def from_hub(hub_config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a configuration from a `config.json`. Raises UnsupportedConfigError."""
    fixed: dict[str, Any] = {"model_type": "phi"}
    heads, width = hub_config.get("num_attention_heads"), hub_config.get("hidden_size")
    if isinstance(heads, int) and isinstance(width, int) and heads > 0:
        fixed["head_dim"] = width // heads
    fields = hub_fields(PhiConfig, hub_config, fixed, {}, "hidden_act", ROTARY)
    return fields | rotary_fields(hub_config, fields.get("max_position_embeddings", 2048))


_PHI_2 = PhiConfig(num_hidden_layers=32, hidden_size=2560, intermediate_size=10240, partial_rotary_factor=0.4)

FAMILY = Family(
    title="Phi",
    description="A pre-norm decoder with rotary positions on part of each head, biases, and attention beside the MLP.",
    Config=PhiConfig,
    presets=(Preset("phi-1.5", "Phi 1.5", "phi", PhiConfig()), Preset("phi-2", "Phi 2", "phi", _PHI_2)),
    describe=describe,
    forward=forward,
    predict=predict,
    initial=defaults.initial,
    from_hub=from_hub,
    prefix="model.",
    vocabulary=defaults.vocabulary,
)
