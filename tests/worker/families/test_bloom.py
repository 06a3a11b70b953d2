"""BLOOM: published parameter counts, validation, and agreement with transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.worker.families import oracle
from worker.describe.config import ConfigError
from worker.describe.counts import total
from worker.families.bloom import BloomConfig
from worker.families.registry import PRESETS, config_from_mapping, config_from_text, describe
from worker.models import checkpoints
from worker.models.checkpoints import CheckpointError

#: Computed with transformers from the published configurations.
PARAMETERS = {
    "bloom-560m": 559_214_592,
    "bloom-1b1": 1_065_314_304,
    "bloom-1b7": 1_722_408_960,
    "bloom-3b": 3_002_557_440,
    "bloom-7b1": 7_069_016_064,
    "bloom-176b": 176_247_271_424,
}
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "n_layer": 3,
    "n_head": 4,
    "vocab_size": 37,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "as published": {},
    "from the norms": {"apply_residual_connection_post_layernorm": True},
    "untied": {"tie_word_embeddings": False},
    "heads not a power of two": {"n_head": 6, "hidden_size": 36},
    "one head": {"n_head": 1},
    "another epsilon": {"layer_norm_epsilon": 0.03},
    "slow but exact, in one slice": {"slow_but_exact": True},
    "in slices, but not slow": {"pretraining_tp": 2},
}


@pytest.mark.parametrize(("id", "parameters"), PARAMETERS.items())
def test_parameters_are_exact(id: str, parameters: int) -> None:
    assert total(describe(PRESETS[id].config)) == parameters


@pytest.mark.parametrize("make_engine", oracle.ENGINES.values(), ids=oracle.ENGINES)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_values_match_transformers(tmp_path: Path, options: dict[str, Any], make_engine: Any) -> None:
    model = oracle.random_model("Bloom", SMALL | options)
    oracle.save(model, tmp_path / "tiny")
    oracle.check_values(model, tmp_path / "tiny", make_engine)


@pytest.mark.parametrize("saved", oracle.SAVED.values(), ids=oracle.SAVED)
def test_every_kind_of_file_is_read(tmp_path: Path, saved: tuple[str, dict[str, Any]]) -> None:
    dtype, how = saved
    model = oracle.random_model("Bloom", SMALL, dtype)
    oracle.save(model, tmp_path / "tiny", dtype, **how)
    oracle.check_values(model, tmp_path / "tiny")


def test_generation_matches_transformers(tmp_path: Path) -> None:
    model = oracle.random_model("Bloom", SMALL)
    oracle.save(model, tmp_path / "tiny")
    oracle.check_generation(model, tmp_path / "tiny")


def test_names_need_no_prefix(tmp_path: Path) -> None:
    model = oracle.random_model("Bloom", SMALL)
    oracle.save(model, tmp_path / "tiny")
    oracle.without_prefix(tmp_path / "tiny", "transformer.")
    oracle.check_values(model, tmp_path / "tiny")


def test_scores_are_those_of_the_paper(tmp_path: Path) -> None:
    """transformers adds the slope times the key's position, which gives the same attention."""
    model = oracle.random_model("Bloom", SMALL | {"n_head": 3, "hidden_size": 24})
    oracle.save(model, tmp_path / "tiny")
    found = oracle.check_values(model, tmp_path / "tiny")
    q, k, scores = (found[f"blocks.1.attn.{name}"][0] for name in ("q", "k", "scores"))
    for head, slope in enumerate((2**-4, 2**-8, 2**-2)):
        products = q[:, head] @ k[:, head].T / np.sqrt(8)
        distance = np.arange(9)[:, None] - np.arange(9)
        wanted = np.where(distance < 0, -np.inf, products - slope * distance)
        np.testing.assert_allclose(scores[head], wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "names", [{"n_embed": 48}, {"n_embed": None, "hidden_size": 48}, {"n_embed": 48, "hidden_size": 9}]
)
def test_n_embed_takes_precedence_if_it_is_set(tmp_path: Path, names: dict[str, Any]) -> None:
    oracle.write_config(tmp_path / "tiny", {"model_type": "bloom"} | names)
    found = checkpoints.read_config("tiny", str(tmp_path))
    assert isinstance(found, BloomConfig)
    assert found.hidden_size == 48


@pytest.mark.parametrize(
    ("field", "sizes"),
    [
        ("n_head", {"n_head": 5}),
        ("hidden_size", {"hidden_size": 0}),
        ("apply_residual_connection_post_layernorm", {"apply_residual_connection_post_layernorm": 1}),
        ("n_embed", {"n_embed": 3}),
    ],
)
def test_an_invalid_field_is_reported_by_name(field: str, sizes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as error:
        config_from_mapping({"model_type": "bloom", **sizes})
    assert list(error.value.errors) == [field]


def test_a_configuration_round_trips_through_its_mapping_and_its_text() -> None:
    config = BloomConfig(n_layer=3, hidden_size=48, seq_length=9, apply_residual_connection_post_layernorm=True)
    assert config_from_mapping(config.to_mapping()) == config_from_text(config.to_text()) == config


PUBLISHED: dict[str, Any] = {  # of BLOOM 560M
    "apply_residual_connection_post_layernorm": False, "attention_dropout": 0.0, "attention_softmax_in_fp32": True,
    "bias_dropout_fusion": True, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3, "unk_token_id": 0,
    "hidden_dropout": 0.0, "initializer_range": 0.02, "layer_norm_epsilon": 1e-05, "masked_softmax_fusion": True,
    "model_type": "bloom", "n_embed": 1024, "n_inner": None, "n_layer": 24, "num_attention_heads": 16,
    "offset_alibi": 100, "pretraining_tp": 1, "seq_length": 2048, "skip_bias_add": True, "skip_bias_add_qkv": False,
    "vocab_size": 250880,
}  # fmt: skip


def test_the_published_config_json_is_the_preset(tmp_path: Path) -> None:
    oracle.write_config(tmp_path / "tiny", PUBLISHED)
    assert checkpoints.read_config("tiny", str(tmp_path)) == PRESETS["bloom-560m"].config


def test_sums_of_slices_are_rejected(tmp_path: Path) -> None:
    oracle.write_config(tmp_path / "tiny", PUBLISHED | {"pretraining_tp": 4, "slow_but_exact": True})
    with pytest.raises(CheckpointError, match="has slow_but_exact: true, and only false is supported"):
        checkpoints.read_config("tiny", str(tmp_path))
