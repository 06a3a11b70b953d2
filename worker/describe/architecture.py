"""The one description of a GPT: its tensors and its blocks, and how each block's cells are computed.

The forward pass, the layouts, the counts, the catalogues and the explanations all read it; a new
architecture is a new description. Sizes are letters, as in the papers:

    B batch, T positions, C width (n_embd), H heads, A width of a head (d_head), HA = H·A,
    F width of the MLP (n_inner), V vocabulary, N positions there could be (n_positions)

A block is a box of cells (i, j, k): i to the right, j down, k toward the viewer. Where its values lie, and which
cells of other blocks make them, is said by index expressions, one per axis: sums of products of i, j, k, the summed
index s, the head h, numbers and sizes. "k i h j" says that cell (i, j, k) is element [k, i, h, j] of the tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

from worker.families.config import Config

Role = Literal["weight", "activation", "statistic"]
Scope = Literal["model", "layer", "head"]
Sizes = Mapping[str, int]

LAYER, HEAD = "{layer}", "{head}"


def sizes(config: Config, tokens: int | None = None, batch: int = 1) -> dict[str, int]:
    """What each letter stands for in `config`, for `tokens` positions (all there are, by default)."""
    c = config
    return {
        "B": batch, "T": c.n_positions if tokens is None else tokens, "C": c.n_embd, "H": c.n_head, "A": c.d_head,
        "HA": c.n_head * c.d_head, "3HA": 3 * c.n_head * c.d_head, "F": c.n_inner, "V": c.vocab_size,
        "N": c.n_positions, "1": 1,
    }  # fmt: skip


@dataclass(frozen=True)
class Tensor:
    """A weight, activation or statistic: its name (with `{layer}` where there is one a layer) and its axes."""

    name: str
    dims: tuple[str, ...]
    role: Role
    parts: tuple[str, ...] = ()  # of a weight: what it counts as, in equal shares
    dtype: str = "float32"

    @property
    def scope(self) -> Scope:
        return "layer" if LAYER in self.name else "model"

    def shape(self, sizes: Sizes) -> tuple[int, ...]:
        return tuple(sizes[dim] for dim in self.dims)


@dataclass(frozen=True)
class Index:
    """One index expression an axis, e.g. "i j+h*A"."""

    text: str

    def __post_init__(self) -> None:
        for axis in self.text.split():
            for term in axis.split("+"):
                if sum(factor in "ijks" for factor in term.split("*")) > 1:
                    raise ValueError(f"index {self.text!r}: the term {term!r} is not linear in i, j, k, s")

    def rows(self, sizes: Sizes, head: int = 0, *, summed: bool = False) -> list[list[int]]:
        """A row [a, b, c, d] an axis: a·i + b·j + c·k + d; with `summed`, [a, b, c, e, d], e being that of s."""
        return [self._row(axis, sizes, head, "ijks" if summed else "ijk") for axis in self.text.split()]

    @staticmethod
    def _row(axis: str, sizes: Sizes, head: int, variables: str) -> list[int]:
        row = [0] * (len(variables) + 1)
        for term in axis.split("+"):
            coefficient, column = 1, -1
            for factor in term.split("*"):
                if factor in variables:
                    column = variables.index(factor)
                elif factor == "h":
                    coefficient *= head
                else:
                    coefficient *= int(factor) if factor.isdigit() else sizes[factor]
            row[column] += coefficient
        return row


@dataclass(frozen=True)
class Input:
    """The cells of another block that a formula reads. `each_head`: once for every head of the layer."""

    block: str
    index: Index
    each_head: bool = False


@dataclass(frozen=True)
class Formula:
    """How a cell (i, j, k) is made from cells of other blocks; x, y, … are the inputs in their order.

    input       given by the request
    embed       y(s) + z, s being the value of x
    mean        (1/over) Σ_s x
    norm_scale  √((1/over) Σ_s (x − y)² + layer_norm_epsilon)
    layer_norm  (x − y) / z · weight + bias
    dot         scale · Σ_s x·y, for every pair of inputs, plus the input left over; −inf where masked
    max         max_s x
    sum_exp     Σ_s exp(x − y)
    softmax     exp(x − y) / z
    add         x + y
    activation  the configuration's activation_function of x
    """

    op: str
    inputs: tuple[Input, ...] = ()
    over: str | None = None
    causal: bool = False  # masked where i > j, and divided by √d_head: attention's scores


@dataclass(frozen=True)
class Kind:
    """A kind of block: one in the model, one a layer or one a head, as its id pattern says."""

    id: str
    name: str
    role: Role
    cells: tuple[str, str, str]
    tensor: str | None
    index: Index
    formula: Formula | None = None
    minor: bool = False  # small enough to leave out of a picture of a large model

    @property
    def scope(self) -> Scope:
        return "head" if HEAD in self.id else "layer" if LAYER in self.id else "model"


# ---------------------------------------------------------------------------------------------------- tensors


def _weight(name: str, dims: str, *parts: str) -> Tensor:
    return Tensor(name, tuple(dims.split()), "weight", parts)


def _norm_weights(name: str) -> tuple[Tensor, Tensor]:
    return _weight(f"{name}.weight", "C", "layer_norm"), _weight(f"{name}.bias", "C", "layer_norm")


#: Every weight, under Hugging Face's GPT-2 names (without `transformer.`), linear ones stored (in, out).
WEIGHTS: tuple[Tensor, ...] = (
    _weight("wte.weight", "V C", "embedding"),
    _weight("wpe.weight", "N C", "position"),
    *_norm_weights("h.{layer}.ln_1"),
    _weight("h.{layer}.attn.c_attn.weight", "C 3HA", "query", "key", "value"),
    _weight("h.{layer}.attn.c_attn.bias", "3HA", "biases"),
    _weight("h.{layer}.attn.c_proj.weight", "HA C", "output"),
    _weight("h.{layer}.attn.c_proj.bias", "C", "biases"),
    *_norm_weights("h.{layer}.ln_2"),
    _weight("h.{layer}.mlp.c_fc.weight", "C F", "up_projection"),
    _weight("h.{layer}.mlp.c_fc.bias", "F", "biases"),
    _weight("h.{layer}.mlp.c_proj.weight", "F C", "down_projection"),
    _weight("h.{layer}.mlp.c_proj.bias", "C", "biases"),
    *_norm_weights("ln_f"),
    _weight("lm_head.weight", "V C", "unembedding"),  # the same values as wte.weight when the head is tied
)


def _value(name: str, dims: str, role: Role = "activation", dtype: str = "float32") -> Tensor:
    return Tensor(name, tuple(dims.split()), role, dtype=dtype)


def _norm_values(name: str) -> tuple[Tensor, ...]:
    return (
        _value(f"{name}.mean", "B T 1", "statistic"),
        _value(f"{name}.scale", "B T 1", "statistic"),
        _value(f"{name}.out", "B T C"),
    )


#: Everything a trace holds, in order of computation, under TransformerLens's names.
VALUES: tuple[Tensor, ...] = (
    _value("tokens", "B T", dtype="int32"),
    _value("embed", "B T C"),
    _value("pos_embed", "B T C"),
    _value("blocks.{layer}.resid_pre", "B T C"),
    *_norm_values("blocks.{layer}.ln1"),
    _value("blocks.{layer}.attn.q", "B T H A"),
    _value("blocks.{layer}.attn.k", "B T H A"),
    _value("blocks.{layer}.attn.v", "B T H A"),
    _value("blocks.{layer}.attn.scores", "B H T T"),
    _value("blocks.{layer}.attn.scores_max", "B H T", "statistic"),
    _value("blocks.{layer}.attn.scores_sum", "B H T", "statistic"),
    _value("blocks.{layer}.attn.pattern", "B H T T"),
    _value("blocks.{layer}.attn.z", "B T H A"),
    _value("blocks.{layer}.attn_out", "B T C"),
    _value("blocks.{layer}.resid_mid", "B T C"),
    *_norm_values("blocks.{layer}.ln2"),
    _value("blocks.{layer}.mlp.pre", "B T F"),
    _value("blocks.{layer}.mlp.post", "B T F"),
    _value("blocks.{layer}.mlp_out", "B T C"),
    _value("blocks.{layer}.resid_post", "B T C"),
    *_norm_values("ln_final"),
    _value("logits", "B T V"),
    _value("logits_max", "B T", "statistic"),
    _value("logits_sum", "B T", "statistic"),
    _value("probs", "B T V"),
)


def expand(tensors: tuple[Tensor, ...], n_layer: int) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a model of `n_layer` layers by name, in the order of the table, layer after layer."""
    layered = [tensor for tensor in tensors if tensor.scope == "layer"]
    first = tensors.index(layered[0])
    yield from ((tensor.name, tensor) for tensor in tensors[:first])
    for layer in range(n_layer):
        yield from ((tensor.name.replace(LAYER, str(layer)), tensor) for tensor in layered)
    yield from ((tensor.name, tensor) for tensor in tensors[first:] if tensor.scope != "layer")


