"""Parse and evaluate the arithmetic in descriptions: indices, sizes and positions.

An expression has numbers, names, `+ - * /`, `//`, parentheses and `max`. Sizes are capital letters, as in the papers;
adjacent letters are a product: `3HA` is 3·H·A. Evaluation is left to right, as in Python.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from math import prod
from types import MappingProxyType
from typing import Any

#: The meaning of each size.
SIZES: Mapping[str, str] = MappingProxyType(
    {
        "B": "batch",
        "T": "positions",
        "S": "source positions",
        "C": "width",
        "H": "heads",
        "G": "key/value heads",
        "R": "heads per key/value head",
        "A": "head width",
        "D": "rotated head width",
        "F": "MLP width",
        "V": "vocabulary",
        "N": "context length",
        "E": "experts",
        "K": "experts per token",
        "P": "token table width, if different",
    }
)
_PRODUCT = re.compile(r"(?<![A-Za-z_.])(\d*)([A-Z]+)(?![a-z_.])")
_OPERATORS: Mapping[type[ast.operator], str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.FloorDiv: "//", ast.Div: "/",
}  # fmt: skip


class Sizes(dict[str, int]):
    """The value of each size of a model; products such as `3HA` and sums such as `N+2` are computed from letters."""

    def __missing__(self, name: str) -> int:
        if "+" in name:
            return sum(self[term] for term in name.split("+"))
        number, letters = _factors(name)
        return number * prod(self[letter] for letter in letters)


@cache
def _factors(name: str) -> tuple[int, str]:
    match = re.fullmatch(r"(\d*)([A-Z]*)", name)
    if match is None or not name or (len(name) == 1 and name.isalpha()):
        raise KeyError(name)
    return int(match[1] or 1), match[2]


@dataclass(frozen=True)
class Expression:
    """An expression of sizes and these variables. Raises ValueError if the text is not one."""

    text: str
    variables: frozenset[str] = frozenset()
    operators: str = "+ - * //"
    tree: ast.expr = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tree", _parse(self.text, self.variables, self.operators))

    def evaluate(self, names: Mapping[str, Any]) -> Any:
        """Return its value, given the sizes and variables in `names`."""
        return _evaluate(self.tree, names)


@cache  # the descriptions of all configurations share their texts
def _parse(text: str, variables: frozenset[str], operators: str) -> ast.expr:
    unknown = sorted({letter for _, letters in _PRODUCT.findall(text) for letter in letters} - SIZES.keys())
    if unknown:
        raise _invalid(text, f"{', '.join(unknown)} is not a size: must be one of {', '.join(SIZES)}")
    try:
        tree = ast.parse(_PRODUCT.sub(_expand_product, text.strip()), mode="eval").body
    except SyntaxError:
        raise _invalid(text, "not arithmetic") from None
    _check(tree, text, variables, operators)
    return tree


def _invalid(text: str, reason: str) -> ValueError:
    return ValueError(f"Invalid expression {text!r}: {reason}.")


def _check(node: ast.expr, text: str, variables: frozenset[str], operators: str) -> None:
    match node:
        case ast.Constant(value=int() as value) if type(value) is int:
            return
        case ast.Name(id=name):
            if name not in SIZES and name not in variables:
                allowed = ", ".join(sorted(variables)) or "none"
                raise _invalid(text, f"{name} is neither a size nor a variable ({allowed})")
        case ast.BinOp(left=left, op=operator, right=right):
            if _OPERATORS.get(type(operator)) not in operators.split():
                raise _invalid(text, f"the operators must be among {operators}")
            _check(left, text, variables, operators)
            _check(right, text, variables, operators)
        case ast.Call(func=ast.Name(id="max"), args=arguments, keywords=[]) if "max" in operators:
            for argument in arguments:
                _check(argument, text, variables, operators)
        case _:
            raise _invalid(text, f"only numbers, names and {operators} are allowed")


def _expand_product(match: re.Match[str]) -> str:
    factors = [match[1], *match[2]] if match[1] else [*match[2]]
    return "*".join(factors) if len(factors) == 1 else f"({'*'.join(factors)})"


def _evaluate(node: ast.expr, names: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return names[name]
        case ast.BinOp(left=left, op=operator, right=right):
            x, y = _evaluate(left, names), _evaluate(right, names)
            match operator:
                case ast.Add():
                    return x + y
                case ast.Sub():
                    return x - y
                case ast.Mult():
                    return x * y
                case ast.FloorDiv():
                    return x // y
                case _:
                    return x / y
        case ast.Call(args=arguments):
            return max(_evaluate(argument, names) for argument in arguments)
    raise AssertionError(f"{ast.dump(node)} was not checked")
