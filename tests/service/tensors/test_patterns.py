"""Selecting names by patterns."""

from __future__ import annotations

import pytest

from service.errors import Invalid
from service.tensors.patterns import PATTERNS, select

NAMES = ["embed", "blocks.0.q", "blocks.0.k", "blocks.1.q", "blocks.1.k", "ln_final", "logits", "probs"]


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ([], NAMES),
        (["probs", "embed"], ["embed", "probs"]),
        (["*.k, embed", "blocks.1.*"], ["embed", "blocks.0.k", "blocks.1.q", "blocks.1.k"]),
        (["*", "probs"], NAMES),
    ],
)
def test_matching_names_are_selected_once_and_in_their_own_order(given: list[str], names: list[str]) -> None:
    assert select(NAMES, given, "tensor") == names


def test_patterns_may_use_another_spelling() -> None:
    assert select(NAMES, ["logits.out"], "tensor", lambda pattern: [pattern.removesuffix(".out")]) == ["logits"]


@pytest.mark.parametrize(
    ("names", "known"),
    [
        (NAMES, "its 8 names are embed, blocks.0.q, blocks.0.k, blocks.1.q, blocks.1.k, …, logits, probs."),
        (NAMES[:2], "its 2 names are embed, blocks.0.q."),
    ],
)
def test_a_pattern_that_matches_nothing_is_invalid_and_names_are_listed(names: list[str], known: str) -> None:
    with pytest.raises(Invalid) as raised:
        select(names, ["embed,nothing.*"], "tensor of this")
    assert raised.value.errors == {"tensors": [f"'nothing.*' matches no tensor of this; {known}"]}


def test_the_number_of_patterns_is_limited_in_both_forms() -> None:
    assert select(NAMES, ["*"] * PATTERNS, "tensor") == NAMES
    for given in (["*"] * (PATTERNS + 1), [",".join("*" * (PATTERNS + 1))]):
        with pytest.raises(Invalid):
            select(NAMES, given, "tensor")
