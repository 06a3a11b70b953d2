"""Throughput of reading a tensor over HTTP, against Redis."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from functools import partial
from http.client import HTTPConnection
from typing import Any
from urllib.parse import quote

from bench.stack import Stack, running
from bench.timing import seconds
from worker.store import pieces
from worker.store.connection import connect

# A model whose logits over 128 tokens are 16 MB; slices of them give the smaller sizes.
CONFIG = {"n_layer": 1, "n_head": 1, "n_embd": 8, "n_positions": 128, "vocab_size": 32_768}
ROWS = {"4 KB": "0,0,:1024", "1 MB": "0,:8", "16 MB": ""}
TIMES = {"4 KB": 400, "1 MB": 200, "16 MB": 40}


def run() -> None:
    """Print MB/s over HTTP and from Redis for each size."""
    with running() as stack:
        connection = stack.connect()
        trace = _trace(connection)
        slot = trace["tensors"]["logits"]
        print("Reading a finished tensor, one client")
        for name, rows in ROWS.items():
            size = {"4 KB": 4096, "1 MB": 1 << 20, "16 MB": slot["bytes"]}[name]
            over_http = _rate(partial(_read, connection, trace["id"], rows), size, TIMES[name])
            direct = _rate(partial(_direct, stack, trace["id"], size), size, TIMES[name])
            share = over_http / direct
            print(f"  {name:>5}: HTTP {over_http:8.1f} MB/s   Redis {direct:8.1f} MB/s   ratio {share:.2f}")


def _trace(connection: HTTPConnection) -> dict[str, Any]:
    body = {"model": CONFIG, "tokens": list(range(128)), "capture": ["logits"]}
    headers = {"Content-Type": "application/json", "Prefer": "wait=60"}
    connection.request("POST", "/v1/traces", json.dumps(body), headers)
    trace: dict[str, Any] = json.loads(connection.getresponse().read())
    assert trace["status"] == "done", trace
    return trace


def _read(connection: HTTPConnection, id: str, rows: str) -> int:
    path = f"/v1/traces/{id}/tensors/logits?slice={quote(rows)}"
    connection.request("GET", path, headers={"Accept": "application/octet-stream"})
    return len(connection.getresponse().read())


def _direct(stack: Stack, id: str, size: int) -> int:
    return len(pieces.read(connect(stack.cache_url), id, 0, size))


def _rate(read: Callable[[], int], size: int, times: int) -> float:
    assert read() == size
    return size / statistics.median(seconds(read, times)) / 1e6
