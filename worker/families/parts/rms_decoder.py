"""Decoders with RMS norms, rotary positions and gated MLPs: what their families share, and in what they differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt

import worker.families.parts.rms_head_norms as head_norms
from worker.describe.architecture import RESIDUAL, Architecture, Section
from worker.describe.blocks import Kind, Tensor
from worker.families.parts import attention, mlp, norms, prediction, stream, tour
from worker.families.parts.head_norms import OUT
from worker.families.parts.labels import decoder_labels
from worker.families.parts.notation import (
    HEAD,
    KV_HEAD,
    LAYER,
    by_layer,
    value,
    weight,
)
from worker.families.parts.rms_config import RmsConfig
from worker.families.parts.rotary import Rotary, rotary_kinds, rotary_values, rotated_kinds

_AT = f"{LAYER}.attn"
_W = "model.layers.{layer}"  # Hugging Face's weight names; linear weights are (out, in)


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """A decoder: the sizes of a configuration, and what sets its family apart from Llama."""

    config: RmsConfig
    function: str  # of the gate
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    head_norms: bool = False  # RMS norms of each head's query and key, before the rotation
    post_norms: bool = False  # RMS norms of what attention and the MLP add
    gain: float | None = None  # added to the gain γ of every norm
    embed_scale: float | None = None
    score_scale: float | None = None  # None: 1/√A
    score_cap: float | None = None
    logit_cap: float | None = None
    windows: tuple[int | None, ...] = ()  # positions that each layer sees; None for all
    local_rotary: Rotary | None = None  # of layers with a window, if they have their own

    @property
    def rotaries(self) -> tuple[Rotary, ...]:
        """The rotation of global layers, and that of local ones if it differs."""
        return (self.config.rotary, *((self.local_rotary,) if self.local_rotary else ()))

    @property
    def normed(self) -> str:
        """The end of the names of the queries and keys that are rotated."""
        return OUT if self.head_norms else ""

    def window(self, layer: int) -> int | None:
        return self.windows[layer] if self.windows else None

    def rotary(self, layer: int) -> Rotary:
        return self.config.rotary if self.window(layer) is None else self.local_rotary or self.config.rotary

    def norm_names(self, layer: str) -> dict[str, str]:
        """Return the weight of each norm of a layer, whose weights begin with `layer`."""
        before, after = f"{layer}.input_layernorm", f"{layer}.post_attention_layernorm"
        if not self.post_norms:
            return {"ln1": before, "ln2": after}
        around = (f"{layer}.pre_feedforward_layernorm", f"{layer}.post_feedforward_layernorm")
        return {"ln1": before, "ln1_post": after, "ln2": around[0], "ln2_post": around[1]}


def describe(d: Decoder) -> Architecture:
    """Return the tensors and blocks of a decoder."""
    c = d.config
    sizes = {
        "C": c.hidden_size, "H": c.num_attention_heads, "G": c.num_key_value_heads, "A": c.head_dim,
        "R": c.num_attention_heads // c.num_key_value_heads, "F": c.intermediate_size, "V": c.vocab_size,
        "N": c.max_position_embeddings,
    }  # fmt: skip
    sections = (_embedding(d), _layers(d), _unembedding(d))
    steps = tour.gated_decoder(head_norms=d.head_norms, post_norms=d.post_norms, capped=d.score_cap is not None)
    return Architecture(sizes, sections, decoder_labels(*sections), steps)


def _embedding(d: Decoder) -> Section:
    shelves, end = {"tokens": "top", "tables": "top + (s + m)", "sines": "tables + A*s + m"}, "sines"
    placed = [rotary_kinds(d.config.rotary, "tables", "sines")]
    if d.local_rotary:
        shelves |= {"local_cosines": "sines + A*s + m", "local_sines": "local_cosines + A*s + m"}
        placed.append(rotary_kinds(d.local_rotary, "local_cosines", "local_sines"))
        end = "local_sines"
    return Section(
        "embedding",
        weights=(weight("model.embed_tokens.weight", "V C", "embedding", table=True),),
        values=(
            stream.tokens_value(),
            value("embed", "B T C"),
            *(tensor for rotary in d.rotaries for tensor in rotary_values(rotary.name)),
        ),
        kinds=(
            stream.tokens_kind(),
            stream.table_kind("embed_tokens", "model.embed_tokens.weight"),
            stream.embedding_kind(("embed_tokens", "s j 0"), scale=d.embed_scale),
            *(kind for kinds in placed for kind in kinds),
        ),
        shelves=shelves | {"end": f"max(tables + C*s, {end} + A*s) + 3*m"},
    )


def _layers(d: Decoder) -> Section:
    c, names = d.config, d.norm_names(_W)
    after = ("ln1_post", "ln2_post") if d.post_norms else ()
    return Section(
        "blocks",
        layers=c.num_hidden_layers,
        enters="embedding",
        leaves=f"{LAYER}.resid_post",
        weights=tuple(_layer_weights(d)),
        values=(
            value(f"{LAYER}.resid_pre", "B T C", landmark="entering"),
            *norms.rms_norm_values(f"{LAYER}.ln1"),
            *attention.vector_values(rotated=True),
            *(head_norms.rms_head_norm_values() if d.head_norms else ()),
            *attention.attention_values(capped=d.score_cap is not None),
            value(f"{LAYER}.attn_out", "B T C"),
            *(norms.rms_norm_values(f"{LAYER}.ln1_post") if after else ()),
            value(f"{LAYER}.resid_mid", "B T C"),
            *norms.rms_norm_values(f"{LAYER}.ln2"),
            *mlp.gated_mlp_values(),
            *(norms.rms_norm_values(f"{LAYER}.ln2_post") if after else ()),
            value(f"{LAYER}.resid_post", "B T C", landmark="leaving"),
        ),
        kinds=(
            *_norm(d, "ln1", RESIDUAL, names),
            *_attention(d),
            *(_norm(d, "ln1_post", f"{LAYER}.attn_out", names) if after else ()),
            stream.resid_mid_kind(f"{LAYER}.{'ln1_post.out' if after else 'attn_out'}"),
            *_norm(d, "ln2", f"{LAYER}.resid_mid", names),
            *mlp.gated_mlp_kinds(f"{_W}.mlp", d.function, d.mlp_bias),
            *(_norm(d, "ln2_post", f"{LAYER}.mlp_out", names) if after else ()),
            stream.resid_post_kind(f"{LAYER}.{'ln2_post.out' if after else 'mlp_out'}", f"{LAYER}.resid_mid"),
        ),
        shelves=_layer_shelves(d),
    )


def _layer_shelves(d: Decoder) -> dict[str, str]:
    normed = head_norms.rms_head_norm_shelves("ln1_out", "v + A*s + m") if d.head_norms else {}
    attended = attention.attention_shelves("ln1_out", rotated=True, normed=normed, capped=d.score_cap is not None)
    shelves = norms.rms_norm_shelves("ln1", "top + 2*m") | attended | {"attn_out": "end_of_z"}
    mid, last = "attn_out", "mlp_out"
    if d.post_norms:
        shelves, mid, last = shelves | norms.rms_norm_shelves("ln1_post", "attn_out"), "ln1_post_out", "ln2_post_out"
    shelves |= norms.rms_norm_shelves("ln2", f"{mid} + C*s + m") | mlp.gated_mlp_shelves("ln2_out")
    if d.post_norms:
        shelves |= norms.rms_norm_shelves("ln2_post", "mlp_out + C*s + m")
    return shelves | {"end": f"{last} + C*s + m"}


def _norm(d: Decoder, id: str, source: str, names: dict[str, str]) -> tuple[Kind, ...]:
    return norms.rms_norm_kinds(f"{LAYER}.{id}", source, names[id], d.config.rms_norm_eps, id, d.gain)


def _attention(d: Decoder) -> Iterator[Kind]:
    c, prefix, layers = d.config, f"{_W}.self_attn", range(d.config.num_hidden_layers)
    windows = dict.fromkeys(map(d.window, layers))
    choices = [[*windows].index(d.window(layer)) for layer in layers]
    for at, names in ((KV_HEAD, "kv"), (HEAD, "q")):
        own, biases = attention.separate(prefix, at, names)
        yield from attention.vector_kinds(at, own, biases if d.qkv_bias else {})
        turned = names.replace("v", "")
        if d.head_norms:
            weights = f"{prefix}.{turned}_norm.weight"
            yield from head_norms.rms_head_norm_kinds(at, turned, weights, c.rms_norm_eps, d.gain)
        turns = [[*rotated_kinds(at, turned, rotary, d.normed)] for rotary in d.rotaries]
        yield from by_layer(turns, [d.rotaries.index(d.rotary(layer)) for layer in layers])
    scale = d.score_scale or 1 / sqrt(c.head_dim)
    scored = [
        [*attention.shared_attention_kinds("rot_q", "rot_k", scale, window=window, cap=d.score_cap)]
        for window in windows
    ]
    yield from by_layer(scored, choices)
    yield from attention.projection_kinds(
        f"{prefix}.o_proj.weight: j i", f"{prefix}.o_proj.bias" if d.out_bias else None
    )


def _layer_weights(d: Decoder) -> Iterator[Tensor]:
    names = [weight(f"{name}.weight", "C", "rms_norm") for name in d.norm_names(_W).values()]
    yield names[0]
    for n, rows, part in (("q", "HA", "query"), ("k", "GA", "key"), ("v", "GA", "value"), ("o", "C", "output")):
        yield weight(f"{_W}.self_attn.{n}_proj.weight", f"{rows} {'HA' if n == 'o' else 'C'}", part)
        if d.out_bias if n == "o" else d.qkv_bias:
            yield weight(f"{_W}.self_attn.{n}_proj.bias", rows, "biases")
    for n in "qk" if d.head_norms else "":
        yield weight(f"{_W}.self_attn.{n}_norm.weight", "A", "rms_norm")
    yield from names[1:]
    yield from mlp.gated_mlp_weights(f"{_W}.mlp", d.mlp_bias)


def _unembedding(d: Decoder) -> Section:
    tied = "model.embed_tokens.weight" if d.config.tie_word_embeddings else None
    capped, epsilon = d.logit_cap is not None, d.config.rms_norm_eps
    return Section(
        "unembedding",
        weights=(
            weight("model.norm.weight", "C", "rms_norm"),
            weight("lm_head.weight", "V C", "unembedding", table=True, alias_of=tied),
        ),
        values=(*norms.rms_norm_values("ln_final"), *prediction.prediction_values(capped=capped)),
        kinds=(
            *norms.rms_norm_kinds("ln_final", RESIDUAL, "model.norm", epsilon, "ln_final", d.gain),
            *prediction.prediction_kinds("lm_head.weight", cap=d.logit_cap),
        ),
        shelves=norms.rms_norm_shelves("ln_final", "top + 2*m")
        | prediction.prediction_shelves("ln_final_out", capped=capped),
    )