def value_name(name: str) -> str:
    """A value's name from ours or from TransformerLens's (`blocks.0.attn.hook_q`), patterns included.

    Its `hook_normalized` is the whole output of a norm, and its `hook_attn_scores` are masked, as ours are.
    """
    for theirs, ours in {"hook_attn_scores": "scores", "hook_normalized": "out", "hook_": ""}.items():
        name = name.replace(theirs, ours)
    return name


# ----------------------------------------------------------------------------------------------------- blocks


def _in(block: str, index: str, *, each_head: bool = False) -> Input:
    return Input(block, Index(index), each_head)


def _kind(
    id: str, name: str, role: Role, cells: str, at: str, formula: Formula | None = None, *, minor: bool = False
) -> Kind:
    tensor, _, index = at.partition(": ")
    i, j, k = cells.split()
    return Kind(id, name, role, (i, j, k), tensor, Index(index), formula, minor)


def _norm(id: str, source: str, weights: str) -> tuple[Kind, ...]:
    mean = Formula("mean", (_in(source, "i s k"),), "C")
    scale = Formula("norm_scale", (_in(source, "i s k"), _in(f"{id}.mean", "i 0 k")), "C")
    out = Formula(
        "layer_norm",
        (_in(source, "i j k"), _in(f"{id}.mean", "i 0 k"), _in(f"{id}.scale", "i 0 k"),
         _in(f"{id}.weight", "0 j 0"), _in(f"{id}.bias", "0 j 0")),
    )  # fmt: skip
    return (
        _kind(f"{id}.mean", "LN Agg: μ, σ", "statistic", "T 1 B", f"{id}.mean: k i 0", mean, minor=True),
        _kind(f"{id}.scale", "", "statistic", "T 1 B", f"{id}.scale: k i 0", scale, minor=True),
        _kind(f"{id}.weight", "γ", "weight", "1 C 1", f"{weights}.weight: j", minor=True),
        _kind(f"{id}.bias", "β", "weight", "1 C 1", f"{weights}.bias: j", minor=True),
        _kind(f"{id}.out", "Layer Norm", "activation", "T C B", f"{id}.out: k i j", out),
    )


