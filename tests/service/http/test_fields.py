"""Numbers in requests: JSON has one kind, and every message says what is allowed."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient
from marshmallow import ValidationError

from service.http.schemas.fields import Tokens, integer
from service.http.schemas.models import ModelField


@pytest.mark.parametrize("value", [6, 6.0])
def test_an_integer_may_be_written_with_a_fraction_of_zero(value: float) -> None:
    field = integer(0, 10)
    read = field.deserialize(value)
    assert (read, type(read)) == (6, int)
    assert Tokens(field).deserialize([1, value]) == [1, 6]
    assert type(Tokens(field).deserialize([value])[0]) is int


@pytest.mark.parametrize("value", [6.5, -1, 11, 2**64, 1.8446744073709552e19, float("inf"), "6", True, None, [], 1e300])
def test_what_is_allowed_is_in_the_message(value: Any) -> None:
    with pytest.raises(ValidationError) as raised:
        integer(0, 10).deserialize(value)
    expected = "Field may not be null." if value is None else "Must be an integer from 0 to 10."
    assert raised.value.messages == [expected]


def test_sizes_may_be_written_with_a_fraction_of_zero() -> None:
    assert ModelField().deserialize({"n_layer": 3.0, "n_head": 3}) == {"n_layer": 3, "n_head": 3}


def test_two_spellings_of_a_number_are_one_request(client: FlaskClient) -> None:
    ids = {
        client.post("/v1/layouts", json={"model": {"n_layer": n, "n_head": 2, "n_embd": 8}}).get_json()["id"]
        for n in (2, 2.0)
    }
    assert len(ids) == 1
