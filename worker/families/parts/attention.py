"""Attention: queries, keys and values, scores, and the projection of the heads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from worker.describe.blocks import Depth, Kind, Part, Spot, Tensor
from worker.describe.formula import Formula, Input
from worker.describe.operations import Parameters
from worker.families.parts.notation import (
    ATTENTION,
    HEAD,
    KV_HEAD,
    LAYER,
    Inputs,
    beside,
    kind,
    read,
    read_if,
    value,
)
from worker.families.parts.stream import Tensors

if TYPE_CHECKING:
    from worker.engine.numpy_engine import Engine

_PARTS: Mapping[str, Part] = {"q": "query", "k": "key", "v": "value"}
DEPTHS: Mapping[str, Depth] = {"q": "front", "k": "middle", "v": "back"}
MEMBERS: Mapping[str, str] = {HEAD: "h", KV_HEAD: "g"}  # the letter of a head's number in an index

_AT = f"{LAYER}.attn"


# ------------------------------------------------------------------------------------------ queries, keys, values


def separate(prefix: str, at: str, names: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return the "tensor: index" of the weights and of the biases of each vector of a head, for `vector_kinds`, where
    queries, keys and values have a linear layer each, `{prefix}.q_proj` and so on, stored (out, in).
    """
    rows = f"j+{MEMBERS[at]}*A"
    return (
        {n: f"{prefix}.{n}_proj.weight: {rows} i" for n in names},
        {n: f"{prefix}.{n}_proj.bias: {rows}" for n in names},
    )