_L = "blocks.{layer}"
_A = _L + ".attn.heads.{head}"
_W = "h.{layer}"
RESIDUAL_IN = "{residual_in}"  # the residual stream that enters the layer, or the final norm


def _qkv() -> Iterator[Kind]:
    offsets = {"q": "h*A", "k": "HA+h*A", "v": "2*HA+h*A"}
    for n, at in offsets.items():
        yield _kind(f"{_A}.{n}_weight", f"{n.upper()} Weights", "weight", "C A 1", f"{_W}.attn.c_attn.weight: i j+{at}")
    for n in offsets:
        dot = (_in(f"{_A}.{n}_weight", "s j 0"), _in(f"{_L}.ln1.out", "i s k"), _in(f"{_A}.{n}_bias", "0 j 0"))
        at = f"{_L}.attn.{n}: k i h j"
        yield _kind(f"{_A}.{n}", f"{n.upper()} vectors", "activation", "T A B", at, Formula("dot", dot, "C"))
    for n, at in offsets.items():
        at = f"{_W}.attn.c_attn.bias: j+{at}"
        yield _kind(f"{_A}.{n}_bias", f"{n.upper()} Bias", "weight", "1 A 1", at, minor=True)


def _attention() -> Iterator[Kind]:
    scores = Formula("dot", (_in(f"{_A}.q", "j s k"), _in(f"{_A}.k", "i s k")), "A", causal=True)
    total = Formula("sum_exp", (_in(f"{_A}.scores", "s j k"), _in(f"{_A}.scores_max", "0 j k")), "T")
    largest = Formula("max", (_in(f"{_A}.scores", "s j k"),), "T")
    pattern = Formula(
        "softmax",
        (_in(f"{_A}.scores", "i j k"), _in(f"{_A}.scores_max", "0 j k"), _in(f"{_A}.scores_sum", "0 j k")),
    )
    z = Formula("dot", (_in(f"{_A}.pattern", "s i k"), _in(f"{_A}.v", "s j k")), "T")
    at = f"{_L}.attn"
    yield _kind(f"{_A}.scores", "Attention Matrix", "activation", "T T B", f"{at}.scores: k h j i", scores)
    yield _kind(f"{_A}.scores_sum", "", "statistic", "1 T B", f"{at}.scores_sum: k h j", total, minor=True)
    yield _kind(f"{_A}.scores_max", "", "statistic", "1 T B", f"{at}.scores_max: k h j", largest, minor=True)
    yield _kind(f"{_A}.pattern", "Attn Matrix Softmax", "activation", "T T B", f"{at}.pattern: k h j i", pattern)
    yield _kind(f"{_A}.z", "V Output", "activation", "T A B", f"{at}.z: k i h j", z)


