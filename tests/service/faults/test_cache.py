"""A cache that loses results: a response is complete, the result is recomputed, or the connection breaks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from hashlib import sha256
from http.client import HTTPConnection, HTTPException
from typing import Any

import pytest

import tests.processes
from tests.processes import Api, Body, Stack, eventually
from worker.store.connection import connect

TRACES = 46  # of 6.5 MB each: ten times the size of the cache
CONFIG = {"n_layer": 4, "n_head": 1, "n_embd": 256, "n_positions": 256, "n_inner": 1024, "vocab_size": 256}


@pytest.fixture
def small_stack() -> Iterator[Stack]:
    """Redis servers, with a cache of 30 MB."""
    with tests.processes.stack("30mb") as running:
        yield running


def body_of(seed: int) -> Body:
    """A request for a trace of 6.5 MB."""
    tokens = [(7 * n) % 256 for n in range(200)]
    return {"model": CONFIG, "tokens": tokens, "weights": {"synthetic": seed}, "capture": ["blocks.*.mlp.*"]}


def read(api: Api, path: str) -> tuple[int, bytes | None]:
    """The status and the content of a response; 0 and None if the connection broke."""
    connection = HTTPConnection("127.0.0.1", api.port, timeout=60)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, HTTPException):
        return 0, None
    finally:
        connection.close()


def compute(api: Api, body: Body) -> str:
    """Compute a trace, again if others evicted it while it was written; return its id."""
    while (trace := api.request("POST", "/v1/traces", body, Prefer="wait=60").body)["status"] != "done":
        assert "has no room" in trace.get("error", {"detail": "has no room"})["detail"], trace
    return str(trace["id"])


def test_a_result_read_during_evictions_is_complete_or_recomputed(small_stack: Stack) -> None:
    contents: dict[str, set[str]] = {}  # hashes of the complete contents read of each trace
    statuses: set[int] = set()
    stop = threading.Event()

    def read_the_latest(api: Api) -> None:
        while not stop.is_set():
            for id in [*contents][-1:]:
                status, content = read(api, f"/v1/traces/{id}/safetensors")
                statuses.add(status)
                if status == 200 and content is not None:
                    contents[id].add(sha256(content).hexdigest())

    def recompute_and_read(api: Api, id: str) -> bytes:
        assert compute(api, body_of(0)) == id
        status, content = read(api, f"/v1/traces/{id}/safetensors")
        statuses.add(status)
        return content if status == 200 and content else b""  # a trace that is as recent evicted it again

    with small_stack.api(MAX_KEPT_BYTES="0") as api, small_stack.workers(1):
        threads = [threading.Thread(target=read_the_latest, args=(api,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for seed in range(TRACES):
            contents[compute(api, body_of(seed))] = set()
        stop.set()
        for thread in threads:
            thread.join()
        first = next(iter(contents))
        assert api.request("GET", f"/v1/traces/{first}").body["status"] in ("queued", "running")  # it was evicted
        contents[first].add(sha256(eventually(lambda: recompute_and_read(api, first))).hexdigest())
    info: Any = connect(small_stack.servers.cache_url).info()
    assert info["evicted_keys"] > 100
    assert statuses <= {0, 200, 409, 503}
    assert 200 in statuses
    assert all(len(hashes) <= 1 for hashes in contents.values())  # each read gave the same content


def test_results_lost_in_a_flush_are_recomputed_while_others_are_computed(stack: Stack, request_body: Body) -> None:
    cache = connect(stack.servers.cache_url)
    with stack.api(MAX_KEPT_BYTES="0") as api, stack.workers(1):
        bodies = [request_body | {"weights": {"synthetic": 9000 + n}} for n in range(12)]
        ids = [api.submit(body) for body in bodies]
        for _ in range(3):
            eventually(lambda: cache.dbsize() > 3)
            cache.flushall()
        contents = []
        for id in ids:
            assert api.wait(id)["status"] == "done"
            contents.append(read(api, f"/v1/traces/{id}/safetensors"))
        cache.flushall()
        for id, (status, content) in zip(ids, contents, strict=True):
            assert status == 200
            assert api.request("GET", f"/v1/traces/{id}/safetensors").status == 409
            assert api.wait(id)["status"] == "done"
            assert read(api, f"/v1/traces/{id}/safetensors") == (200, content)
