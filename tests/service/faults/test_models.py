"""A folder of models that goes away: what needs it says so, and nothing else is the worse for it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.checkpoints import values, write
from tests.processes import Body, Stack
from worker.families.gpt2 import GPT2Config as Config

MINE = Config(n_layer=60, n_head=2, n_embd=64, d_head=32, n_inner=256, n_positions=64, vocab_size=17)
ASKED = {"model": "mine", "tokens": [3, 1, 4], "generate": {"max_new_tokens": 40}, "capture": ["probs"]}


@pytest.fixture
def models(stack: Stack, tmp_path: Path) -> Path:
    """A folder with a model in it."""
    folder = tmp_path / "models"
    write(folder / "mine", values(MINE), MINE)
    stack.servers = replace(stack.servers, models_dir=str(folder))
    return folder


def test_a_folder_that_goes_away_midway_fails_what_needs_it_with_the_reason_and_nothing_else(
    stack: Stack, models: Path, request_body: Body
) -> None:
    with stack.api() as api, stack.workers(1) as [worker]:
        assert api.ended(api.trace(ASKED))["status"] == "done"
        running = api.trace(ASKED | {"generate": {"max_new_tokens": 60}})
        api.progressed(running)
        waiting = api.trace(ASKED | {"tokens": [1, 2]})
        shutil.rmtree(models)
        for id in (running, waiting):
            failed = api.ended(id)
            assert failed["status"] == "failed"
            assert "are not here any more" in failed["error"]["detail"]
        unknown = api.ask("POST", "/v1/traces", ASKED)
        assert (unknown.status, unknown.headers["Content-Type"]) == (404, "application/problem+json")
        assert "There is no model 'mine'" in unknown.body["detail"]
        listed = api.ask("GET", "/v1/models")
        assert (listed.status, "mine" in [model["id"] for model in listed.body["models"]]) == (200, False)
        assert api.ended(api.trace(request_body))["status"] == "done"
        assert worker.is_running()
        write(models / "mine", values(MINE), MINE)
        assert api.ended(api.trace(ASKED | {"tokens": [5]}))["status"] == "done"


def test_a_folder_that_was_never_there_is_one_without_models(stack: Stack, tmp_path: Path, request_body: Body) -> None:
    stack.servers = replace(stack.servers, models_dir=str(tmp_path / "nowhere"))
    with stack.api() as api, stack.workers(1):
        assert api.ask("GET", "/v1/models").body["problems"] == []
        assert api.ask("POST", "/v1/traces", ASKED).status == 404
        assert api.ended(api.trace(request_body))["status"] == "done"
