"""Attention with windows, scales and caps: both engines against a loop over cells."""

from __future__ import annotations

from itertools import pairwise
from math import inf, sqrt, tanh
from typing import Any

import numpy as np
import pytest

from worker.engine.compiled import engine
from worker.engine.numpy_engine import Array, Engine
from worker.weights.base import CachedWeights

B, T, A = 2, 7, 4
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "a window of 1": {"window": 1},
    "a window of 3": {"window": 3},
    "a window as long as the sequence": {"window": T},
    "a scale": {"scale": 0.3},
    "a cap": {"cap": 0.7},
    "a window, a scale and a cap": {"window": 2, "scale": 1.5, "cap": 2.0},
}


def naive(q: Array, k: Array, v: Array, options: dict[str, Any]) -> dict[str, Array]:
    """Attention in float64, one cell at a time: scores before the cap and after it, pattern and z."""
    heads = q.shape[2]
    uncapped, scores = np.full((2, B, heads, T, T), -inf)
    for b, h, i, j in np.ndindex(B, heads, T, T):
        if i - options.get("window", T) < j <= i:
            dot = float(q[b, i, h] @ k[b, j, h * k.shape[2] // heads])
            uncapped[b, h, i, j] = dot * options.get("scale", 1 / sqrt(A))
            cap = options.get("cap")
            scores[b, h, i, j] = cap * tanh(uncapped[b, h, i, j] / cap) if cap else uncapped[b, h, i, j]
    powers = np.exp(scores)
    pattern = powers / powers.sum(-1, keepdims=True)
    z = np.einsum("bhij,bjhd->bihd", pattern, v.repeat(heads // v.shape[2], 2))
    return {"uncapped": uncapped, "scores": scores, "pattern": pattern, "z": z}


@pytest.mark.parametrize("make", [Engine, engine], ids=["NumPy", "fastest"])
@pytest.mark.parametrize("kv_heads", [1, 4])
@pytest.mark.parametrize("cuts", [[0, T], [0, 3, 4, T]], ids=["one pass", "several passes"])
@pytest.mark.parametrize("option", OPTIONS)
def test_attention_matches_its_definition(option: str, cuts: list[int], kv_heads: int, make: Any) -> None:
    options, random = OPTIONS[option], np.random.default_rng(0)
    q, k, v = (random.normal(size=(B, T, heads, A)).astype(np.float32) for heads in (4, kv_heads, kv_heads))
    found = {name: np.full((B, 4, T, T), np.nan, np.float32) for name in ("scores", "pattern", "uncapped")}
    largest, total = np.full((2, B, 4, T), np.nan, np.float32)
    z = np.full_like(q, np.nan)
    more = {"uncapped": found["uncapped"]} if "cap" in options else {}
    for start, stop in pairwise(cuts):
        make(CachedWeights({})).attention(
            slice(start, stop), q, k, v, found["scores"], largest, total, found["pattern"], z, **options, **more
        )
    wanted = naive(q.astype(np.float64), k.astype(np.float64), v.astype(np.float64), options)
    for name in ("scores", "pattern", *more):
        np.testing.assert_allclose(found[name], wanted[name], rtol=0, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(z, wanted["z"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(largest, wanted["scores"].max(-1), rtol=0, atol=1e-5)
