"""Rotary positions (Su et al. 2021, arXiv:2104.09864)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from worker.describe.blocks import Kind, Tensor
from worker.describe.formula import Formula
from worker.describe.operations import Parameters
from worker.describe.rotary import RotaryScaling, frequencies
from worker.families.parts.attention import DEPTHS, MEMBERS
from worker.families.parts.notation import ASIDE, ATTENTION, LAYER, kind, read, value
from worker.families.parts.stream import Tensors

if TYPE_CHECKING:
    from worker.engine.numpy_engine import Engine


@dataclass(frozen=True)
class Rotary:
    """The rotation of the first `width` channels of a head: pair p turns by `base`^(−2p / width) at each position."""

    base: float
    width: int
    pairs: str = "halves"
    scaling: RotaryScaling | None = None
    name: str = "rotary"  # of its values


def partial_width_error(field: str, share: float, head_dim: int) -> dict[str, str]:
    """Return the error of a field that is the rotated share of a head, unless it gives pairs of channels."""
    width = int(head_dim * share)
    if width and width % 2 == 0:
        return {}
    wrong = f"it gives {width} of {head_dim} channels"
    return {field: f"{share:g} is not allowed: {wrong}; must be an even number above 0, as pairs are rotated."}


def rotary_values(name: str = "rotary") -> tuple[Tensor, ...]:
    """Return the cosines and sines of the angles."""
    return tuple(value(f"{name}.{wave}", "1 T A", "statistic") for wave in ("cos", "sin"))


def rotary_kinds(rotary: Rotary, cos_shelf: str, sin_shelf: str) -> Iterator[Kind]:
    """Yield the blocks of the cosines and sines."""
    angles = Parameters(base=rotary.base, pairs=rotary.pairs, width=rotary.width, scaling=rotary.scaling)
    name = rotary.name
    for wave, shelf in (("cos", cos_shelf), ("sin", sin_shelf)):
        formula = Formula("rotary", parameters=replace(angles, function=wave))
        yield kind(f"{name}.{wave}", f"Rotary {wave}", "statistic", "T A 1", f"{name}.{wave}: 0 i j", ASIDE, shelf,
                   formula)  # fmt: skip


def rotated_kinds(at: str, names: str, rotary: Rotary, suffix: str = "") -> Iterator[Kind]:
    """Yield the rotated vectors ("q", "k") of each head (`at` is HEAD) or key/value head (KV_HEAD); `suffix` is that of
    the vectors they are computed from.
    """
    for n in names:
        waves = (read(f"{rotary.name}.{wave}", "i j 0") for wave in ("cos", "sin"))
        inputs = (read(f"{at}.{n}{suffix}", "i s k"), *waves)
        rotate = Formula("rotate", inputs, "A", Parameters(pairs=rotary.pairs, width=rotary.width))
        tensor = f"{LAYER}.attn.rot_{n}: k i {MEMBERS[at]} j"
        yield kind(f"{at}.rot_{n}", f"Rotated {n.upper()}", "activation", "T A B", tensor, ATTENTION, f"rot_{n}",
                   rotate, depth=DEPTHS[n], stacked=True)  # fmt: skip


def fill_rotary(rotary: Rotary, rows: slice, new: Tensors) -> None:
    """Compute the cosine and sine [1, n, A] of the angles of the positions `rows`."""
    cos, sin = (new[f"{rotary.name}.{wave}"] for wave in ("cos", "sin"))
    of_channels = np.zeros(cos.shape[-1])  # those of channels that are not rotated stay 0
    of_pairs = frequencies(rotary.base, rotary.width, np.arange(rotary.width // 2), rotary.scaling)
    of_channels[: rotary.width] = np.tile(of_pairs, 2) if rotary.pairs == "halves" else np.repeat(of_pairs, 2)
    angles = np.multiply.outer(np.arange(rows.start, rows.stop), of_channels)
    factors = np.ones(cos.shape[-1])
    factors[: rotary.width] = (rotary.scaling and rotary.scaling.attention_factor) or 1.0
    cos[:] = np.cos(angles) * factors
    sin[:] = np.sin(angles) * factors


def rotate(engine: Engine, rotary: Rotary, layer: str, new: Tensors, suffix: str = "") -> None:
    """Compute a layer's rotated queries and keys; `suffix` is that of the values they are computed from."""
    cos, sin = (new[f"{rotary.name}.{wave}"] for wave in ("cos", "sin"))
    for n in "qk":
        x, out = new[f"{layer}.attn.{n}{suffix}"], new[f"{layer}.attn.rot_{n}"]
        engine.rotate(x, cos, sin, out, rotary.pairs, rotary.width)
