"""What an operation of a formula is: parameters, values and explanations.

An operation computes a cell (i, j, k) from its inputs x, y, z, … in order. It sums over the summation index s, or
reads only selected values of s.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from math import inf
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from worker.describe.notation import Notation
from worker.describe.rotary import RotaryScaling

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

    scale: float | None = None  # factor of a sum of products, or of a row of a table
    mask: Mask | None = None  # i is a key, j a query: −∞ where i > j, with "window" also where i ≤ j − window
    window: int | None = None
    epsilon: float | None = None
    offset: float | None = None  # of the gain of a norm
    function: str | None = None  # one of FUNCTIONS, or of WAVES
    pairs: str | None = None  # rotated channel pairs: "halves" is (i, i + width/2), "neighbours" (2i, 2i + 1)
    base: float | None = None
    width: int | None = None  # number of rotated channels
    scaling: RotaryScaling | None = None  # of the frequencies of rotated channels
    cap: float | None = None
    bias: str | None = None  # "distance": the input left over is multiplied by i − j
    heads: int | None = None

    @cached_property
    def given(self) -> Mapping[str, Any]:
        """The parameters that are not None, by name, as JSON has them."""
        found = {field.name: value for field in fields(self) if (value := getattr(self, field.name)) is not None}
        return found | ({"scaling": self.scaling.to_mapping()} if self.scaling else {})

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


def masked(p: Parameters, cells: Sequence[NDArray[np.int64]]) -> list[bool]:
    """Return whether each of n cells is masked."""
    return [p.masks(cell) for cell in zip(*(axis.tolist() for axis in cells), strict=True)]
