"""Redis contains JSON, names and tensor bytes, and nothing that executes when it is read (no pickle)."""

from __future__ import annotations

import ast
import json
import zlib
from collections.abc import Callable, Iterator
from http import HTTPStatus
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from flask import Flask
from flask.testing import FlaskClient
from redis import Redis

import service
import worker as worker_package
from service.app import create_app
from tests.conftest import Servers, running_servers, running_worker
from worker.rq.queue import SERIALIZER
from worker.store.connection import connect

WAIT = {"Prefer": "wait=30"}
RUNS_CODE = {"pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "copyreg"}


def strings(redis: Any, key: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield every string in a key's value, with the type of the value."""
    kind = redis.type(key)
    readers: dict[bytes, Callable[[], Any]] = {
        b"none": list,  # expired since it was listed
        b"string": lambda: [redis.get(key)],
        b"hash": lambda: [part for pair in redis.hgetall(key).items() for part in pair],
        b"list": lambda: redis.lrange(key, 0, -1),
        b"set": lambda: redis.smembers(key),
        b"zset": lambda: redis.zrange(key, 0, -1),
        b"stream": lambda: [part for _, fields in redis.xrange(key) for pair in fields.items() for part in pair],
    }
    yield from ((kind.decode(), value) for value in readers[kind]())


def is_plain(value: bytes) -> bool:
    """Return whether a value is text without control characters: JSON, a name, a number, a time or a message."""
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character in "\n\t" for character in text)


def is_packed_json(value: bytes) -> bool:
    """Return whether a value is JSON compressed by RQ."""
    try:
        json.loads(zlib.decompress(value))
    except (zlib.error, ValueError):
        return False
    return True


def result_piece(key: bytes) -> tuple[str, int] | None:
    """Return the result's id and the piece's number in a key of the cache; None for other keys."""
    match key.decode().split(":"):
        case ["result", id, n] if n.isdigit():
            return id, int(n)
    return None


def gaps(manifest: dict[str, Any]) -> list[int]:
    """Return the numbers of bytes between consecutive tensors of a result, and after the last."""
    place, found = 0, []
    slots = {**manifest.get("tensors", {}), **manifest.get("arrays", {})}.values()
    for slot in sorted(slots, key=lambda slot: slot["offset"]):
        found.append(slot["offset"] - place)
        place = slot["offset"] + np.dtype(slot["dtype"]).itemsize * prod(slot["shape"])
    return [*found, manifest["size"] - place]


def work(client: FlaskClient, servers: Servers, body: dict[str, Any]) -> None:
    """Compute traces, layouts, a lens and a batch that shares jobs, with a failure and with all sorts of characters."""
    cache = connect(servers.cache_url)
    cache.config_set("maxmemory", 1)
    assert client.post("/v1/traces", json=body | {"tokens": [7]}, headers=WAIT).get_json()["status"] == "failed"
    cache.config_set("maxmemory", 0)
    nano = {"model": "nano-gpt", "text": "CBABBC", "generate": {"max_new_tokens": 6}}
    trace = client.post("/v1/traces", json=nano, headers=WAIT).get_json()
    assert trace["status"] == "done"
    assert client.get(f"/v1/traces/{trace['id']}/lens?attention=rollout", headers=WAIT).get_json()["status"] == "done"
    assert client.post("/v1/layouts", json={"model": "gpt-mini"}, headers=WAIT).get_json()["status"] == "done"
    text = {"model": "gpt-micro", "text": "naïve ☃ \U0001f600 \x00\x80\n", "capture": ["probs"]}
    assert client.post("/v1/traces", json=text, headers=WAIT).get_json()["status"] == "done"

    requests = [body | {"tokens": [n, 1]} for n in range(5)]
    batch = client.post("/v1/batches", json={"requests": requests}).get_json()
    for member in batch["traces"]:
        assert client.get(f"/v1/traces/{member['id']}", headers=WAIT).get_json()["status"] == "done"


def cancel(client: FlaskClient, body: dict[str, Any]) -> None:
    """Cancel a running trace, and leave others queued."""
    running = client.post("/v1/traces", json=body).get_json()["id"]
    events = client.get(f"/v1/traces/{running}/events").iter_encoded()
    assert any(b"event: started" in chunk for chunk in events)
    # One of these starts when the first has ended.
    queued = [client.post("/v1/traces", json=body | {"tokens": [n]}).get_json()["id"] for n in (7, 8, 9)]
    assert client.delete(f"/v1/traces/{running}").status_code == HTTPStatus.NO_CONTENT
    assert client.get(f"/v1/traces/{queued[-1]}").get_json()["status"] == "queued"


@pytest.fixture(scope="module")
def populated() -> Iterator[dict[str, Redis]]:
    """Both Redis servers after all kinds of work, with a registered worker that is suspended during a job."""
    small = {"n_layer": 2, "n_head": 2, "n_embd": 8, "n_positions": 64, "vocab_size": 20}
    long = {"n_layer": 24, "n_head": 2, "n_embd": 128, "n_positions": 512, "vocab_size": 500}
    with running_servers() as servers, running_worker(servers) as worker:
        client = create_app(servers.settings).test_client()
        work(client, servers, {"model": small, "weights": {"synthetic": 1}})
        cancel(client, {"model": long, "tokens": [1], "generate": {"max_new_tokens": 300}, "capture": ["probs"]})
        paused = [worker, *worker.children(recursive=True)]
        for process in paused:
            process.suspend()
        yield {"queue": connect(servers.queue_url), "cache": connect(servers.cache_url)}
        for process in paused:
            process.resume()


def test_redis_contains_only_text_json_and_tensor_bytes(populated: dict[str, Redis]) -> None:
    kinds: set[str] = set()
    for redis in populated.values():
        for key in redis.scan_iter(count=1000):
            assert is_plain(key)
            if result_piece(key) is None:
                for kind, value in strings(redis, key):
                    kinds.add(kind if is_plain(value) else "packed")
                    assert is_plain(value) or is_packed_json(value), (key, value[:80])
    assert kinds == {"string", "hash", "list", "set", "zset", "stream", "packed"}  # including RQ's own keys


def test_pieces_of_a_result_contain_only_the_bytes_of_its_tensors(populated: dict[str, Redis]) -> None:
    cache = populated["cache"]
    sizes: dict[str, int] = {}
    for key in cache.scan_iter("result:*", count=1000):
        piece = result_piece(key)
        if piece:
            sizes[piece[0]] = sizes.get(piece[0], 0) + cache.strlen(key)
    results = {key.decode().split(":")[1] for key in cache.scan_iter("result:*") if key.count(b":") == 1}
    manifests = {id: json.loads(cache.get(f"result:{id}") or b"") for id in results}
    assert {manifest["kind"] for manifest in manifests.values()} == {"trace", "layout", "lens"}
    for id, manifest in manifests.items():
        assert sizes[id] == manifest["size"]
        assert set(gaps(manifest)) <= set(range(8))  # padding for alignment


def imported(file: Path) -> set[str]:
    """Return the packages that a file imports anywhere."""
    nodes = [*ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name.partition(".")[0] for name in names}


def calls(file: Path) -> Iterator[ast.Call]:
    return (node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Call))


