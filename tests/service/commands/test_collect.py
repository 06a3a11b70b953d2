"""`cutaway batch` against a real service: each result is computed and downloaded once."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http import HTTPStatus
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from flask import Flask, Response, request
from werkzeug.serving import make_server

import worker.store.pieces as pieces
from service.__main__ import main
from service.app import create_app
from tests.conftest import Servers, running_worker
from worker.store.connection import connect

Body = dict[str, Any]
SECONDS = 60


class Service:
    """A service on a port, which counts its requests by path."""

    def __init__(self, servers: Servers) -> None:
        self.servers, self.requests = servers, Counter[str]()
        self.app: Flask = create_app(servers.settings)
        self.app.before_request(self._count)
        if "/v1/traces/<trace_id>/safetensors" not in map(str, self.app.url_map.iter_rules()):
            self.app.add_url_rule("/v1/traces/<trace_id>/safetensors", view_func=self._stored)
        self.server = make_server("127.0.0.1", 0, self.app, threaded=True)
        self.url = f"http://127.0.0.1:{self.server.port}"

    def _count(self) -> None:
        self.requests[request.path] += 1

    def _stored(self, trace_id: str) -> Response:
        cache = connect(self.servers.cache_url)
        return Response(
            pieces.read(cache, trace_id, 0, pieces.manifest(cache, trace_id)["size"]),
            content_type="application/x-safetensors",
        )

    @property
    def downloads(self) -> Counter[str]:
        return Counter({path: n for path, n in self.requests.items() if path.endswith("/safetensors")})

    def times_started(self) -> list[int]:
        queue: Any = connect(self.servers.queue_url)
        streams = [key for key in queue.keys("events:*") if queue.exists(b"request:" + key.removeprefix(b"events:"))]
        return [[fields[b"event"] for _, fields in queue.xrange(key)].count(b"started") for key in streams]


@pytest.fixture
def service(idle_servers: Servers) -> Iterator[Service]:
    running = Service(idle_servers)
    thread = threading.Thread(target=running.server.serve_forever)
    thread.start()
    try:
        yield running
    finally:
        running.server.shutdown()
        thread.join()
        running.server.server_close()


@pytest.fixture
def file(tmp_path: Path, request_body: Body) -> Path:
    """Twenty requests, two of them the same, and an empty line."""
    lines = [json.dumps(request_body | {"tokens": [n, n]}) for n in range(19)]
    path = tmp_path / "requests.jsonl"
    path.write_text("\n".join([*lines[:5], "", *lines[5:], lines[3]]) + "\n")
    return path


def command(service: Service, file: Path, *words: str) -> list[str]:
    return ["batch", str(file), "--out", str(file.parent / "out"), "--url", service.url, *words]


def run(service: Service, file: Path, *words: str) -> Result:
    return CliRunner().invoke(main, command(service, file, *words))


def index(file: Path) -> list[Body]:
    return [json.loads(line) for line in (file.parent / "out" / "index.jsonl").read_text().splitlines()]


def test_every_request_has_a_file_and_an_index_entry(service: Service, file: Path) -> None:
    with running_worker(service.servers):
        result = run(service, file)
    out = file.parent / "out"
    assert (result.exit_code, result.stdout) == (0, f"{out}: 20 of 20 requests are done (0 from earlier runs)\n")
    assert [entry["line"] for entry in index(file)] == [n for n in range(1, 22) if n != 6]
    assert {entry["status"] for entry in index(file)} == {"done"}
    names = {name for entry in index(file) for name in entry["files"]}
    assert {path.name for path in out.iterdir()} == names | {"index.jsonl"}
    assert names == {f"{entry['id']}.safetensors" for entry in index(file)}
    assert index(file)[3]["id"] == index(file)[-1]["id"]
    assert set(service.downloads.values()) == {1}
    cache = connect(service.servers.cache_url)
    for entry in index(file)[::7]:
        stored = pieces.read(cache, entry["id"], 0, pieces.manifest(cache, entry["id"])["size"])
        assert (out / f"{entry['id']}.safetensors").read_bytes().endswith(stored)


def test_finished_requests_are_not_sent_again(service: Service, file: Path) -> None:
    with running_worker(service.servers):
        run(service, file)
        connect(service.servers.cache_url).flushdb()  # even if the results are lost
        service.requests.clear()
        lines = file.read_text().splitlines()
        file.write_text("\n".join(reversed(lines)) + "\n")
        again = run(service, file)
    assert (again.exit_code, again.stdout) == (
        0,
        f"{file.parent / 'out'}: 20 of 20 requests are done (20 from earlier runs)\n",
    )
    assert service.requests == Counter()
    assert [entry["line"] for entry in index(file)] == [n for n in range(1, 22) if n != 16]


def test_layouts_are_downloaded_too_each_once(service: Service, file: Path) -> None:
    with running_worker(service.servers):
        run(service, file)
        assert run(service, file, "--layouts", "safetensors").exit_code == 0
    assert set(service.downloads.values()) == {1}
    layouts = {entry["files"][1] for entry in index(file)}
    assert len(layouts) == 1  # all have the same model and number of tokens
    assert layouts.pop().endswith(".layout.safetensors")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_batch_resumes_without_repeating_work(
    service: Service, file: Path, long_request_body: Body, number: signal.Signals
) -> None:
    lines = [json.dumps(long_request_body | {"tokens": [n], "generate": {"max_new_tokens": 20}}) for n in range(12)]
    file.write_text("\n".join(lines))
    out = file.parent / "out"
    with running_worker(service.servers):
        program = [sys.executable, "-m", "service", *command(service, file)]
        with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as first:
            deadline = time.monotonic() + SECONDS
            while len(list(out.glob("*.safetensors"))) < 3:
                assert first.poll() is None, first.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.005)
            first.send_signal(number)
            _, errors = first.communicate(timeout=SECONDS)
        if number == signal.SIGINT:
            assert first.returncode == 130
            message = errors.splitlines()[-1]
            assert message.startswith("Stopped. ")
            assert message.endswith(" of 12 requests have ended; run the same command again to resume.")
        done = {path.name for path in out.glob("*.safetensors")}
        assert 3 <= len(done) < 12
        second = run(service, file)
    assert (second.exit_code, len(index(file))) == (0, 12)
    assert service.times_started() == [1] * 13  # the traces and their one layout
    repeated = {path.split("/")[3] for path, times in service.downloads.items() if times > 1}
    assert not repeated & {name.removesuffix(".safetensors") for name in done}
    assert sorted(path.suffix for path in out.iterdir()) == [".jsonl"] + [".safetensors"] * 12


def test_failures_are_listed_and_retried_by_the_next_run(service: Service, file: Path) -> None:
    wide = {"n_layer": 1, "n_head": 1, "n_embd": 4, "n_positions": 8, "vocab_size": 4_000_000}
    bad = {"model": wide, "tokens": [1, 2, 3, 4], "capture": ["logits"]}
    with file.open("a") as lines:
        lines.write(json.dumps(bad) + "\n")
    cache = connect(service.servers.cache_url)
    cache.config_set("maxmemory", "30mb")
    with running_worker(service.servers):
        result = run(service, file)
        assert (result.exit_code, result.stdout.endswith("20 of 21 requests are done (0 from earlier runs)\n")) == (
            1,
            True,
        )
        last = result.stderr.splitlines()[-1]
        assert last.startswith("line 22: failed: the cache has no room for a result of ")
        assert index(file)[-1]["status"] == "failed"
        cache.config_set("maxmemory", "256mb")
        again = run(service, file)
    assert (again.exit_code, again.stdout.endswith("21 of 21 requests are done (20 from earlier runs)\n")) == (0, True)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"model": "nano-gpt", "text": "D"}', "line 22, text: 'D' is not allowed: must be one of A, B, C."),
        ("{", "requests.jsonl, line 22: invalid JSON: "),
    ],
)
def test_invalid_lines_are_reported_and_nothing_is_submitted(
    service: Service, file: Path, line: str, message: str
) -> None:
    with file.open("a") as lines:
        lines.write(line + "\n")
    result = run(service, file)
    assert (result.exit_code, result.stdout) == (1, "")
    assert message in result.stderr
    assert connect(service.servers.queue_url).keys("request:*") == []


def test_an_unreachable_service_is_reported_in_one_line(
    service: Service, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cutaway.remote.TRIES", 1)
    nowhere = CliRunner().invoke(main, [*command(service, file)[:4], "--url", "http://127.0.0.1:1"])
    assert (nowhere.exit_code, nowhere.stdout) == (1, "")
    assert nowhere.stderr.splitlines()[-1] == "Error: http://127.0.0.1:1 cannot be reached: Connection refused."


def test_an_interrupted_event_stream_resumes(service: Service, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut: list[str] = []

    def cut_off(response: Response) -> Response:
        if request.path.endswith("/events") and len(cut) < 3:
            cut.append(request.headers.get("Last-Event-ID", ""))
            response.response = islice(response.iter_encoded(), 6)
        return response

    service.app.after_request(cut_off)
    monkeypatch.setattr("cutaway.remote._MAX_PAUSE", 0.01)
    with running_worker(service.servers):
        assert run(service, file).exit_code == 0
    assert len(cut) == 3
    assert set(service.downloads.values()) == {1}


def test_a_busy_service_is_retried(service: Service, file: Path) -> None:
    rejected: list[str] = []

    def busy() -> Response | None:
        if len(rejected) < 2:
            rejected.append(request.path)
            return Response(status=HTTPStatus.TOO_MANY_REQUESTS, headers={"Retry-After": "0"})
        return None

    service.app.before_request(busy)
    with running_worker(service.servers):
        assert run(service, file).exit_code == 0
    assert rejected == ["/v1/batches"] * 2


def test_a_folder_in_use_by_another_batch_is_an_error(service: Service, file: Path) -> None:
    out = file.parent / "out"
    out.mkdir()
    descriptor = os.open(out, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        assert run(service, file).stderr == f"Error: Another batch is already writing to {out}.\n"
    finally:
        os.close(descriptor)
