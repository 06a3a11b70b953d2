"""GPT-2's forward pass: against a naive implementation, and across precisions and passes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import erf, exp, pi, sqrt, tanh
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.gpt2 import CONFIGS
from tests.nano import nano as trained
from worker.describe.functions import FUNCTIONS
from worker.engine.numpy_engine import Engine
from worker.families.gpt2 import GPT2Config as Config
from worker.families.gpt2 import forward
from worker.trace.arena import Arena
from worker.weights.base import CachedWeights

Array = NDArray[Any]

#: The definitions in the papers.
EXACT: dict[str, Callable[[float], float]] = {
    "gelu_new": lambda x: 0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3))),
    "gelu": lambda x: 0.5 * x * (1 + erf(x / sqrt(2))),
    "relu": lambda x: x if x > 0 else 0.0,
    "silu": lambda x: x / (1 + exp(-x)),
}


def odd(**sizes: Any) -> Config:
    """A configuration in which no two sizes are equal or divide each other by accident."""
    sizes = {
        "n_layer": 3,
        "n_head": 3,
        "n_embd": 24,
        "d_head": 5,
        "n_inner": 40,
        "n_positions": 9,
        "vocab_size": 17,
    } | sizes
    return Config.from_mapping(sizes)


MODELS = {
    "gelu_new, tied": (odd(), 1),
    "gelu, untied, batch of 3": (odd(activation_function="gelu", tie_word_embeddings=False), 3),
    "relu, batch of 3": (odd(activation_function="relu", n_layer=2), 3),
    "silu, one head wider than the model": (odd(activation_function="silu", n_head=1, d_head=37), 2),
    "one layer of one head of one channel": (odd(n_layer=1, n_head=1, d_head=1, n_inner=1), 1),
    "a large epsilon": (odd(layer_norm_epsilon=0.3), 1),
}


def tokens_of(config: Config, batch: int, length: int = 7) -> Array:
    return np.random.default_rng(5).integers(0, config.vocab_size, (batch, length))


def assert_close(found: Arena, wanted: Any, tolerance: float = 1e-5) -> None:
    """Compare every tensor of `wanted`, relative to its largest value; −inf must be in the same places."""
    for name, values in wanted.items():
        finite = np.isfinite(values)
        np.testing.assert_array_equal(np.isfinite(found[name]), finite, err_msg=name)
        largest = float(np.abs(values[finite]).max())
        np.testing.assert_allclose(found[name], values, rtol=0, atol=tolerance * max(largest, 1e-3), err_msg=name)


@pytest.fixture(params=MODELS)
def case(request: pytest.FixtureRequest, make_weights: Any, run_model: Any) -> tuple[Config, Any, Array, Arena]:
    """A configuration, weights, tokens and the arena after the forward pass."""
    config, batch = MODELS[request.param]
    weights, tokens = make_weights(config), tokens_of(config, batch)
    return config, weights, tokens, run_model(config, weights, tokens)


# -------------------------------------------------------------------------------------------- naive implementation


def naive(config: Config, weights: Any, tokens: list[int]) -> dict[str, Array]:
    """GPT-2 in float64, one position, one head and one earlier position at a time."""
    w = {name: values.astype(np.float64) for name, values in weights.items()}
    H, A, T = config.n_head, config.d_head, len(tokens)
    values: dict[str, Array] = {}

    def norm(x: Array, name: str) -> Array:
        mean = sum(x) / len(x)
        variance = sum((x - mean) ** 2) / len(x)
        y: Array = (x - mean) / sqrt(variance + config.layer_norm_epsilon) * w[f"{name}.weight"] + w[f"{name}.bias"]
        return y

    def project(x: Array, name: str) -> Array:
        y: Array = x @ w[f"{name}.weight"] + w[f"{name}.bias"]
        return y

    x = [w["wte.weight"][token] + w["wpe.weight"][t] for t, token in enumerate(tokens)]
    for layer in range(config.n_layer):
        h, at = f"h.{layer}", f"blocks.{layer}"
        values[f"{at}.resid_pre"] = np.array(x)
        qkv = [project(norm(x[t], f"{h}.ln_1"), f"{h}.attn.c_attn").reshape(3, H, A) for t in range(T)]
        pattern, z = np.zeros((H, T, T)), np.zeros((T, H, A))
        for t in range(T):
            for head in range(H):
                scores = [float(qkv[t][0, head] @ qkv[s][1, head]) / sqrt(A) for s in range(t + 1)]
                total = sum(exp(score) for score in scores)
                for s, score in enumerate(scores):
                    pattern[head, t, s] = exp(score) / total
                    z[t, head] += pattern[head, t, s] * qkv[s][2, head]
        values[f"{at}.attn.pattern"], values[f"{at}.attn.z"] = pattern, z
        middle = [x[t] + project(z[t].ravel(), f"{h}.attn.c_proj") for t in range(T)]
        values[f"{at}.resid_mid"] = np.array(middle)
        for t in range(T):
            hidden = project(norm(middle[t], f"{h}.ln_2"), f"{h}.mlp.c_fc")
            active = np.array([EXACT[config.activation_function](float(value)) for value in hidden])
            x[t] = middle[t] + project(active, f"{h}.mlp.c_proj")
        values[f"{at}.resid_post"] = np.array(x)
    values["logits"] = np.array([w["lm_head.weight"] @ norm(x[t], "ln_f") for t in range(T)])
    powers = np.exp(values["logits"])
    return values | {"probs": powers / powers.sum(1, keepdims=True)}


def test_values_match_the_naive_implementation(case: tuple[Config, Any, Array, Arena]) -> None:
    config, weights, tokens, arena = case
    of_each = [naive(config, weights, [int(t) for t in row]) for row in tokens]
    assert_close(arena, {name: np.stack([of[name] for of in of_each]) for name in of_each[0]})


def test_nano_gpts_logits_match_the_naive_implementation(run_model: Any) -> None:
    config, weights = CONFIGS["nano-gpt"], dict(trained())
    tokens = [2, 1, 0, 1, 1, 2, 0, 1, 1, 1, 2]
    wanted = naive(config, weights, tokens)["logits"]
    assert (
        abs(run_model(config, weights, tokens)["logits"][0] - wanted).max() < 1e-4
    )  # with erf or ε = 1e-6 it would be over 4e-3


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-6), ("float64", 8e-8)])
def test_activations_follow_their_definitions(function: str, precision: str, tolerance: float) -> None:
    x = np.linspace(-9, 9, 2001).astype(precision)  # 0 is among them
    y = np.empty_like(x)
    FUNCTIONS[function].apply(x, y)
    exact = np.array([EXACT[function](float(value)) for value in x])
    assert (abs(y - exact) / np.maximum(1, abs(x))).max() < tolerance


@pytest.mark.parametrize("function", FUNCTIONS)
def test_activations_of_large_values_do_not_overflow(function: str) -> None:
    x = np.array([-1e4, -200, 200, 1e4], np.float32)
    y = np.empty_like(x)
    FUNCTIONS[function].apply(x, y)
    np.testing.assert_allclose(y, np.maximum(x, 0), atol=1e-6)


def test_every_activation_function_is_tested() -> None:
    assert set(FUNCTIONS) == set(EXACT)


def test_layer_norm_is_precise_at_the_width_of_gpt3() -> None:
    C = 12288
    x = np.random.default_rng(0).normal(3, 2, (1, 4, C)).astype(np.float32)
    w = {"w.weight": np.ones(C, np.float32), "w.bias": np.zeros(C, np.float32)}
    mean, scale, out = (np.empty((1, 4, n), np.float32) for n in (1, 1, C))
    Engine(CachedWeights(w)).layer_norm(x, "w", 1e-5, mean, scale, out)
    exact = x.astype(np.float64)
    exact = (exact - exact.mean(-1, keepdims=True)) / np.sqrt(exact.var(-1, keepdims=True) + 1e-5)
    assert abs(out - exact).max() < 1e-5


# ------------------------------------------------------------------------------------------------ consistency


def test_float32_matches_float64(case: tuple[Config, Any, Array, Arena], run_model: Any) -> None:
    config, weights, tokens, arena = case
    assert_close(arena, run_model(config, weights, tokens, precision="float64"))


@pytest.mark.parametrize("cuts", [range(8), (0, 4, 5, 7), (0, 6, 7)], ids=["one by one", "4, 1, 2", "6, 1"])
def test_several_passes_match_one_pass(
    case: tuple[Config, Any, Array, Arena], cuts: tuple[int, ...], run_model: Any
) -> None:
    config, weights, tokens, arena = case
    rows = [slice(*cut) for cut in pairwise(cuts)]
    assert_close(run_model(config, weights, tokens, rows), arena)


def test_every_value_is_computed(case: tuple[Config, Any, Array, Arena]) -> None:
    assert [name for name, values in case[3].items() if np.isnan(values).any()] == []  # the arena was filled with NaN


def test_later_tokens_do_not_change_earlier_positions(case: tuple[Config, Any, Array, Arena], run_model: Any) -> None:
    config, weights, tokens, arena = case
    other = tokens.copy()
    other[:, 4:] = (other[:, 4:] + 1) % config.vocab_size
    changed = run_model(config, weights, other)["logits"]
    np.testing.assert_allclose(changed[:, :4], arena["logits"][:, :4], rtol=0, atol=1e-5)
    assert abs(changed[:, 4:] - arena["logits"][:, 4:]).max() > 1e-2


def test_sequences_of_a_batch_are_independent(run_model: Any, make_weights: Any) -> None:
    config = odd()
    weights, tokens = make_weights(config), tokens_of(config, 3)
    together = run_model(config, weights, tokens)
    for n, row in enumerate(tokens):
        alone = run_model(config, weights, row)
        np.testing.assert_allclose(together["logits"][n], alone["logits"][0], rtol=0, atol=1e-5)


def test_attention_is_a_distribution_over_earlier_positions(case: tuple[Config, Any, Array, Arena]) -> None:
    config, _, tokens, arena = case
    future = np.triu(np.ones((tokens.shape[1],) * 2, bool), 1)
    for layer in range(config.n_layer):
        pattern = arena[f"blocks.{layer}.attn.pattern"]
        np.testing.assert_allclose(pattern.sum(-1), 1, rtol=1e-6)
        assert (pattern[..., future] == 0).all()
        assert (pattern >= 0).all()
        assert np.isneginf(arena[f"blocks.{layer}.attn.scores"][..., future]).all()


def test_probabilities_sum_to_one(case: tuple[Config, Any, Array, Arena]) -> None:
    probs = case[3]["probs"]
    np.testing.assert_allclose(probs.sum(-1), 1, rtol=1e-6)
    assert (probs >= 0).all()


def test_a_layers_output_is_the_next_layers_input(case: tuple[Config, Any, Array, Arena]) -> None:
    config, _, _, arena = case
    for layer in range(1, config.n_layer):
        output, input = arena[f"blocks.{layer - 1}.resid_post"], arena[f"blocks.{layer}.resid_pre"]
        np.testing.assert_array_equal(output, input)


def test_embeddings_are_rows_of_the_tables(case: tuple[Config, Any, Array, Arena]) -> None:
    _, weights, tokens, arena = case
    np.testing.assert_array_equal(arena["embed"], weights["wte.weight"][tokens])
    np.testing.assert_array_equal(arena["pos_embed"][0], weights["wpe.weight"][: tokens.shape[1]])


def test_after_layer_is_called_when_each_layer_is_complete(make_weights: Any, run_model: Any) -> None:
    config = odd()
    weights, arena = make_weights(config), run_model(config, make_weights(config), tokens_of(config, 1))
    wanted = [arena[f"blocks.{layer}.resid_post"].copy() for layer in range(3)]
    for layer in range(3):
        arena[f"blocks.{layer}.resid_post"][...] = np.nan
    finished: list[int] = []

    def count() -> None:
        np.testing.assert_array_equal(arena[f"blocks.{len(finished)}.resid_post"], wanted[len(finished)])
        finished.append(len(finished))

    forward(config, Engine(CachedWeights(weights)), arena, slice(0, 7), count)
    assert finished == [0, 1, 2]
