"""GPT-J (Wang and Komatsuzaki 2021): attention and MLP in parallel, rotary positions in neighbouring channels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, Any, ClassVar

from numpy.typing import NDArray

from worker.describe.architecture import RESIDUAL, Architecture, Section
from worker.describe.blocks import Tensor
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
from worker.families.family import Family, Preset, VocabularyKind
from worker.families.parts import attention, defaults, mlp, norms, prediction, residual, sections, stream, tour
from worker.families.parts.hub import hub_fields
from worker.families.parts.labels import decoder_labels
from worker.families.parts.notation import HEAD, LAYER, read, value, weight
from worker.families.parts.rotary import Rotary, fill_rotary, rotate, rotated_kinds
from worker.families.parts.stream import Tensors

if TYPE_CHECKING:
    from worker.engine.numpy_engine import Engine


@dataclass(frozen=True, kw_only=True)
class GPTJConfig(Config):
    """Hugging Face's GPTJConfig with the values of GPT-J 6B as defaults."""

    model_type: ClassVar[str] = "gptj"

    n_layer: int = config_field(Whole(MAX_LAYERS), 28, "Layers", main=True)
    n_head: int = config_field(Whole(MAX_HEADS), 16, "Heads", main=True)
    n_embd: int = config_field(Whole(MAX_WIDTH), 4096, "Width", main=True)
    n_inner: int = config_field(Whole(MAX_INNER, derived="4 * n_embd"), 0, "MLP width")
    rotary_dim: int = config_field(Whole(MAX_WIDTH), 64, "Rotated channels", main=True)
    n_positions: int = config_field(Whole(MAX_POSITIONS), 2048, "Context length")
    vocab_size: int = config_field(Whole(MAX_TOKENS), 50400, "Vocabulary size")
    layer_norm_epsilon: float = config_field(Number(below=1), 1e-5, "Layer norm epsilon")
    activation_function: str = config_field(Choice((*FUNCTIONS,)), "gelu_new", "Activation function")
    tie_word_embeddings: bool = config_field(Flag(), False, "Tied embeddings")

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.n_head

    @property
    def rotary(self) -> Rotary:
        return Rotary(10000.0, self.rotary_dim, "neighbours")

    def conflicts(self, errors: Mapping[str, str]) -> dict[str, str]:
        if {"n_head", "n_embd", "rotary_dim"} & errors.keys():
            return {}
        if self.n_embd % self.n_head:
            return {"n_head": f"{self.n_head} is not allowed: must be a divisor of n_embd = {self.n_embd}."}
        if self.rotary_dim % 2 or self.rotary_dim > self.head_dim:
            allowed = f"an even number up to the head width n_embd / n_head = {self.head_dim}"
            return {"rotary_dim": f"{self.rotary_dim} is not allowed: must be {allowed}."}
        return {}


# ----------------------------------------------------------------------------------------------------- description

_W = "h.{layer}"  # Hugging Face's weight names without `transformer.`; linear weights are (out, in)


def describe(config: GPTJConfig) -> Architecture:
    """Return the tensors and blocks of a configuration."""
    c = config
    sizes = {
        "C": c.n_embd, "H": c.n_head, "A": c.head_dim, "F": c.n_inner, "V": c.vocab_size, "N": c.n_positions,
        "G": c.n_head, "R": 1,
    }  # fmt: skip
    tied = "wte.weight" if c.tie_word_embeddings else None
    embedding = sections.rotary_embedding("wte.weight", "wte", c.rotary)
    unembedding = sections.unembedding("ln_f", c.layer_norm_epsilon, "lm_head", tied_to=tied, biased=True)
    layers = _layers(config)
    return Architecture(sizes, (embedding, layers, unembedding), decoder_labels(embedding, layers, unembedding), STEPS)


def _layers(config: GPTJConfig) -> Section:
    weights, _ = attention.separate(f"{_W}.attn", HEAD, "qkv")
    return Section(
        "blocks",
        layers=config.n_layer,
        enters="embedding",
        leaves=f"{LAYER}.resid_post",
        weights=tuple(_layer_weights()),
        values=(
            value(f"{LAYER}.resid_pre", "B T C", landmark="entering"),
            *norms.layer_norm_values(f"{LAYER}.ln1"),
            *attention.vector_values(rotated=True),
            *attention.attention_values(),
            value(f"{LAYER}.attn_out", "B T C"),
            *mlp.mlp_values(),
            value(f"{LAYER}.resid_post", "B T C", landmark="leaving"),
        ),
        kinds=(
            *norms.layer_norm_kinds(f"{LAYER}.ln1", RESIDUAL, f"{_W}.ln_1", config.layer_norm_epsilon, "ln1"),
            *attention.vector_kinds(HEAD, weights, {}),
            *rotated_kinds(HEAD, "qk", config.rotary),
            *attention.attention_kinds(
                read(f"{HEAD}.rot_q", "j s k"),
                read(f"{HEAD}.rot_k", "i s k"),
                read(f"{HEAD}.v", "s j k"),
                1 / sqrt(config.head_dim),
            ),
            *attention.projection_kinds(f"{_W}.attn.out_proj.weight: j i", None),
            *mlp.mlp_kinds(
                f"{_W}.mlp.fc_in", f"{_W}.mlp.fc_out", config.activation_function, source=f"{LAYER}.ln1.out",
                spot=residual.mlp_spot(own_norm=False),
            ),
            residual.parallel_sum_kind(),
        ),
        shelves=residual.parallel_shelves(),
    )  # fmt: skip


