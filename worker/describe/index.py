"""Where the values of a block's cells are: one expression for each axis."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from worker.describe.expression import Expression

CELL = "ijk"  # a cell's place: i to the right, j down, k toward the viewer
SUMMED = "s"  # the index that a formula sums over
MEMBERS = "hge"  # the number of a head, of a head of keys and values, of an expert
_NAMES = frozenset(CELL + SUMMED + MEMBERS)

Members = Mapping[str, int]


class _Affine(NamedTuple):
    """A sum of i, j, k and s, each times a number, and of a number."""

    factors: tuple[int, ...]
    constant: int

    @property
    def is_constant(self) -> bool:
        return not any(self.factors)


@dataclass(frozen=True)
class Index:
    """An expression for each axis, with spaces between them: "k i h j" says that cell (i, j, k) is element
    [k, i, h, j] of a tensor.

    Knows i, j, k and s, in which it is linear; h, g and e, the numbers of a head, a head of keys and values and an
    expert; sizes (describe.expression) and numbers; `+ - * //`. Raises ValueError for anything else.
    """

    text: str
    axes: tuple[Expression, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        axes = tuple(Expression(text, _NAMES) for text in self.text.split())
        object.__setattr__(self, "axes", axes)
        for axis in axes:
            self._check_linear(axis, axis.tree)

    def _check_linear(self, axis: Expression, node: ast.expr) -> bool:
        """Whether a part depends on i, j, k or s."""
        match node:
            case ast.Name(id=name):
                return name in CELL + SUMMED
            case ast.BinOp(left=left, op=operator, right=right):
                x, y = self._check_linear(axis, left), self._check_linear(axis, right)
                multiplied = isinstance(operator, ast.Mult) and x and y
                divided = isinstance(operator, ast.FloorDiv) and (x or y)
                if multiplied or divided:
                    raise ValueError(f"index {self.text!r}: {axis.text!r} is not linear in i, j, k and s.")
                return x or y
        return False

    def depends_on(self, variable: str) -> bool:
        """Whether one of i, j, k, s, h, g, e is in it."""
        return variable in self.text

    def rows(
        self, sizes: Mapping[str, int], members: Members | None = None, *, summed: bool = False
    ) -> list[list[int]]:
        """A row [a, b, c, d] an axis: a·i + b·j + c·k + d; with `summed`, [a, b, c, e, d], e being that of s.

        `members` gives the numbers of the head (h), the head of keys and values (g) and the expert (e).
        """
        names = {**sizes, **dict.fromkeys(MEMBERS, 0), **(members or {})}
        found = [_affine(axis.tree, names) for axis in self.axes]
        return [[*(one.factors if summed else one.factors[:3]), one.constant] for one in found]


def _affine(node: ast.expr, names: Mapping[str, int]) -> _Affine:
    match node:
        case ast.Constant(value=int() as value):
            return _Affine((0, 0, 0, 0), value)
        case ast.Name(id=name) if name in CELL + SUMMED:
            return _Affine(tuple(int(name == other) for other in CELL + SUMMED), 0)
        case ast.Name(id=name):
            return _Affine((0, 0, 0, 0), names[name])
        case ast.BinOp(left=left, op=operator, right=right):
            return _combined(operator, _affine(left, names), _affine(right, names))
    raise AssertionError(f"{ast.dump(node)} was not checked")


def _combined(operator: ast.operator, x: _Affine, y: _Affine) -> _Affine:
    match operator:
        case ast.Add():
            return _Affine(tuple(a + b for a, b in zip(x.factors, y.factors, strict=True)), x.constant + y.constant)
        case ast.Sub():
            return _Affine(tuple(a - b for a, b in zip(x.factors, y.factors, strict=True)), x.constant - y.constant)
        case ast.FloorDiv():
            return _Affine(x.factors, x.constant // y.constant)
    scalar, other = (x, y) if x.is_constant else (y, x)
    return _Affine(tuple(scalar.constant * factor for factor in other.factors), scalar.constant * other.constant)
