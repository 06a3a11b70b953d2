"""The operations of formulas: arguments, values and explanations.

An operation computes a cell (i, j, k) from its inputs x, y, z, … in order. It sums over the summation index s, or
reads only selected values of s.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from math import cos, inf, isclose, sin
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from worker.describe.functions import FUNCTIONS
from worker.describe.notation import Notation

Array = NDArray[Any]
Cell = tuple[int, int, int]
Mask = Literal["causal", "window"]
MASKS: tuple[Mask, ...] = ("causal", "window")
PAIRS = ("halves", "neighbours")
WAVES = ("cos", "sin")
BIASES = ("distance",)


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """The parameters of an operation; None if not given."""

    scale: float | None = None  # factor of a sum of products
    mask: Mask | None = None  # i is a key, j a query: −∞ where i > j, with "window" also where i ≤ j − window
    window: int | None = None
    epsilon: float | None = None
    function: str | None = None  # one of FUNCTIONS, or of WAVES
    pairs: str | None = None  # rotated channel pairs: "halves" is (i, i + width/2), "neighbours" (2i, 2i + 1)
    base: float | None = None
    width: int | None = None  # number of rotated channels
    bias: str | None = None  # "distance": the input left over is multiplied by i − j
    heads: int | None = None

    @cached_property
    def given(self) -> Mapping[str, Any]:
        """The parameters that are not None, by name."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name)) is not None}

    def masks(self, cell: Cell) -> bool:
        """Return whether a cell is masked."""
        key, query, _ = cell
        return self.mask is not None and (key > query or (self.window is not None and key <= query - self.window))


NONE = Parameters()


class Operation(ABC):
    """Base class of operations. `arity` is the minimum and maximum number of inputs; `sums`: it sums over s."""

    name: ClassVar[str]
    meaning: ClassVar[str]  # the definition, as in docs/concepts.md
    arity: ClassVar[tuple[int, float]]
    sums: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset()  # required parameters
    takes: ClassVar[frozenset[str]] = frozenset()  # optional parameters

    @abstractmethod
    def value(self, inputs: Sequence[Array], p: Parameters, cells: Sequence[NDArray[np.int64]]) -> Any:
        """Return the values [n] of n cells. `cells` are i, j, k, [n] each; inputs are [n, S], or [n, 1] without s."""

    @abstractmethod
    def sentence(self, names: Sequence[str], p: Parameters, over: int, cell: Cell, values: Sequence[Any]) -> str:
        """Return an explanation in a sentence; `names` are the inputs', `values` the first value of each."""

    def term(self, n: Notation, inputs: Sequence[str]) -> str:
        """Return the term that is summed over s, in symbols or numbers."""
        return inputs[0]

    def formula(self, n: Notation, total: str, inputs: Sequence[str], p: Parameters, over: int, cell: Cell) -> str:
        """Return the whole formula; `total` is the sum of terms. An input occurs once for each selected s."""
        return total

    def sum_in_symbols(self, n: Notation, over: int, term: str) -> str:
        """Return the sum of a term over s, in symbols."""
        return f"{n.sum('s', over)}{term}"

    def sum_in_numbers(self, n: Notation, terms: Sequence[str]) -> str:
        """Return the sum of terms, in numbers."""
        return " + ".join(terms)

    def selected(self, p: Parameters, cell: Cell, first: Any) -> range | None:
        """Return the values of s that are read, or None for all; `first` is the first input's value."""
        return None

    def terms(self, inputs: Sequence[Array], p: Parameters, cell: Cell) -> Iterator[tuple[slice, Array]]:
        """Yield the inputs that form terms, and the weights [n] of the terms: magnitudes, or ∞ if always shown."""
        yield slice(None), np.array([inf])


class Input(Operation):
    name, meaning, arity = "input", "given by the request", (0, 0)

    def value(self, inputs: Sequence[Array], p: Parameters, cells: Sequence[NDArray[np.int64]]) -> Any:
        raise ValueError("an input is not computed")

    def sentence(self, names: Sequence[str], p: Parameters, over: int, cell: Cell, values: Sequence[Any]) -> str:
        return "Given by the request"


