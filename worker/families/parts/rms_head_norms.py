"""RMS norms of each head's queries and keys, with one gain for all heads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from worker.describe.blocks import Kind, Tensor
from worker.describe.formula import Formula
from worker.describe.operations import Parameters
from worker.families.parts.attention import DEPTHS, MEMBERS
from worker.families.parts.head_norms import OUT
from worker.families.parts.norms import rms_norm
from worker.families.parts.notation import ATTENTION, LAYER, beside, kind, read, value
from worker.families.parts.stream import Tensors

if TYPE_CHECKING:
    from worker.engine.numpy_engine import Engine

_AT = f"{LAYER}.attn"


def rms_head_norm_values() -> Iterator[Tensor]:
    """Yield the values of the norms of queries and keys."""
    for n, heads in (("q", "H"), ("k", "G")):
        yield value(f"{_AT}.{n}_norm.scale", f"B T {heads} 1", "statistic")
        yield value(f"{_AT}.{n}{OUT}", f"B T {heads} A")


def rms_head_norm_kinds(at: str, n: str, weights: str, epsilon: float, offset: float | None) -> Iterator[Kind]:
    """Yield the blocks of the norm of the queries ("q") or keys ("k") of each head (`at` is HEAD or KV_HEAD).

    The gain is offset + γ; γ, the weight `weights`, is drawn to the left of the gain of the layer's first norm.
    """
    norm, own, index, depth = f"{at}.{n}_norm", f"{_AT}.{n}_norm", f"k i {MEMBERS[at]}", DEPTHS[n]
    scale = Formula("rms_scale", (read(f"{at}.{n}", "i s k"),), "A", Parameters(epsilon=epsilon))
    normed = (read(f"{at}.{n}", "i j k"), read(f"{norm}.scale", "i 0 k"), read(f"{own}.weight", "0 j 0"))
    out = Formula("rms_norm", normed, parameters=Parameters(offset=offset))
    yield kind(f"{own}.weight", "γ", "weight", "1 A 1", f"{weights}: j", beside(f"{LAYER}.ln1.weight"), f"{n}_gain",
               minor=True)  # fmt: skip
    yield kind(f"{norm}.scale", "RMS", "statistic", "T 1 B", f"{own}.scale: {index} 0", ATTENTION, f"{n}_norm_scale",
               scale, minor=True, depth=depth, stacked=True)  # fmt: skip
    yield kind(f"{norm}.out", "RMS Norm", "activation", "T A B", f"{own}.out: {index} j", ATTENTION, f"{n}_norm_out",
               out, depth=depth, stacked=True)  # fmt: skip


def rms_head_norm_shelves(gains: str, top: str) -> dict[str, str]:
    """Return the shelves of the norms, from `top` to `end_of_norms`, and of their gains, from `gains` on.

    Keys are below queries if layers have columns.
    """
    return {
        "q_gain": gains,
        "k_gain": "q_gain + A*s + m",
        "q_norm_scale": top,
        "q_norm_out": "q_norm_scale + s + m",
        "k_norm_scale": "q_norm_scale + (A*s + s + 2*m)*deep",
        "k_norm_out": "k_norm_scale + s + m",
        "end_of_norms": "k_norm_out + A*s",
    }


def rms_head_norms(
    engine: Engine, weights: str, epsilon: float, new: Tensors, layer: str, offset: float | None
) -> None:
    """Compute the norms of a layer's queries and keys, with the gains `{weights}.q_norm` and `k_norm`."""
    for n in "qk":
        vectors = new[f"{layer}.attn.{n}"]
        rms_norm(engine, vectors, f"{weights}.{n}_norm", epsilon, new, f"{layer}.attn.{n}_norm", offset)