def fused(name: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return the same where one linear layer has queries, keys and values, head by head: its rows are [H, 3, A]."""
    rows = {n: f"j+{number}*A+3*h*A" for number, n in enumerate("qkv")}
    return (
        {n: f"{name}.weight: {row} i" for n, row in rows.items()},
        {n: f"{name}.bias: {row}" for n, row in rows.items()},
    )


def vector_kinds(
    at: str, weights: Mapping[str, str], biases: Mapping[str, str], source: str = f"{LAYER}.ln1.out"
) -> Iterator[Kind]:
    """Yield the vectors of each head (`at` is HEAD) or key/value head (KV_HEAD), with their weights and biases.

    They are computed from the block `source`. `weights` and `biases` are the "tensor: index" of each vector ("q", "k",
    "v"): a weight's cell (i, j) is from channel i of the source to channel j of the vector, a bias's cell is (0, j).
    """
    for n, tensor in weights.items():
        yield kind(f"{at}.{n}_weight", f"{n.upper()} Weights", "weight", "C A 1", tensor, beside(f"{at}.{n}"), n,
                   depth=DEPTHS[n], stacked=True)  # fmt: skip
    for n in weights:
        dot: Inputs = (read(f"{at}.{n}_weight", "s j 0"), read(source, "i s k"))
        dot += read_if(n in biases, f"{at}.{n}_bias", "0 j 0")
        yield kind(f"{at}.{n}", f"{n.upper()} vectors", "activation", "T A B", f"{_AT}.{n}: k i {MEMBERS[at]} j",
                   ATTENTION, n, Formula("dot", dot, "C"), part=_PARTS[n], depth=DEPTHS[n], stacked=True)  # fmt: skip
    for n, tensor in biases.items():
        yield kind(f"{at}.{n}_bias", f"{n.upper()} Bias", "weight", "1 A 1", tensor, beside(f"{at}.{n}_weight"), "q",
                   minor=True, depth=DEPTHS[n])  # fmt: skip


def vector_values(*, rotated: bool = False) -> tuple[Tensor, ...]:
    """Return the queries, keys and values; keys and values of a group of heads, of which each head may be one."""
    names = ("q", "k", "v", *(("rot_q", "rot_k") if rotated else ()))
    later = ("v", "rot_k" if rotated else "k")
    return tuple(value(f"{_AT}.{n}", f"B T {'H' if n.endswith('q') else 'G'} A", read_later=n in later) for n in names)


# ----------------------------------------------------------------------------------------------------- scores to z


def attention_values(*, capped: bool = False) -> tuple[Tensor, ...]:
    """Return the values of attention, from scores to z."""
    return (
        *((value(f"{_AT}.uncapped_scores", "B H T T", is_masked=True),) if capped else ()),
        value(f"{_AT}.scores", "B H T T", landmark="scores", is_masked=True),
        value(f"{_AT}.scores_max", "B H T", "statistic"),
        value(f"{_AT}.scores_sum", "B H T", "statistic"),
        value(f"{_AT}.pattern", "B H T T", landmark="pattern"),
        value(f"{_AT}.z", "B T H A"),
    )


def attention_kinds(
    query: Input, key: Input, v: Input, scale: float, slope: Inputs = (), *, window: int | None = None,
    cap: float | None = None,
) -> Iterator[Kind]:  # fmt: skip
    """Yield the blocks of a head, from scores to z; `query`, `key` and `v` are its inputs, `slope` that of ALiBi.

    `window`: the number of keys that a query sees, up to its own. `cap`: the soft cap of scores.
    """
    mask = Parameters(mask="causal" if window is None else "window", window=window)
    parameters = replace(mask, scale=scale, bias="distance" if slope else None)
    scores = Formula("dot", (query, key, *slope), "A", parameters)
    if cap is not None:
        yield kind(f"{HEAD}.uncapped_scores", "Scores before the Cap", "activation", "T T B",
                   f"{_AT}.uncapped_scores: k h j i", ATTENTION, "uncapped_scores", scores)  # fmt: skip
        scores = Formula("softcap", (read(f"{HEAD}.uncapped_scores", "i j k"),), parameters=replace(mask, cap=cap))
    total = Formula("sum_exp", (read(f"{HEAD}.scores", "s j k"), read(f"{HEAD}.scores_max", "0 j k")), "T")
    largest = Formula("max", (read(f"{HEAD}.scores", "s j k"),), "T")
    pattern = Formula(
        "softmax",
        (read(f"{HEAD}.scores", "i j k"), read(f"{HEAD}.scores_max", "0 j k"), read(f"{HEAD}.scores_sum", "0 j k")),
    )
    z = Formula("dot", (read(f"{HEAD}.pattern", "s i k"), v), "T")
    yield kind(f"{HEAD}.scores", "Attention Matrix", "activation", "T T B", f"{_AT}.scores: k h j i", ATTENTION,
               "scores", scores, part="scores")  # fmt: skip
    yield kind(f"{HEAD}.scores_sum", "", "statistic", "1 T B", f"{_AT}.scores_sum: k h j",
               beside(f"{HEAD}.scores_max", 0), "scores", total, minor=True)  # fmt: skip
    yield kind(f"{HEAD}.scores_max", "", "statistic", "1 T B", f"{_AT}.scores_max: k h j", beside(f"{HEAD}.scores"),
               "scores", largest, minor=True)  # fmt: skip
    yield kind(f"{HEAD}.pattern", "Attn Matrix Softmax", "activation", "T T B", f"{_AT}.pattern: k h j i",
               Spot("attention", "right", "T+2", 2), "scores", pattern, part="pattern")  # fmt: skip
    yield kind(f"{HEAD}.z", "V Output", "activation", "T A B", f"{_AT}.z: k i h j", ATTENTION, "z", z, part="mixed")


def shared_attention_kinds(
    query: str, key: str, scale: float, *, window: int | None = None, cap: float | None = None
) -> Iterator[Kind]:
    """Yield the same where the heads of a group share keys and values; `query` and `key` are "q" and "k", or the kinds
    that are computed from them.
    """
    return attention_kinds(
        read(f"{HEAD}.{query}", "j s k"),
        read(f"{KV_HEAD}.{key}", "i s k", member="h//R"),
        read(f"{KV_HEAD}.v", "s j k", member="h//R"),
        scale,
        window=window,
        cap=cap,
    )


def attention_shelves(
    top: str, *, rotated: bool, normed: Mapping[str, str] = MappingProxyType({}), capped: bool = False
) -> dict[str, str]:
    """Return the shelves of attention, from queries to z; `end_of_z` is below.

    `normed` are those of norms of heads. `capped`: with scores before and after a soft cap.
    """
    vectors = {
        "q": top,
        "k": "q + A*s*deep",  # several columns of layers: below each other, to save depth
        "v": "k + A*s*deep",
    }
    end = "end_of_norms" if normed else "v + A*s"
    turned = {"rot_q": f"{end} + m", "rot_k": "rot_q + A*s*deep"} if rotated else {}
    first = f"{'rot_k' if rotated else 'v'} + A*s + m"
    scores = {"uncapped_scores": first, "scores": "uncapped_scores + T*s + m"} if capped else {"scores": first}
    return vectors | dict(normed) | turned | scores | {
        "z": "scores + T*s + m",
        "end_of_z": "max(z + A*s + 2*m, q + C*s + m)",
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------------ projection


def projection_kinds(weight: str, bias: str | None) -> Iterator[Kind]:
    """Yield the blocks of the projection of all heads; `weight` is "tensor: index" of [HA, C], `bias` a tensor [C]."""
    dot: Inputs = (read(f"{_AT}.out_weight", "s+h*A j 0", each="head"), read(f"{HEAD}.z", "i s k", each="head"))
    dot += read_if(bias, f"{_AT}.out_bias", "0 j 0")
    out = f"{LAYER}.attn_out"
    yield kind(f"{_AT}.out_weight", "Projection Weights", "weight", "HA C 1", weight, beside(out), "attn_out")
    if bias:
        yield kind(f"{_AT}.out_bias", "Projection Bias", "weight", "1 C 1", f"{bias}: j", beside(f"{_AT}.out_weight"),
                   "attn_out", minor=True)  # fmt: skip
    yield kind(out, "Attention Output", "activation", "T C B", f"{out}: k i j", ATTENTION, "attn_out",
               Formula("dot", dot, "A"), part="attention_out")  # fmt: skip


# ---------------------------------------------------------------------------------------------------- forward pass


def project_fused(engine: Engine, x: NDArray[Any], name: str, new: Tensors, layer: str, biased: bool) -> None:
    """Compute a layer's queries, keys and values from x [B, n, C] where one linear layer has them, head by head."""
    q, k, v = (new[f"{layer}.attn.{n}"] for n in "qkv")  # [B, n, H, A]
    outs = (part[:, :, head] for head in range(q.shape[2]) for part in (q, k, v))
    engine.project(x, name, *outs, bias=biased)


def attend(
    engine: Engine, rows: slice, a: Tensors, layer: str, query: str = "q", key: str = "k",
    slopes: NDArray[Any] | None = None, *, scale: float | None = None, window: int | None = None,
    cap: float | None = None,
) -> None:  # fmt: skip
    """Compute the positions `rows` of a layer's values from scores to z; `slopes` [H] are those of ALiBi."""
    names = (query, key, "v", "scores", "scores_max", "scores_sum", "pattern", "z")
    q, k, v, scores, largest, total, pattern, z = (a[f"{layer}.attn.{name}"] for name in names)
    uncapped = None if cap is None else a[f"{layer}.attn.uncapped_scores"]
    engine.attention(
        rows, q, k, v, scores, largest, total, pattern, z, slopes, scale=scale, window=window, cap=cap,
        uncapped=uncapped,
    )  # fmt: skip
