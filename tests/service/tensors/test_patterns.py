"""Names by patterns."""

from __future__ import annotations

import pytest

from service.errors import Invalid
from service.tensors.patterns import PATTERNS, chosen

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
def test_what_any_pattern_matches_is_chosen_once_and_in_the_order_of_the_names(
    given: list[str], names: list[str]
) -> None:
    assert chosen(NAMES, given, "tensor") == names


def test_patterns_may_be_by_other_words() -> None:
    assert chosen(NAMES, ["logits.out"], "tensor", lambda pattern: pattern.removesuffix(".out")) == ["logits"]


@pytest.mark.parametrize(
    ("names", "known"),
    [
        (NAMES, "it has 8, embed, blocks.0.q, blocks.0.k, blocks.1.q, blocks.1.k, …, logits, probs."),
        (NAMES[:2], "it has 2, embed, blocks.0.q."),
    ],
)
def test_a_pattern_that_matches_nothing_is_told_what_there_is(names: list[str], known: str) -> None:
    with pytest.raises(Invalid) as refused:
        chosen(names, ["embed,nothing.*"], "tensor of this")
    assert refused.value.errors == {"tensors": [f"'nothing.*' matches no tensor of this: {known}"]}


def test_only_so_many_patterns_are_read_whichever_way_they_come() -> None:
    assert chosen(NAMES, ["*"] * PATTERNS, "tensor") == NAMES
    for given in (["*"] * (PATTERNS + 1), [",".join("*" * (PATTERNS + 1))]):
        with pytest.raises(Invalid):
            chosen(NAMES, given, "tensor")
