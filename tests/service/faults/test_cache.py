"""A cache that loses what it holds: what is read is whole, or is computed again, or the connection breaks."""

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

TRACES = 46  # of 6.5 MB each: ten times what the cache holds
CONFIG = {"n_layer": 4, "n_head": 1, "n_embd": 256, "n_positions": 256, "n_inner": 1024, "vocab_size": 256}


@pytest.fixture
def small() -> Iterator[Stack]:
    """With a cache of 30 MB."""
    with tests.processes.stack("30mb") as found:
        yield found


def body(seed: int) -> Body:
    """A trace of 6.5 MB."""
    tokens = [(7 * n) % 256 for n in range(200)]
    return {"model": CONFIG, "tokens": tokens, "weights": {"synthetic": seed}, "capture": ["blocks.*.mlp.*"]}


def read(api: Api, path: str) -> tuple[int, bytes | None]:
    """An answer; without content where the connection broke."""
    connection = HTTPConnection("127.0.0.1", api.port, timeout=60)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, HTTPException):
        return 0, None
    finally:
        connection.close()


def computed(api: Api, asked: Body) -> str:
    """The id of a trace that is done, asked for again where others pushed it out while it was written."""
    while (told := api.ask("POST", "/v1/traces", asked, Prefer="wait=60").body)["status"] != "done":
        assert "has no room" in told.get("error", {"detail": "has no room"})["detail"], told
    return str(told["id"])


def test_what_is_read_under_pressure_is_whole_or_computed_again_and_never_half(small: Stack) -> None:
    whole: dict[str, set[str]] = {}
    statuses: set[int] = set()
    over = threading.Event()

    def go_on(api: Api) -> None:
        while not over.is_set():
            for id in [*whole][-1:]:
                status, content = read(api, f"/v1/traces/{id}/safetensors")
                statuses.add(status)
                if status == 200 and content is not None:
                    whole[id].add(sha256(content).hexdigest())

    def again(api: Api, id: str) -> bytes:
        assert computed(api, body(0)) == id
        status, content = read(api, f"/v1/traces/{id}/safetensors")
        statuses.add(status)
        return content if status == 200 and content else b""  # what is as new pushed it out in its turn

    with small.api(MAX_KEPT_BYTES="0") as api, small.workers(1):
        threads = [threading.Thread(target=go_on, args=(api,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for seed in range(TRACES):
            whole[computed(api, body(seed))] = set()
        over.set()
        for thread in threads:
            thread.join()
        first = next(iter(whole))
        assert api.ask("GET", f"/v1/traces/{first}").body["status"] in ("queued", "running")  # it was evicted
        whole[first].add(sha256(eventually(lambda: again(api, first))).hexdigest())
    info: Any = connect(small.servers.cache_url).info()
    assert info["evicted_keys"] > 100
    assert statuses <= {0, 200, 409, 503}
    assert 200 in statuses
    assert all(len(contents) <= 1 for contents in whole.values())  # each always the same


def test_what_a_flush_took_is_computed_again_while_others_are_computed(stack: Stack, request_body: Body) -> None:
    cache = connect(stack.servers.cache_url)
    with stack.api(MAX_KEPT_BYTES="0") as api, stack.workers(1):
        bodies = [request_body | {"weights": {"synthetic": 9000 + n}} for n in range(12)]
        ids = [api.trace(one) for one in bodies]
        for _ in range(3):
            eventually(lambda: cache.dbsize() > 3)
            cache.flushall()
        contents = []
        for id in ids:
            assert api.ended(id)["status"] == "done"
            contents.append(read(api, f"/v1/traces/{id}/safetensors"))
        cache.flushall()
        for id, (status, content) in zip(ids, contents, strict=True):
            assert status == 200
            assert api.ask("GET", f"/v1/traces/{id}/safetensors").status == 409
            assert api.ended(id)["status"] == "done"
            assert read(api, f"/v1/traces/{id}/safetensors") == (200, content)
