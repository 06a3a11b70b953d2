"""Canonical requests and their ids."""

from __future__ import annotations

from typing import Any

import pytest

import service.jobs.canonical as canonical
from service.http.schemas.layouts import LayoutRequestSchema
from service.http.schemas.traces import TraceRequestSchema
from service.settings import Settings
from worker.requests import TraceRequest
from worker.store.keys import request_id

Body = dict[str, Any]
SETTINGS = Settings(models_dir="")

#: Requests with their ids since the first release: clients save ids, and results are stored under them.
TRACES: list[tuple[Body, str]] = [
    ({"model": "nano-gpt", "text": "CBABBC"}, "12b2090a9165622b2d12377564e89057d22a81013c0ac9de8cdaca30243cfece"),
    (
        {"model": "nano-gpt", "text": "CBABBC", "generate": {"max_new_tokens": 6}},
        "43fd15cbd68d380666204c421c44c662df5a010dd6a7fc84e31d4ae9ac6095b9",
    ),
    (
        {
            "model": "nano-gpt",
            "tokens": [2, 1, 0, 1, 1, 2],
            "generate": {"max_new_tokens": 3, "temperature": 1, "top_k": 2, "top_p": 0.9, "seed": 7},
        },
        "2f8d97d874e22301d51b23bc285cd2279ed7fd6f76d62c909876de585e639605",
    ),
    (
        {"model": "nano-gpt", "tokens": [2, 1, 0], "capture": ["blocks.0.*", "logits"], "dtype": "float16"},
        "769418f680fc3dc56b59659f9bdb232ff27380ffb5752edc6770a33662d6b88d",
    ),
    (
        {"model": "nano-gpt", "tokens": [2, 1, 0], "capture": ["blocks.0.attn.hook_pattern"]},
        "469aea34b39d6a0d8bb4f8118c847e413ea19306ce6a94dbeb30d63b2bc5fb51",
    ),
    (
        {"model": "nano-gpt", "tokens": [2, 1, 0], "weights": {"synthetic": 5}},
        "bc4db39ae6acb5c21ade796a069d7d03733a7f20615046afe3e2b8a6adf9b74f",
    ),
    (
        {"model": "gpt2", "text": "Hello, world", "priority": "low"},
        "d5842c4fb1ef05d67041710cbaa6de08ae64068c9b12b62e717b889bb7e02767",
    ),
    (
        {"model": "gpt3-175b", "tokens": [1, 2, 3], "capture": ["logits"]},
        "7fd942851e17e3373f2849ec88afae0dbc6029fc267e6d7c703f536eecf4b350",
    ),
    (
        {
            "model": {
                "n_layer": 2,
                "n_head": 3,
                "n_embd": 24,
                "d_head": 5,
                "n_inner": 40,
                "n_positions": 9,
                "vocab_size": 17,
            },
            "tokens": [16, 0],
        },
        "8efbdc72c5fdc41cf7b2466d8f4ac3a81ade7434bf479cb44e1c9a51670c788c",
    ),
    (
        {
            "model": {
                "n_layer": 1,
                "layer_norm_epsilon": 1e-06,
                "activation_function": "relu",
                "tie_word_embeddings": False,
            },
            "tokens": [5],
        },
        "0b8fbdb6dc26e7d59528169947760b71bfe6a4bc4640e5974ffb643d62aeadc2",
    ),
]
LAYOUTS: list[tuple[Body, str]] = [
    ({"model": "nano-gpt"}, "f80b0f414f112b64fa312168a6f0c07bcaebf8d82c7359922f34131c4f300526"),
    ({"model": "nano-gpt", "tokens": 11}, "f80b0f414f112b64fa312168a6f0c07bcaebf8d82c7359922f34131c4f300526"),
    (
        {"model": "gpt2", "tokens": 7, "batch": 3, "style": "llm-viz"},
        "1f039eba067fe6f1d35efc0e7868f808c346d0c63a540705dc8fea9134618f8d",
    ),
    (
        {"model": {"n_layer": 2, "n_head": 3, "n_embd": 24}, "tokens": 5},
        "7bcc7461bfa24462b2c92320ccbcc151762ac1ca78ec504c52eb546362eb3bf3",
    ),
]
LENS = "46eb77b5852b35edb1d866f77e3ea02e02ab28bb818ea977ef0f59b150d4f645"


def trace(body: Body) -> TraceRequest:
    _, request = canonical.trace(TraceRequestSchema().load(body), SETTINGS)
    return request


@pytest.mark.parametrize(("body", "id"), TRACES, ids=[id[:8] for _, id in TRACES])
def test_ids_of_traces_are_stable(body: Body, id: str) -> None:
    assert request_id(trace(body)) == id


@pytest.mark.parametrize(("body", "id"), LAYOUTS, ids=[id[:8] for _, id in LAYOUTS])
def test_ids_of_layouts_are_stable(body: Body, id: str) -> None:
    assert request_id(canonical.layout(LayoutRequestSchema().load(body), SETTINGS)) == id


def test_ids_of_lenses_are_stable() -> None:
    body, _ = TRACES[1]
    assert request_id(trace(body).lens([0, 1, 1, 1, 2])) == LENS


@pytest.mark.parametrize("body", [body for body, _ in TRACES], ids=[id[:8] for _, id in TRACES])
def test_a_request_is_restored_from_its_json(body: Body) -> None:
    request = trace(body)
    assert TraceRequest.from_json(request.to_json()) == request


@pytest.mark.parametrize(
    "other",
    [
        {"model": "nano-gpt", "tokens": [2, 1, 0, 1, 1, 2]},
        {"model": "nano-gpt", "text": "CBABBC", "priority": "low"},
        {"model": "nano-gpt", "text": "CBABBC", "capture": ["*"], "dtype": "float32", "generate": None},
        {
            "model": {
                "n_layer": 3,
                "n_head": 3,
                "n_embd": 48,
                "n_positions": 11,
                "vocab_size": 3,
                "tie_word_embeddings": False,
            },
            "text": "CBABBC",
        },
    ],
    ids=["tokens", "priority", "defaults", "configuration"],
)
def test_equivalent_requests_have_the_same_id(other: Body) -> None:
    assert request_id(trace(other)) == request_id(trace({"model": "nano-gpt", "text": "CBABBC"}))
