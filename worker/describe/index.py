"""Where the values of a block's cells are: one expression for each axis."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
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
        object.__setattr__(self, "axes", _axes(self.text))

    def depends_on(self, variable: str) -> bool:
        """Whether one of i, j, k, s, h, g, e is in it."""
        return variable in self.text

    def rows(
        self, sizes: Mapping[str, int], members: Members | None = None, *, summed: bool = False
    ) -> list[list[int]]:
        """A row [a, b, c, d] an axis: a·i + b·j + c·k + d; with `summed`, [a, b, c, e, d], e being that of s.

        `members` gives the numbers of the head (h), the head of keys and values (g) and the expert (e).
        """
        found = [_affine(axis.tree, sizes, members or {}) for axis in self.axes]
        return [[*(one.factors if summed else one.factors[:3]), one.constant] for one in found]


@cache  # descriptions of all configurations have the same texts
def _axes(text: str) -> tuple[Expression, ...]:
    axes = tuple(Expression(axis, _NAMES) for axis in text.split())
    for axis in axes:
        if _varies(axis.tree) is None:
            raise ValueError(f"index {text!r}: {axis.text!r} is not linear in i, j, k and s.")
    return axes


def _varies(node: ast.expr) -> bool | None:
    """Whether a part depends on i, j, k or s; None if not linearly."""
    match node:
        case ast.Name(id=name):
            return name in CELL + SUMMED
        case ast.BinOp(left=left, op=operator, right=right):
            x, y = _varies(left), _varies(right)
            multiplied = isinstance(operator, ast.Mult) and x and y
            divided = isinstance(operator, ast.FloorDiv) and (x or y)
            return None if x is None or y is None or multiplied or divided else x or y
    return False


def _affine(node: ast.expr, sizes: Mapping[str, int], members: Members) -> _Affine:
    match node:
        case ast.Constant(value=int() as value):
            return _Affine(_NONE, value)
        case ast.Name(id=name) if name in _UNITS:
            return _UNITS[name]
        case ast.Name(id=name):
            return _Affine(_NONE, members.get(name, 0) if name in MEMBERS else sizes[name])
        case ast.BinOp(left=left, op=operator, right=right):
            return _combined(operator, _affine(left, sizes, members), _affine(right, sizes, members))
    raise AssertionError(f"{ast.dump(node)} was not checked")


_NONE = (0, 0, 0, 0)
_UNITS = {name: _Affine(tuple(int(name == other) for other in CELL + SUMMED), 0) for name in CELL + SUMMED}


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
