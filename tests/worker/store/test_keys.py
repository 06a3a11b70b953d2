"""Ids of requests."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import worker.store.keys as keys
from worker.store.keys import content_id

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def reversed_everywhere(value: Any) -> Any:
    """Return the same JSON with the keys of every object in reverse order."""
    if isinstance(value, dict):
        return {key: reversed_everywhere(inner) for key, inner in reversed(value.items())}
    return [reversed_everywhere(inner) for inner in value] if isinstance(value, list) else value


@settings(max_examples=50)
@given(st.dictionaries(st.text(), json_values))
def test_order_of_keys_does_not_matter(request: dict[str, Any]) -> None:
    assert content_id("trace", request) == content_id("trace", reversed_everywhere(request))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"tokens": [1, 2]}, {"tokens": [2, 1]}),
        ({"tokens": [1, 2]}, {"tokens": [12]}),
        ({"tokens": [1]}, {"tokens": ["1"]}),
        ({"tokens": None}, {}),
        ({"a": {"b": 1}}, {"a": {}, "b": 1}),
        ({"weights": "synthetic-1-0"}, {"weights": "synthetic-1-1"}),
    ],
)
def test_different_requests_have_different_ids(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert content_id("trace", one) != content_id("trace", other)


def test_kinds_have_different_ids() -> None:
    assert content_id("trace", {"tokens": 1}) != content_id("layout", {"tokens": 1})


def test_id_is_64_hexadecimal_digits() -> None:
    assert re.fullmatch("[0-9a-f]{64}", content_id("layout", {}))


def test_new_version_has_new_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    before = content_id("trace", {})
    monkeypatch.setattr(keys, "VERSION", keys.VERSION + 1)
    assert content_id("trace", {}) != before


def test_number_that_json_does_not_have_raises() -> None:
    with pytest.raises(ValueError, match="JSON"):
        content_id("trace", {"temperature": float("nan")})
