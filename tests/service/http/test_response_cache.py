"""Cached responses equal new ones and are invalidated with their results."""

from __future__ import annotations

from dataclasses import replace
from http import HTTPStatus
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from redis import Redis

import service.http.response_cache as response_cache
from service.app import create_app
from service.http.request_metrics import RequestMetrics
from service.http.response_cache import _OVERHEAD, CachedResponse, ResponseCache
from tests.conftest import Servers
from worker.store.connection import connect

OCTETS = {"Accept": "application/octet-stream"}


@pytest.fixture
def path(sorted_letters: dict[str, Any]) -> str:
    return f"/v1/traces/{sorted_letters['id']}/tensors/logits"


@pytest.fixture
def cache(servers: Servers) -> Redis:
    return connect(servers.cache_url)


@pytest.fixture
def fresh(client: FlaskClient, servers: Servers) -> FlaskClient:
    """A client of a process with an empty response cache, and with a worker."""
    return create_app(servers.settings).test_client()


def get(client: FlaskClient, cache: Redis, path: str, **headers: str) -> tuple[Any, int]:
    """Return a response, and how many commands Redis executed for it."""
    before = cache.info("stats")["total_commands_processed"]
    response = client.get(path, headers=headers)
    return response, cache.info("stats")["total_commands_processed"] - before - 1


@pytest.mark.parametrize("encoding", ["identity", "gzip", "br"])
@pytest.mark.parametrize("suffix", ["", "/tensors", "/tensors/logits", "/explain?block=probs&cell=0,0,0"])
def test_a_cached_response_is_the_same_and_sends_redis_no_command(
    fresh: FlaskClient, sorted_letters: dict[str, Any], cache: Redis, encoding: str, suffix: str
) -> None:
    path = f"/v1/traces/{sorted_letters['id']}{suffix}"
    first, cost = get(fresh, cache, path, **{"Accept-Encoding": encoding})
    again, cost_again = get(fresh, cache, path, **{"Accept-Encoding": encoding})
    assert (first.status_code, cost > 0, cost_again) == (HTTPStatus.OK, True, 0)
    assert again.data == first.data
    varying = {"Date", "X-Request-ID", "traceparent"}
    assert {(k, v) for k, v in again.headers if k not in varying} == {
        (k, v) for k, v in first.headers if k not in varying
    }


def test_responses_are_cached_by_query_and_media_type(fresh: FlaskClient, path: str) -> None:
    for _ in range(2):
        assert fresh.get(path).is_json
        assert fresh.get(path, headers=OCTETS).mimetype == OCTETS["Accept"]
        assert len(fresh.get(f"{path}?slice=0,0", headers=OCTETS).data) == 3 * 4
        assert len(fresh.get(f"{path}?slice=0,:2", headers=OCTETS).data) == 2 * 3 * 4


def test_a_cached_response_is_304_for_a_client_that_has_it(fresh: FlaskClient, path: str) -> None:
    etag = fresh.get(path).headers["ETag"]
    again = fresh.get(path, headers={"If-None-Match": etag})
    assert (again.status_code, again.data, again.headers["ETag"]) == (HTTPStatus.NOT_MODIFIED, b"", etag)
    assert fresh.get(path, headers={"If-None-Match": '"another"'}).status_code == HTTPStatus.OK


def test_a_head_response_has_no_body_and_is_not_cached(fresh: FlaskClient, path: str) -> None:
    assert fresh.head(path).data == b""
    body = fresh.get(path).data
    assert body != b""
    assert fresh.head(path).data == b""


def test_a_range_of_a_cached_response_is_a_range(fresh: FlaskClient, sorted_letters: dict[str, Any]) -> None:
    path = f"/v1/traces/{sorted_letters['id']}/safetensors?tensors=embed"
    whole = fresh.get(path).data
    part = fresh.get(path, headers={"Range": "bytes=8-15"})
    assert (part.status_code, part.data) == (HTTPStatus.PARTIAL_CONTENT, whole[8:16])
    assert fresh.get(path).data == whole


def test_a_deleted_result_is_404_at_once(client: FlaskClient, fresh: FlaskClient, request_body: dict[str, Any]) -> None:
    made = fresh.post("/v1/traces", json=request_body, headers={"Prefer": "wait=30"}).get_json()
    path = f"/v1/traces/{made['id']}"
    assert [fresh.get(path).status_code for _ in range(2)] == [HTTPStatus.OK] * 2
    assert fresh.delete(path).status_code == HTTPStatus.NO_CONTENT
    assert fresh.get(path).status_code == HTTPStatus.NOT_FOUND


