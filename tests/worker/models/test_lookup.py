"""Finding models by id, configuration and reference."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.nano import nano_digest
from worker.describe.config import ConfigError
from worker.families.gpt2 import GPT2Config as Config
from worker.families.registry import PRESETS
from worker.models.lookup import UnknownModelError, find, from_reference, ids, resolve
from worker.models.reference import ModelRef

OWN = {"n_layer": 2, "n_embd": 24, "n_head": 3, "d_head": 5, "vocab_size": 17}


@pytest.mark.parametrize("id", PRESETS)
def test_a_preset_is_found_by_its_id(id: str) -> None:
    model = resolve(id)
    assert (model.id, model.config, model.preset) == (id, PRESETS[id].config, PRESETS[id])


@pytest.mark.parametrize("id", PRESETS)
def test_a_presets_configuration_is_the_preset(id: str) -> None:
    assert resolve(PRESETS[id].config.to_mapping()) == find(id)


@pytest.mark.parametrize(
    ("sizes", "id"),
    [({}, "gpt2"), ({"n_layer": 48, "n_embd": 1600, "n_head": 25}, "gpt2-xl"), ({"n_positions": 2048}, "gpt3-small")],
    ids=str,
)
def test_omitted_fields_have_gpt2s_values(sizes: dict[str, Any], id: str) -> None:
    assert resolve(sizes) == find(id)


def test_another_configuration_is_its_own_id_with_synthetic_weights() -> None:
    model = resolve(OWN)
    assert model.id == "n_layer=2,n_head=3,n_embd=24,d_head=5,vocab_size=17"
    assert (model.preset, model.source, model.seed) == (None, "synthetic", 0)
    assert model.config == Config.from_mapping(OWN)


@pytest.mark.parametrize("seed", [None, 7])
@pytest.mark.parametrize("spec", [*PRESETS, OWN], ids=[*PRESETS, "own"])
def test_a_models_id_and_its_configuration_as_text_are_the_same_model(spec: Any, seed: int | None) -> None:
    model = resolve(spec, synthetic_seed=seed)
    assert resolve(model.id, synthetic_seed=seed) == resolve(model.config.to_text(), synthetic_seed=seed) == model


def test_an_invalid_configuration_is_rejected() -> None:
    with pytest.raises(ConfigError, match="n_layer"):
        resolve({"n_layer": 0})


@pytest.mark.parametrize("id", ["gpt5", "", "GPT2"])
def test_the_error_for_an_unknown_id_lists_the_models(id: str) -> None:
    with pytest.raises(UnknownModelError) as refused:
        resolve(id)
    assert repr(id) in str(refused.value)
    assert all(known in str(refused.value) for known in PRESETS)


def test_only_nano_gpt_is_trained() -> None:
    assert [id for id in PRESETS if find(id).source == "trained"] == ["nano-gpt"]
    assert find("nano-gpt").digest == nano_digest()


def test_without_checkpoints_the_ids_are_the_presets() -> None:
    assert ids() == [*PRESETS]


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize("spec", ["nano-gpt", "gpt2", OWN], ids=["nano-gpt", "gpt2", "own"])
def test_a_seed_selects_synthetic_weights(spec: Any, seed: int) -> None:
    model = resolve(spec, synthetic_seed=seed)
    assert (model.id, model.config) == (resolve(spec).id, resolve(spec).config)
    assert (model.source, model.seed) == ("synthetic", seed)


def test_synthetic_models_without_a_seed_have_seed_0() -> None:
    assert resolve("gpt2") == resolve("gpt2", synthetic_seed=0)
    assert resolve(OWN) == resolve(OWN, synthetic_seed=0)


def test_weights_are_those_of_the_seed() -> None:
    key = (slice(2), slice(3))
    seven = resolve("nano-gpt", synthetic_seed=7).weights().read("wte.weight", key)
    np.testing.assert_array_equal(resolve("nano-gpt", synthetic_seed=7).weights().read("wte.weight", key), seven)
    assert (resolve("nano-gpt", synthetic_seed=8).weights().read("wte.weight", key) != seven).all()
    assert (resolve("nano-gpt").weights().read("wte.weight", key) != seven).all()


@pytest.mark.parametrize("seed", [None, 0, 7, 2**63 - 1])
@pytest.mark.parametrize("spec", [*PRESETS, OWN], ids=[*PRESETS, "own"])
def test_a_model_round_trips_through_its_reference(spec: Any, seed: int | None) -> None:
    model = resolve(spec, synthetic_seed=seed)
    assert from_reference(ModelRef.from_json(json.loads(json.dumps(model.reference.to_json())))) == model


def test_references_differ_if_weights_or_sizes_differ() -> None:
    models = [resolve("nano-gpt"), resolve("gpt2"), resolve(OWN)]
    models += [resolve(spec, synthetic_seed=7) for spec in ("nano-gpt", "gpt2", OWN)]
    assert len({json.dumps(model.reference.to_json()) for model in models}) == 6


@pytest.mark.parametrize(
    "weights", ["0" * 64, "synthetic-0-7", "synthetic-2-7"], ids=["another file", "an older way", "a newer way"]
)
def test_missing_weights_are_an_error(weights: str) -> None:
    with pytest.raises(ValueError, match="no longer exist"):
        from_reference(replace(resolve("nano-gpt").reference, weights=weights))


def test_nano_gpt_with_synthetic_weights_has_the_letters_too() -> None:
    assert resolve("nano-gpt", synthetic_seed=1).vocabulary.kind == "letters"


def test_notes_distinguish_synthetic_from_trained_weights() -> None:
    assert "seed 7" in resolve("nano-gpt", synthetic_seed=7).note
    assert "Trained" in resolve("nano-gpt").note
