"""Bytes that many requests need are computed once."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from werkzeug.exceptions import TooManyRequests

import service.http.compression as compression
from service.app import create_app
from service.http.shared_bytes import SharedBytes
from tests.conftest import Servers

REQUESTS = 10
SECONDS = 30


class Blocked:
    """A computation that lasts until so many others wait for it."""

    def __init__(self, waiters: int) -> None:
        self.waiters = threading.Semaphore(waiters)
        self.calls = 0

    def compute(self) -> bytes:
        self.calls += 1
        deadline = time.monotonic() + SECONDS
        while self.waiters.acquire(blocking=False):
            self.waiters.release()
            assert time.monotonic() < deadline, "the others do not wait"
            time.sleep(0.005)
        return b"computed"


@pytest.fixture
def blocked() -> Blocked:
    return Blocked(REQUESTS - 1)


def test_the_same_bytes_are_computed_once_for_all_who_wait(blocked: Blocked) -> None:
    shared = SharedBytes(1_000, blocked.waiters)
    with ThreadPoolExecutor(REQUESTS) as pool:
        results = [pool.submit(shared.get, ("a",), blocked.compute) for _ in range(REQUESTS)]
    assert [result.result() for result in results] == [b"computed"] * REQUESTS
    assert shared.get(("a",), lambda: b"again") == b"computed"
    assert blocked.calls == 1


def test_one_more_than_may_wait_is_429() -> None:
    shared, started, refused = SharedBytes(1_000, threading.Semaphore(0)), threading.Event(), threading.Event()

    def compute() -> bytes:
        started.set()
        assert refused.wait(SECONDS)
        return b"computed"

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(shared.get, ("a",), compute)
        assert started.wait(SECONDS)
        with pytest.raises(TooManyRequests):
            shared.get(("a",), compute)
        refused.set()
    assert first.result() == b"computed"


def test_an_error_is_not_cached() -> None:
    shared = SharedBytes(1_000, threading.Semaphore(1))
    with pytest.raises(ZeroDivisionError):
        shared.get(("a",), lambda: b"%d" % (1 // 0))
    assert shared.get(("a",), lambda: b"computed") == b"computed"


def test_the_least_recently_used_bytes_make_room() -> None:
    shared = SharedBytes(100, threading.Semaphore(1))
    for name in "abacx":
        shared.get((name,), lambda: bytes(30))
    assert {shared.get((name,), lambda: b"again") for name in "acx"} == {bytes(30)}
    assert shared.get(("b",), lambda: b"again") == b"again"
    shared.get(("large",), lambda: bytes(60))
    assert shared.get(("large",), lambda: b"again") == b"again"


def test_concurrent_requests_of_a_layout_file_compress_it_once(
    servers: Servers, worker: object, blocked: Blocked, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = create_app(servers.settings)
    api.extensions["shared_bytes"] = SharedBytes(1 << 20, blocked.waiters)
    created = api.test_client().post("/v1/layouts", json={"model": "nano-gpt"}, headers={"Prefer": "wait=30"})
    compress, codings = compression.compress, []

    def counted(content: bytes, coding: str) -> bytes:
        codings.append(coding)
        blocked.compute()
        return compress(content, coding)

    monkeypatch.setattr(compression, "compress", counted)
    headers = {"Accept": "model/gltf-binary", "Accept-Encoding": "br"}
    with ThreadPoolExecutor(REQUESTS) as pool:
        path = created.headers["Location"]
        responses = list(pool.map(lambda _: api.test_client().get(path, headers=headers), range(REQUESTS)))
    assert codings == ["br"]
    assert {(response.status_code, response.headers["Content-Encoding"]) for response in responses} == {(200, "br")}
    assert len({response.data for response in responses}) == 1
