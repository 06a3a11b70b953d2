"""Decoders with RMS norms: published parameter counts, config.json, and agreement with transformers."""

from __future__ import annotations

from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.worker.families import oracle
from worker.describe.config import ConfigError
from worker.describe.counts import total
from worker.families.gemma2 import Gemma2Config, rounded
from worker.families.registry import PRESETS, config_from_mapping, config_from_text, describe
from worker.layout.place import place
from worker.models import checkpoints
from worker.models.checkpoints import CheckpointError

PARAMETERS = {
    "smollm2-135m": 134_515_008,
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496,
    "llama-3.1-405b": 405_853_388_800,
    "mistral-7b": 7_241_732_096,
    "qwen2.5-0.5b": 494_032_768,
    "qwen3-0.6b": 596_049_920,
    "qwen3-32b": 32_762_123_264,
    "gemma-2-2b": 2_614_341_888,
    "gemma-3-270m": 268_098_176,
}

#: The classes of transformers: of the model, and of its configuration.
CLASSES: dict[str, tuple[str, str]] = {
    "llama": ("Llama", "LlamaConfig"),
    "mistral": ("Mistral", "MistralConfig"),
    "qwen2": ("Qwen2", "Qwen2Config"),
    "qwen3": ("Qwen3", "Qwen3Config"),
    "gemma2": ("Gemma2", "Gemma2Config"),
    "gemma3_text": ("Gemma3", "Gemma3TextConfig"),
}
SMALL: dict[str, Any] = {
    "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 32, "head_dim": 12,
    "intermediate_size": 44, "max_position_embeddings": 64, "vocab_size": 37, "sliding_window": 4, "pad_token_id": 0,
}  # fmt: skip
LOCAL, GLOBAL = "sliding_attention", "full_attention"
ROTATIONS: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "factor": 3.0, "rope_theta": 500.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 500.0},
    "llama3": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32, "rope_theta": 500.0,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "rope_theta": 500.0},
}  # fmt: skip
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{
        f"llama, {name}": ("llama", {"rope_parameters": rotation, "sliding_window": None})
        for name, rotation in ROTATIONS.items()
    },
    "mistral": ("mistral", {}),
    "mistral without a window": ("mistral", {"sliding_window": None, "tie_word_embeddings": True}),
    "mistral, yarn": ("mistral", {"rope_parameters": ROTATIONS["yarn"], "hidden_act": "gelu"}),
    "qwen2": ("qwen2", {}),
    "qwen2 with windows from layer 1 on": ("qwen2", {"use_sliding_window": True, "max_window_layers": 1}),
    "qwen2 with one window": (
        "qwen2",
        {"use_sliding_window": True, "layer_types": [GLOBAL, LOCAL, GLOBAL], "tie_word_embeddings": True},
    ),
    "qwen3": ("qwen3", {"rope_parameters": ROTATIONS["linear"]}),
    "qwen3 with biases and windows": (
        "qwen3",
        {"attention_bias": True, "use_sliding_window": True, "max_window_layers": 2, "tie_word_embeddings": True},
    ),
    "gemma2": ("gemma2", {}),
    "gemma2 without caps": ("gemma2", {"attn_logit_softcapping": None, "final_logit_softcapping": None}),
    "gemma2 with small caps": ("gemma2", {"attn_logit_softcapping": 0.5, "final_logit_softcapping": 0.8}),
    "gemma2, another scale": ("gemma2", {"query_pre_attn_scalar": 5, "tie_word_embeddings": False}),
    "gemma2 with biases and other layers": (
        "gemma2", {"attention_bias": True, "layer_types": [GLOBAL, GLOBAL, LOCAL], "hidden_activation": "silu"}
    ),
    "gemma3": ("gemma3_text", {}),
    "gemma3 with a cap and other layers": (
        "gemma3_text",
        {"final_logit_softcapping": 0.8, "layer_types": [LOCAL, GLOBAL, LOCAL], "query_pre_attn_scalar": 12},
    ),
    "gemma3 with two rotations": (
        "gemma3_text",
        {
            "rope_parameters": {
                GLOBAL: ROTATIONS["linear"] | {"rope_theta": 5000.0},
                LOCAL: {"rope_type": "default", "rope_theta": 77.0},
            },
            "attention_bias": True,
        },
    ),
}  # fmt: skip


def random_model(case: str, dtype: str = "float32") -> Any:
    family, options = CASES[case]
    name, configured = CLASSES[family]
    return oracle.random_model(name, SMALL | options, dtype, configured=configured)


# ------------------------------------------------------------------------------------------------------- presets


