"""Expressions: evaluation, products of sizes, and invalid text."""

from __future__ import annotations

import pytest

from worker.describe.expression import Expression, Sizes

SIZES = Sizes({"B": 1, "T": 7, "C": 24, "H": 3, "A": 5})


@pytest.mark.parametrize(("name", "value"), [("HA", 15), ("3HA", 45), ("1", 1), ("3A", 15), ("T", 7)])
def test_adjacent_letters_are_a_product(name: str, value: int) -> None:
    assert SIZES[name] == value


@pytest.mark.parametrize(("name", "value"), [("T+2", 9), ("HA+3A", 30)])
def test_sizes_may_be_sums(name: str, value: int) -> None:
    assert SIZES[name] == value


@pytest.mark.parametrize("name", ["X", "", "h", "HX", "T+", "T+X"])
def test_an_unknown_size_is_a_key_error(name: str) -> None:
    with pytest.raises(KeyError):
        SIZES[name]


@pytest.mark.parametrize(
    ("text", "value"),
    [("2*HA+h*A", 40), ("T-A", 2), ("T//2", 3), ("h//2", 1), ("(T+A)*2", 24), ("3HA", 45), ("T-A-1", 1)],
)
def test_an_expression_is_evaluated_from_left_to_right(text: str, value: int) -> None:
    assert Expression(text, frozenset("h")).evaluate({**SIZES, "h": 2}) == value


def test_positions_may_use_division_and_max() -> None:
    found = Expression("max(z + A*s, T*s/2 + m)", frozenset({"z", "s", "m"}), "+ - * / max")
    assert found.evaluate({**SIZES, "z": 1.0, "s": 1.5, "m": 12.0}) == 17.25


@pytest.mark.parametrize(
    "text", ["x", "W", "T+", "T**2", "3.5", "T if A else C", "max(T, A)", "T/2", "T.real", "__import__('os')", ""]
)
def test_invalid_text_is_rejected_and_quoted(text: str) -> None:
    with pytest.raises(ValueError, match="Invalid expression") as error:
        Expression(text, frozenset("h"))
    assert repr(text) in str(error.value)