def _layer_weights() -> Iterator[Tensor]:
    yield from norms.layer_norm_weights(f"{_W}.ln_1")
    for name, part in (("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value")):
        yield weight(f"{_W}.attn.{name}.weight", "HA C", part)
    yield weight(f"{_W}.attn.out_proj.weight", "C HA", "output")
    yield from mlp.mlp_weights(f"{_W}.mlp.fc_in", f"{_W}.mlp.fc_out")


STEPS = (
    tour.TOKENS,
    tour.LOOKUP,
    tour.NORM,
    tour.PLAIN_QKV,
    tour.rotate_part(),
    *tour.ATTEND,
    tour.PROJECT,
    *tour.parallel_mlp("the same normed vector as attention does"),
    tour.LAST,
    *tour.PREDICT,
)  # fmt: skip

# ---------------------------------------------------------------------------------------------------- forward pass


def block(l: int, config: GPTJConfig, engine: Engine, a: Tensors, new: Tensors, rows: slice) -> None:  # noqa: E741 - the papers' letter
    """Compute one transformer block: resid_pre [B, n, C] -> resid_post [B, n, C]; `new` is `a` restricted to `rows`."""
    here, weights, epsilon = f"blocks.{l}", f"h.{l}", config.layer_norm_epsilon
    normed = norms.layer_norm(engine, new[f"{here}.resid_pre"], f"{weights}.ln_1", epsilon, new, f"{here}.ln1")
    for n in "qkv":
        engine.project(normed, f"{weights}.attn.{n}_proj", stream.merge_heads(new[f"{here}.attn.{n}"]))
    rotate(engine, config.rotary, here, new)
    attention.attend(engine, rows, a, here, "rot_q", "rot_k")
    engine.project(stream.merge_heads(new[f"{here}.attn.z"]), f"{weights}.attn.out_proj", new[f"{here}.attn_out"])
    mlp.mlp(engine, normed, f"{weights}.mlp.fc_in", f"{weights}.mlp.fc_out", config.activation_function, new, here)
    residual.add_both(engine, new, here)


def forward(
    config: GPTJConfig, engine: Engine, a: Tensors, rows: slice, after_layer: Callable[[], None] = lambda: None
) -> None:
    """Compute the positions `rows` of every tensor in `a` from its `tokens`; call `after_layer` after each layer."""
    new = stream.restricted(a, rows)
    engine.embed("wte.weight", new["tokens"], new["embed"])
    new["blocks.0.resid_pre"][:] = new["embed"]
    fill_rotary(config.rotary, rows, new)
    resid = stream.run_layers(
        config.n_layer, lambda layer: block(layer, config, engine, a, new, rows), new, after_layer
    )
    predict(config, engine, resid, new)


def predict(config: GPTJConfig, engine: Engine, resid: NDArray[Any], new: Tensors) -> None:
    """Compute `ln_final`, `logits` and `probs` [B, n, V] from a residual stream [B, n, C]."""
    normed = norms.layer_norm(engine, resid, "ln_f", config.layer_norm_epsilon, new, "ln_final")
    prediction.unembed(engine, normed, new, biased=True)


# -------------------------------------------------------------------------------------- checkpoints and vocabulary

_RENAMED = {
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}  # aliases that Hugging Face accepts, too


def from_hub(hub_config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a configuration from a `config.json`. Raises UnsupportedConfigError."""
    ignored = ("rotary", "scale_attn_weights")  # transformers does not read them
    return hub_fields(GPTJConfig, hub_config, {"model_type": "gptj"}, _RENAMED, "activation_function", ignored)


def vocabulary(config: GPTJConfig) -> VocabularyKind:
    """Return "gpt2" for the size of GPT-J's vocabulary, which is GPT-2's with 143 more ids; else "ids"."""
    return "gpt2" if config.vocab_size == 50400 else "ids"


FAMILY = Family(
    title="GPT-J",
    description="A pre-norm decoder with rotary positions, whose layers run attention and MLP in parallel on one norm.",
    Config=GPTJConfig,
    presets=(Preset("gpt-j-6b", "GPT-J 6B", "gpt-j", GPTJConfig()),),
    describe=describe,
    forward=forward,
    predict=predict,
    initial=defaults.initial,
    from_hub=from_hub,
    prefix="transformer.",
    vocabulary=vocabulary,
)