def test_presets_are_the_published_models() -> None:
    families = {*CLASSES}
    assert [id for id, preset in PRESETS.items() if preset.config.model_type in families] == [*PARAMETERS]


@pytest.mark.parametrize("id", PARAMETERS)
def test_parameters_are_exact(id: str) -> None:
    assert total(describe(PRESETS[id].config)) == PARAMETERS[id]


@pytest.mark.parametrize("id", PARAMETERS)
def test_presets_have_a_layout(id: str) -> None:
    geometry = place(PRESETS[id].config, 16)
    layers = describe(PRESETS[id].config).n_layer
    assert geometry.count > 50 * layers
    assert np.isfinite([*geometry.bounds.min, *geometry.bounds.max]).all()


# --------------------------------------------------------------------------------------------------- transformers


@pytest.mark.parametrize("case", CASES)
def test_values_match_transformers(tmp_path: Path, case: str) -> None:
    model = random_model(case)
    oracle.save(model, tmp_path / "tiny")
    oracle.check_values(model, tmp_path / "tiny")


@pytest.mark.parametrize("case", ["qwen3 with biases and windows", "gemma2 with small caps", "gemma3"])
def test_both_engines_match_transformers(tmp_path: Path, case: str) -> None:
    model = random_model(case)
    oracle.save(model, tmp_path / "tiny")
    for make_engine in oracle.ENGINES.values():
        oracle.check_values(model, tmp_path / "tiny", make_engine)


@pytest.mark.parametrize("saved", oracle.SAVED.values(), ids=oracle.SAVED)
@pytest.mark.parametrize("case", ["llama, llama3", "mistral", "qwen2", "qwen3", "gemma2", "gemma3"])
def test_every_kind_of_file_is_read(tmp_path: Path, case: str, saved: tuple[str, dict[str, Any]]) -> None:
    dtype, how = saved
    model = random_model(case, dtype)
    if case.startswith("gemma"):  # the checkpoint's dtype rounds the factor of the embedding
        embedding = model.get_input_embeddings()
        embedding.embed_scale.fill_(rounded(sqrt(SMALL["hidden_size"]), dtype))
    oracle.save(model, tmp_path / "tiny", dtype, **how)
    oracle.check_values(model, tmp_path / "tiny")


@pytest.mark.parametrize(
    "case", ["llama, yarn", "mistral", "qwen2 with one window", "qwen3", "gemma2", "gemma3 with two rotations"]
)
def test_generation_matches_transformers(tmp_path: Path, case: str) -> None:
    model = random_model(case)
    oracle.save(model, tmp_path / "tiny")
    oracle.check_generation(model, tmp_path / "tiny")


# ---------------------------------------------------------------------------------------------------- config.json


def read(tmp_path: Path, **config: Any) -> Any:
    oracle.write_config(tmp_path / "tiny", config)
    return checkpoints.read_config("tiny", str(tmp_path))


