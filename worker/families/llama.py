"""Llama (Touvron et al. 2023, arXiv:2302.13971, arXiv:2307.09288)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import sqrt
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

import worker.families.parts as parts
from worker.describe.architecture import RESIDUAL, Architecture, Section
from worker.describe.blocks import Depth, Kind, Label, Part, Spot, Step
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
from worker.describe.formula import Formula, Input
from worker.describe.functions import FUNCTIONS
from worker.describe.operations import Parameters
from worker.families.family import Family, Tensors, UnsupportedConfigError, VocabularyKind
from worker.families.parts import (
    ATTENTION,
    HEAD,
    KV_HEAD,
    LAYER,
    STREAM,
    beside,
    ids,
    kind,
    merge_heads,
    read,
    value,
    weight,
)
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
    drawn = {kind.id for section in sections for kind in section.kinds}
    labels = tuple(Label(label.id, label.name, tuple(id for id in label.kinds if id in drawn)) for label in _LABELS)
    return Architecture(sizes, sections, labels, STEPS)


def _embedding(config: LlamaConfig) -> Section:
    embed = Formula("embed", (read("tokens", "i 0 k"), read("embed_tokens", "s j 0")))
    angles = Parameters(base=config.rope_theta, pairs="halves", width=config.head_dim)
    aside = Spot("aside", "left")
    return Section(
        "embedding",
        weights=(weight("model.embed_tokens.weight", "V C", "embedding", table=True),),
        values=(
            value("tokens", "B T", landmark="tokens", dtype="int32"),
            value("embed", "B T C"),
            *(value(f"rotary.{wave}", "1 T A", "statistic") for wave in ("cos", "sin")),
        ),
        kinds=(
            kind("tokens", "Tokens", "activation", "T 1 B", "tokens: k i", STREAM, "tokens", Formula("input"),
                 part="tokens"),
            kind("embed_tokens", "Token Embed", "weight", "V C 1", "model.embed_tokens.weight: i j",
                 Spot("norm", "right"), "tables"),
            kind("embedding", "Input Embed", "activation", "T C B", "blocks.0.resid_pre: k i j", STREAM, "tables",
                 embed, part="embedding"),
            *(
                kind(f"rotary.{wave}", f"Rotary {wave}", "statistic", "T A 1", f"rotary.{wave}: 0 i j", aside, shelf,
                     Formula("rotary", parameters=replace(angles, function=wave)))
                for wave, shelf in (("cos", "tables"), ("sin", "sines"))
            ),
        ),
        shelves={
            "tokens": "top",
            "tables": "top + (s + m)",
            "sines": "tables + A*s + m",
            "end": "max(tables + C*s, sines + A*s) + 3*m",
        },
    )  # fmt: skip


def _layers(config: LlamaConfig) -> Section:
    at, norm = f"{LAYER}.attn", config.rms_norm_eps
    return Section(
        "blocks",
        layers=config.num_hidden_layers,
        enters="embedding",
        leaves=f"{LAYER}.resid_post",
        weights=tuple(_layer_weights(config)),
        values=(
            value(f"{LAYER}.resid_pre", "B T C", landmark="entering"),
            *parts.rms_norm_values(f"{LAYER}.ln1"),
            value(f"{at}.q", "B T H A"),
            value(f"{at}.k", "B T G A"),
            value(f"{at}.v", "B T G A", read_later=True),
            value(f"{at}.rot_q", "B T H A"),
            value(f"{at}.rot_k", "B T G A", read_later=True),
            *parts.attention_values(),
            value(f"{LAYER}.attn_out", "B T C"),
            value(f"{LAYER}.resid_mid", "B T C"),
            *parts.rms_norm_values(f"{LAYER}.ln2"),
            *(value(f"{LAYER}.mlp.{name}", "B T F") for name in ("pre", "pre_linear", "post")),
            value(f"{LAYER}.mlp_out", "B T C"),
            value(f"{LAYER}.resid_post", "B T C", landmark="leaving"),
        ),
        kinds=(
            *parts.rms_norm_kinds(f"{LAYER}.ln1", RESIDUAL, f"{_W}.input_layernorm", norm, "ln1"),
            *_vectors(config, KV_HEAD, "g", "kv"),
            *_vectors(config, HEAD, "h", "q"),
            *parts.attention_kinds(
                read(f"{HEAD}.rot_q", "j s k"),
                read(f"{KV_HEAD}.rot_k", "i s k", member="h//R"),
                read(f"{KV_HEAD}.v", "s j k", member="h//R"),
                1 / sqrt(config.head_dim),
            ),
            *_projection(config),
            *parts.rms_norm_kinds(f"{LAYER}.ln2", f"{LAYER}.resid_mid", f"{_W}.post_attention_layernorm", norm, "ln2"),
            *_mlp(config),
        ),
        shelves=parts.rms_norm_shelves("ln1", "top + 2*m") | {
            "q": "ln1_out",
            "k": "q + A*s*deep",  # several columns of layers: below each other, to save depth
            "v": "k + A*s*deep",
            "rot_q": "v + A*s + m",
            "rot_k": "rot_q + A*s*deep",
            "scores": "rot_k + A*s + m",
            "z": "scores + T*s + m",
            "attn_out": "max(z + A*s + 2*m, q + C*s + m)",
        } | parts.rms_norm_shelves("ln2", "attn_out + C*s + m") | {
            "gate_weight": "ln2_out",
            "gate_bias": "gate_weight - s - m",
            "pre": "gate_weight + C*s + m",
            "up_bias": "pre + T*s + m",
            "up_weight": "up_bias + s + m",
            "pre_linear": "up_weight + C*s + m",
            "post": "pre_linear + T*s + m",
            "mlp_out": "post + T*s + m",
            "end": "mlp_out + C*s + m",
        },
    )  # fmt: skip


def _layer_weights(config: LlamaConfig) -> Iterator[Any]:
    yield weight(f"{_W}.input_layernorm.weight", "C", "rms_norm")
    for name, rows, part in (("q", "HA", "query"), ("k", "GA", "key"), ("v", "GA", "value"), ("o", "C", "output")):
        yield weight(f"{_W}.self_attn.{name}_proj.weight", f"{rows} {'HA' if name == 'o' else 'C'}", part)
        if config.attention_bias:
            yield weight(f"{_W}.self_attn.{name}_proj.bias", rows, "biases")
    yield weight(f"{_W}.post_attention_layernorm.weight", "C", "rms_norm")
    for name, rows, columns in (("gate", "F", "C"), ("up", "F", "C"), ("down", "C", "F")):
        yield weight(f"{_W}.mlp.{name}_proj.weight", f"{rows} {columns}", f"{name}_projection")
        if config.mlp_bias:
            yield weight(f"{_W}.mlp.{name}_proj.bias", rows, "biases")


Inputs = tuple[Input, ...]
_PARTS: Mapping[str, Part] = {"q": "query", "k": "key", "v": "value"}
_DEPTHS: Mapping[str, Depth] = {"q": "front", "k": "middle", "v": "back"}


def _vectors(config: LlamaConfig, at: str, number: str, names: str) -> Iterator[Kind]:
    """The queries of a head ("q"), or the keys and values of a key/value head ("kv"), with weights and rotation."""
    for n in names:
        tensor = f"{_W}.self_attn.{n}_proj.weight: j+{number}*A i"
        yield kind(f"{at}.{n}_weight", f"{n.upper()} Weights", "weight", "C A 1", tensor, beside(f"{at}.{n}"), n,
                   depth=_DEPTHS[n], stacked=True)  # fmt: skip
    for n in names:
        dot: Inputs = (read(f"{at}.{n}_weight", "s j 0"), read(f"{LAYER}.ln1.out", "i s k"))
        dot += _bias(config.attention_bias, f"{at}.{n}_bias", "0 j 0")
        tensor = f"{LAYER}.attn.{n}: k i {number} j"
        yield kind(f"{at}.{n}", f"{n.upper()} vectors", "activation", "T A B", tensor, ATTENTION, n,
                   Formula("dot", dot, "C"), part=_PARTS[n], depth=_DEPTHS[n], stacked=True)  # fmt: skip
    for n in names if config.attention_bias else "":
        tensor = f"{_W}.self_attn.{n}_proj.bias: j+{number}*A"
        yield kind(f"{at}.{n}_bias", f"{n.upper()} Bias", "weight", "1 A 1", tensor, beside(f"{at}.{n}_weight"), "q",
                   minor=True, depth=_DEPTHS[n])  # fmt: skip
    for n in names.replace("v", ""):
        inputs = (read(f"{at}.{n}", "i s k"), read("rotary.cos", "i j 0"), read("rotary.sin", "i j 0"))
        rotate = Formula("rotate", inputs, "A", Parameters(pairs="halves", width=config.head_dim))
        tensor = f"{LAYER}.attn.rot_{n}: k i {number} j"
        yield kind(f"{at}.rot_{n}", f"Rotated {n.upper()}", "activation", "T A B", tensor, ATTENTION, f"rot_{n}",
                   rotate, depth=_DEPTHS[n], stacked=True)  # fmt: skip


def _bias(has_bias: bool, block: str, index: str) -> Inputs:
    return (read(block, index),) if has_bias else ()


def _projection(config: LlamaConfig) -> Iterator[Kind]:
    dot: Inputs = (read(f"{LAYER}.attn.out_weight", "s+h*A j 0", each="head"), read(f"{HEAD}.z", "i s k", each="head"))
    dot += _bias(config.attention_bias, f"{LAYER}.attn.out_bias", "0 j 0")
    add = Formula("add", (read(f"{LAYER}.attn_out", "i j k"), read(RESIDUAL, "i j k")))
    at, out = f"{_W}.self_attn.o_proj", f"{LAYER}.attn_out"
    yield kind(f"{LAYER}.attn.out_weight", "Projection Weights", "weight", "HA C 1", f"{at}.weight: j i",
               beside(out), "attn_out")  # fmt: skip
    if config.attention_bias:
        yield kind(f"{LAYER}.attn.out_bias", "Projection Bias", "weight", "1 C 1", f"{at}.bias: j",
                   beside(f"{LAYER}.attn.out_weight"), "attn_out", minor=True)  # fmt: skip
    yield kind(out, "Attention Output", "activation", "T C B", f"{out}: k i j", ATTENTION, "attn_out",
               Formula("dot", dot, "A"), part="attention_out")  # fmt: skip
    yield kind(f"{LAYER}.resid_mid", "Attention Residual", "activation", "T C B", f"{LAYER}.resid_mid: k i j", STREAM,
               "attn_out", add)  # fmt: skip


def _mlp(config: LlamaConfig) -> Iterator[Kind]:
    at, out, biased = f"{_W}.mlp", f"{LAYER}.mlp_out", config.mlp_bias
    for name, result, title in (("gate", "pre", "MLP Gate"), ("up", "pre_linear", "MLP Up")):
        dot: Inputs = (read(f"{LAYER}.mlp.{name}_weight", "i s 0"), read(f"{LAYER}.ln2.out", "j s k"))
        dot += _bias(biased, f"{LAYER}.mlp.{name}_bias", "i 0 0")
        yield kind(f"{LAYER}.mlp.{name}_weight", f"{title} Weights", "weight", "F C 1", f"{at}.{name}_proj.weight: i j",
                   ATTENTION, f"{name}_weight")  # fmt: skip
        if biased:
            yield kind(f"{LAYER}.mlp.{name}_bias", f"{title} Bias", "weight", "F 1 1", f"{at}.{name}_proj.bias: i",
                       ATTENTION, f"{name}_bias", minor=True)  # fmt: skip
        yield kind(f"{LAYER}.mlp.{result}", title, "activation", "F T B", f"{LAYER}.mlp.{result}: k j i", ATTENTION,
                   result, Formula("dot", dot, "C"))  # fmt: skip
    gated = (read(f"{LAYER}.mlp.pre", "i j k"), read(f"{LAYER}.mlp.pre_linear", "i j k"))
    gate = Formula("gated", gated, parameters=Parameters(function=config.hidden_act))
    down: Inputs = (read(f"{LAYER}.mlp.down_weight", "s j 0"), read(f"{LAYER}.mlp.post", "s i k"))
    down += _bias(biased, f"{LAYER}.mlp.down_bias", "0 j 0")
    add = Formula("add", (read(out, "i j k"), read(f"{LAYER}.resid_mid", "i j k")))
    yield kind(f"{LAYER}.mlp.post", "Gated MLP", "activation", "F T B", f"{LAYER}.mlp.post: k j i", ATTENTION, "post",
               gate, part="mlp")  # fmt: skip
    yield kind(f"{LAYER}.mlp.down_weight", "MLP Down Weights", "weight", "F C 1", f"{at}.down_proj.weight: j i",
               ATTENTION, "mlp_out")  # fmt: skip
    if biased:
        yield kind(f"{LAYER}.mlp.down_bias", "MLP Down Bias", "weight", "1 C 1", f"{at}.down_proj.bias: j",
                   beside(f"{LAYER}.mlp.down_weight"), "mlp_out", minor=True)  # fmt: skip
    yield kind(out, "MLP Result", "activation", "T C B", f"{out}: k i j", Spot("attention", "left", margins=-1),
               "mlp_out", Formula("dot", down, "F"))  # fmt: skip
    yield kind(f"{LAYER}.resid_post", "MLP Residual", "activation", "T C B", f"{LAYER}.resid_post: k i j", STREAM,
               "mlp_out", add, part="resid")  # fmt: skip


def _unembedding(config: LlamaConfig) -> Section:
    tied = "model.embed_tokens.weight" if config.tie_word_embeddings else None
    return Section(
        "unembedding",
        weights=(
            weight("model.norm.weight", "C", "rms_norm"),
            weight("lm_head.weight", "V C", "unembedding", table=True, alias_of=tied),
        ),
        values=(*parts.rms_norm_values("ln_final"), *parts.prediction_values()),
        kinds=(
            *parts.rms_norm_kinds("ln_final", RESIDUAL, "model.norm", config.rms_norm_eps, "ln_final"),
            *parts.prediction_kinds("lm_head.weight"),
        ),
        shelves=parts.rms_norm_shelves("ln_final", "top + 2*m") | parts.prediction_shelves("ln_final_out"),
    )


# ------------------------------------------------------------------------------------------------ labels and tour

_NORM = ("scale", "weight", "out")
_LN1, _LN2 = (ids(f"{LAYER}.{norm}", *_NORM) for norm in ("ln1", "ln2"))
_KEYS = ids(KV_HEAD, "k_weight", "v_weight", "k", "v", "k_bias", "v_bias", "rot_k")
_QUERIES = ids(HEAD, "q_weight", "q", "q_bias", "rot_q")
_SCORES = ids(HEAD, "scores", "scores_sum", "scores_max", "pattern")
_PROJECTION = ids(LAYER, "attn.out_weight", "attn.out_bias", "attn_out", "resid_mid")
_MLP = (
    *_LN2,
    *ids(LAYER, "mlp.gate_weight", "mlp.gate_bias", "mlp.pre", "mlp.up_weight", "mlp.up_bias", "mlp.pre_linear",
         "mlp.post", "mlp.down_weight", "mlp.down_bias", "mlp_out", "resid_post"),
)  # fmt: skip
_ATTENTION_KINDS = (*_LN1, *_KEYS, *_QUERIES, *_SCORES, f"{HEAD}.z", *_PROJECTION)

_LABELS = (
    Label("embedding", "Embedding", ("tokens", "embed_tokens", "embedding", "rotary.cos", "rotary.sin")),
    Label(LAYER, "Transformer {layer}", (*_ATTENTION_KINDS, *_MLP)),
    Label(f"{LAYER}.proj", "Projection", _PROJECTION),
    Label(f"{LAYER}.self_attention", "Self-attention", _ATTENTION_KINDS),
    Label(f"{LAYER}.mlp", "MLP", _MLP),
    Label(f"{KV_HEAD}.k", "K", ids(KV_HEAD, "k_weight", "k_bias", "k", "rot_k")),
    Label(f"{KV_HEAD}.v", "V", ids(KV_HEAD, "v_weight", "v_bias", "v")),
    Label(KV_HEAD, "Head {kv_head} of keys and values", _KEYS),
    Label(f"{HEAD}.q", "Q", _QUERIES),
    Label(f"{HEAD}.matrix", "Attention Matrix", _SCORES),
    Label(f"{HEAD}.vector", "V Output", (f"{HEAD}.z",)),
    Label(HEAD, "Head {head}", (*_QUERIES, *_SCORES, f"{HEAD}.z")),
    Label("unembedding", "Unembedding",
          (*ids("ln_final", *_NORM), "lm_head", "logits", "logits_sum", "logits_max", "probs")),
)  # fmt: skip

_RMS = "y = x / √(mean(x²) + ε) · γ"
STEPS = (
    parts.TOKENS,
    Step("lookup", "Embedding", "Each token is replaced by a vector from a table. Where it stands is not added here: "
         "that comes in with the rotation of queries and keys.", "x = E[token]", ("embedding",)),
    Step("rms_norm", "RMS norm", "Every position's vector is brought to the same size: divided by the root of the mean "
         "of its squares, and multiplied by a learned gain. No mean is subtracted, and nothing is added.", _RMS,
         ids(f"{LAYER}.ln1", "out", "scale")),
    Step("grouped_qkv", "Queries, keys, values", "Each head has queries of its own; a key and a value are shared by "
         "several heads, which saves memory when text is generated.", "q = W_q·y\nk = W_k·y\nv = W_v·y",
         (*ids(HEAD, "q"), *ids(KV_HEAD, "k", "v"))),
    Step("rotate", "Rotation", "Pairs of channels of each query and key are turned by an angle that grows with the "
         "position, slowly in some pairs and fast in others. So a score depends on how far apart two positions are.",
         "q ← q · cos(i·θ) + turned(q) · sin(i·θ)", (*ids(HEAD, "rot_q"), *ids(KV_HEAD, "rot_k"))),
    *parts.ATTEND,
    Step("project", "Projection", "One more matrix brings the results of all heads together.",
         "a = W_o·[z_0, z_1, …]", ids(LAYER, "attn_out")),
    parts.RESIDUAL,
    Step("gate_up", "MLP: gate and up", "After another norm, two matrices make each vector wider: one result will be "
         "the gate of the other.", "g = W_g·norm(x)\nu = W_u·norm(x)", ids(LAYER, "mlp.pre", "mlp.pre_linear")),
    Step("gated", "Gate", "The gate goes through a curve, which brings negative numbers close to 0, and is multiplied "
         "with the other result, cell by cell.", "h = {activation}(g) · u", ids(LAYER, "mlp.post")),
    Step("down", "MLP: down", "A third matrix brings it back to the width of the stream, and it is added.",
         "x ← x + W_d·h", ids(LAYER, "mlp_out", "resid_post")),
    Step("last_rms_norm", "Final RMS norm", "Each vector is brought to the same size once more.", _RMS,
         ids("ln_final", "out", "scale")),
    *parts.PREDICT,
)  # fmt: skip

# ---------------------------------------------------------------------------------------------------- forward pass

_ATTENTION = ("rot_q", "rot_k", "v", "scores", "scores_max", "scores_sum", "pattern", "z")  # in the engine's order


def block(l: int, config: LlamaConfig, engine: Engine, a: Tensors, new: Tensors, rows: slice) -> None:  # noqa: E741 - the papers' letter
    """Compute one transformer block: resid_pre [B, n, C] -> resid_post [B, n, C]; `new` is `a` restricted to `rows`."""
    here, weights, epsilon = f"blocks.{l}", f"model.layers.{l}", config.rms_norm_eps
    resid_pre, resid_mid, attn_out, mlp_out = (
        new[f"{here}.{name}"] for name in ("resid_pre", "resid_mid", "attn_out", "mlp_out")
    )
    normed = parts.rms_norm(engine, resid_pre, f"{weights}.input_layernorm", epsilon, new, f"{here}.ln1")
    for n in "qkv":
        out = merge_heads(new[f"{here}.attn.{n}"])
        engine.project(normed, f"{weights}.self_attn.{n}_proj", out, bias=config.attention_bias)
    for n in "qk":
        engine.rotate(new[f"{here}.attn.{n}"], new["rotary.cos"], new["rotary.sin"], new[f"{here}.attn.rot_{n}"])
    engine.attention(rows, *(a[f"{here}.attn.{name}"] for name in _ATTENTION))
    z = merge_heads(new[f"{here}.attn.z"])
    engine.project(z, f"{weights}.self_attn.o_proj", attn_out, bias=config.attention_bias)
    engine.add(attn_out, resid_pre, resid_mid)

    gate, up, post = (new[f"{here}.mlp.{name}"] for name in ("pre", "pre_linear", "post"))
    normed = parts.rms_norm(engine, resid_mid, f"{weights}.post_attention_layernorm", epsilon, new, f"{here}.ln2")
    engine.project(normed, f"{weights}.mlp.gate_proj", gate, bias=config.mlp_bias)
    engine.project(normed, f"{weights}.mlp.up_proj", up, bias=config.mlp_bias)
    engine.gate(config.hidden_act, gate, up, post)
    engine.project(post, f"{weights}.mlp.down_proj", mlp_out, bias=config.mlp_bias)
    engine.add(mlp_out, resid_mid, new[f"{here}.resid_post"])


def forward(
    config: LlamaConfig, engine: Engine, a: Tensors, rows: slice, after_layer: Callable[[], None] = lambda: None
) -> None:
    """Compute the positions `rows` of every tensor in `a` from its `tokens`; call `after_layer` after each layer."""
    tokens = a["tokens"]
    new = a if rows == slice(0, tokens.shape[1]) else parts.Positions(a, rows)
    engine.embed("model.embed_tokens.weight", tokens[:, rows], new["embed"])
    new["blocks.0.resid_pre"][:] = new["embed"]
    _fill_rotary(config, rows, new)
    resid = parts.run_layers(
        config.num_hidden_layers, lambda layer: block(layer, config, engine, a, new, rows), new, after_layer
    )
    predict(config, engine, resid, new)


def _fill_rotary(config: LlamaConfig, rows: slice, new: Tensors) -> None:
    """Compute the cosine and sine [1, n, A] of the rotation angles of the positions `rows`."""
    frequencies = config.rope_theta ** (-np.arange(0, config.head_dim, 2) / config.head_dim)  # [A/2]
    angles = np.multiply.outer(np.arange(rows.start, rows.stop), np.tile(frequencies, 2))
    new["rotary.cos"][:] = np.cos(angles)
    new["rotary.sin"][:] = np.sin(angles)


def predict(config: LlamaConfig, engine: Engine, resid: NDArray[Any], new: Tensors) -> None:
    """Compute `ln_final`, `logits` and `probs` [B, n, V] from a residual stream [B, n, C]."""
    normed = parts.rms_norm(engine, resid, "model.norm", config.rms_norm_eps, new, "ln_final")
    parts.unembed(engine, normed, new)


# ------------------------------------------------------------------------------------------ weights and vocabulary


def initial(config: LlamaConfig, name: str) -> Initial:
    """Return the initialisation in transformers: deviation 0.02; biases 0, gains 1."""
    if name.endswith(".bias"):
        return Initial(0.0, 0.0)
    return Initial(1.0, 0.0) if "norm" in name else Initial(0.0, 0.02)


_FIXED = {"model_type": "llama", "partial_rotary_factor": 1.0}


def from_hub(hub_config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a configuration from a `config.json`. Raises UnsupportedConfigError."""
    fields = parts.hub_fields(LlamaConfig, hub_config, _FIXED, {}, "hidden_act")
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
