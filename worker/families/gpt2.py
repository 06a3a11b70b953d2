"""GPT-2 and GPT-3 (Radford et al. 2019, Brown et al. 2020)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from numpy.typing import NDArray

import worker.families.parts.attention as attention
import worker.families.parts.mlp as mlp
import worker.families.parts.norms as norms
import worker.families.parts.prediction as prediction
import worker.families.parts.stream as stream
import worker.families.parts.tour as tour
from worker.describe.architecture import RESIDUAL, Architecture, Section
from worker.describe.blocks import Kind, Label, Spot, Step
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
from worker.families.parts.gguf import GgufFormat
from worker.families.parts.hub import hub_fields
from worker.families.parts.notation import ASIDE, HEAD, LAYER, ids, kind, read, value, weight
from worker.families.parts.stream import Tensors
from worker.weights.synthetic import Initial

if TYPE_CHECKING:
    from worker.engine.numpy_engine import Engine


@dataclass(frozen=True, kw_only=True)
class GPT2Config(Config):
    """Hugging Face's GPT2Config with GPT-2's values as defaults; `d_head` may differ from n_embd / n_head."""

    model_type: ClassVar[str] = "gpt2"
    is_default: ClassVar[bool] = True

    n_layer: int = config_field(Whole(MAX_LAYERS), 12, "Layers", main=True)
    n_head: int = config_field(Whole(MAX_HEADS), 12, "Heads", main=True)
    n_embd: int = config_field(Whole(MAX_WIDTH), 768, "Width", main=True)
    d_head: int = config_field(Whole(MAX_WIDTH, derived="n_embd / n_head"), 0, "Head width")
    n_inner: int = config_field(Whole(MAX_INNER, derived="4 * n_embd"), 0, "MLP width")
    n_positions: int = config_field(Whole(MAX_POSITIONS), 1024, "Context length")
    vocab_size: int = config_field(Whole(MAX_TOKENS), 50257, "Vocabulary size")
    layer_norm_epsilon: float = config_field(Number(below=1), 1e-5, "Layer norm epsilon")
    activation_function: str = config_field(Choice((*FUNCTIONS,)), "gelu_new", "Activation function")
    tie_word_embeddings: bool = config_field(Flag(), True, "Tied embeddings")

    def conflicts(self, errors: Mapping[str, str]) -> dict[str, str]:
        if self.d_head or {"n_head", "n_embd", "d_head"} & errors.keys() or self.n_embd % self.n_head == 0:
            return {}
        return {"n_head": f"{self.n_head} is not allowed: must be a divisor of n_embd = {self.n_embd}, or set d_head."}


# ----------------------------------------------------------------------------------------------------- description

_W = "h.{layer}"  # Hugging Face's weight names without `transformer.`; linear weights are (in, out)


def describe(config: GPT2Config) -> Architecture:
    """Return the tensors and blocks of a configuration."""
    c = config
    sizes = {
        "C": c.n_embd, "H": c.n_head, "A": c.d_head, "F": c.n_inner, "V": c.vocab_size, "N": c.n_positions,
        "G": c.n_head, "R": 1,
    }  # fmt: skip
    return Architecture(sizes, (_embedding(), _layers(config), _unembedding(config)), LABELS, STEPS)


def _embedding() -> Section:
    return Section(
        "embedding",
        weights=(
            weight("wte.weight", "V C", "embedding", table=True),
            weight("wpe.weight", "N C", "position", table=True),
        ),
        values=(stream.tokens_value(), value("embed", "B T C"), value("pos_embed", "B T C")),
        kinds=(
            stream.tokens_kind(),
            kind("wte", "Token Embed", "weight", "V C 1", "wte.weight: i j", Spot("norm", "right"), "tables"),
            kind("wpe", "Position Embed", "weight", "T C 1", "wpe.weight: i j", ASIDE, "tables"),
            stream.embedding_kind(("wte", "s j 0"), ("wpe", "i j 0")),
        ),
        shelves={"tokens": "top", "tables": "top + (s + m)", "end": "tables + (C*s + m) + 2*m"},
    )


def _layers(config: GPT2Config) -> Section:
    at = f"{LAYER}.attn"
    return Section(
        "blocks",
        layers=config.n_layer,
        enters="embedding",
        leaves=f"{LAYER}.resid_post",
        weights=(
            *norms.layer_norm_weights(f"{_W}.ln_1"),
            weight(f"{_W}.attn.c_attn.weight", "C 3HA", "query", "key", "value"),
            weight(f"{_W}.attn.c_attn.bias", "3HA", "biases"),
            weight(f"{_W}.attn.c_proj.weight", "HA C", "output"),
            weight(f"{_W}.attn.c_proj.bias", "C", "biases"),
            *norms.layer_norm_weights(f"{_W}.ln_2"),
            weight(f"{_W}.mlp.c_fc.weight", "C F", "up_projection"),
            weight(f"{_W}.mlp.c_fc.bias", "F", "biases"),
            weight(f"{_W}.mlp.c_proj.weight", "F C", "down_projection"),
            weight(f"{_W}.mlp.c_proj.bias", "C", "biases"),
        ),
        values=(
            value(f"{LAYER}.resid_pre", "B T C", landmark="entering"),
            *norms.layer_norm_values(f"{LAYER}.ln1"),
            value(f"{at}.q", "B T H A"),
            value(f"{at}.k", "B T H A", read_later=True),
            value(f"{at}.v", "B T H A", read_later=True),
            *attention.attention_values(),
            value(f"{LAYER}.attn_out", "B T C"),
            value(f"{LAYER}.resid_mid", "B T C"),
            *norms.layer_norm_values(f"{LAYER}.ln2"),
            *mlp.mlp_values(),
            value(f"{LAYER}.resid_post", "B T C", landmark="leaving"),
        ),
        kinds=(
            *norms.layer_norm_kinds(f"{LAYER}.ln1", RESIDUAL, f"{_W}.ln_1", config.layer_norm_epsilon, "ln1"),
            *_attention(config),
            stream.resid_mid_kind(),
            *norms.layer_norm_kinds(
                f"{LAYER}.ln2", f"{LAYER}.resid_mid", f"{_W}.ln_2", config.layer_norm_epsilon, "ln2"
            ),
            *mlp.mlp_kinds(f"{_W}.mlp.c_fc", f"{_W}.mlp.c_proj", config.activation_function, transposed=False),
            stream.resid_post_kind(),
        ),
        shelves=norms.layer_norm_shelves("ln1", "top + 2*m") | {
            "q": "ln1_out",
            "k": "q + A*s*deep",  # several columns of layers: below each other, to save depth
            "v": "k + A*s*deep",
            "scores": "q + A*s + m + 2*A*s*deep",
            "z": "scores + T*s + m",
            "attn_out": "max(z + A*s + 2*m, q + C*s + m)",
        } | norms.layer_norm_shelves("ln2", "attn_out + C*s + m") | mlp.mlp_shelves("ln2_out") | {
            "end": "mlp_out + (C*s - m) + 2*m",
        },
    )  # fmt: skip


def _attention(config: GPT2Config) -> Iterator[Kind]:
    at, offsets = f"{_W}.attn", {"q": "h*A", "k": "HA+h*A", "v": "2*HA+h*A"}
    weights = {n: f"{at}.c_attn.weight: i j+{offset}" for n, offset in offsets.items()}
    biases = {n: f"{at}.c_attn.bias: j+{offset}" for n, offset in offsets.items()}
    yield from attention.vector_kinds(HEAD, weights, biases)
    query, key, v = read(f"{HEAD}.q", "j s k"), read(f"{HEAD}.k", "i s k"), read(f"{HEAD}.v", "s j k")
    yield from attention.attention_kinds(query, key, v, 1 / sqrt(config.d_head))
    yield from attention.projection_kinds(f"{at}.c_proj.weight: i j", f"{at}.c_proj.bias")


def _unembedding(config: GPT2Config) -> Section:
    tied = "wte.weight" if config.tie_word_embeddings else None
    return Section(
        "unembedding",
        weights=(
            *norms.layer_norm_weights("ln_f"),
            weight("lm_head.weight", "V C", "unembedding", table=True, alias_of=tied),
        ),
        values=(*norms.layer_norm_values("ln_final"), *prediction.prediction_values()),
        kinds=(
            *norms.layer_norm_kinds("ln_final", RESIDUAL, "ln_f", config.layer_norm_epsilon, "ln_final"),
            *prediction.prediction_kinds("lm_head.weight"),
        ),
        shelves=norms.layer_norm_shelves("ln_final", "top + 2*m") | prediction.prediction_shelves("ln_final_out"),
    )


# ------------------------------------------------------------------------------------------------ labels and tour

_NORM = ("mean", "scale", "weight", "bias", "out")
_OF_HEAD = tuple(f"{n}{end}" for end in ("_weight", "", "_bias") for n in "qkv")
_SCORES = ("scores", "scores_sum", "scores_max", "pattern")


_LN1, _LN2 = (ids(f"{LAYER}.{norm}", *_NORM) for norm in ("ln1", "ln2"))
_HEAD_KINDS = ids(HEAD, *_OF_HEAD, *_SCORES, "z")
_PROJECTION_KINDS = ids(LAYER, "attn.out_weight", "attn.out_bias", "attn_out", "resid_mid")
_MLP_KINDS = (
    *_LN2,
    *ids(LAYER, "mlp.in_weight", "mlp.in_bias", "mlp.pre", "mlp.post", "mlp.out_weight", "mlp.out_bias", "mlp_out",
          "resid_post"),
)  # fmt: skip

LABELS = (
    Label("embedding", "Embedding", ("tokens", "wte", "wpe", "embedding")),
    Label(LAYER, "Transformer {layer}", (*_LN1, *_HEAD_KINDS, *_PROJECTION_KINDS, *_MLP_KINDS)),
    Label(f"{LAYER}.proj", "Projection", _PROJECTION_KINDS),
    Label(f"{LAYER}.self_attention", "Self-attention", (*_LN1, *_HEAD_KINDS, *_PROJECTION_KINDS)),
    Label(f"{LAYER}.mlp", "MLP", _MLP_KINDS),
    *(Label(f"{HEAD}.{n}", n.upper(), ids(HEAD, f"{n}_weight", f"{n}_bias", n)) for n in "qkv"),
    Label(f"{HEAD}.bias", "Biases", ids(HEAD, "q_bias", "k_bias", "v_bias")),
    Label(f"{HEAD}.matrix", "Attention Matrix", ids(HEAD, *_SCORES)),
    Label(f"{HEAD}.vector", "V Output", ids(HEAD, "z")),
    Label(HEAD, "Head {head}", _HEAD_KINDS),
    Label("unembedding", "Unembedding",
          (*ids("ln_final", *_NORM), "lm_head", "logits", "logits_sum", "logits_max", "probs")),
)  # fmt: skip

STEPS = (
    tour.TOKENS,
    Step("embedding", "Embedding", "Each token becomes a vector, and its position is added.",
         "x = wte[token] + wpe[position]", ("embedding",)),
    tour.NORM,
    tour.QKV,
    *tour.ATTEND,
    tour.PROJECT,
    tour.RESIDUAL,
    *tour.MLP,
    tour.LAST,
    *tour.PREDICT,
)  # fmt: skip

# ---------------------------------------------------------------------------------------------------- forward pass


def block(l: int, config: GPT2Config, engine: Engine, a: Tensors, new: Tensors, rows: slice) -> None:  # noqa: E741 - the papers' letter
    """Compute one transformer block: resid_pre [B, n, C] -> resid_post [B, n, C]; `new` is `a` restricted to `rows`."""
    here, weights, epsilon = f"blocks.{l}", f"h.{l}", config.layer_norm_epsilon
    resid_pre, resid_mid, attn_out, mlp_out = (
        new[f"{here}.{name}"] for name in ("resid_pre", "resid_mid", "attn_out", "mlp_out")
    )
    normed = norms.layer_norm(engine, resid_pre, f"{weights}.ln_1", epsilon, new, f"{here}.ln1")
    engine.linear(normed, f"{weights}.attn.c_attn", *(stream.merge_heads(new[f"{here}.attn.{name}"]) for name in "qkv"))
    attention.attend(engine, rows, a, here)
    engine.linear(stream.merge_heads(new[f"{here}.attn.z"]), f"{weights}.attn.c_proj", attn_out)
    engine.add(attn_out, resid_pre, resid_mid)

    pre, post = new[f"{here}.mlp.pre"], new[f"{here}.mlp.post"]
    normed = norms.layer_norm(engine, resid_mid, f"{weights}.ln_2", epsilon, new, f"{here}.ln2")
    engine.linear(normed, f"{weights}.mlp.c_fc", pre)
    engine.activate(config.activation_function, pre, post)
    engine.linear(post, f"{weights}.mlp.c_proj", mlp_out)
    engine.add(mlp_out, resid_mid, new[f"{here}.resid_post"])


def forward(
    config: GPT2Config, engine: Engine, a: Tensors, rows: slice, after_layer: Callable[[], None] = lambda: None
) -> None:
    """Compute the positions `rows` of every tensor in `a` from its `tokens`; call `after_layer` after each layer."""
    tokens = a["tokens"]
    new = stream.restricted(a, rows)
    engine.embed("wte.weight", tokens[:, rows], new["embed"])
    engine.embed("wpe.weight", rows, new["pos_embed"])
    engine.add(new["embed"], new["pos_embed"], new["blocks.0.resid_pre"])
    resid = stream.run_layers(
        config.n_layer, lambda layer: block(layer, config, engine, a, new, rows), new, after_layer
    )
    predict(config, engine, resid, new)


def predict(config: GPT2Config, engine: Engine, resid: NDArray[Any], new: Tensors) -> None:
    """Compute `ln_final`, `logits` and `probs` [B, n, V] from a residual stream [B, n, C]."""
    normed = norms.layer_norm(engine, resid, "ln_f", config.layer_norm_epsilon, new, "ln_final")
    prediction.unembed(engine, normed, new)


# ------------------------------------------------------------------------------------------ weights and vocabulary


def initial(config: GPT2Config, name: str) -> Initial:
    """Return GPT-2's initialisation: deviation 0.02, residual projections 0.02/√(2L); biases 0, gains 1."""
    if name.endswith(".bias"):
        return Initial(0.0, 0.0)
    if ".ln_" in name or name.startswith("ln_f"):
        return Initial(1.0, 0.0)
    return Initial(0.0, 0.02 / sqrt(2 * config.n_layer) if name.endswith("c_proj.weight") else 0.02)


