"""Requests and their canonical forms."""

from __future__ import annotations

import json

import pytest

import worker.requests as requests
from worker.families.gpt2 import GPT2Config as Config
from worker.models.reference import ModelRef
from worker.requests import LayoutRequest, LensRequest, Request, TraceRequest
from worker.trace.sampling import Sampling

CONFIG = Config(n_layer=2, n_head=3, n_embd=24, n_positions=9, vocab_size=17)
MODEL = ModelRef(CONFIG, "synthetic-1-0")
REQUESTS: list[Request] = [
    TraceRequest(MODEL, (1, 2)),
    TraceRequest(MODEL, (1,), Sampling(3, 0.5, 2, 0.9, 7), ("logits", "blocks.0.*"), "float16"),
    LayoutRequest(CONFIG, 7, 3, "llm-viz"),
    LensRequest(MODEL, (1, 2, 3)),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda one: one.kind)
def test_request_survives_json(request_: Request) -> None:
    assert requests.from_json(request_.kind, json.loads(json.dumps(request_.to_json()))) == request_


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda one: one.kind)
def test_request_can_be_hashed(request_: Request) -> None:
    assert len({request_, requests.from_json(request_.kind, request_.to_json())}) == 1


def test_canonical_form_of_a_trace_has_these_fields_in_this_order() -> None:
    sampling = {"max_new_tokens": 3, "temperature": 0.5, "top_k": 2, "top_p": 0.9, "seed": 7}
    expected = {
        "config": CONFIG.to_mapping(),
        "weights": "synthetic-1-0",
        "tokens": [1],
        "generate": sampling,
        "capture": ["logits", "blocks.0.*"],
        "dtype": "float16",
    }
    assert json.dumps(REQUESTS[1].to_json()) == json.dumps(expected)


@pytest.mark.parametrize(("new", "positions"), [(None, 2), (1, 2), (4, 5)])
def test_trace_feeds_all_tokens_but_the_last_new_one(new: int | None, positions: int) -> None:
    request = TraceRequest(MODEL, (1, 2), None if new is None else Sampling(new))
    assert request.positions == positions
    assert request.layout() == LayoutRequest(CONFIG, positions)


def test_lens_is_over_the_prompt_and_the_fed_tokens() -> None:
    assert TraceRequest(MODEL, (1, 2)).lens([3, 4]) == LensRequest(MODEL, (1, 2, 3, 4))
