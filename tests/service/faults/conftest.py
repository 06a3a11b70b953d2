"""Real processes for tests that kill them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import tests.processes
from tests.processes import Body, Stack


@pytest.fixture
def stack() -> Iterator[Stack]:
    """Both Redis, for one test."""
    with tests.processes.stack() as found:
        yield found


@pytest.fixture
def seconds(request_body: Body) -> Body:
    """A trace that takes a few seconds, and that nobody has asked for before."""
    config = {"n_layer": 24, "n_head": 2, "n_embd": 128, "n_positions": 512, "vocab_size": 500}
    return request_body | {"model": config, "generate": {"max_new_tokens": 80}, "capture": ["probs"]}
