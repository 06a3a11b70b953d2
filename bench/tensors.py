"""Latency of downsampled and sliced large tensors over HTTP."""

from __future__ import annotations

import json
import statistics
from functools import partial
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlencode

from bench.stack import running
from bench.timing import interleaved, milliseconds

LOGITS = {"n_layer": 1, "n_head": 1, "n_embd": 8, "n_positions": 1024, "vocab_size": 50_257}
LARGE = {"n_layer": 1, "n_head": 1, "n_embd": 8, "n_positions": 1024, "vocab_size": 100_000}  # logits of 410 MB
SMALL = {"n_layer": 1, "n_head": 1, "n_embd": 8, "n_positions": 8, "vocab_size": 128}  # logits of 4 KB
CELLS = 65_536
TIMES = 15
PAUSE = 0.01


def run() -> None:
    """Print the latency of each reducer, and of slices of 4 KB out of 410 MB, with their limits."""
    with running(MAX_KEPT_BYTES="0") as stack:  # so that no response is cached
        connection = stack.connect()
        logits = _logits(connection, LOGITS)
        print(f"Logits of 1,024 × 50,257 (206 MB) as {CELLS:,} cells, float32")
        for reducer in ("mean", "max", "min", "absmax"):
            read = partial(_read, connection, logits, max_cells=CELLS, reduce=reducer)
            [taken] = interleaved([read], TIMES, PAUSE)
            print(f"  {reducer + ':':8}{milliseconds(taken)}")
        print("  limit: median under 150 ms")
        large, small = _logits(connection, LARGE), _logits(connection, SMALL)
        reads = [
            partial(_read, connection, small),
            partial(_read, connection, large, slice="0,700,5000:6024"),
            partial(_read, connection, large, slice="0,:,5"),
        ]
        whole, row, column = interleaved(reads, 10 * TIMES, 0)
    print("Slices of 4 KB of a tensor of 410 MB, against a tensor of 4 KB")
    print(f"  a tensor of 4 KB:       {milliseconds(whole)}")
    for name, taken in {"a row's 1,024 cells:": row, "a column's 1,024 cells:": column}.items():
        ratio = statistics.median(taken) / statistics.median(whole)
        print(f"  {name:24}{milliseconds(taken)}   {ratio:.2f} times as long")
    print("  limit: a slice takes at most twice as long as the small tensor")


def _logits(connection: HTTPConnection, config: dict[str, Any]) -> str:
    """Create a trace; return the path of its logits over all positions."""
    body = json.dumps({"model": config, "tokens": [1] * config["n_positions"], "capture": ["logits"]})
    connection.request("POST", "/v1/traces", body, {"Content-Type": "application/json", "Prefer": "wait=60"})
    trace = json.loads(connection.getresponse().read())
    assert trace["status"] == "done", trace
    return f"/v1/traces/{trace['id']}/tensors/logits"


def _read(connection: HTTPConnection, path: str, **query: Any) -> bytes:
    connection.request("GET", f"{path}?{urlencode(query)}", headers={"Accept": "application/octet-stream"})
    response = connection.getresponse()
    content = response.read()
    assert response.status == 200, content
    return content
