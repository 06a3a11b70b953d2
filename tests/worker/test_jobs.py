"""Jobs, run in this process against real Redis: what is in the cache when they are done."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from itertools import count
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import redis.exceptions
from numpy.typing import NDArray
from redis import Redis
from rq import Queue, SimpleWorker

import worker.jobs as jobs
import worker.store.events as events
import worker.store.pieces as pieces
import worker.store.requests as requests
import worker.store.shared as shared
from worker.compute import COMPUTE
from worker.gpt.architecture import VALUES, expand, sizes
from worker.gpt.arena import Arena, plan
from worker.gpt.compiled import engine
from worker.gpt.config import Config
from worker.gpt.forward import forward
from worker.gpt.models import resolve
from worker.layout.geometry import Geometry
from worker.layout.place import place
from worker.settings import Settings
from worker.store.connection import connect
from worker.store.keys import Kind, request_id

AT = "2026-01-02T03:04:05.678Z"
GREEDY = {"max_new_tokens": 6, "temperature": 0.0, "top_k": None, "top_p": None, "seed": 0}
OWN = Config(n_layer=2, n_head=3, n_embd=24, d_head=5, n_inner=40, n_positions=9, vocab_size=17)
LAYOUT = {"config": OWN.to_mapping(), "tokens": 7, "batch": 3, "style": "columns"}


def trace_request(spec: Any = "nano-gpt", **said: Any) -> dict[str, Any]:
    usual = {"tokens": [2, 1, 0, 1, 1, 2], "generate": None, "capture": ["*"], "dtype": "float32"}
    return resolve(spec).canonical() | usual | said


class Store:
    """Databases of these tests' own, and the requests in them."""

    def __init__(self, settings: Settings) -> None:
        self.queue: Any = connect(settings.queue_url)
        self.cache = connect(settings.cache_url)

    def ask(self, kind: Kind, request: dict[str, Any]) -> str:
        id = request_id(kind, request)
        requests.put(self.queue, id, kind, request, AT, 30, 60)
        return id

    def run(self, kind: Kind, request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        id = self.ask(kind, request)
        jobs.run(id)
        return id, pieces.manifest(self.cache, id)

    def array(self, id: str, slot: dict[str, Any]) -> NDArray[Any]:
        """What is stored where a slot of a manifest says."""
        dtype = np.dtype(slot["dtype"])
        start, size = slot["offset"], dtype.itemsize * int(np.prod(slot["shape"], dtype=int))
        content = pieces.read(self.cache, id, start, start + size)
        return np.frombuffer(content, dtype).reshape(slot["shape"])

    def told(self, id: str, event: bytes) -> list[bytes]:
        return [fields[b"data"] for _, fields in self.queue.xrange(f"events:{id}") if fields[b"event"] == event]

    def events(self, id: str) -> list[str]:
        return [fields[b"event"].decode() for _, fields in self.queue.xrange(f"events:{id}")]


@pytest.fixture
def store(servers: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """Two empty databases, which jobs.run is told of by the environment."""
    settings = Settings(queue_url=f"{servers.queue_url}?db=2", cache_url=f"{servers.cache_url}?db=2")
    monkeypatch.setenv("QUEUE_URL", settings.queue_url)
    monkeypatch.setenv("CACHE_URL", settings.cache_url)
    store = Store(settings)
    yield store
    store.queue.flushdb()
    store.cache.flushdb()


# ------------------------------------------------------------------------------------------------------ traces


@pytest.mark.parametrize("spec", ["nano-gpt", OWN.to_mapping()], ids=["nano-gpt", "own"])
def test_a_trace_holds_every_tensor_of_the_description(store: Store, spec: Any) -> None:
    id, manifest = store.run("trace", trace_request(spec))
    config = resolve(spec).config
    arena = Arena(plan(config, 6))
    arena["tokens"][...] = [2, 1, 0, 1, 1, 2]
    forward(config, engine(resolve(spec).weights()), arena, slice(0, 6))
    assert [*manifest["tensors"]] == [name for name, _ in expand(VALUES, config.n_layer)]
    for name, tensor in expand(VALUES, config.n_layer):
        slot = manifest["tensors"][name]
        assert tuple(slot["shape"]) == tensor.shape(sizes(config, 6))
        np.testing.assert_array_equal(store.array(id, slot), arena[name], err_msg=name)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_statistics_are_those_of_the_stored_values(store: Store, dtype: str) -> None:
    id, manifest = store.run("trace", trace_request(dtype=dtype))
    for name, slot in manifest["tensors"].items():
        values = store.array(id, slot).astype(np.float64)
        if name.endswith("attn.scores"):
            values = values[~np.isneginf(values)]
        found = [slot[key] for key in ("min", "max", "mean", "absmax")]
        wanted = [values.min(), values.max(), values.mean(), abs(values).max()]
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12, err_msg=name)
        assert slot["bytes"] == np.dtype(slot["dtype"]).itemsize * np.prod(slot["shape"])


def test_float16_is_the_same_trace_rounded(store: Store) -> None:
    whole_id, whole = store.run("trace", trace_request())
    half_id, half = store.run("trace", trace_request(dtype="float16"))
    kept = {"tokens": "int32", "probs": "float32"}
    for name, slot in half["tensors"].items():
        assert slot["dtype"] == kept.get(name, "float16")
        rounded = store.array(whole_id, whole["tensors"][name]).astype(slot["dtype"])
        np.testing.assert_array_equal(store.array(half_id, slot), rounded, err_msg=name)


def test_a_trace_keeps_what_was_to_be_captured_and_nothing_else(store: Store) -> None:
    id, manifest = store.run("trace", trace_request(capture=["probs", "blocks.1.attn.pattern"]))
    assert [*manifest["tensors"]] == ["blocks.1.attn.pattern", "probs"]
    assert manifest["size"] == 4 * (3 * 6 * 6 + 6 * 3)
    np.testing.assert_allclose(store.array(id, manifest["tensors"]["probs"]).sum(-1), 1, rtol=1e-6)


def test_a_trace_generates(store: Store) -> None:
    id, manifest = store.run("trace", trace_request(generate=GREEDY))
    assert [step["token"] for step in manifest["generated"]] == [0, 1, 1, 1, 2, 2]
    assert store.array(id, manifest["tensors"]["tokens"]).tolist() == [[2, 1, 0, 1, 1, 2, 0, 1, 1, 1, 2]]


def test_generated_tokens_come_with_the_probabilities_at_their_positions(store: Store) -> None:
    id, manifest = store.run("trace", trace_request(generate=GREEDY))
    probs = store.array(id, manifest["tensors"]["probs"])[0]
    assert [step["position"] for step in manifest["generated"]] == [5, 6, 7, 8, 9, 10]
    for step in manifest["generated"]:
        at = probs[step["position"]]
        assert step["probability"] == at[step["token"]]
        assert [other["token"] for other in step["top"]] == np.argsort(-at, kind="stable").tolist()
        assert [other["probability"] for other in step["top"]] == sorted(at.tolist(), reverse=True)


def test_at_most_five_of_the_most_probable_tokens_are_told(store: Store) -> None:
    _, manifest = store.run("trace", trace_request(OWN.to_mapping(), generate=GREEDY | {"max_new_tokens": 2}))
    assert [len(step["top"]) for step in manifest["generated"]] == [5, 5]


def test_weights_that_are_not_held_give_the_same_trace(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = trace_request(OWN.to_mapping(), generate=GREEDY | {"max_new_tokens": 3})
    id, manifest = store.run("trace", asked)
    held = pieces.read(store.cache, id, 0, manifest["size"])
    pieces.forget(store.cache, id)
    monkeypatch.setenv("HELD_WEIGHTS_BYTES", "0")
    store.run("trace", asked)
    assert pieces.read(store.cache, id, 0, manifest["size"]) == held


def test_a_manifest_tells_the_request_and_its_times_in_order(store: Store) -> None:
    asked = trace_request()
    _, manifest = store.run("trace", asked)
    assert (manifest["kind"], manifest["request"], manifest["created_at"]) == ("trace", asked, AT)
    assert AT < manifest["started_at"] <= manifest["finished_at"]


def test_the_picture_of_a_trace_is_placed_with_it(store: Store) -> None:
    _, manifest = store.run("trace", trace_request(generate=GREEDY))
    picture = pieces.manifest(store.cache, manifest["layout"].removeprefix("/v1/layouts/"))
    config = resolve("nano-gpt").config.to_mapping()
    assert picture["request"] == {"config": config, "tokens": 11, "batch": 1, "style": "columns"}
    assert [id for id, _ in requests.newest(store.queue, "layout", None, 9)] == [manifest["layout"].split("/")[-1]]


def test_the_picture_of_a_trace_is_not_placed_again(store: Store) -> None:
    _, first = store.run("trace", trace_request())
    _, second = store.run("trace", trace_request(dtype="float16"))
    assert first["layout"] == second["layout"]
    assert store.events(first["layout"].split("/")[-1]) == ["started", "done"]


# ----------------------------------------------------------------------------------------------------- layouts


@pytest.mark.parametrize("style", ["columns", "llm-viz"])
def test_a_layout_is_the_geometry_of_its_request(store: Store, style: Any) -> None:
    id, manifest = store.run("layout", LAYOUT | {"style": style})
    stored = {name: store.array(id, slot) for name, slot in manifest["arrays"].items()}
    wanted = place(OWN, 7, 3, style)
    assert [*stored] == [*wanted.to_arrays()]
    for name, array in wanted.to_arrays().items():
        np.testing.assert_array_equal(stored[name], array, err_msg=name, strict=True)
    assert Geometry.from_arrays(stored).count == wanted.count


def test_arrays_of_a_layout_begin_where_their_elements_may(store: Store) -> None:
    _, manifest = store.run("layout", LAYOUT)
    arrays = manifest["arrays"].values()
    assert [array["offset"] % np.dtype(array["dtype"]).itemsize for array in arrays] == [0] * len(arrays)


# ------------------------------------------------------------------------------------------------------ events


@pytest.mark.parametrize(("kind", "asked"), [("trace", trace_request()), ("layout", LAYOUT)])
def test_a_job_says_that_it_started_and_is_done(store: Store, kind: Kind, asked: dict[str, Any]) -> None:
    id, _ = store.run(kind, asked)
    found = store.events(id)
    assert (found[0], found[-1]) == ("started", "done")


def test_a_job_is_done_when_it_says_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, bool]] = []
    publish: Callable[..., str] = events.publish

    def watched(queue: Redis, id: str, event: str, **data: Any) -> str:
        told.append((event, id in pieces.which_done(store.cache, [id])))
        return publish(queue, id, event, **data)

    monkeypatch.setattr(events, "publish", watched)
    store.run("layout", LAYOUT)
    assert told == [("started", False), ("done", True)]


