"""Mathematical notation, as plain text and as LaTeX."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import accumulate
from math import isinf
from typing import Any


class Notation(ABC):
    """Builds formulas from strings: each method returns the notation for one construct."""

    minus, dots, pi = "−", "…", "π"

    @abstractmethod
    def symbol(self, name: str, places: Sequence[str]) -> str: ...

    @abstractmethod
    def number(self, value: Any) -> str: ...

    @abstractmethod
    def times(self, x: str, y: str) -> str: ...

    @abstractmethod
    def fraction(self, x: str, y: str) -> str: ...

    @abstractmethod
    def call(self, function: str, x: str) -> str: ...

    @abstractmethod
    def root(self, x: str) -> str: ...

    @abstractmethod
    def power(self, x: str, n: int) -> str: ...

    @abstractmethod
    def exponential(self, base: str, x: str) -> str: ...

    @abstractmethod
    def grouped(self, x: str) -> str: ...

    @abstractmethod
    def sum(self, index: str, count: int) -> str:
        """Return a summation sign over `count` values of an index."""

    @abstractmethod
    def largest(self, index: str, count: int) -> str:
        """Return a maximum sign over `count` values of an index."""

    def signed(self, value: Any) -> str:
        """Return a number, in parentheses if it is negative."""
        return self.grouped(self.number(value)) if value < 0 else self.number(value)

    def less(self, x: str, y: str) -> str:
        return f"{x} {self.minus} {y}"


class _Text(Notation):
    def symbol(self, name: str, places: Sequence[str]) -> str:
        return f"{name}[{', '.join(places)}]" if places else name

    def number(self, value: Any) -> str:
        return "−∞" if isinf(value) and value < 0 else f"{value:.5g}".replace("-", "−").replace("inf", "∞")

    def times(self, x: str, y: str) -> str:
        return f"{x} · {y}"

    def fraction(self, x: str, y: str) -> str:
        return f"{self.grouped(x) if _is_sum(x) else x} / {y}"

    def call(self, function: str, x: str) -> str:
        return f"{function}({x})"

    def root(self, x: str) -> str:
        return f"√({x})" if " " in x else f"√{x}"

    def power(self, x: str, n: int) -> str:
        return f"{x}{'⁰¹²³'[n]}"

    def exponential(self, base: str, x: str) -> str:
        return f"{base}^({x})"

    def grouped(self, x: str) -> str:
        return f"({x})"

    def sum(self, index: str, count: int) -> str:
        return f"Σ({index} = 0…{count - 1}) "

    def largest(self, index: str, count: int) -> str:
        return f"max({index} = 0…{count - 1}) "


class _Latex(Notation):
    minus, dots, pi = "-", r"\cdots", r"\pi"

    def symbol(self, name: str, places: Sequence[str]) -> str:
        upright = rf"\mathrm{{{name.replace('_', chr(92) + '_')}}}"
        return f"{upright}_{{{','.join(places)}}}" if places else upright

    def number(self, value: Any) -> str:
        if isinf(value):
            return r"-\infty" if value < 0 else r"\infty"
        digits, _, power = f"{value:.5g}".partition("e")
        return rf"{digits} \times 10^{{{int(power)}}}" if power else digits

    def times(self, x: str, y: str) -> str:
        return rf"{x} \cdot {y}"

    def fraction(self, x: str, y: str) -> str:
        return rf"\frac{{{x}}}{{{y}}}"

    def call(self, function: str, x: str) -> str:
        greek = {"Φ": r"\Phi", "σ": r"\sigma"}
        return rf"{greek.get(function, chr(92) + function)}\left({x}\right)"

    def root(self, x: str) -> str:
        return rf"\sqrt{{{x}}}"

    def power(self, x: str, n: int) -> str:
        return rf"{x}^{n}" if x.endswith(")") else rf"{{{x}}}^{n}"

    def exponential(self, base: str, x: str) -> str:
        return rf"{base}^{{{x}}}"

    def grouped(self, x: str) -> str:
        return rf"\left({x}\right)"

    def sum(self, index: str, count: int) -> str:
        return rf"\sum_{{{index}=0}}^{{{count - 1}}} "

    def largest(self, index: str, count: int) -> str:
        return rf"\max_{{0 \le {index} \le {count - 1}}} "


def _is_sum(x: str) -> bool:
    """Return whether x must be in parentheses as a numerator."""
    depth = [0, *accumulate({"(": 1, "[": 1, ")": -1, "]": -1}.get(letter, 0) for letter in x)]
    return any(letter == " " and not inside for letter, inside in zip(x, depth, strict=False))


TEXT, LATEX = _Text(), _Latex()
