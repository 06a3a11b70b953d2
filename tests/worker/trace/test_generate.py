"""Generation: nano-gpt sorts its input, and sampling follows the requested distribution."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.gpt2 import CONFIGS
from tests.nano import nano
from worker.engine.numpy_engine import Engine
from worker.families.gpt2 import forward
from worker.trace.arena import Arena, plan
from worker.trace.generate import generate
from worker.trace.sampling import NonFiniteLogitsError, Sampling, choose, positions, probability

NANO = CONFIGS["nano-gpt"]

LOGITS = np.log(np.array([0.05, 0.5, 0.15, 0.3], np.float32))  # most probable first: 1, 3, 2, 0


def run(prompt: list[int], **how: Any) -> tuple[list[int], Arena]:
    sampling = Sampling(**how)
    arena = Arena(plan(NANO, positions(len(prompt), sampling)))
    arena.memory[:] = 0xFF
    return generate(NANO, Engine(nano()), arena, prompt, sampling), arena


def draws(n: int, logits: NDArray[Any] = LOGITS, **how: Any) -> list[int]:
    random = np.random.Generator(np.random.Philox(7))
    sampling = Sampling(max_new_tokens=1, **how)
    return [choose(logits, sampling, random) for _ in range(n)]


# ----------------------------------------------------------------------------------------------------- sorting


def test_nano_gpt_sorts_all_of_its_729_inputs() -> None:
    inputs = np.array([*product(range(3), repeat=6)])
    arena = Arena(plan(NANO, 11, batch=len(inputs)))
    arena["tokens"][:, :6] = inputs
    chosen = []
    for start, stop in [(0, 6), *((n, n + 1) for n in range(6, 11))]:
        forward(NANO, Engine(nano()), arena, slice(start, stop))
        chosen.append(arena["logits"][:, stop - 1].argmax(-1))
        if stop < 11:
            arena["tokens"][:, stop] = chosen[-1]
    np.testing.assert_array_equal(np.stack(chosen, 1), np.sort(inputs))


@pytest.mark.parametrize(
    ("letters", "sorted_letters"),
    [("CBABBC", "ABBBCC"), ("AAAAAA", "AAAAAA"), ("CCCCCC", "CCCCCC"), ("CCBBAA", "AABBCC"), ("BCABCA", "AABBCC")],
)
def test_nano_gpt_generates_the_letters_in_order(letters: str, sorted_letters: str) -> None:
    new, _ = run(["ABC".index(letter) for letter in letters], max_new_tokens=6)
    assert "".join("ABC"[token] for token in new) == sorted_letters


def test_all_generated_tokens_but_the_last_are_fed_back() -> None:
    new, arena = run([2, 1, 0, 1, 1, 2], max_new_tokens=6)
    assert arena["tokens"].tolist() == [[2, 1, 0, 1, 1, 2, *new[:-1]]]


def test_generation_matches_one_pass_over_the_same_tokens() -> None:
    _, arena = run([2, 1, 0, 1, 1, 2], max_new_tokens=6)
    once = Arena(plan(NANO, 11))
    once["tokens"][...] = arena["tokens"]
    forward(NANO, Engine(nano()), once, slice(0, 11))
    for name, values in once.items():
        np.testing.assert_allclose(arena[name], values, rtol=1e-4, atol=1e-4, err_msg=name)


def test_without_new_tokens_there_is_one_pass_over_the_prompt() -> None:
    passed: list[None] = []
    arena = Arena(plan(NANO, 3))
    arena.memory[:] = 0xFF
    assert generate(NANO, Engine(nano()), arena, [0, 1, 2], Sampling(), lambda: passed.append(None)) == []
    assert len(passed) == NANO.n_layer
    assert not np.isnan(arena["probs"]).any()


def test_after_layer_is_called_for_every_layer_of_every_pass() -> None:
    passed: list[None] = []
    sampling = Sampling(max_new_tokens=4)
    generate(NANO, Engine(nano()), Arena(plan(NANO, 6)), [0, 1, 2], sampling, lambda: passed.append(None))
    assert len(passed) == 4 * NANO.n_layer


def test_a_pass_does_not_recompute_earlier_rows() -> None:
    arena = Arena(plan(NANO, 6))
    passed: list[None] = []

    def mark() -> None:
        passed.append(None)
        if len(passed) == NANO.n_layer:  # at the end of the prompt's pass
            arena["embed"][:, :3] = np.nan

    generate(NANO, Engine(nano()), arena, [0, 1, 2], Sampling(max_new_tokens=4), mark)
    assert np.isnan(arena["embed"]).any(-1).tolist() == [[True] * 3 + [False] * 3]


@pytest.mark.parametrize(("prompt", "new", "fed"), [(6, 6, 11), (6, 1, 6), (6, 0, 6), (1, 2, 2), (1, 11, 11)])
def test_positions_count_the_prompt_and_all_new_tokens_but_the_last(prompt: int, new: int, fed: int) -> None:
    assert positions(prompt, Sampling(max_new_tokens=new)) == fed


# ---------------------------------------------------------------------------------------------------- sampling


def test_a_seed_gives_the_same_tokens_again() -> None:
    hot = {"max_new_tokens": 9, "temperature": 50.0}
    assert run([1, 2], seed=3, **hot)[0] == run([1, 2], seed=3, **hot)[0]


def test_seeds_give_different_tokens() -> None:
    hot = {"max_new_tokens": 9, "temperature": 50.0}
    assert len({tuple(run([1, 2], seed=seed, **hot)[0]) for seed in range(8)}) > 4


@pytest.mark.parametrize(
    "narrow",
    [{"top_k": 1}, {"top_p": 1e-9}, {"temperature": 1e-3}, {"temperature": 1e-300}, {"temperature": 5e-324}],
    ids=str,
)
def test_a_single_candidate_is_the_greedy_choice(narrow: dict[str, Any]) -> None:
    random = np.random.default_rng(0)
    with np.errstate(over="ignore"):  # the least temperatures take all but the largest logit to −∞
        for _ in range(50):
            logits = random.normal(0, 3, 40).astype(np.float32)
            assert draws(3, logits, **({"temperature": 1.0} | narrow)) == [int(logits.argmax())] * 3


@pytest.mark.parametrize("how", [{}, {"temperature": 1.0}, {"temperature": 0.5, "top_k": 1}], ids=str)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_no_token_is_sampled_from_logits_that_are_not_finite(how: dict[str, Any], value: float) -> None:
    logits = np.array([1, value, 3], np.float32)
    with pytest.raises(NonFiniteLogitsError, match=r"^The logits contain NaN or infinity, so no token can be"):
        choose(logits, Sampling(**how), np.random.default_rng(0))


def test_a_logit_of_minus_infinity_is_never_sampled() -> None:
    logits, random = np.array([-np.inf, 0, -np.inf], np.float32), np.random.default_rng(0)
    assert {choose(logits, Sampling(temperature=5.0), random) for _ in range(20)} == {1}


def test_temperature_0_takes_the_first_most_probable_token() -> None:
    assert draws(3, np.array([1, 2, 2, 0], np.float32)) == [1, 1, 1]


@pytest.mark.parametrize(
    ("how", "possible"),
    [
        ({}, {0, 1, 2, 3}),
        ({"top_k": 1}, {1}),
        ({"top_k": 2}, {1, 3}),
        ({"top_k": 4}, {0, 1, 2, 3}),
        ({"top_k": 100}, {0, 1, 2, 3}),
        ({"top_p": 0.49}, {1}),
        ({"top_p": 0.51}, {1, 3}),
        ({"top_p": 0.79}, {1, 3}),
        ({"top_p": 0.81}, {1, 3, 2}),
        ({"top_p": 0.96}, {0, 1, 2, 3}),
        ({"top_p": 1.0}, {0, 1, 2, 3}),
        ({"top_k": 3, "top_p": 0.6}, {1, 3}),  # of the three, 1 alone has 0.5 / 0.95 = 0.53
        ({"top_k": 2, "top_p": 0.6}, {1}),  # of the two, 1 alone has 0.5 / 0.8 = 0.63
    ],
)
def test_top_k_and_top_p_keep_the_most_probable_tokens(how: dict[str, Any], possible: set[int]) -> None:
    assert set(draws(600, temperature=1.0, **how)) == possible  # the rarest is missed with 0.95⁶⁰⁰ = 4e-14


@pytest.mark.parametrize(
    ("how", "p"),
    [
        ({"temperature": 1.0}, [0.05, 0.5, 0.15, 0.3]),
        ({"temperature": 0.5}, [0.0025, 0.25, 0.0225, 0.09]),  # squared
        ({"temperature": 2.0}, [0.05**0.5, 0.5**0.5, 0.15**0.5, 0.3**0.5]),
        ({"temperature": 1.0, "top_k": 2}, [0, 0.5, 0, 0.3]),
        ({"temperature": 1.0, "top_p": 0.9}, [0, 0.5, 0.15, 0.3]),
    ],
)
def test_sampling_frequencies_match_the_probabilities(how: dict[str, Any], p: list[float]) -> None:
    n, wanted = 10_000, np.array(p) / sum(p)
    found = np.bincount(draws(n, **how), minlength=4) / n
    deviation = np.sqrt(wanted * (1 - wanted) / n)  # of a binomial frequency; five of them are missed once in 10⁶
    assert (abs(found - wanted) <= 5 * deviation).all()


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({}, [0, 1, 0, 0]),  # greedy
        ({"temperature": 1.0}, [0.05, 0.5, 0.15, 0.3]),
        ({"temperature": 0.5}, [0.0025 / 0.365, 0.25 / 0.365, 0.0225 / 0.365, 0.09 / 0.365]),
        ({"temperature": 1.0, "top_k": 2}, [0, 0.625, 0, 0.375]),
        ({"temperature": 1.0, "top_p": 0.85}, [0, 0.5 / 0.95, 0.15 / 0.95, 0.3 / 0.95]),
        ({"temperature": 1.0, "top_k": 3, "top_p": 0.6}, [0, 0.625, 0, 0.375]),
    ],
)
def test_the_probability_of_a_sample_is_how_often_it_is_drawn(how: dict[str, Any], expected: list[float]) -> None:
    sampling = Sampling(max_new_tokens=1, **how)
    found = [probability(LOGITS, sampling, token) for token in range(4)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    counted = np.bincount(draws(20_000, **how), minlength=4) / 20_000
    np.testing.assert_allclose(counted, found, atol=0.015)
