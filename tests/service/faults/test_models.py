"""A models folder that is removed, and one with a large new model: only requests that need it fail."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
import pytest

from tests.checkpoints import values, write, write_sparse
from tests.processes import Api, Body, Stack, eventually
from worker.families.gpt2 import GPT2Config as Config

MINE = Config(n_layer=60, n_head=2, n_embd=64, d_head=32, n_inner=256, n_positions=64, vocab_size=17)
LARGE = Config(n_layer=1, n_head=1, n_embd=256, n_positions=8, vocab_size=100_000)  # 105 MB
WIDE = Config(n_layer=2, n_head=2, n_embd=512, n_positions=64, vocab_size=5000)  # 35 MB
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


def test_a_file_that_shrinks_under_running_readers_does_not_kill_the_api(stack: Stack, models: Path) -> None:
    file, wide = models / "wide" / "model.safetensors", values(WIDE)
    write(models / "wide", wide, WIDE)
    content, seen = file.read_bytes(), Counter[int]()
    paths = ["/tensors/wte.weight?slice=:,3", "/tensors/wte.weight?slice=17", "/safetensors", "", "/llm-viz"]

    def read(api: Api, path: str) -> None:
        while not stopped.is_set():
            seen[api.request("GET", f"/v1/models/wide{path}").status] += 1

    stopped = Event()
    with stack.api() as api, ThreadPoolExecutor(len(paths)) as pool:
        [serving] = api.process.children()
        readers = [pool.submit(read, api, path) for path in paths]
        try:
            for size in (0, len(content) // 2, 5000) * 3:
                before = seen[200]
                eventually(lambda: seen[200] >= before + 20)  # noqa: B023 - called in this round
                os.truncate(file, size)
                refused = seen[422]
                eventually(lambda: seen[422] > refused)  # noqa: B023
                file.write_bytes(content)
        finally:
            stopped.set()
        for reader in readers:
            reader.result()
        assert api.process.children() == [serving]
        assert seen.keys() <= {0, 200, 422, 503}  # 0: a file whose first bytes were sent
        model = api.request("GET", "/v1/models/wide/tensors/wte.weight?slice=5,:4").body
        assert np.float32(model["data"]).tolist() == wide["wte.weight"][5, :4].tolist()


def test_a_trace_whose_checkpoint_shrinks_while_it_is_read_fails_with_that_reason(
    stack: Stack, models: Path, monkeypatch: pytest.MonkeyPatch, request_body: Body
) -> None:
    monkeypatch.setenv("HELD_WEIGHTS_BYTES", "0")  # so that every pass reads the file
    with stack.api() as api, stack.workers(1) as [worker]:
        running = api.submit(BODY | {"generate": {"max_new_tokens": 60}})
        api.wait_for_progress(running)
        os.truncate(models / "mine" / "model.safetensors", 0)
        failed = api.wait(running)
        assert failed["status"] == "failed"
        assert "their checkpoint was changed or removed" in failed["error"]["detail"]
        events = api.request("GET", f"/v1/traces/{running}/events").content.decode()
        assert "A file that the job was reading was shortened" in events
        assert worker.is_running()
        assert api.wait(api.submit(request_body))["status"] == "done"
