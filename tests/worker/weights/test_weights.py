"""Weights: the trained file, and synthetic values as a function of seed, name and index."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.gpt2 import CONFIGS
from tests.nano import NANO_PATH, nano, nano_digest
from worker.families.gpt2 import GPT2Config as Config
from worker.families.registry import describe, family_of
from worker.models.sources import catalogue, synthetic
from worker.weights.base import CachedWeights, Key
from worker.weights.synthetic import SyntheticWeights

NANO = CONFIGS["nano-gpt"]
#: The element counts of its embedding and projections are not multiples of four.
SMALL = Config(n_layer=2, n_head=3, n_embd=15, d_head=7, n_inner=37, n_positions=11, vocab_size=13)
UNTIED = Config(**(SMALL.to_mapping() | {"tie_word_embeddings": False}))
GPT2 = CONFIGS["gpt2"]
DEVIATION = 0.02


def splitmix(seed: int, name: str, index: int, deviation: float) -> float:
    """The value defined by the docstring of SyntheticWeights, in Python integers."""
    wrap = 2**64 - 1
    state = int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "little")
    z = (state + index // 4 * 0x9E3779B97F4A7C15) & wrap
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & wrap
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & wrap
    z ^= z >> 31
    lane = z >> 16 * (index % 4) & 0xFFFF
    return ((lane ^ 0x8000) - 0x8000 + 0.5) * deviation * 12**0.5 / 2**16


def is_random(name: str) -> bool:
    return name.endswith(".weight") and "ln_" not in name


RANDOM = [name for name in catalogue(UNTIED) if is_random(name)]


@st.composite
def keys(draw: st.DrawFn) -> tuple[str, Key]:
    """A tensor of SMALL and a basic slice of it."""
    name = draw(st.sampled_from([*catalogue(SMALL)]))
    shape = catalogue(SMALL)[name]
    axes = [st.one_of(st.slices(size), st.integers(-size, size - 1)) for size in shape]
    return name, draw(st.tuples(*axes[: draw(st.integers(0, len(axes)))]))


def correlation(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Pearson's correlation, in standard deviations expected for independent values."""
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1] * np.sqrt(a.size))


# ----------------------------------------------------------------------------------------------------- trained


def test_nano_gpts_file_has_every_tensor_of_the_catalogue() -> None:
    assert {name: values.shape for name, values in nano().items()} == catalogue(NANO)


def test_nano_gpts_file_has_85728_float32_values() -> None:
    assert sum(values.size for values in nano().values()) == 85_728
    assert {values.dtype for values in nano().values()} == {np.dtype("<f4")}


def test_nano_gpts_file_describes_its_training() -> None:
    facts = json.loads(nano().metadata["training"])
    assert (facts["sorted"], facts["parameters"]) == ("729/729", 85_728)
    assert {"seed", "steps", "torch", "optimizer", "final_loss", "min_margin", "task"} <= facts.keys()


def test_nano_gpts_digest_is_that_of_the_file() -> None:
    assert nano_digest() == hashlib.sha256(NANO_PATH.read_bytes()).hexdigest()


@pytest.mark.parametrize("key", [(), (0,), (slice(None, None, -2),), (slice(1, 3), slice(-5, None)), (2, -1)], ids=str)
def test_a_slice_of_a_file_equals_that_of_the_whole(key: Key) -> None:
    np.testing.assert_array_equal(nano().read("wte.weight", key), nano()["wte.weight"][key])


# --------------------------------------------------------------------------------------------------- synthetic


@settings(max_examples=200)
@given(keys(), st.integers(0, 3))
def test_a_synthetic_slice_equals_that_of_the_whole(named: tuple[str, Key], seed: int) -> None:
    name, key = named
    weights = synthetic(SMALL, seed)
    part, whole = weights.read(name, key), weights[name]
    assert part.dtype == np.float32
    np.testing.assert_array_equal(part, whole[key], strict=True)


@pytest.mark.parametrize("name", ["wte.weight", "h.1.mlp.c_proj.weight"])
@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_values_are_lanes_of_splitmix64(name: str, seed: int) -> None:
    deviation = DEVIATION / 2 if "c_proj" in name else DEVIATION  # √(2L) = 2
    values = synthetic(SMALL, seed)[name].ravel()
    wanted = [splitmix(seed, name, n, deviation) for n in range(values.size)]
    np.testing.assert_allclose(values, wanted, rtol=3e-7)


def test_values_of_the_largest_tensors_depend_on_their_index() -> None:
    weights, name = synthetic(CONFIGS["gpt3-175b"], 5), "h.95.mlp.c_fc.weight"
    found = weights.read(name, (12287, slice(-9, None)))
    last = 12288 * 49152
    np.testing.assert_allclose(found, [splitmix(5, name, n, DEVIATION) for n in range(last - 9, last)], rtol=3e-7)


def test_another_instance_has_the_same_values() -> None:
    for name in catalogue(UNTIED):
        np.testing.assert_array_equal(synthetic(UNTIED, 4)[name], synthetic(UNTIED, 4)[name])


@pytest.mark.parametrize("name", RANDOM)
def test_another_seed_has_other_values(name: str) -> None:
    one, other = synthetic(UNTIED, 1)[name], synthetic(UNTIED, 2)[name]
    assert (one != other).mean() > 0.99


def test_no_two_tensors_have_the_same_values() -> None:
    weights = synthetic(UNTIED, 0)
    starts = [tuple(weights[name].ravel()[:40].tolist()) for name in RANDOM]
    assert len(set(starts)) == len(RANDOM)


