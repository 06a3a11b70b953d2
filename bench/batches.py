"""Throughput of nano-gpt traces, in batches and as single jobs."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from typing import Any

from bench.stack import process, running

BATCH, SINGLE = 1200, 200  # traces
GOAL = 300  # traces a second


def run() -> None:
    """Print traces a second with one worker and with two. Every prompt is new, so no result is cached."""
    prompts = _prompts()
    print("nano-gpt, 6 letters and up to 6 new ones, everything captured, from POST to the end of the last trace")
    with running() as stack:
        _batch(stack.connect(), _take(prompts, 50))  # the first batch is slower
        environment = os.environ | {"QUEUE_URL": stack.queue_url, "CACHE_URL": stack.cache_url}
        _print("1 worker", stack.connect(), prompts)
        with process(["worker"], environment):
            time.sleep(3)  # to start
            _print("2 workers", stack.connect(), prompts)
    print(f"  goal: {GOAL} traces/s in a batch on two cores")


def _print(workers: str, connection: HTTPConnection, prompts: Iterator[dict[str, Any]]) -> None:
    single = _rate(lambda: _jobs(connection, _take(prompts, SINGLE)), SINGLE)
    batch = _rate(lambda: _batch(connection, _take(prompts, BATCH)), BATCH)
    ratio = batch / single
    print(f"  {workers:>9}: batch {batch:5.0f} traces/s   single jobs {single:5.0f}   ratio {ratio:.1f}")


def _prompts() -> Iterator[dict[str, Any]]:
    for new in range(6, 0, -1):
        for letters in itertools.product("ABC", repeat=6):
            yield {"model": "nano-gpt", "text": "".join(letters), "generate": {"max_new_tokens": new}}


def _take(prompts: Iterator[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    return list(itertools.islice(prompts, count))


def _rate(run: Callable[[], None], count: int) -> float:
    start = time.perf_counter()
    run()
    return count / (time.perf_counter() - start)


def _batch(connection: HTTPConnection, requests: list[dict[str, Any]]) -> None:
    id = _post(connection, "/v1/batches", {"requests": requests})["id"]
    connection.request("GET", f"/v1/batches/{id}/events")
    events = connection.getresponse().read().decode()
    last = json.loads(events.rpartition("data: ")[2])
    assert last["done"] == len(requests), last


def _jobs(connection: HTTPConnection, requests: list[dict[str, Any]]) -> None:
    ids = [_post(connection, "/v1/traces", request)["id"] for request in requests]
    for id in ids[::-1]:
        connection.request("GET", f"/v1/traces/{id}", headers={"Prefer": "wait=60"})
        trace = json.loads(connection.getresponse().read())
        assert trace["status"] == "done", trace


def _post(connection: HTTPConnection, path: str, body: dict[str, Any]) -> dict[str, Any]:
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    resource: dict[str, Any] = json.loads(connection.getresponse().read())
    return resource