def test_progress_counts_the_layers_of_all_passes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_PROGRESS_EVERY", 0)
    id, _ = store.run("trace", trace_request(generate=GREEDY))
    told = [json.loads(data) for data in store.told(id, b"progress")]
    assert [(step["done"], step["total"], step["unit"]) for step in told] == [(n, 18, "layers") for n in range(1, 19)]


def test_progress_estimates_the_time_that_is_left(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_PROGRESS_EVERY", 0)
    clock = count(1000)
    monkeypatch.setattr(jobs, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    progress = jobs._Progress(store.queue, "a")
    for share in (0, 0.1, 0.25, 0.8, 1):  # a second each
        progress(1, 2, share)
    told = [json.loads(data)["seconds_left"] for data in store.told("a", b"progress")]
    assert told == [None, 18.0, 9.0, 1.0, 0.0]


# ------------------------------------------------------------------------------------------------ nothing to do


def test_a_cancelled_request_is_left_alone(store: Store) -> None:
    id = store.ask("trace", trace_request())
    requests.cancel(store.queue, id)
    jobs.run(id)
    assert store.cache.dbsize() == 0
    assert store.events(id) == []


def test_a_request_that_is_gone_is_left_alone(store: Store) -> None:
    jobs.run("0" * 64)
    assert store.cache.dbsize() == 0
    assert store.queue.dbsize() == 0


@pytest.mark.parametrize("known", [True, False])
def test_rq_keeps_nothing_of_a_job_that_a_worker_took_as_it_was_cancelled(store: Store, known: bool) -> None:
    id = store.ask("layout", LAYOUT)
    requests.cancel(store.queue, id)
    if not known:
        requests.forget(store.queue, id, "layout")
    queue = Queue("here", connection=store.queue, serializer="json")
    job = queue.enqueue(requests.JOB, id, job_id=id, result_ttl=60)
    SimpleWorker([queue], connection=store.queue, serializer="json").execute_job(job, queue)
    lasting = [key for key in store.queue.scan_iter("rq:*") if id.encode() in key and store.queue.ttl(key) == -1]
    assert not store.queue.exists(f"rq:job:{id}", f"rq:results:{id}")
    assert lasting == []


def test_what_is_done_is_not_done_again(store: Store) -> None:
    id, manifest = store.run("layout", LAYOUT)
    jobs.run(id)
    assert pieces.manifest(store.cache, id) == manifest
    assert store.events(id) == ["started", "done"]


def test_what_the_cache_lost_in_part_is_made_again(store: Store) -> None:
    id, _ = store.run("layout", LAYOUT)
    store.cache.unlink(f"result:{id}:0")
    jobs.run(id)
    assert pieces.which_done(store.cache, [id])


def test_weights_that_are_not_here_any_more_fail_the_job_and_leave_nothing(store: Store) -> None:
    id = store.ask("trace", trace_request() | {"weights": "0" * 64})
    with pytest.raises(ValueError, match="are not here any more"):
        jobs.run(id)
    assert store.cache.dbsize() == 0


def test_a_job_that_raises_midway_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []

    def broken(*_: object) -> None:
        written.append(store.cache.dbsize())
        raise MemoryError

    monkeypatch.setattr("worker.compute.Keeper.keep_rest", broken)
    wide = {"n_layer": 1, "n_embd": 12_000, "n_head": 1, "n_inner": 1, "d_head": 1, "vocab_size": 9}
    id = store.ask("trace", trace_request(wide, tokens=[1] * 8))
    with pytest.raises(MemoryError):
        jobs.run(id)
    assert written[0] > 1
    assert store.cache.dbsize() == 0


def test_what_a_killed_process_left_is_written_over(store: Store) -> None:
    asked = trace_request(dtype="float16")
    id = request_id("trace", asked)
    store.cache.set(f"result:{id}:0", b"half", ex=60)
    _, manifest = store.run("trace", asked)
    assert store.cache.strlen(f"result:{id}:0") == manifest["size"]
    assert store.cache.ttl(f"result:{id}:0") == -1


def test_warming_up_writes_nothing(store: Store) -> None:
    jobs.warm_up(Settings.from_environment())
    assert store.queue.dbsize() == store.cache.dbsize() == 0


# ------------------------------------------------------------------------------------------------- shared jobs


class Shared:
    """Small requests that share a job."""

    def __init__(self, store: Store, wanted: list[dict[str, Any]], timeout: int = 30) -> None:
        self.store = store
        self.ids = [request_id("trace", request) for request in wanted]
        records = {
            id: requests.Record("trace", request, AT, timeout, job="j")
            for id, request in zip(self.ids, wanted, strict=True)
        }
        requests.put_all(store.queue, records, 60)

    def run(self) -> list[bool]:
        """Run the job; which of them are done then."""
        jobs.run_together("j", self.ids)
        done = pieces.which_done(self.store.cache, self.ids)
        return [id in done for id in self.ids]

    @property
    def failures(self) -> dict[int, str]:
        """The reasons by the places of those that failed."""
        found = shared.notes(self.store.queue, ["j"])["j"].failures
        return {self.ids.index(id): failure.reason for id, failure in found.items()}


def some_requests(count: int) -> list[dict[str, Any]]:
    return [trace_request(tokens=[n % 3, 1]) for n in range(count)]


def test_requests_that_share_a_job_have_the_results_and_the_events_of_jobs_of_their_own(store: Store) -> None:
    wanted = some_requests(3)
    found = Shared(store, wanted)
    assert found.run() == [True] * 3
    manifests = [pieces.manifest(store.cache, id) for id in found.ids]
    assert [manifest["request"] for manifest in manifests] == wanted
    assert [store.events(id) for id in found.ids] == [["started", "done"]] * 3
    together = [
        pieces.read(store.cache, id, 0, manifest["size"]) for id, manifest in zip(found.ids, manifests, strict=True)
    ]
    store.cache.flushdb()
    for request, content in zip(wanted, together, strict=True):
        id, manifest = store.run("trace", request)
        assert pieces.read(store.cache, id, 0, manifest["size"]) == content


def test_one_that_raises_fails_alone_and_is_not_tried_again(store: Store) -> None:
    wanted = some_requests(3)
    wanted[1] |= {"weights": "0" * 64}
    found = Shared(store, wanted)
    for _ in range(2):  # as when the process was killed later
        assert found.run() == [True, False, True]
    assert list(found.failures) == [1]
    assert "are not here any more" in found.failures[1]
    assert store.events(found.ids[1]) == ["started", "failed"]
    assert store.told(found.ids[1], b"failed") == [json.dumps({"reason": found.failures[1]}).encode()]


def test_one_that_hangs_is_ended_after_its_own_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    compute = COMPUTE["trace"]

    def hangs(request: dict[str, Any], *rest: Any) -> Any:
        if request["tokens"] == [1, 1]:
            time.sleep(20)
        return compute(request, *rest)

    monkeypatch.setitem(COMPUTE, "trace", hangs)
    found = Shared(store, some_requests(3), timeout=1)
    before = time.monotonic()
    assert found.run() == [True, False, True]
    assert time.monotonic() - before < 10
    assert found.failures == {1: "Task exceeded maximum timeout value (1 seconds)"}


def test_one_that_is_cancelled_or_another_jobs_by_now_is_passed_over(store: Store) -> None:
    found = Shared(store, some_requests(3))
    requests.change(store.queue, found.ids[:1], cancelled=True)
    requests.change(store.queue, found.ids[1:2], job=None)
    assert found.run() == [False, False, True]
    assert [store.events(id) for id in found.ids[:2]] == [[], []]


def test_one_that_is_cancelled_while_it_is_computed_leaves_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, compute = Shared(store, some_requests(2)), COMPUTE["trace"]

    def cancelled(*given: Any) -> Any:
        requests.cancel(store.queue, found.ids[0])
        return compute(*given)

    monkeypatch.setitem(COMPUTE, "trace", cancelled)
    assert found.run() == [False, True]
    assert store.cache.keys(f"result:{found.ids[0]}*") == []
    assert store.events(found.ids[0]) == ["started"]


def test_one_whose_process_is_killed_each_time_is_given_up_and_the_others_are_not(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = COMPUTE["trace"]

    def killed(request: dict[str, Any], *rest: Any) -> Any:
        if request["tokens"] == [1, 1]:
            raise KeyboardInterrupt
        return compute(request, *rest)

    monkeypatch.setitem(COMPUTE, "trace", killed)
    found = Shared(store, some_requests(3))
    for _ in range(jobs.TRIES):
        with pytest.raises(KeyboardInterrupt):
            found.run()
    assert found.run() == [True, False, True]
    assert found.failures == {1: jobs.KILLED}


def test_when_the_store_is_away_no_request_is_blamed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise redis.exceptions.ConnectionError

    monkeypatch.setattr(pieces.Writer, "finish", away)
    found = Shared(store, some_requests(2))
    with pytest.raises(redis.exceptions.ConnectionError):
        found.run()
    assert found.failures == {}
