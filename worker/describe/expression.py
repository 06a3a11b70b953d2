"""Arithmetic in text: indices, sizes and positions as descriptions write them.

An expression has numbers, names, `+ - * /`, `//`, brackets and `max`. Sizes are capital letters, as in the papers, and
letters side by side are a product: `3HA` is 3·H·A. It is evaluated from left to right, as Python does.
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

#: What each size stands for.
SIZES: Mapping[str, str] = MappingProxyType(
    {
        "B": "batch",
        "T": "positions",
        "S": "positions of the source",
        "C": "width",
        "H": "heads",
        "G": "heads of keys and values",
        "R": "heads that share a head of keys and values",
        "A": "width of a head",
        "D": "rotated width of a head",
        "F": "width of the MLP",
        "V": "vocabulary",
        "N": "positions there could be",
        "E": "experts",
        "K": "experts of a token",
        "P": "width of the token table, where it differs",
    }
)
_PRODUCT = re.compile(r"(?<![A-Za-z_.])(\d*)([A-Z]+)(?![a-z_.])")
_OPERATORS: Mapping[type[ast.operator], str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.FloorDiv: "//", ast.Div: "/",
}  # fmt: skip


class Sizes(dict[str, int]):
    """What each size of a model is; a product such as `3HA` is found by its letters."""

    def __missing__(self, name: str) -> int:
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
    """An expression of these variables and of sizes.

    Raises ValueError for what it cannot read, with the text in the message.
    """

    text: str
    variables: frozenset[str] = frozenset()
    operators: str = "+ - * //"
    tree: ast.expr = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tree", _parsed(self.text, self.variables, self.operators))

    def value(self, names: Mapping[str, Any]) -> Any:
        """Its value where `names` gives sizes and variables."""
        return _evaluated(self.tree, names)


@cache  # descriptions of all configurations have the same texts
def _parsed(text: str, variables: frozenset[str], operators: str) -> ast.expr:
    unknown = sorted({letter for _, letters in _PRODUCT.findall(text) for letter in letters} - SIZES.keys())
    if unknown:
        raise _unreadable(text, f"{', '.join(unknown)} is no size, which are {', '.join(SIZES)}")
    try:
        tree = ast.parse(_PRODUCT.sub(_spelled_out, text.strip()), mode="eval").body
    except SyntaxError:
        raise _unreadable(text, "it is not arithmetic") from None
    _check(tree, text, variables, operators)
    return tree


def _unreadable(text: str, reason: str) -> ValueError:
    return ValueError(f"{text!r} cannot be read: {reason}.")


def _check(node: ast.expr, text: str, variables: frozenset[str], operators: str) -> None:
    match node:
        case ast.Constant(value=int() as value) if type(value) is int:
            return
        case ast.Name(id=name):
            if name not in SIZES and name not in variables:
                known = ", ".join(sorted(variables)) or "no variable"
                raise _unreadable(text, f"{name} is neither a size nor one of {known}")
        case ast.BinOp(left=left, op=operator, right=right):
            if _OPERATORS.get(type(operator)) not in operators.split():
                raise _unreadable(text, f"the operators are {operators}")
            _check(left, text, variables, operators)
            _check(right, text, variables, operators)
        case ast.Call(func=ast.Name(id="max"), args=arguments, keywords=[]) if "max" in operators:
            for argument in arguments:
                _check(argument, text, variables, operators)
        case _:
            raise _unreadable(text, f"there are numbers, names and {operators}")


def _spelled_out(match: re.Match[str]) -> str:
    factors = [match[1], *match[2]] if match[1] else [*match[2]]
    return "*".join(factors) if len(factors) == 1 else f"({'*'.join(factors)})"


def _evaluated(node: ast.expr, names: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return names[name]
        case ast.BinOp(left=left, op=operator, right=right):
            x, y = _evaluated(left, names), _evaluated(right, names)
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
            return max(_evaluated(argument, names) for argument in arguments)
    raise AssertionError(f"{ast.dump(node)} was not checked")
