"""The logit lens and rollout, against float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.gpt2 import CONFIGS
from tests.nano import nano as trained
from worker.engine.compiled import engine
from worker.engine.numpy_engine import Engine
from worker.families.gpt2 import GPT2Config as Config
from worker.trace.arena import Arena, plan
from worker.trace.lens import LENS_TOP, LensResult, run_lens, top_tokens
from worker.weights.base import CachedWeights

ODD: dict[str, Any] = {
    "n_layer": 3,
    "n_head": 3,
    "n_embd": 24,
    "d_head": 5,
    "n_inner": 40,
    "n_positions": 12,
    "vocab_size": 37,
}
MODELS = {
    "nano": CONFIGS["nano-gpt"],
    "tied": Config(**ODD),
    "untied": Config(**ODD, tie_word_embeddings=False, activation_function="silu"),
}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest, make_weights: Callable[..., Any]) -> tuple[Config, dict[str, Any]]:
    config = MODELS[request.param]
    return config, dict(trained()) if request.param == "nano" else make_weights(config)


def reference(config: Config, weights: dict[str, Any], arena: Arena) -> Any:
    """[L + 1, T, V]: the predictions from each residual stream of a float64 arena."""
    streams = [arena[f"blocks.{layer}.resid_pre"][0] for layer in range(config.n_layer)]
    x = np.stack([*streams, arena[f"blocks.{config.n_layer - 1}.resid_post"][0]])
    variance = x.var(-1, keepdims=True)
    normed = (x - x.mean(-1, keepdims=True)) / np.sqrt(variance + config.layer_norm_epsilon)
    normed = normed * weights["ln_f.weight"] + weights["ln_f.bias"]
    raised = np.exp(normed @ weights["lm_head.weight"].astype(np.float64).T)
    return raised / raised.sum(-1, keepdims=True)


@pytest.mark.parametrize("make", [engine, lambda weights: Engine(CachedWeights(weights))], ids=["fastest", "plain"])
def test_predictions_of_each_layer_match_float64(
    model: tuple[Config, dict[str, Any]], run_model: Callable[..., Arena], make: Callable[..., Engine]
) -> None:
    config, weights = model
    tokens = np.random.default_rng(5).integers(0, config.vocab_size, 9)
    wanted = reference(config, weights, run_model(config, weights, tokens, precision="float64"))
    seen, calls = run(config, make(CachedWeights(weights)), tokens)
    kept = min(LENS_TOP, config.vocab_size)
    assert seen.tokens.shape == seen.probabilities.shape == (config.n_layer + 1, 9, kept)
    assert calls == list(range(1, config.n_layer + 1))
    of_seen = np.take_along_axis(wanted, seen.tokens.astype(int), -1)
    np.testing.assert_allclose(seen.probabilities, of_seen, rtol=5e-5, atol=1e-7)
    np.testing.assert_allclose(of_seen, -np.sort(-wanted, -1)[..., :kept], rtol=5e-5, atol=1e-7)  # no others were more
    for place in np.ndindex(config.n_layer + 1, 9):
        assert len(set(seen.tokens[place].tolist())) == kept


def test_the_rollout_is_the_product_of_all_layers_attention(
    model: tuple[Config, dict[str, Any]], run_model: Callable[..., Arena]
) -> None:
    config, weights = model
    tokens = np.random.default_rng(6).integers(0, config.vocab_size, 9)
    arena = run_model(config, weights, tokens, precision="float64")
    mixed = [arena[f"blocks.{layer}.attn.pattern"][0].mean(0) / 2 + np.eye(9) / 2 for layer in range(config.n_layer)]
    seen, _ = run(config, engine(CachedWeights(weights)), tokens)
    np.testing.assert_allclose(seen.rollout, np.linalg.multi_dot(mixed[::-1]), rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(seen.rollout.sum(1), 1, rtol=1e-6)


def run(config: Config, made: Engine, tokens: Any) -> tuple[LensResult, list[int]]:
    arena = Arena(plan(config, len(tokens), capture=(), streamed=True))
    arena.memory[:] = 0xFF  # not a number
    arena["tokens"][0] = tokens
    calls: list[int] = []
    return run_lens(config, made, made, arena, calls.append), calls


some_logits = st.integers(1, 100).flatmap(
    lambda size: arrays(
        np.float32, size, elements=st.sampled_from([-1.0, 0.0, 0.5, 2.0, np.inf, np.nan]) | st.floats(width=32)
    )
)


@given(some_logits, st.data())
def test_top_tokens_are_sorted_and_stable(logits: Any, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, min(len(logits), 25)))
    assert top_tokens(logits, count).tolist() == np.argsort(-logits, kind="stable")[:count].tolist()
