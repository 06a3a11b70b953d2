"""Jobs, run in this process with a real Redis."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from redis import Redis

import worker.jobs as jobs
import worker.store.events as events
import worker.store.pieces as pieces
import worker.store.requests as requests
from tests.worker.conftest import AT, GREEDY, LAYOUT, OWN, Store, trace_request
from worker.engine.compiled import engine
from worker.families.registry import describe, family_of
from worker.layout.geometry import Geometry
from worker.layout.place import place
from worker.models.lookup import resolve
from worker.requests import Request
from worker.store.keys import request_id
from worker.trace.arena import Arena, plan

# ------------------------------------------------------------------------------------------------------ traces


@pytest.mark.parametrize("spec", ["nano-gpt", OWN.to_mapping()], ids=["nano-gpt", "own"])
def test_trace_has_every_tensor_of_the_description(store: Store, spec: Any) -> None:
    id, manifest = store.run(trace_request(spec))
    config = resolve(spec).config
    arena = Arena(plan(config, 6))
    arena["tokens"][...] = [2, 1, 0, 1, 1, 2]
    family_of(config).forward(config, engine(resolve(spec).weights()), arena, slice(0, 6), lambda: None)
    assert [*manifest["tensors"]] == [name for name, _ in describe(config).all_values()]
    for name, tensor in describe(config).all_values():
        slot = manifest["tensors"][name]
        assert tuple(slot["shape"]) == tensor.shape(describe(config).sizes(6))
        np.testing.assert_array_equal(store.array(id, slot), arena[name], err_msg=name)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_statistics_match_the_stored_values(store: Store, dtype: str) -> None:
    id, manifest = store.run(trace_request(dtype=dtype))
    for name, slot in manifest["tensors"].items():
        values = store.array(id, slot).astype(np.float64)
        if name.endswith("attn.scores"):
            values = values[~np.isneginf(values)]
        found = [slot[key] for key in ("min", "max", "mean", "absmax")]
        wanted = [values.min(), values.max(), values.mean(), abs(values).max()]
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12, err_msg=name)
        assert slot["bytes"] == np.dtype(slot["dtype"]).itemsize * np.prod(slot["shape"])


def test_float16_trace_is_the_float32_trace_rounded(store: Store) -> None:
    whole_id, whole = store.run(trace_request())
    half_id, half = store.run(trace_request(dtype="float16"))
    exact = {"tokens": "int32", "probs": "float32"}
    for name, slot in half["tensors"].items():
        assert slot["dtype"] == exact.get(name, "float16")
        rounded = store.array(whole_id, whole["tensors"][name]).astype(slot["dtype"])
        np.testing.assert_array_equal(store.array(half_id, slot), rounded, err_msg=name)


def test_trace_has_only_captured_tensors(store: Store) -> None:
    id, manifest = store.run(trace_request(capture=("probs", "blocks.1.attn.pattern")))
    assert [*manifest["tensors"]] == ["blocks.1.attn.pattern", "probs"]
    assert manifest["size"] == 4 * (3 * 6 * 6 + 6 * 3)
    np.testing.assert_allclose(store.array(id, manifest["tensors"]["probs"]).sum(-1), 1, rtol=1e-6)


def test_trace_generates_tokens(store: Store) -> None:
    id, manifest = store.run(trace_request(generate=GREEDY))
    assert [step["token"] for step in manifest["generated"]] == [0, 1, 1, 1, 2, 2]
    assert store.array(id, manifest["tensors"]["tokens"]).tolist() == [[2, 1, 0, 1, 1, 2, 0, 1, 1, 1, 2]]


def test_generated_tokens_have_the_probabilities_at_their_positions(store: Store) -> None:
    id, manifest = store.run(trace_request(generate=GREEDY))
    probs = store.array(id, manifest["tensors"]["probs"])[0]
    assert [step["position"] for step in manifest["generated"]] == [5, 6, 7, 8, 9, 10]
    for step in manifest["generated"]:
        at = probs[step["position"]]
        assert step["probability"] == at[step["token"]]
        assert [other["token"] for other in step["top"]] == np.argsort(-at, kind="stable").tolist()
        assert [other["probability"] for other in step["top"]] == sorted(at.tolist(), reverse=True)


def test_at_most_five_of_the_most_probable_tokens_are_reported(store: Store) -> None:
    _, manifest = store.run(trace_request(OWN.to_mapping(), generate=replace(GREEDY, max_new_tokens=2)))
    assert [len(step["top"]) for step in manifest["generated"]] == [5, 5]


def test_uncached_weights_give_the_same_trace(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    request = trace_request(OWN.to_mapping(), generate=replace(GREEDY, max_new_tokens=3))
    id, manifest = store.run(request)
    held = pieces.read(store.cache, id, 0, manifest["size"])
    pieces.delete(store.cache, id)
    monkeypatch.setattr(jobs, "_settings", replace(jobs._configured(), held_weights_bytes=0))
    store.run(request)
    assert pieces.read(store.cache, id, 0, manifest["size"]) == held


def test_manifest_has_the_request_and_its_times_in_order(store: Store) -> None:
    request = trace_request()
    _, manifest = store.run(request)
    assert (manifest["kind"], manifest["request"], manifest["created_at"]) == ("trace", request.to_json(), AT)
    assert AT < manifest["started_at"] <= manifest["finished_at"]


def test_layout_of_a_trace_is_computed_with_it(store: Store) -> None:
    _, manifest = store.run(trace_request(generate=GREEDY))
    layout = pieces.manifest(store.cache, manifest["layout"])
    config = resolve("nano-gpt").config.to_mapping()
    assert layout["request"] == {"config": config, "tokens": 11, "batch": 1, "style": "columns"}
    assert [id for id, _ in requests.newest(store.queue, "layout", None, 9)] == [manifest["layout"]]


def test_layout_of_a_trace_is_computed_once(store: Store) -> None:
    _, first = store.run(trace_request())
    _, second = store.run(trace_request(dtype="float16"))
    assert first["layout"] == second["layout"]
    assert store.events(first["layout"]) == ["started", "done"]


# ----------------------------------------------------------------------------------------------------- layouts


@pytest.mark.parametrize("style", ["columns", "llm-viz"])
def test_layout_is_the_geometry_of_its_request(store: Store, style: Any) -> None:
    id, manifest = store.run(replace(LAYOUT, style=style))
    stored = {name: store.array(id, slot) for name, slot in manifest["arrays"].items()}
    wanted = place(OWN, 7, 3, style)
    assert [*stored] == [*wanted.to_arrays()]
    for name, array in wanted.to_arrays().items():
        np.testing.assert_array_equal(stored[name], array, err_msg=name, strict=True)
    assert Geometry.from_arrays(stored).count == wanted.count


def test_arrays_of_a_layout_are_aligned(store: Store) -> None:
    _, manifest = store.run(LAYOUT)
    arrays = manifest["arrays"].values()
    assert [array["offset"] % np.dtype(array["dtype"]).itemsize for array in arrays] == [0] * len(arrays)


# ------------------------------------------------------------------------------------------------------ events


@pytest.mark.parametrize("request_", [trace_request(), LAYOUT], ids=["trace", "layout"])
def test_job_publishes_started_and_done(store: Store, request_: Request) -> None:
    id, _ = store.run(request_)
    found = store.events(id)
    assert (found[0], found[-1]) == ("started", "done")


def test_result_is_complete_when_done_is_published(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    published: list[tuple[str, bool]] = []
    publish: Callable[..., str] = events.publish

    def recording(queue: Redis, id: str, event: str, **data: Any) -> str:
        published.append((event, id in pieces.which_done(store.cache, [id])))
        return publish(queue, id, event, **data)

    monkeypatch.setattr(events, "publish", recording)
    store.run(LAYOUT)
    assert published == [("started", False), ("done", True)]


def test_progress_counts_the_layers_of_all_passes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_PROGRESS_INTERVAL", 0)
    id, _ = store.run(trace_request(generate=GREEDY))
    steps = [json.loads(data) for data in store.event_data(id, b"progress")]
    assert [(step["done"], step["total"], step["unit"]) for step in steps] == [(n, 18, "layers") for n in range(1, 19)]


def test_progress_estimates_the_time_left(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_PROGRESS_INTERVAL", 0)
    clock = count(1000)
    monkeypatch.setattr(jobs, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    progress = jobs._Progress(store.queue, "a")
    for share in (0, 0.1, 0.25, 0.8, 1):  # a second each
        progress(1, 2, share)
    estimates = [json.loads(data)["seconds_left"] for data in store.event_data("a", b"progress")]
    assert estimates == [None, 18.0, 9.0, 1.0, 0.0]


# ------------------------------------------------------------------------------------------------ nothing to do


def test_cancelled_request_is_not_computed(store: Store) -> None:
    id = store.submit(trace_request())
    requests.cancel(store.queue, id)
    jobs.run(id)
    assert store.cache.dbsize() == 0
    assert store.events(id) == []


def test_deleted_request_is_not_computed(store: Store) -> None:
    jobs.run("0" * 64)
    assert store.cache.dbsize() == 0
    assert store.queue.dbsize() == 0


def test_finished_request_is_not_computed_again(store: Store) -> None:
    id, manifest = store.run(LAYOUT)
    jobs.run(id)
    assert pieces.manifest(store.cache, id) == manifest
    assert store.events(id) == ["started", "done"]


def test_result_that_lost_a_piece_is_computed_again(store: Store) -> None:
    id, _ = store.run(LAYOUT)
    store.cache.unlink(f"result:{id}:0")
    jobs.run(id)
    assert pieces.which_done(store.cache, [id])


def test_lost_weights_fail_the_job_and_leave_nothing(store: Store) -> None:
    id = store.submit(replace(trace_request(), model=replace(trace_request().model, weights="0" * 64)))
    with pytest.raises(ValueError, match="no longer exist"):
        jobs.run(id)
    assert store.cache.dbsize() == 0


def test_job_that_raises_midway_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []

    def broken(*_: object) -> None:
        written.append(store.cache.dbsize())
        raise MemoryError

    monkeypatch.setattr("worker.compute.CaptureWriter.write_rest", broken)
    wide = {"n_layer": 1, "n_embd": 12_000, "n_head": 1, "n_inner": 1, "d_head": 1, "vocab_size": 9}
    id = store.submit(trace_request(wide, tokens=[1] * 8))
    with pytest.raises(MemoryError):
        jobs.run(id)
    assert written[0] > 1
    assert store.cache.dbsize() == 0


def test_pieces_of_a_killed_process_are_overwritten(store: Store) -> None:
    request = trace_request(dtype="float16")
    id = request_id(request)
    store.cache.set(f"result:{id}:0", b"half", ex=60)
    _, manifest = store.run(request)
    assert store.cache.strlen(f"result:{id}:0") == manifest["size"]
    assert store.cache.ttl(f"result:{id}:0") == -1


def test_warming_up_writes_nothing(store: Store) -> None:
    jobs.warm_up(jobs._configured())
    assert store.queue.dbsize() == store.cache.dbsize() == 0
