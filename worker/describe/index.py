"""Indices: the tensor element of each cell, one expression per axis."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

from worker.describe.expression import Expression

CELL = "ijk"  # a cell's coordinates: i right, j down, k toward the viewer
SUMMED = "s"  # the summation index of a formula
MEMBERS = "hge"  # the number of a head, key/value head, expert
_NAMES = frozenset(CELL + SUMMED + MEMBERS)

Members = Mapping[str, int]


class _Affine(NamedTuple):
    """factors · (i, j, k, s) + constant."""

    factors: tuple[int, ...]
    constant: int

    @property
    def is_constant(self) -> bool:
        return not any(self.factors)


@dataclass(frozen=True)
class Index:
    """One expression per axis, separated by spaces: "k i h j" means cell (i, j, k) is element [k, i, h, j].

    The variables are i, j, k and s, in which it must be linear; h, g and e, the numbers of a head, key/value head and
    expert; and sizes (describe.expression). The operators are `+ - * //`. Raises ValueError for anything else.
    """

    text: str
    axes: tuple[Expression, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "axes", _axes(self.text))

    def depends_on(self, variable: str) -> bool:
        """Return whether one of i, j, k, s, h, g, e occurs in it."""
        return variable in self.text

    def rows(
        self, sizes: Mapping[str, int], members: Members | None = None, *, summed: bool = False
    ) -> list[list[int]]:
        """Return a row per axis: [a, b, c, d] for a·i + b·j + c·k + d; if `summed`, [a, b, c, e, d] with e the
        coefficient of s.

        `members` has the numbers of the head (h), key/value head (g) and expert (e).
        """
        found = [_affine(axis.tree, sizes, members or {}) for axis in self.axes]
        return [[*(one.factors if summed else one.factors[:3]), one.constant] for one in found]


@cache  # the descriptions of all configurations share their texts
def _axes(text: str) -> tuple[Expression, ...]:
    axes = tuple(Expression(axis, _NAMES) for axis in text.split())
    for axis in axes:
        if _varies(axis.tree) is None:
            raise ValueError(f"Invalid index {text!r}: {axis.text!r} is not linear in i, j, k and s.")
    return axes


def _varies(node: ast.expr) -> bool | None:
    """Return whether a node depends on i, j, k or s; None if it is not linear in them."""
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
