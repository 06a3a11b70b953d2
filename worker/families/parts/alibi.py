"""ALiBi: scores that fall with distance, at a slope of each head (Press et al. 2022, arXiv:2108.12409)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.describe.blocks import Kind, Tensor
from worker.describe.formula import Formula
from worker.describe.operations import Parameters
from worker.families.parts.notation import ASIDE, Inputs, kind, read, value
from worker.families.parts.stream import Tensors

#: The slope of a head, as an input of its scores.
SLOPE: Inputs = (read("alibi.slopes", "h 0 0"),)


def slopes_value() -> Tensor:
    """Return the slopes of all heads."""
    return value("alibi.slopes", "1 H", "statistic")


def slopes_kind(heads: int, shelf: str) -> Kind:
    """Return the block of the slopes."""
    formula = Formula("alibi_slope", parameters=Parameters(heads=heads))
    return kind("alibi.slopes", "ALiBi slopes", "statistic", "H 1 1", "alibi.slopes: 0 i", ASIDE, shelf, formula)


def fill_slopes(a: Tensors) -> None:
    """Compute the slopes."""
    slopes = slopes_of(a)
    power = 1 << (len(slopes).bit_length() - 1)  # the largest power of two that is at most the number of heads
    slopes[:power] = 2.0 ** (-8 * np.arange(1, power + 1) / power)
    slopes[power:] = 2.0 ** (-4 * np.arange(1, 2 * (len(slopes) - power), 2) / power)


def slopes_of(a: Tensors) -> NDArray[Any]:
    """Return the slopes [H]."""
    slopes: NDArray[Any] = a["alibi.slopes"][0]
    return slopes
