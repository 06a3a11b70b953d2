"""A models folder that is removed, and one with a large new model: only requests that need it fail."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.checkpoints import values, write, write_sparse
from tests.processes import Body, Stack, eventually
from worker.families.gpt2 import GPT2Config as Config

MINE = Config(n_layer=60, n_head=2, n_embd=64, d_head=32, n_inner=256, n_positions=64, vocab_size=17)
LARGE = Config(n_layer=1, n_head=1, n_embd=256, n_positions=8, vocab_size=100_000)  # 105 MB
BODY = {"model": "mine", "tokens": [3, 1, 4], "generate": {"max_new_tokens": 40}, "capture": ["probs"]}


@pytest.fixture
def models(stack: Stack, tmp_path: Path) -> Path:
    """A models folder with one model."""
    folder = tmp_path / "models"
    write(folder / "mine", values(MINE), MINE)
    stack.servers = replace(stack.servers, models_dir=str(folder))
    return folder


def test_removing_the_folder_fails_only_requests_that_need_it(stack: Stack, models: Path, request_body: Body) -> None:
    with stack.api() as api, stack.workers(1) as [worker]:
        assert api.wait(api.submit(BODY))["status"] == "done"
        running = api.submit(BODY | {"generate": {"max_new_tokens": 60}})
        api.wait_for_progress(running)
        queued = api.submit(BODY | {"tokens": [1, 2]})
        shutil.rmtree(models)
        for id in (running, queued):
            failed = api.wait(id)
            assert failed["status"] == "failed"
            assert "no longer exist" in failed["error"]["detail"]
        unknown = api.request("POST", "/v1/traces", BODY)
        assert (unknown.status, unknown.headers["Content-Type"]) == (404, "application/problem+json")
        assert "There is no model 'mine'" in unknown.body["detail"]
        listed = api.request("GET", "/v1/models")
        assert (listed.status, "mine" in [model["id"] for model in listed.body["models"]]) == (200, False)
        assert api.wait(api.submit(request_body))["status"] == "done"
        assert worker.is_running()
        write(models / "mine", values(MINE), MINE)
        assert api.wait(api.submit(BODY | {"tokens": [5]}))["status"] == "done"


def test_a_missing_folder_is_treated_as_empty(stack: Stack, tmp_path: Path, request_body: Body) -> None:
    stack.servers = replace(stack.servers, models_dir=str(tmp_path / "nowhere"))
    with stack.api() as api, stack.workers(1):
        assert api.request("GET", "/v1/models").body["problems"] == []
        assert api.request("POST", "/v1/traces", BODY).status == 404
        assert api.wait(api.submit(request_body))["status"] == "done"


def test_a_large_new_checkpoint_is_read_by_the_worker_and_then_traced(stack: Stack, models: Path) -> None:
    write_sparse(models / "large", LARGE)
    with stack.api() as api:
        refused = api.request("GET", "/v1/models/large")
        assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
        assert [entry["id"] for entry in api.request("GET", "/v1/models").body["reading"]] == ["large"]
        with stack.workers(1):
            eventually(lambda: api.request("GET", "/v1/models/large").status == 200)
            trace = api.wait(api.submit({"model": "large", "tokens": [1, 2], "capture": ["probs"]}))
            assert (trace["status"], trace["model"]) == ("done", "large")
