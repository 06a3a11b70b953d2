"""Metrics in Prometheus' text format."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

import psutil
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

import worker.store.job_metrics as job_metrics
from service.app import create_app
from service.settings import Settings
from tests.conftest import Servers, process_of, running_worker
from worker.rq.jobs import TRIES
from worker.store.connection import connect
from worker.store.queues import JOB_SIZES

with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    PORT = free.getsockname()[1]


def parsed(text: str) -> dict[tuple[str, ...], float]:
    """Return the samples by name and label values (sorted by label), as read by Prometheus' own parser."""
    families = text_string_to_metric_families(text)
    return {(s.name, *(v for _, v in sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def metrics(client: FlaskClient) -> dict[tuple[str, ...], float]:
    answer = client.get("/metrics")
    assert (answer.status_code, answer.mimetype) == (HTTPStatus.OK, "text/plain")
    return parsed(answer.text)


def test_requests_are_counted_by_route_and_status(idle_client: FlaskClient) -> None:
    unknown = ("cutaway_http_requests_total", "GET", "/v1/models/<model_id>", "404")
    before = metrics(idle_client).get(unknown, 0)
    for id in ("one", "two"):
        assert idle_client.get(f"/v1/models/{id}").status_code == HTTPStatus.NOT_FOUND
    found = metrics(idle_client)
    assert found[unknown] == before + 2
    assert found["cutaway_http_request_seconds_count", "GET", "/v1/models/<model_id>"] >= 2


def test_requests_without_a_route_are_counted_together(idle_client: FlaskClient) -> None:
    nowhere = ("cutaway_http_requests_total", "GET", "none", "404")
    before = metrics(idle_client).get(nowhere, 0)
    idle_client.get("/nowhere")
    idle_client.get("/nowhere/else")
    assert metrics(idle_client)[nowhere] == before + 2


def test_waiting_jobs_and_workers_are_counted(
    idle_client: FlaskClient, client: FlaskClient, worker: psutil.Process
) -> None:
    idle_client.post("/v1/traces", json={"model": "nano-gpt", "tokens": [0, 1]})
    idle = metrics(idle_client)
    assert idle["cutaway_queue_waiting", "cutaway-small-normal"] == 1
    assert [idle["cutaway_workers", size] for size in JOB_SIZES] == [0, 0]
    found = metrics(client)
    assert [found["cutaway_workers", size] for size in JOB_SIZES] == [1, 1]


def test_jobs_are_histograms_by_kind_size_and_outcome(idle_client: FlaskClient, idle_servers: Servers) -> None:
    for took in (0.02, 5.0):
        job_metrics.record(connect(idle_servers.queue_url), "cutaway-small-low", "trace", "1M", "done", 0.001, took)
    found, rest = metrics(idle_client), ("done", "1M", "cutaway-small-low")
    counts = {bound: found["cutaway_job_seconds_bucket", "trace", bound, *rest] for bound in ("0.01", "0.03", "+Inf")}
    assert counts == {"0.01": 0, "0.03": 1, "+Inf": 2}
    assert found["cutaway_job_seconds_count", "trace", *rest] == 2
    assert found["cutaway_job_seconds_sum", "trace", *rest] == 5.02
    assert found["cutaway_job_wait_seconds_bucket", "trace", "0.01", *rest] == 2


def test_a_job_is_counted_once_it_has_ended(client: FlaskClient, sorted_letters: dict[str, Any]) -> None:
    assert sorted_letters["status"] == "done"
    found, labels = metrics(client), ("trace", "done", "1M", "cutaway-small-normal")
    jobs = found["cutaway_job_seconds_count", *labels]
    assert jobs >= 1
    assert found["cutaway_job_wait_seconds_count", *labels] == jobs
    assert 0 < found["cutaway_job_seconds_sum", *labels] < 60 * jobs


def test_jobs_whose_process_was_killed_are_counted_each_time(
    idle_client: FlaskClient, idle_servers: Servers, long_request_body: dict[str, Any]
) -> None:
    with running_worker(idle_servers) as worker:
        path = f"/v1/traces/{idle_client.post('/v1/traces', json=long_request_body).get_json()['id']}"
        while idle_client.get(path).get_json()["status"] in ("queued", "running"):
            for process in process_of(worker, "large").children():
                with suppress(psutil.NoSuchProcess):  # it ended meanwhile
                    process.kill()
        assert idle_client.get(path).get_json()["status"] == "failed"
        wait_for(idle_client, "failed", 1)
        wait_for(idle_client, "retried", TRIES - 1)


def test_a_stopped_job_is_counted_as_cancelled(
    idle_client: FlaskClient, idle_servers: Servers, long_request_body: dict[str, Any]
) -> None:
    with running_worker(idle_servers):
        trace = idle_client.post("/v1/traces", json=long_request_body).get_json()
        while idle_client.get(f"/v1/traces/{trace['id']}").get_json()["status"] != "running":
            time.sleep(0.01)
        idle_client.delete(f"/v1/traces/{trace['id']}")
        wait_for(idle_client, "cancelled", 1)


def wait_for(client: FlaskClient, outcome: str, times: int) -> None:
    """Wait until `times` jobs have this outcome."""
    deadline = time.monotonic() + 30
    while True:
        found = [v for k, v in metrics(client).items() if k[0] == "cutaway_job_seconds_count" and outcome in k]
        if found == [times]:
            return
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def test_the_wait_of_the_next_job_is_reported_by_queue(idle_client: FlaskClient) -> None:
    oldest = ("cutaway_queue_oldest_seconds", "cutaway-small-normal")
    assert metrics(idle_client)[oldest] == 0
    idle_client.post("/v1/traces", json={"model": "nano-gpt", "tokens": [0, 1]})
    assert 0 < metrics(idle_client)[oldest] < metrics(idle_client)[oldest] < 60


def test_cached_responses_are_counted_and_timed(client: FlaskClient, sorted_letters: dict[str, Any]) -> None:
    route, path = "/v1/traces/<trace_id>/tensors", f"/v1/traces/{sorted_letters['id']}/tensors"
    client.get(path)
    before = metrics(client)
    client.get(path)
    found = metrics(client)
    for name in (("http_kept_answers_total",), ("http_request_seconds_count", "GET", route)):
        assert found[f"cutaway_{name[0]}", *name[1:]] == before[f"cutaway_{name[0]}", *name[1:]] + 1


def test_the_size_hits_and_misses_of_the_cache_are_reported(idle_client: FlaskClient, idle_servers: Servers) -> None:
    before = metrics(idle_client)
    cache = connect(idle_servers.cache_url)
    cache.set("there", b"x")
    cache.get("there")
    cache.get("not there")
    found = metrics(idle_client)
    assert found["cutaway_cache_hits_total",] == before["cutaway_cache_hits_total",] + 1
    assert found["cutaway_cache_misses_total",] == before["cutaway_cache_misses_total",] + 1
    assert found["cutaway_cache_bytes",] > 0


def test_an_unavailable_redis_does_not_hide_other_metrics(servers: Servers) -> None:
    settings = Settings(queue_url="redis://127.0.0.1:1/0", cache_url=servers.cache_url)
    found = metrics(create_app(settings).test_client())
    assert (found["cutaway_redis_up", "queue"], found["cutaway_redis_up", "cache"]) == (0, 1)
    assert ("cutaway_queue_waiting", "cutaway-small-normal") not in found
    assert found["cutaway_cache_bytes",] > 0


def test_the_processes_of_a_server_share_counters(idle_servers: Servers, tmp_path: Path) -> None:
    environment = idle_servers.environment | {"TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", "service", "api", "--port", str(PORT), "--processes", "2", "--threads", "2"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as server:
        try:
            deadline = time.monotonic() + 60
            while True:
                with suppress(OSError):
                    read("/healthz")
                    break
                assert time.monotonic() < deadline
                time.sleep(0.05)
            for _ in range(40):
                read("/v1/models/nano-gpt")
            requests = ("cutaway_http_requests_total", "GET", "/v1/models/<model_id>", "200")
            assert {parsed(read("/metrics"))[requests] for _ in range(10)} == {40}
            assert len(list(tmp_path.glob("cutaway-metrics-*"))) == 1
        finally:
            server.send_signal(signal.SIGTERM)
    assert list(tmp_path.glob("cutaway-metrics-*")) == []


def read(path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}{path}", timeout=5) as answer:
        text: str = answer.read().decode()
        return text