def _projection() -> Iterator[Kind]:
    dot = Formula(
        "dot",
        (_in(f"{_L}.attn.out_weight", "s+h*A j 0", each_head=True), _in(f"{_A}.z", "i s k", each_head=True),
         _in(f"{_L}.attn.out_bias", "0 j 0")),
        "A",
    )  # fmt: skip
    add = Formula("add", (_in(f"{_L}.attn_out", "i j k"), _in(RESIDUAL_IN, "i j k")))
    weight = f"{_W}.attn.c_proj"
    yield _kind(f"{_L}.attn.out_weight", "Projection Weights", "weight", "HA C 1", f"{weight}.weight: i j")
    yield _kind(f"{_L}.attn.out_bias", "Projection Bias", "weight", "1 C 1", f"{weight}.bias: j", minor=True)
    yield _kind(f"{_L}.attn_out", "Attention Output", "activation", "T C B", f"{_L}.attn_out: k i j", dot)
    yield _kind(f"{_L}.resid_mid", "Attention Residual", "activation", "T C B", f"{_L}.resid_mid: k i j", add)


def _mlp() -> Iterator[Kind]:
    up = (_in(f"{_L}.mlp.in_weight", "i s 0"), _in(f"{_L}.ln2.out", "j s k"), _in(f"{_L}.mlp.in_bias", "i 0 0"))
    down = (_in(f"{_L}.mlp.out_weight", "s j 0"), _in(f"{_L}.mlp.post", "s i k"), _in(f"{_L}.mlp.out_bias", "0 j 0"))
    act = Formula("activation", (_in(f"{_L}.mlp.pre", "i j k"),))
    add = Formula("add", (_in(f"{_L}.mlp_out", "i j k"), _in(f"{_L}.resid_mid", "i j k")))
    at, pre, out = f"{_W}.mlp", f"{_L}.mlp.pre: k j i", f"{_L}.mlp_out: k i j"
    yield _kind(f"{_L}.mlp.in_weight", "MLP Weights", "weight", "F C 1", f"{at}.c_fc.weight: j i")
    yield _kind(f"{_L}.mlp.in_bias", "MLP Bias", "weight", "F 1 1", f"{at}.c_fc.bias: i", minor=True)
    yield _kind(f"{_L}.mlp.pre", "MLP", "activation", "F T B", pre, Formula("dot", up, "C"))
    yield _kind(f"{_L}.mlp.post", "MLP Activation", "activation", "F T B", f"{_L}.mlp.post: k j i", act)
    yield _kind(f"{_L}.mlp.out_weight", "MLP Projection Weights", "weight", "F C 1", f"{at}.c_proj.weight: i j")
    yield _kind(f"{_L}.mlp.out_bias", "MLP Projection Bias", "weight", "1 C 1", f"{at}.c_proj.bias: j", minor=True)
    yield _kind(f"{_L}.mlp_out", "MLP Result", "activation", "T C B", out, Formula("dot", down, "F"))
    yield _kind(f"{_L}.resid_post", "MLP Residual", "activation", "T C B", f"{_L}.resid_post: k i j", add)