#: As published on the hub, with settings that change nothing.
PUBLISHED: dict[str, dict[str, Any]] = {
    "smollm2-135m": {
        "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 1,
        "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 576, "initializer_range": 0.041666666666666664,
        "intermediate_size": 1536, "is_llama_config": True, "max_position_embeddings": 8192, "mlp_bias": False,
        "model_type": "llama", "num_attention_heads": 9, "num_hidden_layers": 30, "num_key_value_heads": 3,
        "pad_token_id": 2, "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_interleaved": False, "rope_scaling": None,
        "rope_theta": 100000, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
        "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}}, "transformers_version": "4.42.3",
        "use_cache": True, "vocab_size": 49152,
    },
    "llama-3.1-8b": {
        "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
        "bos_token_id": 128000, "eos_token_id": 128001, "hidden_act": "silu", "hidden_size": 4096,
        "initializer_range": 0.02, "intermediate_size": 14336, "max_position_embeddings": 131072, "mlp_bias": False,
        "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
        "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": {
            "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        }, "rope_theta": 500000.0, "tie_word_embeddings": False, "torch_dtype": "bfloat16", "use_cache": True,
        "vocab_size": 128256,
    },
    "mistral-7b": {
        "architectures": ["MistralForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
        "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336, "max_position_embeddings": 32768,
        "model_type": "mistral", "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
        "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "sliding_window": 4096, "tie_word_embeddings": False,
        "torch_dtype": "bfloat16", "use_cache": True, "vocab_size": 32000,
    },
    "qwen2.5-0.5b": {
        "attention_dropout": 0.0, "hidden_act": "silu", "hidden_size": 896, "intermediate_size": 4864,
        "max_position_embeddings": 32768, "max_window_layers": 24, "model_type": "qwen2", "num_attention_heads": 14,
        "num_hidden_layers": 24, "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
        "sliding_window": 32768, "tie_word_embeddings": True, "use_mrope": False, "use_sliding_window": False,
        "vocab_size": 151936,
    },
    "qwen3-0.6b": {
        "attention_bias": False, "head_dim": 128, "hidden_act": "silu", "hidden_size": 1024, "intermediate_size": 3072,
        "max_position_embeddings": 40960, "max_window_layers": 28, "model_type": "qwen3", "num_attention_heads": 16,
        "num_hidden_layers": 28, "num_key_value_heads": 8, "rms_norm_eps": 1e-06, "rope_scaling": None,
        "rope_theta": 1000000, "sliding_window": None, "tie_word_embeddings": True, "use_sliding_window": False,
        "vocab_size": 151936,
    },
    "gemma-2-2b": {
        "attention_bias": False, "attn_logit_softcapping": 50.0, "cache_implementation": "hybrid",
        "final_logit_softcapping": 30.0, "head_dim": 256, "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 2304, "intermediate_size": 9216,
        "max_position_embeddings": 8192, "model_type": "gemma2", "num_attention_heads": 8, "num_hidden_layers": 26,
        "num_key_value_heads": 4, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "rope_theta": 10000.0,
        "sliding_window": 4096, "torch_dtype": "float32", "vocab_size": 256000,
    },
    "gemma-3-270m": {
        "_sliding_window_pattern": 6, "attention_bias": False, "attn_logit_softcapping": None,
        "final_logit_softcapping": None, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 640,
        "intermediate_size": 2048, "layer_types": [*[*[LOCAL] * 5, GLOBAL] * 3], "max_position_embeddings": 32768,
        "model_type": "gemma3_text", "num_attention_heads": 4, "num_hidden_layers": 18, "num_key_value_heads": 1,
        "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "rope_local_base_freq": 10000.0, "rope_scaling": None,
        "rope_theta": 1000000.0, "sliding_window": 512, "torch_dtype": "bfloat16", "use_bidirectional_attention": False,
        "vocab_size": 262144,
    },
}  # fmt: skip


@pytest.mark.parametrize("id", PUBLISHED)
def test_the_published_config_json_is_the_preset(tmp_path: Path, id: str) -> None:
    assert read(tmp_path, **PUBLISHED[id]) == PRESETS[id].config


SCALED: dict[str, dict[str, Any]] = {
    "transformers 5": {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0}},
    "apart": {"rope_theta": 500.0, "rope_scaling": {"rope_type": "linear", "factor": 2.0}},
    "older": {"rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 2}},
    "with a null": {"rope_theta": 500, "rope_parameters": {"rope_type": "linear", "factor": 2.0, "beta_fast": None}},
}


@pytest.mark.parametrize("form", SCALED)
def test_every_form_of_rotary_parameters_is_read(tmp_path: Path, form: str) -> None:
    config = read(tmp_path, model_type="llama", **SCALED[form])
    assert config.rope_theta == 500.0
    assert config.rope_parameters.to_mapping() == {"rope_type": "linear", "factor": 2.0}


def test_settings_that_are_missing_have_the_defaults_of_transformers(tmp_path: Path) -> None:
    config = read(tmp_path, model_type="llama")
    assert (config.rms_norm_eps, config.max_position_embeddings, config.rope_theta) == (1e-6, 2048, 10000.0)


def test_yarns_factors_follow_from_mscale_and_the_context(tmp_path: Path) -> None:
    yarn = {"rope_type": "yarn", "factor": 40.0, "mscale": 1.0, "mscale_all_dim": 0.5, "beta_fast": 0}
    config = read(tmp_path, model_type="llama", max_position_embeddings=4096, rope_scaling=yarn)
    found = config.rope_parameters
    assert (found.original_max_position_embeddings, found.beta_fast) == (4096, 32.0)
    assert found.attention_factor == pytest.approx((0.1 * np.log(40) + 1) / (0.05 * np.log(40) + 1))


def test_a_period_of_layers_is_read(tmp_path: Path) -> None:
    config = read(tmp_path, model_type="gemma3_text", num_hidden_layers=4, sliding_window_pattern=2)
    assert config.layer_types == (LOCAL, GLOBAL, LOCAL, GLOBAL)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown setting": ({"model_type": "llama", "rope_interleaved": True}, "rope_interleaved: true, which llama"),
    "quantized weights": (
        {"model_type": "qwen2", "quantization_config": {"bits": 4}}, 'has quantization_config: {"bits":4}, which qwen2'
    ),
    "some channels rotated": ({"model_type": "llama", "partial_rotary_factor": 0.5}, "has a partial_rotary_factor"),
    "some channels rotated, inside": (
        {"model_type": "mistral", "rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
        "has a partial_rotary_factor, and only 1.0",
    ),
    "an unknown rotation": (
        {"model_type": "llama", "rope_scaling": {"rope_type": "longrope", "factor": 2.0}},
        "rope_type 'longrope' is not allowed: must be one of default, linear, dynamic, llama3, yarn",
    ),
    "an unknown part of a rotation": (
        {"model_type": "llama", "rope_scaling": {"rope_type": "linear", "factor": 2.0, "shift": 1}},
        "shift is not allowed: the type linear has factor",
    ),
    "global layers": (
        {"model_type": "mistral", "layer_types": [GLOBAL, LOCAL]}, f'has layer_types ["{GLOBAL}"], and only {LOCAL}'
    ),
    "local layers": ({"model_type": "llama", "layer_types": [LOCAL]}, f'layer_types ["{LOCAL}"], and only {GLOBAL}'),
    "chunks": ({"model_type": "qwen2", "layer_types": ["chunked"]}, "layer_types: ['chunked'] is not allowed"),
    "too few layers": ({"model_type": "qwen3", "layer_types": [GLOBAL]}, "1 layers are not allowed"),
    "a window that is off": (
        {"model_type": "qwen2", "num_hidden_layers": 1, "layer_types": [LOCAL]}, "there is no sliding_window"
    ),
    "both directions": (
        {"model_type": "gemma3_text", "use_bidirectional_attention": True}, "has use_bidirectional_attention: true"
    ),
    "a cap that transformers ignores": (
        {"model_type": "gemma3_text", "attn_logit_softcapping": 50.0}, "has attn_logit_softcapping: 50.0, and only null"
    ),
    "a scaled local rotation": (
        {"model_type": "gemma3_text", "rope_parameters": {LOCAL: {"rope_type": "linear", "factor": 2.0}}},
        "has a scaled rotation in sliding_attention layers",
    ),
    "one rotation for two": (
        {"model_type": "gemma3_text", "rope_parameters": {"rope_type": "default"}}, "which must be by type of layer"
    ),
    "an unknown dtype": ({"model_type": "gemma2", "dtype": "float8"}, "dtype: 'float8' is not allowed"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_setting_that_changes_the_numbers_is_refused_by_name(tmp_path: Path, case: str) -> None:
    config, message = REFUSED[case]
    with pytest.raises(CheckpointError) as error:
        read(tmp_path, **config)
    assert message in str(error.value)


# --------------------------------------------------------------------------------------------------- configuration


@pytest.mark.parametrize("id", PARAMETERS)
def test_a_configuration_round_trips_through_its_mapping_and_its_text(id: str) -> None:
    config = PRESETS[id].config
    assert config_from_mapping(config.to_mapping()) == config_from_text(config.to_text()) == config


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"model_type": "mistral", "sliding_window": 0}, "sliding_window"),
        ({"model_type": "qwen2", "layer_types": [LOCAL] * 32}, "layer_types"),
        ({"model_type": "qwen3", "head_dim": 7}, "head_dim"),
        ({"model_type": "qwen3", "num_key_value_heads": 7}, "num_key_value_heads"),
        ({"model_type": "gemma2", "attn_logit_softcapping": -1}, "attn_logit_softcapping"),
        ({"model_type": "gemma3_text", "rope_parameters": {"rope_type": "linear"}}, "rope_parameters"),
    ],
)
def test_an_invalid_field_is_reported_by_name(values: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as error:
        config_from_mapping(values)
    assert list(error.value.errors) == [field]


def test_without_a_window_its_settings_make_no_difference() -> None:
    off = {"model_type": "qwen2", "use_sliding_window": False}
    assert config_from_mapping(off | {"sliding_window": 7, "max_window_layers": 3}) == config_from_mapping(off)


@pytest.mark.parametrize(
    ("width", "dtype", "scale"),
    [(2304, "bfloat16", 48.0), (640, "bfloat16", 25.25), (640, "float16", 25.296875), (640, "float32", 25.2982216)],
)
def test_the_factor_of_the_embedding_is_rounded(width: int, dtype: str, scale: float) -> None:
    config = Gemma2Config(hidden_size=width, dtype=dtype)
    assert config.embed_scale == pytest.approx(scale, abs=1e-6)
    assert config.dtype == (dtype if width == 640 else "float32")
    torch = pytest.importorskip("torch")
    assert config.embed_scale == torch.tensor(width**0.5).to(getattr(torch, dtype)).item()
