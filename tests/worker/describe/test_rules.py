"""Rules of configuration fields: values that may be null, lists of words, and fields that mappings leave out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from worker.describe.config import Config, ConfigError, Nullable, Number, Whole, Words, config_field, other_default
from worker.describe.config import parse_values as parse
from worker.describe.rotary import RopeParameters, RotaryScaling


@dataclass(frozen=True, kw_only=True)
class Sample(Config):
    model_type: ClassVar[str] = "sample"

    window: int | None = config_field(Nullable(Whole(9)), None, "Window")
    cap: float | None = config_field(Nullable(Number(below=99)), 50.0, "Cap", rare=True)
    kinds: tuple[str, ...] | None = config_field(Nullable(Words(("local", "global"))), None, "Layers", rare=True)
    rope_parameters: RotaryScaling | None = config_field(RopeParameters(), None, "Scaling", rare=True)


@dataclass(frozen=True, kw_only=True)
class Other(Sample):
    window: int | None = other_default(Sample, "window", 4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"window": 10}, "10 is not allowed: must be a whole number from 1 to 9, or null."),
        ({"window": 0}, "0 is not allowed: must be a whole number from 1 to 9, or null."),
        ({"cap": "high"}, "'high' is not allowed: must be a number above 0 and below 99, or null."),
        ({"kinds": ["local", "none"]}, "['local', 'none'] is not allowed: must be a list of local or global, or null."),
        ({"kinds": []}, "[] is not allowed: must be a list of local or global, or null."),
        ({"kinds": "local"}, "'local' is not allowed: must be a list of local or global, or null."),
        ({"rope_parameters": {"rope_type": "linear"}}, "factor of the type linear must be set."),
    ],
)  # fmt: skip
def test_an_invalid_value_is_rejected_with_what_is_allowed(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        Sample.from_mapping(values)
    assert error.value.errors == {next(iter(values)): [message]}


VALUES: dict[str, Any] = {
    "window": 3,
    "cap": None,
    "kinds": ["local", "global", "local"],
    "rope_parameters": {"rope_type": "linear", "factor": 2.0},
}


def test_a_configuration_round_trips_through_its_mapping_and_its_text() -> None:
    config = Sample.from_mapping(VALUES)
    assert config.to_mapping() == {"model_type": "sample", **VALUES}
    text = config.to_text()
    assert text == (
        'model_type=sample,window=3,cap=null,kinds=["local","global","local"],'
        'rope_parameters={"rope_type":"linear","factor":2.0}'
    )
    assert Sample.from_mapping({k: v for k, v in parse(text).items() if k != "model_type"}) == config
    assert hash(config) == hash(Sample.from_mapping(VALUES))


def test_rare_fields_with_their_defaults_are_left_out_of_the_mapping() -> None:
    assert Sample().to_mapping() == {"model_type": "sample", "window": None}
    assert Sample.json_schema(partial=False)["required"] == ["model_type", "window"]
    assert Sample.from_mapping({"rope_parameters": {"rope_type": "default"}}) == Sample()


def test_a_field_may_have_another_default_in_another_configuration() -> None:
    assert Other().window == 4
    assert Other.from_mapping({"window": None}).window is None
    with pytest.raises(ConfigError):
        Other(window=0)


def test_the_schema_allows_null() -> None:
    window = Sample.json_schema(partial=True)["properties"]["window"]
    assert window == {"title": "Window", "type": ["integer", "null"], "minimum": 1, "maximum": 9}
    assert Sample.json_schema(partial=False)["properties"]["window"] == window