def _head() -> Iterator[Kind]:
    dot = Formula("dot", (_in("lm_head", "s j 0"), _in("ln_final.out", "i s k")), "C")
    total = Formula("sum_exp", (_in("logits", "i s k"), _in("logits_max", "i 0 k")), "V")
    largest = Formula("max", (_in("logits", "i s k"),), "V")
    softmax = (_in("logits", "i j k"), _in("logits_max", "i 0 k"), _in("logits_sum", "i 0 k"))
    yield _kind("lm_head", "LM Head Weights", "weight", "C V 1", "lm_head.weight: j i")
    yield _kind("logits", "Logits", "activation", "T V B", "logits: k i j", dot)
    yield _kind("logits_sum", "", "statistic", "T 1 B", "logits_sum: k i", total)
    yield _kind("logits_max", "SM Agg", "statistic", "T 1 B", "logits_max: k i", largest)
    yield _kind("probs", "Logits Softmax", "activation", "T V B", "probs: k i j", Formula("softmax", softmax))


_EMBED = Formula("embed", (_in("tokens", "i 0 k"), _in("wte", "s j 0"), _in("wpe", "i j 0")))

#: Every kind of block, in the order of a model's blocks: those of a layer repeat, those of a head within it.
EMBEDDING: tuple[Kind, ...] = (
    _kind("tokens", "Tokens", "activation", "T 1 B", "tokens: k i", Formula("input")),
    _kind("wte", "Token Embed", "weight", "V C 1", "wte.weight: i j"),
    _kind("wpe", "Position Embed", "weight", "T C 1", "wpe.weight: i j"),
    _kind("embedding", "Input Embed", "activation", "T C B", "blocks.0.resid_pre: k i j", _EMBED),
)
LAYER_NORM_1: tuple[Kind, ...] = _norm(f"{_L}.ln1", RESIDUAL_IN, f"{_W}.ln_1")
HEADS: tuple[Kind, ...] = (*_qkv(), *_attention())
LAYER_REST: tuple[Kind, ...] = (*_projection(), *_norm(f"{_L}.ln2", f"{_L}.resid_mid", f"{_W}.ln_2"), *_mlp())
UNEMBEDDING: tuple[Kind, ...] = (*_norm("ln_final", RESIDUAL_IN, "ln_f"), *_head())
KINDS: tuple[Kind, ...] = (*EMBEDDING, *LAYER_NORM_1, *HEADS, *LAYER_REST, *UNEMBEDDING)


def block_id(pattern: str, n_layer: int, layer: int | None = None, head: int | None = None) -> str:
    """The id of one block. Without a layer, `{residual_in}` is what leaves the last of `n_layer` layers."""
    if pattern == RESIDUAL_IN:
        before = (n_layer if layer is None else layer) - 1
        return f"blocks.{before}.resid_post" if before >= 0 else "embedding"
    return pattern.replace(LAYER, str(layer)).replace(HEAD, str(head))


@cache
def kinds_by_id() -> Mapping[str, Kind]:
    """Every kind by its id pattern."""
    return {kind.id: kind for kind in KINDS}
