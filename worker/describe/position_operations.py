"""Operations of positions: rotation, and biases by distance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.describe.notation import Notation
from worker.describe.operation import Array, Cell, Operation, Parameters
from worker.describe.rotary import RotaryScaling, frequencies


class AlibiSlope(Operation):
    """Press et al. 2022 (arXiv:2108.12409)."""

    name, arity = "alibi_slope", (0, 0)
    meaning = (
        "2^(−8(i + 1) / n), n being `heads` or, if that is not a power of two, the largest one below it; from head n "
        "on 2^(−4(2(i − n) + 1) / n)"
    )
    needs = frozenset({"heads"})

    def value(self, inputs: Sequence[Array], p: Parameters, cells: Sequence[NDArray[np.int64]]) -> Any:
        numerator, denominator = self._exponent(p, cells[0])
        return 2.0 ** (-numerator / denominator)

    @staticmethod
    def _exponent(p: Parameters, head: Any) -> tuple[Any, int]:
        """Return the negative exponent of 2 as a fraction."""
        power = 1 << ((p.heads or 1).bit_length() - 1)  # the largest power of two that is at most `heads`
        return np.where(head < power, 8 * (head + 1), 4 * (2 * (head - power) + 1)), power

    def formula(self, n: Notation, total: str, inputs: Sequence[str], p: Parameters, over: int, cell: Cell) -> str:
        numerator, denominator = self._exponent(p, cell[0])
        return n.fraction("1", n.exponential("2", n.fraction(str(numerator), str(denominator))))

    def sentence(self, names: Sequence[str], p: Parameters, over: int, cell: Cell, values: Sequence[Any]) -> str:
        return f"The slope of head {cell[0]} of {p.heads}: what a score loses with each position of distance"


class Rotary(Operation):
    """Su et al. 2021 (arXiv:2104.09864): one angle for each pair of channels."""

    name, arity = "rotary", (0, 0)
    meaning = (
        "`function` (cos or sin) of i · `base`^(−2p / `width`), p being the pair of j; of 0 from channel `width` on; "
        "`scaling` divides some frequencies by its factor"
    )
    needs = frozenset({"function", "base", "pairs", "width"})
    takes = frozenset({"scaling"})

    def value(self, inputs: Sequence[Array], p: Parameters, cells: Sequence[NDArray[np.int64]]) -> Any:
        angle = cells[0] * self._frequency(p, cells[1], p.scaling)
        return (np.cos(angle) if p.function == "cos" else np.sin(angle)) * self._factor(p, cells[1])

    @staticmethod
    def _frequency(p: Parameters, channel: Any, scaling: RotaryScaling | None) -> Any:
        width = p.width or 0
        return np.where(channel < width, frequencies(p.base or 0.0, width, _pair_of(p, channel), scaling), 0)

    @staticmethod
    def _factor(p: Parameters, channel: Any) -> Any:
        return np.where(channel < (p.width or 0), (p.scaling and p.scaling.attention_factor) or 1.0, 1.0)

    def formula(self, n: Notation, total: str, inputs: Sequence[str], p: Parameters, over: int, cell: Cell) -> str:
        frequency = n.number(float(self._frequency(p, cell[1], None)))
        if p.scaling and cell[1] < (p.width or 0):
            kept = float(p.scaling.kept(p.base or 0.0, p.width or 0, _pair_of(p, cell[1])))
            if kept == 0:
                frequency = n.fraction(frequency, n.number(p.scaling.factor))
            elif kept < 1:
                divided = n.fraction(n.number(1 - kept), n.number(p.scaling.factor))
                frequency = n.times(frequency, n.grouped(f"{n.number(kept)} + {divided}"))
        wave = n.call(p.function or "", n.times(str(cell[0]), frequency))
        factor = float(self._factor(p, cell[1]))
        return wave if factor == 1 else n.times(n.number(factor), wave)

    def sentence(self, names: Sequence[str], p: Parameters, over: int, cell: Cell, values: Sequence[Any]) -> str:
        wave = "cosine" if p.function == "cos" else "sine"
        plain = f"The {wave} of position {cell[0]} times the frequency of channel {cell[1]}"
        return plain + self._scaled(p, cell[1])

    def _scaled(self, p: Parameters, channel: int) -> str:
        """Return how the frequency of a channel is scaled, in words."""
        if p.scaling is None or channel >= (p.width or 0):
            return ""
        kind, by = p.scaling.rope_type, f"its factor {p.scaling.factor:g}"
        if kind == "dynamic":
            return f" (dynamic scaling by {by} begins only after the context)"
        kept = float(p.scaling.kept(p.base or 0.0, p.width or 0, _pair_of(p, channel)))
        share = f"{100 * (1 - kept):.3g} % of which" if kept else "which"
        scaled = f", {share} {kind} scaling divides by {by}" if kept < 1 else f", which {kind} scaling does not divide"
        factor = float(self._factor(p, channel))
        return scaled + ("" if factor == 1 else f", times the attention factor {factor:.5g}")


class Rotate(Operation):
    name, arity, sums = "rotate", (3, 3), True
    meaning = (
        "x(j)·y ∓ x(its partner)·z: − in the first of a pair, + in the second; `pairs` says which are partners; x(j) "
        "from channel `width` on"
    )
    needs = frozenset({"pairs", "width"})

    @staticmethod
    def _pair(p: Parameters, channel: Any) -> tuple[Any, Any, Any]:
        """Return the channels of its pair, and whether it is the first; one that is not rotated is its own partner."""
        width = p.width or 0
        half = width // 2
        first = channel % half if p.pairs == "halves" else channel // 2 * 2
        first = np.where(channel < width, first, channel)
        last = np.where(channel < width, first + (half if p.pairs == "halves" else 1), channel)
        return first, last, channel == first

    def selected(self, p: Parameters, cell: Cell, first: Any) -> range | None:
        start, last, _ = map(int, self._pair(p, cell[1]))
        return range(start, last + 1, max(1, last - start))

    def value(self, inputs: Sequence[Array], p: Parameters, cells: Sequence[NDArray[np.int64]]) -> Any:
        x, wave_cos, wave_sin = inputs
        start, last, is_first = self._pair(p, cells[1])
        each = np.arange(len(x))
        a, b, c, s = x[each, start], x[each, last], wave_cos[:, 0], wave_sin[:, 0]
        return np.where(start == last, a, np.where(is_first, a * c - b * s, b * c + a * s))

    def formula(self, n: Notation, total: str, inputs: Sequence[str], p: Parameters, over: int, cell: Cell) -> str:
        if cell[1] >= (p.width or 0):
            return inputs[0]
        a, b, c, s = inputs
        if self._pair(p, cell[1])[2]:
            return n.less(n.times(a, c), n.times(b, s))
        return f"{n.times(b, c)} + {n.times(a, s)}"

    def terms(self, inputs: Sequence[Array], p: Parameters, cell: Cell) -> Iterator[tuple[slice, Array]]:
        yield slice(1), np.full(len(inputs[0]), inf)
        yield slice(1, None), np.array([inf])

    def sentence(self, names: Sequence[str], p: Parameters, over: int, cell: Cell, values: Sequence[Any]) -> str:
        start, last, _ = self._pair(p, cell[1])
        if start == last:
            return f"Channel {start} of {names[0]}, as only the first {p.width} are rotated"
        return f"Channels {start} and {last} of {names[0]}, turned by the angle of position {cell[0]}"


def _pair_of(p: Parameters, channel: Any) -> Any:
    """Return the pair of a rotated channel."""
    return channel % ((p.width or 0) // 2) if p.pairs == "halves" else channel // 2
