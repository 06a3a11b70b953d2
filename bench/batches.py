"""nano-gpt traces a second: in a batch, whose traces share jobs, beside one job a trace; on one worker and on two."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from typing import Any

from bench.stack import process, running

COUNT, ALONE = 1200, 200
GOAL = 300


def run() -> None:
    """Print the rates. Every prompt is new: nothing is answered from the cache."""
    prompts = _prompts()
    print("nano-gpt, 6 letters and 6 or fewer new ones, everything captured, from POST to the last one's end")
    with running() as stack:
        _batch(stack.connect(), _some(prompts, 50))  # the first is slower
        environment = os.environ | {"QUEUE_URL": stack.queue_url, "CACHE_URL": stack.cache_url}
        _print("1 worker", stack.connect(), prompts)
        with process(["worker"], environment):
            time.sleep(3)  # to start
            _print("2 workers", stack.connect(), prompts)
    print(f"  goal: {GOAL} traces/s in a batch on two cores")


def _print(workers: str, connection: HTTPConnection, prompts: Iterator[dict[str, Any]]) -> None:
    alone = _rate(lambda: _jobs(connection, _some(prompts, ALONE)), ALONE)
    batch = _rate(lambda: _batch(connection, _some(prompts, COUNT)), COUNT)
    ratio = batch / alone
    print(f"  {workers:>9}: a batch {batch:5.0f} traces/s   one job a trace {alone:5.0f}   ratio {ratio:.1f}")


def _prompts() -> Iterator[dict[str, Any]]:
    for new in range(6, 0, -1):
        for letters in itertools.product("ABC", repeat=6):
            yield {"model": "nano-gpt", "text": "".join(letters), "generate": {"max_new_tokens": new}}


def _some(prompts: Iterator[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    return list(itertools.islice(prompts, count))


def _rate(once: Callable[[], None], count: int) -> float:
    start = time.perf_counter()
    once()
    return count / (time.perf_counter() - start)


def _batch(connection: HTTPConnection, requests: list[dict[str, Any]]) -> None:
    id = _post(connection, "/v1/batches", {"requests": requests})["id"]
    connection.request("GET", f"/v1/batches/{id}/events")
    told = connection.getresponse().read().decode()
    last = json.loads(told.rpartition("data: ")[2])
    assert last["done"] == len(requests), last


def _jobs(connection: HTTPConnection, requests: list[dict[str, Any]]) -> None:
    ids = [_post(connection, "/v1/traces", request)["id"] for request in requests]
    for id in ids[::-1]:
        connection.request("GET", f"/v1/traces/{id}", headers={"Prefer": "wait=60"})
        answer = json.loads(connection.getresponse().read())
        assert answer["status"] == "done", answer


def _post(connection: HTTPConnection, path: str, body: dict[str, Any]) -> dict[str, Any]:
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    found: dict[str, Any] = json.loads(connection.getresponse().read())
    return found