FILES = [file for package in (service, worker_package) for file in Path(package.__path__[0]).rglob("*.py")]


def test_no_module_deserializes_code() -> None:
    assert len(FILES) > 80
    for file in FILES:
        assert not imported(file) & RUNS_CODE, file
        pipes = "multiprocessing" in imported(file)
        for call in calls(file):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            # send and recv of multiprocessing's connections use pickle; send_bytes and recv_bytes do not
            assert not (pipes and name in ("send", "recv")), (file, call.lineno)
            assert not any(keyword.arg == "allow_pickle" for keyword in call.keywords), (file, call.lineno)


@pytest.mark.parametrize("name", ["PriorityQueue", "Job.fetch", "JobWorker", "StartedJobRegistry"])
def test_rq_reads_jobs_with_the_json_serializer(name: str) -> None:
    found = [(file, call) for file in FILES for call in calls(file) if ast.unparse(call.func) == name]
    assert found
    assert SERIALIZER == "json"
    for file, call in found:
        arguments = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert arguments.get("serializer") == "SERIALIZER", (file, call.lineno)


def test_rq_queue_class_is_not_used_directly() -> None:
    assert not any(ast.unparse(call.func) == "Queue" for file in FILES for call in calls(file))


@pytest.fixture
def poisoned(app: Flask, monkeypatch: pytest.MonkeyPatch) -> FlaskClient:
    """A client of a service in a process where unpickling fails."""
    import pickle

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something was unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    return app.test_client()


def test_service_reads_jobs_without_unpickling(poisoned: FlaskClient, worker: psutil.Process) -> None:
    body = {"model": {"n_layer": 1, "n_head": 1, "n_embd": 8, "vocab_size": 9}, "tokens": [1, 2, 3]}
    trace = poisoned.post("/v1/traces", json=body, headers=WAIT).get_json()
    assert trace["status"] == "done"
    assert poisoned.get("/v1/traces").status_code == HTTPStatus.OK
    assert poisoned.get("/metrics").status_code == HTTPStatus.OK
    assert poisoned.delete(f"/v1/traces/{trace['id']}").status_code == HTTPStatus.NO_CONTENT
