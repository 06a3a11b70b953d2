"""Scaling of rotary frequencies: against transformers, in formulas, and its validation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from worker.describe.notation import LATEX, TEXT
from worker.describe.operations import OPERATIONS, Parameters
from worker.describe.rotary import RopeParameters, RotaryScaling, frequencies

RULE = RopeParameters()
BASE, WIDTH, CONTEXT = 10000.0, 64, 2048
SCALINGS: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2},
    "llama3": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 512,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512},
    "yarn, own betas": {
        "rope_type": "yarn", "factor": 16.0, "original_max_position_embeddings": 128, "beta_fast": 20, "beta_slow": 2.5,
        "truncate": False, "attention_factor": 1.7,
    },
    "yarn of few turns": {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 3},
    "yarn, dividing none": {"rope_type": "yarn", "factor": 1.0, "original_max_position_embeddings": 512},
}  # fmt: skip


def scaling(name: str) -> RotaryScaling:
    made = RULE.made(SCALINGS[name])
    assert made is not None
    return made


@pytest.mark.parametrize("name", SCALINGS)
def test_frequencies_match_transformers(name: str) -> None:
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = transformers.LlamaConfig(
        hidden_size=4 * WIDTH, num_attention_heads=4, max_position_embeddings=CONTEXT,
        rope_parameters={"rope_theta": BASE, **SCALINGS[name]},
    )  # fmt: skip
    wanted, factor = ROPE_INIT_FUNCTIONS[SCALINGS[name]["rope_type"]](config)
    found = frequencies(BASE, WIDTH, np.arange(WIDTH // 2), scaling(name))
    np.testing.assert_allclose(found, wanted.numpy(), rtol=2e-5)
    assert (scaling(name).attention_factor or 1.0) == pytest.approx(factor, rel=1e-12)


@pytest.mark.parametrize("name", SCALINGS)
def test_a_scaling_round_trips_through_json(name: str) -> None:
    mapping = RULE.as_json(scaling(name))
    assert RULE.error(mapping) is None
    assert RULE.made(mapping) == scaling(name)


def test_no_scaling_is_null_or_the_type_default() -> None:
    assert RULE.made(None) is None
    assert RULE.error({"rope_type": "default"}) is None
    assert RULE.made({"rope_type": "default"}) is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1], "must be an object or null"),
        ({}, "rope_type None is not allowed: must be one of default, linear, dynamic, llama3, yarn"),
        ({"rope_type": "longrope"}, "rope_type 'longrope' is not allowed"),
        ({"rope_type": "default", "factor": 2.0}, "factor is not allowed: the type default has no other field"),
        ({"rope_type": "linear"}, "factor of the type linear must be set"),
        ({"rope_type": "linear", "factor": 0}, "factor 0 is not allowed: must be a number above 0"),
        ({"rope_type": "linear", "factor": 2, "beta_fast": 1}, "beta_fast is not allowed: the type linear has factor"),
        ({**SCALINGS["llama3"], "high_freq_factor": 1}, "low_freq_factor 1 is not allowed: must be below"),
        ({**SCALINGS["yarn"], "beta_slow": 40}, "beta_slow 40 is not allowed: must be below beta_fast 32"),
        ({"rope_type": "yarn", "factor": 2.0}, "original_max_position_embeddings of the type yarn must be set"),
        ({**SCALINGS["yarn"], "truncate": "no"}, "truncate 'no' is not allowed: must be true or false"),
    ],
)  # fmt: skip
def test_an_invalid_scaling_is_rejected_by_name(value: Any, message: str) -> None:
    assert message in (RULE.error(value) or "")


@pytest.mark.parametrize("pairs", ["halves", "neighbours"])
@pytest.mark.parametrize("name", SCALINGS)
def test_a_cell_is_a_wave_of_the_scaled_angle(name: str, pairs: str) -> None:
    channels = np.arange(WIDTH + 4)
    at = [np.full(len(channels), 5), channels, 0 * channels]
    pair = channels % (WIDTH // 2) if pairs == "halves" else channels // 2
    angles = np.where(channels < WIDTH, 5 * frequencies(BASE, WIDTH, pair, scaling(name)), 0)
    for function, wave in (("cos", np.cos), ("sin", np.sin)):
        p = Parameters(function=function, base=BASE, pairs=pairs, width=WIDTH, scaling=scaling(name))
        wanted = wave(angles) * np.where(channels < WIDTH, scaling(name).attention_factor or 1, 1)
        np.testing.assert_allclose(OPERATIONS["rotary"].value([], p, at), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "channel", "formula", "sentence"),
    [
        ("linear", 0, "cos(5 · 1 / 4)", ", which linear scaling divides by its factor 4"),
        ("dynamic", 0, "cos(5 · 1)", " (dynamic scaling by its factor 2 begins only after the context)"),
        ("llama3", 0, "cos(5 · 1)", ", which llama3 scaling does not divide"),
        ("llama3", 31, "cos(5 · 0.00013335 / 8)", ", which llama3 scaling divides by its factor 8"),
        ("llama3", 13, "cos(5 · 0.023714 · (0.31079 + 0.68921 / 8))",
         ", 68.9 % of which llama3 scaling divides by its factor 8"),
        ("yarn", 0, "1.1386 · cos(5 · 1)", ", which yarn scaling does not divide, times the attention factor 1.1386"),
    ],
)  # fmt: skip
def test_the_explanation_says_the_factor(name: str, channel: int, formula: str, sentence: str) -> None:
    p = Parameters(function="cos", base=BASE, pairs="halves", width=WIDTH, scaling=scaling(name))
    rotary = OPERATIONS["rotary"]
    assert rotary.formula(TEXT, "", [], p, 1, (5, channel, 0)) == formula
    words = rotary.sentence([], p, 1, (5, channel, 0), [])
    assert words == f"The cosine of position 5 times the frequency of channel {channel}{sentence}"
    assert r"\cos" in rotary.formula(LATEX, "", [], p, 1, (5, channel, 0))
