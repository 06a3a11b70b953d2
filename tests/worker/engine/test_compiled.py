"""The compiled engine against the NumPy engine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import worker.engine.compiled as compiled
import worker.weights.synthetic
from tests.gpt2 import CONFIGS
from tests.nano import nano
from worker.engine.numpy_engine import Engine
from worker.families.gpt2 import GPT2Config as Config
from worker.families.gpt2 import forward
from worker.families.llama import LlamaConfig
from worker.models.sources import synthetic
from worker.trace.arena import Arena, plan
from worker.weights.base import CachedWeights, Weights

kernels = pytest.importorskip("worker.engine._kernels", reason="no compiler built the kernels here")
Array = NDArray[Any]


def odd(**sizes: Any) -> Config:
    """Sizes that are not multiples of register and tile sizes."""
    usual = {
        "n_layer": 2,
        "n_head": 3,
        "n_embd": 70,
        "d_head": 37,
        "n_inner": 301,
        "n_positions": 300,
        "vocab_size": 99,
    }
    return Config.from_mapping(usual | sizes)


MODELS = {
    "odd sizes, batch of 3": (odd(), 41, 3),
    "untied": (odd(tie_word_embeddings=False), 13, 1),
    "gelu": (odd(activation_function="gelu"), 5, 2),
    "relu, long": (odd(activation_function="relu", n_layer=1), 270, 1),
    "silu": (odd(activation_function="silu"), 12, 1),
    "one of everything": (Config.from_mapping(dict.fromkeys(("n_layer", "n_head", "n_embd", "vocab_size"), 1)), 1, 2),
    "deeper than a tile": (odd(n_layer=1, n_embd=600, n_inner=1030), 9, 1),
}


def filled(config: Config, engine: Engine, tokens: Array, rows: list[slice]) -> Arena:
    arena = Arena(plan(config, tokens.shape[1], tokens.shape[0]))
    arena.memory[:] = 0xFF  # not a number
    arena["tokens"][...] = tokens
    for part in rows:
        forward(config, engine, arena, part)
    return arena


def assert_same(found: Arena, wanted: Arena) -> None:
    for name, values in wanted.items():
        finite = np.isfinite(values)
        np.testing.assert_array_equal(np.isfinite(found[name]), finite, err_msg=name)
        largest = float(np.abs(values[finite]).max()) if finite.any() else 0.0
        np.testing.assert_allclose(found[name], values, rtol=0, atol=5e-6 * max(largest, 1e-3), err_msg=name)


def tokens_of(config: Config, length: int, batch: int) -> Array:
    return np.random.default_rng(3).integers(0, config.vocab_size, (batch, length))


@pytest.mark.parametrize("cached", [False, True], ids=["read", "cached"])
@pytest.mark.parametrize("held", [False, True], ids=["drawn", "arrays"])
@pytest.mark.parametrize("case", MODELS.values(), ids=MODELS)
def test_values_match_numpy(case: tuple[Config, int, int], held: bool, cached: bool) -> None:
    config, length, batch = case
    weights: Weights = synthetic(config, 1)
    arrays = CachedWeights(weights)
    tokens, rows = tokens_of(config, length, batch), [slice(0, length)]
    found = filled(config, compiled.CompiledEngine(arrays if held else weights, cache_weights=cached), tokens, rows)
    assert_same(found, filled(config, Engine(arrays), tokens, rows))


@pytest.mark.parametrize("cached", [False, True], ids=["read", "cached"])
@pytest.mark.parametrize("cuts", [[6, 7, 8, 9, 10, 11], [1, 5, 11], [3, 11]])
def test_several_passes_match_one(cuts: list[int], cached: bool) -> None:
    config = CONFIGS["nano-gpt"]
    rows = [slice(start, stop) for start, stop in zip([0, *cuts], cuts, strict=False)]
    tokens = tokens_of(config, 11, 1)
    found = filled(config, compiled.CompiledEngine(nano(), cache_weights=cached), tokens, rows)
    assert_same(found, filled(config, Engine(nano()), tokens, [slice(0, 11)]))


class Tiled(CachedWeights):
    """Weights that are read seven rows at a time."""

    def tiles(self, name: str) -> Any:
        whole = self[name]
        for start in range(0, len(whole), 7):
            rows = slice(start, min(start + 7, len(whole)))
            yield rows, whole[rows]


ENGINES: dict[str, Callable[[Weights], Engine]] = {
    "read": compiled.CompiledEngine,
    "cached": lambda weights: compiled.CompiledEngine(weights, cache_weights=True),
    "in tiles": lambda weights: compiled.CompiledEngine(Tiled(weights)),
    "NumPy": lambda weights: Engine(CachedWeights(weights)),
    "NumPy, in tiles": lambda weights: Engine(Tiled(weights)),
}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("held", [False, True], ids=["drawn", "arrays"])
@pytest.mark.parametrize("make", ENGINES.values(), ids=ENGINES)
def test_a_projection_is_split_among_its_outputs(make: Callable[[Weights], Engine], held: bool, bias: bool) -> None:
    config = LlamaConfig(
        num_hidden_layers=1, num_attention_heads=2, hidden_size=24, intermediate_size=301, vocab_size=9, mlp_bias=True
    )
    name, weights = "model.layers.0.mlp.gate_proj", synthetic(config, 1)
    x = np.random.default_rng(1).normal(size=(2, 5, 24)).astype(np.float32)
    outs = [np.full((2, 5, width), np.nan, np.float32) for width in (3, 97, 1, 150, 50)]
    source: Weights = CachedWeights(weights) if held else weights
    if held and bias:
        source = CachedWeights(
            {f"{name}.weight": weights[f"{name}.weight"], f"{name}.bias": np.linspace(-1, 1, 301, dtype="f4")}
        )
    make(source).project(x, name, *outs, bias=bias)
    wanted = x @ source[f"{name}.weight"].T + (source[f"{name}.bias"] if bias else 0)
    np.testing.assert_allclose(np.concatenate(outs, -1), wanted, rtol=0, atol=1e-6)


def test_matrices_may_be_read_in_tiles() -> None:
    config = odd()
    weights, tokens = synthetic(config, 1), tokens_of(config, 20, 2)
    found = filled(config, compiled.CompiledEngine(Tiled(weights)), tokens, [slice(0, 20)])
    assert_same(found, filled(config, Engine(CachedWeights(weights)), tokens, [slice(0, 20)]))


def test_small_values_underflow_to_0_and_large_ones_do_not_overflow() -> None:
    x = np.array([[[0.0, -80.0, -200.0, -1e4, -np.inf]]], np.float32)
    largest, total, out = np.empty((1, 1), np.float32), np.empty((1, 1), np.float32), np.empty_like(x)
    engine = compiled.CompiledEngine(nano())
    engine.softmax(x, largest, total, out)
    np.testing.assert_allclose(out[0, 0], [1, 1.8048514e-35, 0, 0, 0], rtol=1e-5)
    x = np.array([[[-1e6, -100.0, 100.0, 1e30]]], np.float32)
    for function in ("gelu_new", "gelu", "silu", "relu"):
        activated = np.empty_like(x)
        engine.activate(function, x, activated)
        np.testing.assert_allclose(activated[0, 0], [0, 0, 100, 1e30], rtol=1e-6, atol=1e-30, err_msg=function)


@settings(max_examples=60)
@given(first=st.integers(0, 40), count=st.integers(0, 300), seed=st.integers(0, 3))
def test_synthetic_weights_match_numpy(first: int, count: int, seed: int) -> None:
    weights = synthetic(odd(), seed)
    compared = weights._run("wte.weight", first, count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker.weights.synthetic, "draw", None)
        np.testing.assert_array_equal(weights._run("wte.weight", first, count), compared)


def test_a_forked_process_has_its_own_threads() -> None:
    source = """if 1:
        import os, sys
        import numpy as np
        from worker.engine import _kernels
        big = np.empty(1 << 22, np.float32)
        _kernels.draw(1, 0, 1.0, big)
        wanted, pid = big.copy(), os.fork()
        if pid == 0:
            big[:] = 0
            for _ in range(3):
                _kernels.draw(1, 0, 1.0, big)
            os._exit(0 if (big == wanted).all() else 1)
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """
    environment = {name: value for name, value in os.environ.items() if not name.endswith("NUM_THREADS")}
    subprocess.run([sys.executable, "-c", source], check=True, timeout=60, env=environment)


@pytest.mark.parametrize("threads", ["1", "3"])
def test_values_do_not_depend_on_the_number_of_threads(threads: str) -> None:
    source = """if 1:
        import hashlib
        from worker.trace.arena import Arena, plan
        from worker.engine.compiled import CompiledEngine
        from worker.families.gpt2 import GPT2Config as Config
        from worker.families.gpt2 import forward
        from worker.models.sources import synthetic
        config = Config(n_layer=2, n_head=4, n_embd=128, n_positions=64, vocab_size=500)
        arena = Arena(plan(config, 50))
        arena["tokens"][...] = range(50)
        forward(config, CompiledEngine(synthetic(config, 0)), arena, slice(0, 50))
        print(hashlib.sha256(arena.memory).hexdigest())
    """
    environment = os.environ | {"OPENBLAS_NUM_THREADS": threads}
    run = subprocess.run([sys.executable, "-c", source], check=True, capture_output=True, text=True, env=environment)
    alone = os.environ | {"OPENBLAS_NUM_THREADS": "2"}
    again = subprocess.run([sys.executable, "-c", source], check=True, capture_output=True, text=True, env=alone)
    assert run.stdout == again.stdout


@pytest.mark.parametrize(
    ("x", "error"),
    [
        (np.zeros((1, 2, 4)), TypeError),
        (np.zeros((2, 4), np.float32), TypeError),
        (np.zeros((1, 2, 8), np.float32)[..., ::2], TypeError),
        (np.zeros((1, 3, 4), np.float32), ValueError),
        (np.zeros((1, 2, 5), np.float32), ValueError),
    ],
)
def test_invalid_arrays_are_rejected(x: Array, error: type[Exception]) -> None:
    out = np.zeros((1, 2, 4), np.float32)
    with pytest.raises(error):
        kernels.activate(0, x, out)
    with pytest.raises(error):
        kernels.linear(x, False, (None, out, 0, np.zeros((4, 4), np.float32), 0, 0, 0, 0.0))


def test_the_numpy_engine_is_used_without_compiled_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "COMPILED", False)
    assert type(compiled.engine(nano())) is type(compiled.engine(nano(), cache_weights=True)) is Engine