@pytest.mark.parametrize("config", [SMALL, UNTIED], ids=["tied", "untied"])
def test_every_tensor_has_its_shape_and_is_float32(config: Config) -> None:
    weights = synthetic(config, 0)
    for name, shape in catalogue(config).items():
        assert weights[name].shape == shape, name
        assert weights[name].dtype == np.float32, name


def test_the_catalogue_has_exactly_the_names_it_lists() -> None:
    sizes = describe(UNTIED).sizes()
    listed = {name: t.shape(sizes) for name, t in describe(UNTIED).all_weights()}
    assert dict(catalogue(UNTIED)) == listed
    assert len(catalogue(UNTIED)) == len(listed)
    for name in ("h.2.ln_1.bias", "h.01.ln_1.bias", "h.-1.ln_1.bias", "h.{layer}.ln_1.bias", "h.ln_1.bias", "wte", ""):
        assert name not in catalogue(UNTIED)
    for name in (f"h.{'9' * 5000}.ln_1.bias", "h.\u0661.ln_1.bias", "h.0.h.0.ln_1.bias", "h.0.wte.weight"):
        assert name not in catalogue(UNTIED)


def test_indices_above_32_bits_are_exact() -> None:
    config = Config(n_layer=10_000, n_head=1_000, n_embd=1_000_000, n_inner=10_000_000)
    name = "h.9999.mlp.c_fc.weight"
    weights, at = synthetic(config, 5), 999_999 * 10_000_000 + 9_999_990
    wanted = [splitmix(5, name, at + n, DEVIATION) for n in range(10)]
    np.testing.assert_allclose(weights.read(name, (999_999, slice(-10, None))), wanted, rtol=1e-6)
    np.testing.assert_allclose(weights.read(name, (slice(999_999, None),))[0, -10:], wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "deviation"),
    [
        *((name, 0.02) for name in ("wte.weight", "wpe.weight", "h.0.attn.c_attn.weight", "h.11.mlp.c_fc.weight")),
        *((name, 0.02 / 24**0.5) for name in ("h.0.attn.c_proj.weight", "h.11.mlp.c_proj.weight")),
    ],
)
def test_values_have_the_moments_of_gpt2s_initialisation(name: str, deviation: float) -> None:
    values = synthetic(GPT2, 0).read(name, (slice(512),)).astype(np.float64)
    n = values.size
    assert abs(values.mean()) < 5 * deviation / n**0.5
    assert values.std() == pytest.approx(deviation, rel=5 * (0.2 / n) ** 0.5)  # a uniform one's kurtosis is 1.8
    assert abs(values).max() == pytest.approx(deviation * 3**0.5, rel=1e-3)


@pytest.mark.parametrize(
    ("suffix", "value"),
    [(".bias", 0), ("ln_1.weight", 1), ("ln_2.weight", 1), ("ln_f.weight", 1)],
)
def test_biases_are_0_and_gains_are_1(suffix: str, value: float) -> None:
    names = [name for name in catalogue(SMALL) if name.endswith(suffix)]
    assert names
    for name in names:
        assert (synthetic(SMALL, 0)[name] == value).all(), name


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 5, 768, 4 * 768, 2**14, 2**16])
def test_neighbours_and_rows_are_not_correlated(lag: int) -> None:
    values = synthetic(GPT2, 0).read("h.0.mlp.c_fc.weight", (slice(200),)).ravel()
    assert abs(correlation(values[lag:], values[:-lag])) < 5


def test_tensors_and_seeds_are_not_correlated() -> None:
    names = ["wte.weight", "h.0.attn.c_attn.weight", "h.1.attn.c_attn.weight", "h.1.mlp.c_fc.weight"]
    drawn = [synthetic(GPT2, s).read(name, (slice(90), slice(768))) for name in names for s in (0, 1, 2)]
    assert max(abs(correlation(a, b)) for a, b in combinations(drawn, 2)) < 5


def test_a_tied_head_is_the_word_embedding() -> None:
    weights = synthetic(SMALL, 3)
    np.testing.assert_array_equal(weights["lm_head.weight"], weights["wte.weight"])
    key = (slice(2, 9, 3), -1)
    np.testing.assert_array_equal(weights.read("lm_head.weight", key), weights["wte.weight"][key])


def test_an_untied_head_is_not_the_word_embedding() -> None:
    weights = synthetic(UNTIED, 3)
    assert (weights["lm_head.weight"] != weights["wte.weight"]).mean() > 0.99


@pytest.mark.parametrize("name", ["wte.weight", "h.95.mlp.c_fc.weight", "h.0.mlp.c_fc.bias", "ln_f.weight"])
def test_a_slice_of_the_largest_model_takes_little_memory(name: str) -> None:
    weights = synthetic(CONFIGS["gpt3-175b"], 0)
    tracemalloc.start()
    try:
        assert weights.read(name, (slice(-100, None, 1),) * len(catalogue(CONFIGS["gpt3-175b"])[name])).size in (
            100,
            10_000,
        )
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()


def test_cached_weights_are_generated_once() -> None:
    class Counting(SyntheticWeights):
        made = 0

        def __getitem__(self, name: str) -> NDArray[Any]:
            self.made += 1
            return super().__getitem__(name)

    source = Counting(catalogue(SMALL), partial(family_of(SMALL).initial, SMALL), 0)
    held = CachedWeights(source)
    assert held["wte.weight"] is held["wte.weight"]
    assert source.made == 1


def test_an_unknown_tensor_is_a_key_error() -> None:
    with pytest.raises(KeyError, match=r"h\.2\.ln_1\.weight"):
        synthetic(SMALL, 0)["h.2.ln_1.weight"]
