"""Configurations: presets, validation, mappings and text form."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.gpt2 import CONFIGS
from worker.describe.config import Config as AnyConfig
from worker.describe.config import ConfigError, Whole
from worker.describe.counts import operations, parameters
from worker.describe.functions import FUNCTIONS
from worker.families.gpt2 import FAMILY
from worker.families.gpt2 import GPT2Config as Config
from worker.families.registry import PRESETS, config_from_text, describe

LIMITS = {name: rule.maximum for name, rule in Config.rules().items() if isinstance(rule, Whole)}
SIZES_AND_TOTALS = {  # n_layer, n_embd, n_head, d_head, n_positions, vocab_size, parameters
    "nano-gpt": (3, 48, 3, 16, 11, 3, 85_728),
    "gpt-micro": (4, 128, 4, 32, 1024, 50257, 7_357_312),
    "gpt-mini": (6, 192, 6, 32, 1024, 50257, 12_515_520),
    "gopher-44m": (8, 512, 16, 32, 1024, 50257, 51_475_968),
    "gpt2": (12, 768, 12, 64, 1024, 50257, 124_439_808),
    "gpt2-medium": (24, 1024, 16, 64, 1024, 50257, 354_823_168),
    "gpt2-large": (36, 1280, 20, 64, 1024, 50257, 774_030_080),
    "gpt2-xl": (48, 1600, 25, 64, 1024, 50257, 1_557_611_200),
    "gpt3-small": (12, 768, 12, 64, 2048, 50257, 125_226_240),
    "gpt3-medium": (24, 1024, 16, 64, 2048, 50257, 355_871_744),
    "gpt3-large": (24, 1536, 16, 96, 2048, 50257, 760_300_032),
    "gpt3-xl": (24, 2048, 16, 128, 2048, 50257, 1_315_723_264),
    "gpt3-2.7b": (32, 2560, 32, 80, 2048, 50257, 2_651_553_280),
    "gpt3-6.7b": (32, 4096, 32, 128, 2048, 50257, 6_658_404_352),
    "gpt3-13b": (40, 5120, 40, 128, 2048, 50257, 12_853_386_240),
    "gpt3-175b": (96, 12288, 96, 128, 2048, 50257, 174_604_259_328),
}

PARTS_OF_175B = {
    "embedding": 617_558_016,
    "position": 25_165_824,
    "query": 14_495_514_624,
    "key": 14_495_514_624,
    "value": 14_495_514_624,
    "output": 14_495_514_624,
    "up_projection": 57_982_058_496,
    "down_projection": 57_982_058_496,
    "biases": 10_616_832,
    "layer_norm": 4_743_168,
    "unembedding": 617_558_016,
}


def total(config: Config) -> int:
    found = parameters(describe(config))["total"]
    assert isinstance(found, int)
    return found


def parts(config: Config) -> dict[str, int]:
    found = parameters(describe(config))["by_part"]
    assert isinstance(found, dict)
    return found


def configs() -> st.SearchStrategy[Config]:
    sizes: Any = {name: st.integers(1, most) for name, most in LIMITS.items()}
    epsilon = st.floats(0, 1, exclude_min=True, exclude_max=True)
    functions = st.sampled_from([*FUNCTIONS])
    return st.builds(
        Config, layer_norm_epsilon=epsilon, activation_function=functions, tie_word_embeddings=st.booleans(), **sizes
    )


# ----------------------------------------------------------------------------------------------------- presets


def test_presets_are_the_published_models() -> None:
    assert [preset.id for preset in FAMILY.presets] == list(SIZES_AND_TOTALS)


@pytest.mark.parametrize("id", SIZES_AND_TOTALS)
def test_presets_have_the_published_sizes(id: str) -> None:
    c = CONFIGS[id]
    sizes = (c.n_layer, c.n_embd, c.n_head, c.d_head, c.n_positions, c.vocab_size)
    assert sizes == SIZES_AND_TOTALS[id][:-1]


@pytest.mark.parametrize("id", SIZES_AND_TOTALS)
def test_presets_have_gpt2s_numerics(id: str) -> None:
    c = CONFIGS[id]
    assert (c.layer_norm_epsilon, c.activation_function, c.n_inner) == (1e-5, "gelu_new", 4 * c.n_embd)
    assert c.tie_word_embeddings == (id != "nano-gpt")


@pytest.mark.parametrize("id", SIZES_AND_TOTALS)
def test_parameters_of_presets_are_exact(id: str) -> None:
    assert total(CONFIGS[id]) == SIZES_AND_TOTALS[id][-1]


@pytest.mark.parametrize("id", ["gpt3-xl", "gpt3-13b"])
def test_notes_point_out_contradictions_in_the_paper(id: str) -> None:
    assert "Table 2.1" in PRESETS[id].note


def test_parts_of_gpt3_are_exact() -> None:
    assert parts(CONFIGS["gpt3-175b"]) == PARTS_OF_175B


def test_gpt3_without_positions_biases_and_norms_has_the_published_count() -> None:
    found = parts(CONFIGS["gpt3-175b"])
    assert sum(n for part, n in found.items() if part not in ("position", "biases", "layer_norm")) == 175_181_291_520


def test_a_tied_head_is_a_part_but_not_in_the_total() -> None:
    tied = CONFIGS["nano-gpt"].to_mapping() | {"tie_word_embeddings": True}
    assert total(Config(**tied)) == 85_584
    assert parts(Config(**tied)) == parts(CONFIGS["nano-gpt"])


def test_non_embedding_parameters_do_not_depend_on_vocabulary_and_positions() -> None:
    small, large = Config(vocab_size=1, n_positions=1), Config()
    assert parameters(describe(small))["non_embedding"] == parameters(describe(large))["non_embedding"] == 85_056_000


def test_one_token_takes_two_operations_per_matrix_weight_plus_attention() -> None:
    found = parts(CONFIGS["gpt2"])
    matrices = sum(n for part, n in found.items() if part not in ("embedding", "position", "biases", "layer_norm"))
    assert operations(describe(CONFIGS["gpt2"]), 1) == 2 * (matrices + 12 * 2 * 768)


# --------------------------------------------------------------------------------------------------- validation

WHOLE_NUMBERS = [
    (name, value, f"a whole number from 1 to {most:,}")
    for name, most in LIMITS.items()
    for value in (0, -1, most + 1, True, "3", 3.0, [3])
]


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        *WHOLE_NUMBERS,
        *((field, None, "a whole number from 1 to") for field in ("n_layer", "n_embd", "vocab_size")),
        *(("layer_norm_epsilon", bad, "above 0 and below 1") for bad in (0, 1, -1e-5, float("nan"), float("inf"))),
        *(("layer_norm_epsilon", bad, "above 0 and below 1") for bad in ("1e-5", True, None)),
        ("activation_function", "tanh", "gelu_new, gelu, relu, silu"),
        ("activation_function", None, "gelu_new, gelu, relu, silu"),
        ("activation_function", ["gelu"], "gelu_new, gelu, relu, silu"),
        ("tie_word_embeddings", 1, "true or false"),
        ("tie_word_embeddings", "yes", "true or false"),
        ("n_layers", 3, "one of n_layer, n_head, n_embd, d_head"),
        ("n_head", 7, "must be a divisor of n_embd = 768, or set d_head"),
    ],
)
def test_an_invalid_value_is_rejected_with_the_allowed_values(field: str, value: Any, allowed: str) -> None:
    with pytest.raises(ConfigError) as error:
        Config.from_mapping({field: value})
    assert list(error.value.errors) == [field]
    assert allowed in error.value.errors[field][0]
    assert allowed in str(error.value)


@pytest.mark.parametrize("value", [-1, True, "3", 3.0])
@pytest.mark.parametrize("field", ["d_head", "n_inner"])
def test_the_constructor_rejects_what_from_mapping_rejects(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=field):
        Config(**{field: value})


def test_every_invalid_field_is_reported() -> None:
    with pytest.raises(ConfigError) as error:
        Config.from_mapping({"n_layer": 0, "vocab_size": "many", "activation_function": "tanh"})
    assert set(error.value.errors) == {"n_layer", "vocab_size", "activation_function"}


@pytest.mark.parametrize("field", LIMITS)
def test_limits_themselves_are_accepted(field: str) -> None:
    for size in (1, LIMITS[field]):
        config = Config.from_mapping({"n_head": 1, "d_head": 1} | {field: size})
        assert config.to_mapping()[field] == size


@pytest.mark.parametrize("field", ["d_head", "n_inner"])
def test_null_omits_a_derived_size(field: str) -> None:
    assert Config.from_mapping({field: None}) == Config()


def test_derived_sizes_follow_from_the_width() -> None:
    config = Config(n_embd=96, n_head=4)
    assert (config.d_head, config.n_inner) == (24, 384)


def test_with_d_head_the_heads_need_not_divide_the_width() -> None:
    assert Config(n_embd=24, n_head=7, d_head=5).d_head == 5


def test_d_head_changes_attention_and_nothing_else() -> None:
    default, own = parts(Config(n_embd=24, n_head=3)), parts(Config(n_embd=24, n_head=3, d_head=5))
    changed = {part for part in default if default[part] != own[part]}
    assert changed == {"query", "key", "value", "output", "biases"}
    assert own["query"] == own["output"] == 12 * 24 * 15


# ----------------------------------------------------------------------------------------------------- mappings


@given(configs())
def test_a_configuration_round_trips_through_its_mapping(config: Config) -> None:
    assert Config.from_mapping(config.to_mapping()) == config


def test_equal_configurations_have_equal_mappings() -> None:
    explicit = Config.from_mapping({"n_embd": 768, "n_head": 12, "d_head": 64, "n_inner": 3072})
    assert explicit.to_mapping() == Config().to_mapping()


def test_epsilon_is_always_a_float() -> None:
    assert type(Config(layer_norm_epsilon=0.5).to_mapping()["layer_norm_epsilon"]) is float


# ------------------------------------------------------------------------------------------------------ text form


@given(configs())
def test_a_configuration_round_trips_through_its_text_in_any_order(config: Config) -> None:
    pairs = config.to_text().split(",")
    assert config_from_text(",".join(pairs)) == config_from_text(",".join(pairs[::-1])) == config


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (Config(), "n_layer=12,n_head=12,n_embd=768"),
        (
            CONFIGS["nano-gpt"],
            "n_layer=3,n_head=3,n_embd=48,n_positions=11,vocab_size=3,tie_word_embeddings=false",
        ),
        (Config(n_head=5, n_embd=11, d_head=2), "n_layer=12,n_head=5,n_embd=11,d_head=2"),
        (
            Config(layer_norm_epsilon=1e-6, activation_function="relu", n_inner=7),
            "n_layer=12,n_head=12,n_embd=768,n_inner=7,layer_norm_epsilon=1e-6,activation_function=relu",
        ),
    ],
)
def test_text_has_the_main_sizes_and_other_fields_that_differ_from_gpt2(config: Config, text: str) -> None:
    assert config.to_text() == text
    assert config_from_text(text) == config


@given(st.dictionaries(st.sampled_from([*Config().to_mapping()]), st.one_of(st.integers(), st.booleans(), st.none())))
def test_text_and_mapping_give_the_same_configuration_or_errors(values: dict[str, Any]) -> None:
    def read(make: Callable[[], AnyConfig]) -> AnyConfig | dict[str, list[str]]:
        try:
            return make()
        except ConfigError as error:
            return error.errors

    text = ",".join(f"{name}={json.dumps(value)}" for name, value in (values or {"n_layer": 12}).items())
    big = any(type(value) is int and abs(value) >= 2**63 for value in values.values())  # JSON's readers differ
    assert big or read(lambda: config_from_text(text)) == read(lambda: Config.from_mapping(values))
