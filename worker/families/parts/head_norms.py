"""Layer norms of each head's queries and keys, with one gain and shift for all heads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from worker.describe.blocks import Kind, Tensor
from worker.describe.formula import Formula
from worker.describe.operations import Parameters
from worker.families.parts.attention import DEPTHS, MEMBERS
from worker.families.parts.notation import ATTENTION, HEAD, LAYER, beside, kind, read, value
from worker.families.parts.stream import Tensors

if TYPE_CHECKING:
    from worker.engine.numpy_engine import Engine

_AT = f"{LAYER}.attn"
OUT = "_norm.out"  # the end of the names of normed queries and keys


def head_norm_values() -> Iterator[Tensor]:
    """Yield the values of the norms of queries and keys."""
    for n, heads in (("q", "H"), ("k", "G")):
        for part in ("mean", "scale"):
            yield value(f"{_AT}.{n}_norm.{part}", f"B T {heads} 1", "statistic")
        yield value(f"{_AT}.{n}_norm.out", f"B T {heads} A")


def head_norm_kinds(at: str, n: str, epsilon: float) -> Iterator[Kind]:
    """Yield the blocks of the norm of the queries ("q") or keys ("k") of each head (`at` is HEAD or KV_HEAD)."""
    norm, own, index, depth = f"{at}.{n}_norm", f"{_AT}.{n}_norm", f"k i {MEMBERS[at]}", DEPTHS[n]
    mean = Formula("mean", (read(f"{at}.{n}", "i s k"),), "A")
    deviations = (read(f"{at}.{n}", "i s k"), read(f"{norm}.mean", "i 0 k"))
    scale = Formula("norm_scale", deviations, "A", Parameters(epsilon=epsilon))
    out = Formula("layer_norm", (
        read(f"{at}.{n}", "i j k"), read(f"{norm}.mean", "i 0 k"), read(f"{norm}.scale", "i 0 k"),
        read(f"{own}.weight", "0 j 0"), read(f"{own}.bias", "0 j 0"),
    ))  # fmt: skip
    for part, formula in (("mean", mean), ("scale", scale)):
        yield kind(f"{norm}.{part}", "LN Agg: μ, σ" if part == "mean" else "", "statistic", "T 1 B",
                   f"{own}.{part}: {index} 0", ATTENTION, f"{n}_norm_{part}", formula, minor=True, depth=depth,
                   stacked=True)  # fmt: skip
    yield kind(f"{norm}.out", "Layer Norm", "activation", "T A B", f"{own}.out: {index} j", ATTENTION, f"{n}_norm_out",
               out, depth=depth, stacked=True)  # fmt: skip


def head_norm_gain_kinds(queries: str, keys: str) -> Iterator[Kind]:
    """Yield the gains and shifts, to the left of the normed queries and keys; `queries` and `keys` are layer norms."""
    left = f"{HEAD}.q_norm.out"
    for n, weights in (("q", queries), ("k", keys)):
        for part, name in (("weight", "γ"), ("bias", "β")):
            id = f"{_AT}.{n}_norm.{part}"
            yield kind(id, name, "weight", "1 A 1", f"{weights}.{part}: j", beside(left), f"{n}_norm_out", minor=True)
            left = id


def head_norm_shelves(top: str) -> dict[str, str]:
    """Return the shelves of the norms, which end with `end_of_norms`; keys are below queries if layers have columns."""
    return {
        "q_norm_mean": top,
        "q_norm_scale": "q_norm_mean + s",
        "q_norm_out": "q_norm_scale + s + m",
        "k_norm_mean": "q_norm_mean + (A*s + 2*s + 2*m)*deep",
        "k_norm_scale": "k_norm_mean + s",
        "k_norm_out": "k_norm_scale + s + m",
        "end_of_norms": "k_norm_out + A*s",
    }


def head_norms(engine: Engine, queries: str, keys: str, epsilon: float, new: Tensors, layer: str) -> None:
    """Compute the norms of a layer's queries and keys."""
    for n, weights in (("q", queries), ("k", keys)):
        names = (n, *(f"{n}_norm.{part}" for part in ("mean", "scale", "out")))
        x, mean, scale, out = (_of_all_heads(new[f"{layer}.attn.{name}"]) for name in names)
        engine.layer_norm(x, weights, epsilon, mean, scale, out)


def _of_all_heads(x: NDArray[Any]) -> NDArray[Any]:
    """[B, n, H, A] -> [B, nH, A], a view."""
    return x.reshape(len(x), -1, x.shape[-1])