class Embed(Operation):
    name, meaning, arity = "embed", "y(s), s being the token x, plus z if there is one", (2, 3)

    def value(self, inputs: Sequence[Array], p: Parameters, cells: Sequence[NDArray[np.int64]]) -> Any:
        return np.add.reduce([one[:, 0] for one in inputs[1:]])

    def selected(self, p: Parameters, cell: Cell, first: Any) -> range | None:
        return None if first is None else range(int(first), int(first) + 1)

    def formula(self, n: Notation, total: str, inputs: Sequence[str], p: Parameters, over: int, cell: Cell) -> str:
        return " + ".join(inputs[1:])

    def sentence(self, names: Sequence[str], p: Parameters, over: int, cell: Cell, values: Sequence[Any]) -> str:
        position = f", plus row {cell[0]} of {names[2]}, its position" if len(names) > 2 else ""
        return f"Row {values[0]} of {names[1]}, as that is the token{position}"


class Mean(Operation):
    name, meaning, arity, sums = "mean", "(1/over) Σₛ x", (1, 1), True

    def value(self, inputs: Sequence[Array], p: Parameters, cells: Sequence[NDArray[np.int64]]) -> Any:
        return np.mean(inputs[0], 1)

    def formula(self, n: Notation, total: str, inputs: Sequence[str], p: Parameters, over: int, cell: Cell) -> str:
        return n.fraction(total, str(over))

    def terms(self, inputs: Sequence[Array], p: Parameters, cell: Cell) -> Iterator[tuple[slice, Array]]:
        yield slice(None), np.abs(inputs[0])

    def sentence(self, names: Sequence[str], p: Parameters, over: int, cell: Cell, values: Sequence[Any]) -> str:
        return f"The mean of the {over:,} channels of {names[0]}"


class NormScale(Operation):
    name, meaning, arity, sums = "norm_scale", "√((1/over) Σₛ (x − y)² + `epsilon`)", (2, 2), True
    needs = frozenset({"epsilon"})

    def value(self, inputs: Sequence[Array], p: Parameters, cells: Sequence[NDArray[np.int64]]) -> Any:
        return np.sqrt(np.mean((inputs[0] - inputs[1]) ** 2, 1) + p.epsilon)

    def term(self, n: Notation, inputs: Sequence[str]) -> str:
        return n.power(n.grouped(n.less(*inputs[:2])), 2)

    def formula(self, n: Notation, total: str, inputs: Sequence[str], p: Parameters, over: int, cell: Cell) -> str:
        return n.root(f"{n.fraction(total, str(over))} + {n.number(p.epsilon)}")

    def terms(self, inputs: Sequence[Array], p: Parameters, cell: Cell) -> Iterator[tuple[slice, Array]]:
        yield slice(1), (inputs[0] - inputs[1]) ** 2
        yield slice(1, None), np.array([inf])

    def sentence(self, names: Sequence[str], p: Parameters, over: int, cell: Cell, values: Sequence[Any]) -> str:
        return f"The standard deviation of the {over:,} channels of {names[0]}, with ε = {p.epsilon:g}"


class LayerNorm(Operation):
    name, meaning, arity = "layer_norm", "(x − y) / z · weight + bias, the last two only if given", (3, 5)

    def value(self, inputs: Sequence[Array], p: Parameters, cells: Sequence[NDArray[np.int64]]) -> Any:
        x, mean, scale, *affine = (one[:, 0] for one in inputs)
        normed = (x - mean) / scale
        return normed * affine[0] + affine[1] if affine else normed

    def formula(self, n: Notation, total: str, inputs: Sequence[str], p: Parameters, over: int, cell: Cell) -> str:
        x, mean, scale, *affine = inputs
        normed = n.fraction(n.less(x, mean), scale)
        return f"{n.times(normed, affine[0])} + {affine[1]}" if affine else normed

    def sentence(self, names: Sequence[str], p: Parameters, over: int, cell: Cell, values: Sequence[Any]) -> str:
        affine = ", times the gain γ, plus the bias β" if len(names) > 3 else ""
        return f"{names[0]} less its mean, divided by its scale{affine}"