#: Other settings that change the computation, each with its only supported value.
_FIXED = {
    "model_type": "gpt2",
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "reorder_and_upcast_attn": False,
    "add_cross_attention": False,
}
_RENAMED = {
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}  # aliases that Hugging Face accepts, too


def from_hub(hub_config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a configuration from a `config.json`. Raises UnsupportedConfigError."""
    return hub_fields(GPT2Config, hub_config, _FIXED, _RENAMED, "activation_function")


def vocabulary(config: GPT2Config) -> VocabularyKind:
    """Return "gpt2" if the size is that of GPT-2's vocabulary, also padded to a multiple of 64, else "ids"."""
    return "gpt2" if config.vocab_size in (50257, 50304) else "ids"


GGUF = GgufFormat(
    architecture="gpt2",
    fields={
        "block_count": "n_layer",
        "attention.head_count": "n_head",
        "embedding_length": "n_embd",
        "feed_forward_length": "n_inner",
        "context_length": "n_positions",
        "attention.layer_norm_epsilon": "layer_norm_epsilon",
    },
    modules={
        "wte": "token_embd",
        "wpe": "position_embd",
        "h.{layer}.ln_1": "blk.{layer}.attn_norm",
        "h.{layer}.attn.c_attn": "blk.{layer}.attn_qkv",
        "h.{layer}.attn.c_proj": "blk.{layer}.attn_output",
        "h.{layer}.ln_2": "blk.{layer}.ffn_norm",
        "h.{layer}.mlp.c_fc": "blk.{layer}.ffn_up",
        "h.{layer}.mlp.c_proj": "blk.{layer}.ffn_down",
        "ln_f": "output_norm",
        "lm_head": "output",
    },
    transposed=("h.{layer}.attn.c_attn", "h.{layer}.attn.c_proj", "h.{layer}.mlp.c_fc", "h.{layer}.mlp.c_proj"),
)


# ---------------------------------------------------------------------------------------------------------- presets


def _gpt2(id: str, name: str, n_layer: int, n_embd: int, n_head: int, note: str = "", series: str = "gpt2") -> Preset:
    return Preset(id, name, series, GPT2Config(n_layer=n_layer, n_embd=n_embd, n_head=n_head), note)


def _gpt3(id: str, name: str, n_layer: int, n_embd: int, n_head: int, note: str = "") -> Preset:
    config = GPT2Config(n_layer=n_layer, n_embd=n_embd, n_head=n_head, n_positions=2048)
    return Preset(id, name, "gpt3", config, note)


_NANO = GPT2Config(n_layer=3, n_embd=48, n_head=3, n_positions=11, vocab_size=3, tie_word_embeddings=False)
_XL_NOTE = (
    "The paper's Table 2.1 prints 24 heads of 128, which make 3072 and not the width of 2048; "
    "16 heads fit the width and the 1.3 billion parameters."
)
_13B_NOTE = "The paper's Table 2.1 prints a width of 5140; 40 heads of 128 make 5120."
_TRAINED = "Trained to sort six letters; the file's metadata holds the facts of the training."

FAMILY = Family(
    title="GPT-2",
    description="A pre-norm decoder with layer norms, learned positions, multi-head attention and GELU.",
    Config=GPT2Config,
    presets=(
        Preset("nano-gpt", "nano-gpt", "nano", _NANO, "Sorts six letters A, B, C; its head is not tied.",
               Path(str(resources.files("worker.families") / "nano-gpt.safetensors")), _TRAINED, "ABC"),
        _gpt2("gpt-micro", "GPT micro", 4, 128, 4, series="minigpt"),
        _gpt2("gpt-mini", "GPT mini", 6, 192, 6, series="minigpt"),
        _gpt2("gopher-44m", "Gopher 44M", 8, 512, 16, "Gopher's sizes on GPT-2's architecture.", "gopher"),
        _gpt2("gpt2", "GPT-2", 12, 768, 12),
        _gpt2("gpt2-medium", "GPT-2 medium", 24, 1024, 16),
        _gpt2("gpt2-large", "GPT-2 large", 36, 1280, 20),
        _gpt2("gpt2-xl", "GPT-2 XL", 48, 1600, 25),
        _gpt3("gpt3-small", "GPT-3 small", 12, 768, 12),
        _gpt3("gpt3-medium", "GPT-3 medium", 24, 1024, 16),
        _gpt3("gpt3-large", "GPT-3 large", 24, 1536, 16),
        _gpt3("gpt3-xl", "GPT-3 XL", 24, 2048, 16, _XL_NOTE),
        _gpt3("gpt3-2.7b", "GPT-3 2.7B", 32, 2560, 32),
        _gpt3("gpt3-6.7b", "GPT-3 6.7B", 32, 4096, 32),
        _gpt3("gpt3-13b", "GPT-3 13B", 40, 5120, 40, _13B_NOTE),
        _gpt3("gpt3-175b", "GPT-3 175B", 96, 12288, 96),
    ),
    describe=describe,
    forward=forward,
    predict=predict,
    initial=initial,
    from_hub=from_hub,
    prefix="transformer.",
    vocabulary=vocabulary,
    gguf=GGUF,
)  # fmt: skip
