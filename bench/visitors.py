"""What the clients of a soak do: each request drawn from a mix, each answer judged."""

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
BROKEN, CUT = 0, 1  # statuses of an answer that did not come, and of one whose end is missing
_LATER = (429, 503)  # honest where they say when to come again
MEDIUM = {"n_layer": 6, "n_head": 4, "n_embd": 128, "n_positions": 128, "vocab_size": 512}
_BAD: list[tuple[str, str, Any]] = [
    ("POST", "/v1/traces", {"model": "nano-gpt", "text": "CABD"}),
    ("POST", "/v1/traces", {"model": "no-model", "text": "A"}),
    ("POST", "/v1/traces", {"model": {"n_layer": 10**9}, "tokens": [1]}),
    ("POST", "/v1/traces", ["no", "object"]),
    ("POST", "/v1/batches", {"requests": [{"model": "nano-gpt"}]}),
    ("GET", "/v1/traces/none", None),
    ("GET", "/v1/traces?limit=many", None),
    ("GET", "/nowhere", None),
    ("PATCH", "/v1/traces", None),
]


@dataclass
class Seen:
    """What all clients were told."""

    statuses: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    took: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    accepted: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))  # paths of resources by their kind
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, kind: str, status: int, took: float, wrong: str | None) -> None:
        """Count an answer."""
        with self.lock:
            self.statuses[kind][status] += 1
            self.took[kind].append(took)
            if wrong:
                self.wrong.append(f"{kind}: {wrong}")

    @property
    def count(self) -> int:
        with self.lock:
            return sum(map(len, self.took.values()))


class Visitor(threading.Thread):
    """A client: a connection that is kept open, a mix of requests from a seed of its own, until `going_on` is false."""

    def __init__(self, port: int, seed: int, seen: Seen, going_on: Callable[[], bool]) -> None:
        super().__init__(name=f"visitor-{seed}")
        self.port, self.seen, self.going_on = port, seen, going_on
        self.random = random.Random(seed)  # noqa: S311 - the same mix each time  # nosec B311
        self.connection = HTTPConnection("127.0.0.1", port, timeout=60)
        self.done: list[str] = []  # own traces, as they were seen done
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
        chores, weights = zip(*self.mix, strict=True)
        while self.going_on():
            [chore] = self.random.choices(chores, weights)
            chore()
        self.connection.close()

    def ask(self, kind: str, method: str, path: str, body: Any = None, *, allowed: set[int], **headers: str) -> Any:
        """One request: the body of an answer with 2xx, else None. `allowed` are statuses beside those of _LATER."""
        began, honest, sent = time.monotonic(), True, None if body is None else json.dumps(body)
        try:
            try:
                answer = self.sent(method, path, sent, headers)
            except RemoteDisconnected:  # the server had closed what was idle, as the request was on its way
                self.connection.close()
                answer = self.sent(method, path, sent, headers)
            status, content = answer.status, answer.read()
            honest = status not in _LATER or answer.headers.get("Retry-After") is not None
        except (OSError, HTTPException) as error:
            self.connection.close()
            status, content = CUT if isinstance(error, IncompleteRead) else BROKEN, repr(error).encode()
        right = honest and status in {*allowed, *_LATER}
        wrong = None if right else f"{method} {path}: {status} {content[:200]!r}"
        self.seen.note(kind, status, time.monotonic() - began, wrong)
        return content if status in (200, 202) else None

    def sent(self, method: str, path: str, body: str | None, headers: dict[str, str]) -> HTTPResponse:
        self.connection.request(method, path, body, {"Content-Type": "application/json"} | headers)
        return self.connection.getresponse()

    def accepted(self, kind: str, content: bytes | None, path: str) -> Body | None:
        """The body of what is to be computed, noted as such."""
        if content is None:
            return None
        body: Body = json.loads(content)
        with self.seen.lock:
            self.seen.accepted[kind].add(f"{path}/{body['id']}")
        if kind == "trace" and body["status"] == "done":
            self.done.append(body["id"])
        return body

    def small(self) -> None:
        """A trace of milliseconds, that others may ask for as well."""
        self.post("small trace", self.sorting(), wait=self.random.choice((0, 30, 30)))

    def medium(self) -> None:
        """A trace of some megabytes."""
        tokens = [self.random.randrange(512) for _ in range(60)]
        self.post("medium trace", {"model": MEDIUM, "tokens": tokens}, wait=30)

    def post(self, kind: str, body: Body, wait: int) -> None:
        """Ask for a trace."""
        content = self.ask(kind, "POST", "/v1/traces", body, allowed={200, 202}, Prefer=f"wait={wait}")
        self.accepted("trace", content, "/v1/traces")

    def sorting(self) -> Body:
        text = "".join(self.random.choices("ABC", k=6))
        return {"model": "nano-gpt", "text": text, "generate": {"max_new_tokens": self.random.randrange(1, 7)}}

    def known(self) -> str | None:
        return self.random.choice(self.done[-50:]) if self.done else None

    def read(self, kind: str, what: str, allowed: frozenset[int] = frozenset(), **headers: str) -> bytes | None:
        """Something of a trace that was done once; it may have been cancelled or evicted since."""
        id = self.known()
        if id is None:
            return None
        found: bytes | None = self.ask(
            kind, "GET", f"/v1/traces/{id}{what}", allowed={200, 404, 409, *allowed}, **headers
        )
        return found

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
        self.read("safetensors file", "/safetensors", frozenset({CUT}))  # the cache may lose a piece midway

    def layout(self) -> None:
        """The picture of some model."""
        body = {"model": {"n_layer": self.random.randrange(1, 40), "n_head": 4, "n_embd": 64}, "tokens": 16}
        content = self.ask("layout", "POST", "/v1/layouts", body, allowed={200, 202}, Prefer="wait=30")
        told = self.accepted("layout", content, "/v1/layouts")
        if told is not None and told["status"] == "done":
            self.ask("read a layout", "GET", f"/v1/layouts/{told['id']}?layers=0:1", allowed={200, 409})

    def batch(self) -> None:
        """Some small traces at once."""
        body = {"requests": [self.sorting() for _ in range(self.random.randrange(2, 15))]}
        told = self.accepted("batch", self.ask("batch", "POST", "/v1/batches", body, allowed={202}), "/v1/batches")
        if told is not None:
            self.batches.append(told["id"])

    def watch(self) -> None:
        """The events of a batch, to its end."""
        if self.batches:
            path = f"/v1/batches/{self.random.choice(self.batches)}/events"
            self.ask("watch a batch", "GET", path, allowed={200, 404, 429})

    def cancel(self) -> None:
        """A trace, at once or later, or a batch."""
        path = None
        match self.random.choice(("new", "done", "batch")):
            case "new":
                body = self.sorting() | {"weights": {"synthetic": self.random.randrange(10**6)}}
                content = self.ask("small trace", "POST", "/v1/traces", body, allowed={200, 202})
                told = self.accepted("trace", content, "/v1/traces")
                path = told and f"/v1/traces/{told['id']}"
            case "done" if self.done:
                path = f"/v1/traces/{self.done.pop()}"
            case "batch" if self.batches:
                path = f"/v1/batches/{self.batches.pop()}"
        if path:
            self.ask("cancel", "DELETE", str(path), allowed={204, 404})

    def bad(self) -> None:
        """What is refused with the reason."""
        method, path, body = self.random.choice(_BAD)
        self.ask("bad request", method, path, body, allowed={400, 404, 405, 415, 422})