class RmsScale(Operation):
    name, meaning, arity, sums = "rms_scale", "√((1/over) Σₛ x² + `epsilon`)", (1, 1), True
    needs = frozenset({"epsilon"})

    def value(self, inputs: Sequence[Array], p: Parameters, cells: Sequence[NDArray[np.int64]]) -> Any:
        return np.sqrt(np.mean(inputs[0] ** 2, 1) + p.epsilon)

    def term(self, n: Notation, inputs: Sequence[str]) -> str:
        return n.power(inputs[0], 2)

    def formula(self, n: Notation, total: str, inputs: Sequence[str], p: Parameters, over: int, cell: Cell) -> str:
        return n.root(f"{n.fraction(total, str(over))} + {n.number(p.epsilon)}")

    def terms(self, inputs: Sequence[Array], p: Parameters, cell: Cell) -> Iterator[tuple[slice, Array]]:
        yield slice(None), inputs[0] ** 2

    def sentence(self, names: Sequence[str], p: Parameters, over: int, cell: Cell, values: Sequence[Any]) -> str:
        return f"The root of the mean square of the {over:,} channels of {names[0]}, with ε = {p.epsilon:g}"


class RmsNorm(Operation):
    name, meaning, arity = "rms_norm", "x / y · z", (3, 3)

    def value(self, inputs: Sequence[Array], p: Parameters, cells: Sequence[NDArray[np.int64]]) -> Any:
        x, scale, weight = (one[:, 0] for one in inputs)
        return x / scale * weight

    def formula(self, n: Notation, total: str, inputs: Sequence[str], p: Parameters, over: int, cell: Cell) -> str:
        return n.times(n.fraction(*inputs[:2]), inputs[2])

    def sentence(self, names: Sequence[str], p: Parameters, over: int, cell: Cell, values: Sequence[Any]) -> str:
        return f"{names[0]}, divided by its scale, times the gain γ"


class Dot(Operation):
    name, arity, sums = "dot", (2, inf), True
    meaning = (
        "Σₛ x·y over every pair of inputs, times `scale`, plus the one left over (times i − j where `bias` is "
        "distance); −∞ where `mask` is causal and i > j, or is window and i > j or i ≤ j − `window`"
    )
    takes = frozenset({"scale", "mask", "window", "bias"})

    def value(self, inputs: Sequence[Array], p: Parameters, cells: Sequence[NDArray[np.int64]]) -> Any:
        total = np.add.reduce([(x * y).sum(1) for x, y in zip(inputs[::2], inputs[1::2], strict=False)])
        total = total * (1 if p.scale is None else p.scale)
        if len(inputs) % 2:
            total = total + inputs[-1][:, 0] * (cells[0] - cells[1] if p.bias else 1)
        masked = [p.masks(cell) for cell in zip(*(axis.tolist() for axis in cells), strict=True)]
        return np.where(masked, -inf, total)

    def term(self, n: Notation, inputs: Sequence[str]) -> str:
        return n.times(*inputs[:2])

    def formula(self, n: Notation, total: str, inputs: Sequence[str], p: Parameters, over: int, cell: Cell) -> str:
        if p.scale is not None:
            root = _inverse_square(p.scale)
            total = n.fraction(total, n.root(str(root))) if root else n.times(n.number(p.scale), n.grouped(total))
        if len(inputs) % 2 == 0:
            return total
        bias = n.times(inputs[-1], n.grouped(n.less(str(cell[0]), str(cell[1])))) if p.bias else inputs[-1]
        return f"{total} + {bias}"

    def terms(self, inputs: Sequence[Array], p: Parameters, cell: Cell) -> Iterator[tuple[slice, Array]]:
        for at in range(0, len(inputs) - 1, 2):
            yield slice(at, at + 2), np.abs(inputs[at] * inputs[at + 1]) * (1 if p.scale is None else p.scale)
        if len(inputs) % 2:
            yield slice(len(inputs) - 1, None), np.abs(inputs[-1] * (cell[0] - cell[1] if p.bias else 1))

    def sentence(self, names: Sequence[str], p: Parameters, over: int, cell: Cell, values: Sequence[Any]) -> str:
        root = None if p.scale is None else _inverse_square(p.scale)
        scaled = "" if p.scale is None else f", divided by √{root}" if root else f", times {p.scale:g}"
        bias = f", plus {names[2]}" if len(names) == 3 else ""
        if p.bias:
            bias = f", less the head's slope times the distance {cell[1] - cell[0]}"
        return f"The sum of {over:,} products of {names[0]} and {names[1]}{scaled}{bias}"


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


