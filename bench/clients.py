"""Clients of the soak test, which send random requests and check the responses."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse, IncompleteRead, RemoteDisconnected
from typing import Any

Body = dict[str, Any]
NO_RESPONSE, TRUNCATED = 0, 1  # used as statuses
_RETRY_LATER = (429, 503)  # acceptable with a Retry-After header
MEDIUM = {"n_layer": 6, "n_head": 4, "n_embd": 128, "n_positions": 128, "vocab_size": 512}
_BAD_REQUESTS: list[tuple[str, str, Any]] = [
    ("POST", "/v1/traces", {"model": "nano-gpt", "text": "CABD"}),
    ("POST", "/v1/traces", {"model": "no-model", "text": "A"}),
    ("POST", "/v1/traces", {"model": {"n_layer": 10**9}, "tokens": [1]}),
    ("POST", "/v1/traces", ["not", "an object"]),
    ("POST", "/v1/batches", {"requests": [{"model": "nano-gpt"}]}),
    ("GET", "/v1/traces/none", None),
    ("GET", "/v1/traces?limit=many", None),
    ("GET", "/nowhere", None),
    ("PATCH", "/v1/traces", None),
]


@dataclass
class Results:
    """The responses that all clients got."""

    statuses: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    accepted: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))  # paths of the resources, by kind
    errors: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def record(self, kind: str, status: int, seconds: float, error: str | None) -> None:
        """Count a response."""
        with self.lock:
            self.statuses[kind][status] += 1
            self.seconds[kind].append(seconds)
            if error:
                self.errors.append(f"{kind}: {error}")

    @property
    def count(self) -> int:
        """The number of responses."""
        with self.lock:
            return sum(map(len, self.seconds.values()))


class Client(threading.Thread):
    """Sends random requests over a persistent connection until `active` returns False."""

    def __init__(self, port: int, seed: int, results: Results, active: Callable[[], bool]) -> None:
        super().__init__(name=f"client-{seed}")
        self.port, self.results, self.active = port, results, active
        self.random = random.Random(seed)  # noqa: S311 - the same requests each time  # nosec B311
        self.connection = HTTPConnection("127.0.0.1", port, timeout=60)
        self.done: list[str] = []  # ids of finished traces of this client
        self.batches: list[str] = []
        self.mix: list[tuple[Callable[[], None], int]] = [
            (self.small, 30),
            (self.medium, 2),
            (self.trace, 10),
            (self.tensor, 14),
            (self.explain, 8),
            (self.lens, 4),
            (self.layout, 7),
            (self.batch, 3),
            (self.watch, 3),
            (self.file, 3),
            (self.cancel, 5),
            (self.bad, 8),
        ]

    def run(self) -> None:
        actions, weights = zip(*self.mix, strict=True)
        while self.active():
            [action] = self.random.choices(actions, weights)
            action()
        self.connection.close()

    def request(self, kind: str, method: str, path: str, body: Any = None, *, allowed: set[int], **headers: str) -> Any:
        """Send a request and check its status; return the body of a 200 or 202, else None.

        The status must be in `allowed`, or in _RETRY_LATER with a Retry-After header.
        """
        start, has_retry_after, content_sent = time.monotonic(), False, None if body is None else json.dumps(body)
        try:
            try:
                response = self.send(method, path, content_sent, headers)
            except RemoteDisconnected:  # the server closed the idle connection as the request was sent
                self.connection.close()
                response = self.send(method, path, content_sent, headers)
            status, content = response.status, response.read()
            has_retry_after = response.headers.get("Retry-After") is not None
        except (OSError, HTTPException) as error:
            self.connection.close()
            status, content = TRUNCATED if isinstance(error, IncompleteRead) else NO_RESPONSE, repr(error).encode()
        expected = has_retry_after if status in _RETRY_LATER else status in allowed
        error_text = None if expected else f"{method} {path}: {status} {content[:200]!r}"
        self.results.record(kind, status, time.monotonic() - start, error_text)
        return content if status in (200, 202) else None

    def send(self, method: str, path: str, body: str | None, headers: dict[str, str]) -> HTTPResponse:
        self.connection.request(method, path, body, {"Content-Type": "application/json"} | headers)
        return self.connection.getresponse()

    def accepted(self, kind: str, content: bytes | None, path: str) -> Body | None:
        """Record an accepted resource; return its JSON, or None if there is none."""
        if content is None:
            return None
        body: Body = json.loads(content)
        with self.results.lock:
            self.results.accepted[kind].add(f"{path}/{body['id']}")
        if kind == "trace" and body["status"] == "done":
            self.done.append(body["id"])
        return body

    def small(self) -> None:
        """Submit a trace that takes milliseconds and that other clients may submit as well."""
        self.post("small trace", self.sorting(), wait=self.random.choice((0, 30, 30)))

    def medium(self) -> None:
        """Submit a trace of some megabytes."""
        tokens = [self.random.randrange(512) for _ in range(60)]
        self.post("medium trace", {"model": MEDIUM, "tokens": tokens}, wait=30)

    def post(self, kind: str, body: Body, wait: int) -> None:
        """Submit a trace."""
        content = self.request(kind, "POST", "/v1/traces", body, allowed={200, 202}, Prefer=f"wait={wait}")
        self.accepted("trace", content, "/v1/traces")

    def sorting(self) -> Body:
        text = "".join(self.random.choices("ABC", k=6))
        return {"model": "nano-gpt", "text": text, "generate": {"max_new_tokens": self.random.randrange(1, 7)}}

    def known(self) -> str | None:
        return self.random.choice(self.done[-50:]) if self.done else None

    def read(self, kind: str, subpath: str, allowed: frozenset[int] = frozenset(), **headers: str) -> bytes | None:
        """Read a resource below a finished trace, which may have been cancelled or evicted since."""
        id = self.known()
        if id is None:
            return None
        content: bytes | None = self.request(
            kind, "GET", f"/v1/traces/{id}{subpath}", allowed={200, 404, 409, *allowed}, **headers
        )
        return content

    def trace(self) -> None:
        self.read("read a trace", "")

    def tensor(self) -> None:
        name = self.random.choice(("embed", "blocks.0.attn.pattern", "blocks.2.resid_post", "probs"))
        self.read("read a tensor", f"/tensors/{name}", Accept="application/octet-stream")

    def explain(self) -> None:
        block = self.random.choice(("blocks.0.attn.heads.1.scores", "blocks.1.mlp_out"))
        self.read("explain a cell", f"/explain?block={block}&cell=0,0,0", frozenset({422}))

    def lens(self) -> None:
        self.read("lens", "/lens", frozenset({202}), Prefer="wait=10")

    def file(self) -> None:
        self.read("safetensors file", "/safetensors", frozenset({TRUNCATED}))  # the cache may evict a piece midway

    def layout(self) -> None:
        """Submit the layout of a model and read it."""
        body = {"model": {"n_layer": self.random.randrange(1, 40), "n_head": 4, "n_embd": 64}, "tokens": 16}
        content = self.request("layout", "POST", "/v1/layouts", body, allowed={200, 202}, Prefer="wait=30")
        layout = self.accepted("layout", content, "/v1/layouts")
        if layout is not None and layout["status"] == "done":
            self.request("read a layout", "GET", f"/v1/layouts/{layout['id']}?layers=0:1", allowed={200, 409})

    def batch(self) -> None:
        """Submit a batch of small traces."""
        body = {"requests": [self.sorting() for _ in range(self.random.randrange(2, 15))]}
        content = self.request("batch", "POST", "/v1/batches", body, allowed={202})
        batch = self.accepted("batch", content, "/v1/batches")
        if batch is not None:
            self.batches.append(batch["id"])

    def watch(self) -> None:
        """Read the events of a batch to their end."""
        if self.batches:
            path = f"/v1/batches/{self.random.choice(self.batches)}/events"
            self.request("watch a batch", "GET", path, allowed={200, 404, 429})

    def cancel(self) -> None:
        """Cancel a new trace, a finished trace or a batch."""
        path = None
        match self.random.choice(("new", "done", "batch")):
            case "new":
                body = self.sorting() | {"weights": {"synthetic": self.random.randrange(10**6)}}
                content = self.request("small trace", "POST", "/v1/traces", body, allowed={200, 202})
                trace = self.accepted("trace", content, "/v1/traces")
                path = trace and f"/v1/traces/{trace['id']}"
            case "done" if self.done:
                path = f"/v1/traces/{self.done.pop()}"
            case "batch" if self.batches:
                path = f"/v1/batches/{self.batches.pop()}"
        if path:
            self.request("cancel", "DELETE", str(path), allowed={204, 404})

    def bad(self) -> None:
        """Send a request that is refused."""
        method, path, body = self.random.choice(_BAD_REQUESTS)
        self.request("bad request", method, path, body, allowed={400, 404, 405, 415, 422})