@pytest.mark.parametrize("lost", ["", ":0"])
def test_a_lost_result_invalidates_its_response(
    fresh: FlaskClient, request_body: dict[str, Any], cache: Redis, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    made = fresh.post("/v1/traces", json=request_body, headers={"Prefer": "wait=30"}).get_json()
    path = f"/v1/traces/{made['id']}"
    before = fresh.get(path).get_json()
    cache.unlink(f"result:{made['id']}{lost}")
    monkeypatch.setattr(response_cache, "_FRESH", 0.0)
    after = fresh.get(path, headers={"Prefer": "wait=30"}).get_json()
    assert fresh.get(path).get_json()["finished_at"] == after["finished_at"] > before["finished_at"]


def test_an_unfinished_result_is_not_cached(idle_client: FlaskClient, request_body: dict[str, Any]) -> None:
    made = idle_client.post("/v1/traces", json=request_body).get_json()
    assert idle_client.get(f"/v1/traces/{made['id']}").get_json()["status"] == "queued"
    idle_client.delete(f"/v1/traces/{made['id']}")
    assert idle_client.get(f"/v1/traces/{made['id']}").get_json()["status"] == "cancelled"


def test_the_cache_stays_within_its_capacity() -> None:
    cache = ResponseCache(Flask("empty"), 100 * _OVERHEAD, RequestMetrics())
    for n in range(1000):
        cache._put(
            (str(n),),
            CachedResponse(b"x" * _OVERHEAD, [], {}, "id", "then", 0.0, 2 * _OVERHEAD),
        )
        assert cache._size == sum(response.size for response in cache._responses.values()) <= cache.capacity
    assert [key for (key,) in cache._responses] == [str(n) for n in range(950, 1000)]  # the most recently used


def test_the_key_of_a_response_counts_towards_its_size(fresh: FlaskClient, path: str) -> None:
    cache = fresh.application.extensions["response_cache"]
    body = fresh.get(path, headers={"Origin": f"https://{'a' * 3000}.example"}).data
    assert cache._size > len(body) + 3000


def test_without_capacity_nothing_is_cached(client: FlaskClient, servers: Servers, path: str, cache: Redis) -> None:
    without = create_app(replace(servers.settings, max_kept_bytes=0)).test_client()
    assert all(get(without, cache, path)[1] > 0 for _ in range(2))


def test_a_cached_response_needs_a_key_too(servers: Servers, path: str) -> None:
    client = create_app(replace(servers.settings, api_keys="mine:" + 40 * "k")).test_client()
    with_key = {"X-API-Key": 40 * "k"}
    first, again = (client.get(path, headers=with_key) for _ in range(2))
    assert (first.status_code, again.status_code) == (HTTPStatus.OK, HTTPStatus.OK)
    assert "private" in again.headers["Cache-Control"]
    refused = client.get(path)
    assert refused.status_code == HTTPStatus.UNAUTHORIZED
    assert client.get(path, headers={"X-API-Key": 40 * "x"}).status_code == HTTPStatus.UNAUTHORIZED


def test_a_cached_response_is_not_for_a_host_that_is_not_allowed(fresh: FlaskClient, path: str) -> None:
    assert [fresh.get(path).status_code for _ in range(2)] == [HTTPStatus.OK] * 2
    assert fresh.get(path, headers={"Host": "rebound.example"}).status_code == HTTPStatus.MISDIRECTED_REQUEST


def test_a_cached_response_is_412_for_another_if_match(fresh: FlaskClient, path: str) -> None:
    assert [fresh.get(path).status_code for _ in range(2)] == [HTTPStatus.OK] * 2
    refused = fresh.get(path, headers={"If-Match": '"another"'})
    assert (refused.status_code, refused.mimetype) == (HTTPStatus.PRECONDITION_FAILED, "application/problem+json")


def test_a_cached_response_has_the_id_of_its_request_and_is_counted(fresh: FlaskClient, path: str) -> None:
    sample = 'cutaway_http_requests_total{method="GET",route="/v1/traces/<trace_id>/tensors/<name>",status="200"} 3.0'
    ids = [fresh.get(path, headers={"X-Request-ID": f"id-{n}"}).headers["X-Request-ID"] for n in range(3)]
    assert ids == ["id-0", "id-1", "id-2"]
    metrics = fresh.get("/metrics").text
    assert sample in metrics
    assert "cutaway_http_kept_answers_total 2.0" in metrics


def test_a_result_that_was_computed_again_replaces_the_cached_response(
    client: FlaskClient, fresh: FlaskClient, cache: Redis
) -> None:
    id = client.post("/v1/layouts", json={"model": "nano-gpt", "tokens": 6}, headers={"Prefer": "wait=60"}).get_json()[
        "id"
    ]
    before = fresh.get(f"/v1/layouts/{id}").get_json()
    cache.delete(f"result:{id}")
    again = fresh.post("/v1/layouts", json={"model": "nano-gpt", "tokens": 6}, headers={"Prefer": "wait=60"}).get_json()
    assert again["finished_at"] > before["finished_at"]
    assert fresh.get(f"/v1/layouts/{id}").get_json() == again