class Max(Operation):
    name, meaning, arity, sums = "max", "maxₛ x", (1, 1), True

    def value(self, inputs: Sequence[Array], p: Parameters, cells: Sequence[NDArray[np.int64]]) -> Any:
        return np.max(inputs[0], 1)

    def sum_in_symbols(self, n: Notation, over: int, term: str) -> str:
        return n.largest("s", over) + term

    def sum_in_numbers(self, n: Notation, terms: Sequence[str]) -> str:
        return n.call("max", ", ".join(terms))

    def terms(self, inputs: Sequence[Array], p: Parameters, cell: Cell) -> Iterator[tuple[slice, Array]]:
        yield slice(None), inputs[0]

    def sentence(self, names: Sequence[str], p: Parameters, over: int, cell: Cell, values: Sequence[Any]) -> str:
        return f"The largest of {over:,} {names[0]}"


class SumExp(Operation):
    name, meaning, arity, sums = "sum_exp", "Σₛ exp(x − y)", (2, 2), True

    def value(self, inputs: Sequence[Array], p: Parameters, cells: Sequence[NDArray[np.int64]]) -> Any:
        return np.exp(inputs[0] - inputs[1]).sum(1)

    def term(self, n: Notation, inputs: Sequence[str]) -> str:
        return n.call("exp", n.less(*inputs[:2]))

    def terms(self, inputs: Sequence[Array], p: Parameters, cell: Cell) -> Iterator[tuple[slice, Array]]:
        yield slice(1), np.exp(inputs[0] - inputs[1])
        yield slice(1, None), np.array([inf])

    def sentence(self, names: Sequence[str], p: Parameters, over: int, cell: Cell, values: Sequence[Any]) -> str:
        return f"The sum of the exponentials of {over:,} {names[0]}, each less the largest"


class Softmax(Operation):
    name, meaning, arity = "softmax", "exp(x − y) / z", (3, 3)

    def value(self, inputs: Sequence[Array], p: Parameters, cells: Sequence[NDArray[np.int64]]) -> Any:
        x, largest, total = (one[:, 0] for one in inputs)
        return np.exp(x - largest) / total

    def formula(self, n: Notation, total: str, inputs: Sequence[str], p: Parameters, over: int, cell: Cell) -> str:
        return n.fraction(n.call("exp", n.less(*inputs[:2])), inputs[2])

    def sentence(self, names: Sequence[str], p: Parameters, over: int, cell: Cell, values: Sequence[Any]) -> str:
        return f"Softmax: the exponential of {names[0]}, less the largest, as a share of the sum of all"


class Add(Operation):
    name, meaning, arity = "add", "x + y + …", (2, inf)

    def value(self, inputs: Sequence[Array], p: Parameters, cells: Sequence[NDArray[np.int64]]) -> Any:
        return np.add.reduce([one[:, 0] for one in inputs])

    def formula(self, n: Notation, total: str, inputs: Sequence[str], p: Parameters, over: int, cell: Cell) -> str:
        return " + ".join(inputs)

    def sentence(self, names: Sequence[str], p: Parameters, over: int, cell: Cell, values: Sequence[Any]) -> str:
        return f"The sum of {', '.join(names[:-1])} and {names[-1]}"


