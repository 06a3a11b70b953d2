"""Throughput of finished results at 64 connections.

The load comes from wrk. The peers are a bare Flask route on the same server and, where redis-benchmark is installed,
GETs of strings of the same sizes from Redis. They take turns.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess  # nosec B404
import tempfile
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from bench.stack import Stack, free_port, process, running, wait_for
from worker.store.connection import connect

CONNECTIONS, SECONDS, TURNS = 64, 3, 5
GOAL, TAIL = 0.6, 10.0
ACCEPT = "Accept: application/octet-stream, application/json;q=0.5"

#: A script for wrk that requests a different slice each time: 1,024 logits out of 8 positions × 32,768 tokens.
SLICES = """
local n = 0
request = function()
  n = n + 1
  local first = n * 127 % 31744
  return wrk.format("GET", string.format("%s?slice=0,%d,%d:%d", wrk.path, n % 8, first, first + 1024))
end
"""


class Load(NamedTuple):
    """Requests a second, and the median and 99th percentile of the latency in milliseconds."""

    rate: float
    p50: float
    p99: float


class Case(NamedTuple):
    """A path of the API, the size of its response in bytes, and a script for wrk."""

    name: str
    path: str
    size: int
    script: str = ""


def run() -> None:
    """Print each case with its peers, and its throughput as a fraction of the bare route's."""
    if shutil.which("wrk") is None:
        print("Skipping load: wrk is not installed (apt-get install wrk)")
        return
    with ExitStack() as exits:
        stack, port = exits.enter_context(running()), free_port()
        exits.enter_context(process(["bench.bare", str(port)], dict(os.environ)))
        wait_for(port)
        folder = Path(exits.enter_context(tempfile.TemporaryDirectory()))
        print(f"Finished results, {CONNECTIONS} connections, {TURNS} turns of {SECONDS} s each")
        for case in _cases(stack.connect()):
            _measure(case, stack, port, folder)
    print(f"  goal: a repeated response at {GOAL:.2f} of the bare route or more, with p99 under {TAIL:.0f} × p50")


def _cases(connection: HTTPConnection) -> list[Case]:
    config = {"n_layer": 1, "n_head": 1, "n_embd": 8, "n_positions": 8}
    fields = {"tokens": [1] * 8, "capture": ["logits"]}
    small = _post(connection, "/v1/traces", {"model": config | {"vocab_size": 128}, **fields})
    large = _post(connection, "/v1/traces", {"model": config | {"vocab_size": 32_768}, **fields})
    layout = _post(connection, "/v1/layouts", {"model": "nano-gpt"})
    connection.request("GET", layout)
    size = len(connection.getresponse().read())
    return [
        Case("a tensor of 4 KB", f"{small}/tensors/logits", 4096),
        Case("a tensor of 1 MB", f"{large}/tensors/logits", 1 << 20),
        Case("nano-gpt's layout", layout, size),
        Case("4 KB, a new slice each time", f"{large}/tensors/logits", 4096, SLICES),
    ]


def _measure(case: Case, stack: Stack, bare: int, folder: Path) -> None:
    script = folder / "script.lua"
    script.write_text(case.script)
    turns: dict[str, list[Load]] = {"the API": [], "a bare route": [], "Redis": []}
    for _ in range(TURNS):
        turns["the API"].append(_wrk(f"http://127.0.0.1:{stack.port}{case.path}", script))
        turns["a bare route"].append(_wrk(f"http://127.0.0.1:{bare}/{case.size}"))
        if shutil.which("redis-benchmark"):
            turns["Redis"].append(_redis(stack.cache_url, case.size))
    print(f"  {case.name} ({case.size:,} bytes)")
    for name, loads in turns.items():
        if loads:
            rate, p50, p99 = (statistics.median(column) for column in zip(*loads, strict=True))
            tail = f"p50 {p50:7.2f} ms   p99 {p99:7.2f} ms"
            print(f"    {name + ':':14}{rate:8.0f} requests/s   {tail}   p99 / p50 {p99 / p50:4.1f}")
    shares = [ours.rate / theirs.rate for ours, theirs in zip(turns["the API"], turns["a bare route"], strict=True)]
    print(f"    fraction of the bare route in each turn: median {statistics.median(shares):.2f}, min {min(shares):.2f}")


def _wrk(url: str, script: Path | None = None) -> Load:
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "--timeout=10s", "--latency", "-H", ACCEPT]
    if script is not None and script.stat().st_size:
        command += ["-s", str(script)]
    report = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout  # nosec B603
    assert "Non-2xx" not in report, report
    assert "Socket errors" not in report, report
    return Load(_number(r"Requests/sec:\s+(\S+)", report), _latency("50%", report), _latency("99%", report))


def _latency(percentile: str, report: str) -> float:
    """Return a latency in milliseconds, which wrk writes as 870.00us, 12.34ms or 1.20s."""
    found = re.search(rf"^\s+{percentile}\s+([\d.]+)(us|ms|s)\s*$", report, re.MULTILINE)
    assert found, report
    number, unit = found.groups()
    return float(number) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit]


def _redis(url: str, size: int) -> Load:
    connect(url).set("load", b"\0" * size)
    count = 100_000 if size < 1 << 16 else 5_000
    command = ["redis-benchmark", "-s", urlsplit(url).path, "-c", str(CONNECTIONS), "-n", str(count), "--csv"]
    report = subprocess.run([*command, "GET", "load"], capture_output=True, text=True, check=True).stdout  # nosec B603
    names, values = (re.findall(r'"([^"]*)"', line) for line in report.splitlines()[:2])
    found = dict(zip(names, values, strict=True))
    return Load(float(found["rps"]), float(found["p50_latency_ms"]), float(found["p99_latency_ms"]))


def _number(pattern: str, report: str) -> float:
    return float(re.findall(pattern, report)[0])


def _post(connection: HTTPConnection, path: str, body: dict[str, Any]) -> str:
    """Create a resource and return its path."""
    headers = {"Content-Type": "application/json", "Prefer": "wait=60"}
    connection.request("POST", path, json.dumps(body), headers)
    resource = json.loads(connection.getresponse().read())
    assert resource["status"] == "done", resource
    return f"{path}/{resource['id']}"
