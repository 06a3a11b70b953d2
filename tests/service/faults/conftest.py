"""Fixtures for tests that kill processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import tests.processes
from tests.processes import Body, Stack


@pytest.fixture
def stack() -> Iterator[Stack]:
    """Two empty Redis servers."""
    with tests.processes.stack() as running:
        yield running


@pytest.fixture
def slow_body(request_body: Body) -> Body:
    """A new request for a trace that takes a few seconds."""
    config = {"n_layer": 24, "n_head": 2, "n_embd": 128, "n_positions": 512, "vocab_size": 500}
    return request_body | {"model": config, "generate": {"max_new_tokens": 80}, "capture": ["probs"]}