class Activation(Operation):
    name, meaning, arity = "activation", "`function` of x", (1, 1)
    needs = frozenset({"function"})

    def value(self, inputs: Sequence[Array], p: Parameters, cells: Sequence[NDArray[np.int64]]) -> Any:
        return _apply(p.function, inputs[0][:, 0])

    def formula(self, n: Notation, total: str, inputs: Sequence[str], p: Parameters, over: int, cell: Cell) -> str:
        return FUNCTIONS[p.function or ""].text(n, inputs[0])

    def sentence(self, names: Sequence[str], p: Parameters, over: int, cell: Cell, values: Sequence[Any]) -> str:
        return f"{p.function} of {names[0]}"


class Gated(Operation):
    """Shazeer 2020 (arXiv:2002.05202)."""

    name, meaning, arity = "gated", "`function` of x, times y", (2, 2)
    needs = frozenset({"function"})

    def value(self, inputs: Sequence[Array], p: Parameters, cells: Sequence[NDArray[np.int64]]) -> Any:
        return _apply(p.function, inputs[0][:, 0]) * inputs[1][:, 0]

    def formula(self, n: Notation, total: str, inputs: Sequence[str], p: Parameters, over: int, cell: Cell) -> str:
        return n.times(FUNCTIONS[p.function or ""].text(n, inputs[0]), inputs[1])

    def sentence(self, names: Sequence[str], p: Parameters, over: int, cell: Cell, values: Sequence[Any]) -> str:
        return f"{p.function} of {names[0]}, times {names[1]}"


class Rotary(Operation):
    """Su et al. 2021 (arXiv:2104.09864): one angle for each pair of channels."""

    name, arity = "rotary", (0, 0)
    meaning = (
        "`function` (cos or sin) of i · `base`^(−2p / `width`), p being the pair of j; of 0 from channel `width` on"
    )
    needs = frozenset({"function", "base", "pairs", "width"})

    def value(self, inputs: Sequence[Array], p: Parameters, cells: Sequence[NDArray[np.int64]]) -> Any:
        angle = cells[0] * self._frequency(p, cells[1])
        return np.cos(angle) if p.function == "cos" else np.sin(angle)

    @staticmethod
    def _frequency(p: Parameters, channel: Any) -> Any:
        width = p.width or 0
        pair = channel % (width // 2) if p.pairs == "halves" else channel // 2
        return np.where(channel < width, (p.base or 0.0) ** (-2.0 * pair / width), 0)

    def formula(self, n: Notation, total: str, inputs: Sequence[str], p: Parameters, over: int, cell: Cell) -> str:
        frequency = float(self._frequency(p, cell[1]))
        return n.call(p.function or "", n.times(str(cell[0]), n.number(frequency)))

    def sentence(self, names: Sequence[str], p: Parameters, over: int, cell: Cell, values: Sequence[Any]) -> str:
        wave = cos if p.function == "cos" else sin
        return f"The {'co' if wave is cos else ''}sine of position {cell[0]} times the frequency of channel {cell[1]}"


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


def _apply(function: str | None, x: Array) -> Array:
    out = np.empty_like(x)
    FUNCTIONS[function or ""].apply(x, out)
    return out


def _inverse_square(scale: float) -> int | None:
    """Return n if the scale is 1/√n, else None."""
    n = round(scale**-2)
    return n if isclose(n**-0.5, scale, rel_tol=1e-12) else None


#: The operations by name.
OPERATIONS: Mapping[str, Operation] = MappingProxyType(
    {
        kind.name: kind()
        for kind in (
            Input,
            Embed,
            Mean,
            NormScale,
            LayerNorm,
            RmsScale,
            RmsNorm,
            Dot,
            AlibiSlope,
            Rotary,
            Rotate,
            Max,
            SumExp,
            Softmax,
            Add,
            Activation,
            Gated,
        )
    }
)
