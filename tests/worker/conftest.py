"""What tests of jobs ask for, and databases of their own that hold it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import worker.jobs as jobs
import worker.store.pieces as pieces
import worker.store.requests as requests
from tests.worker.models_of_tests import folder, make_weights, models_dir, reads, run_model, temporary
from worker.families.config import Config
from worker.models.models import resolve
from worker.settings import Settings
from worker.store.connection import connect
from worker.store.keys import RequestKind, request_id

__all__ = ["folder", "make_weights", "models_dir", "reads", "run_model", "temporary"]  # fixtures

AT = "2026-01-02T03:04:05.678Z"
GREEDY = {"max_new_tokens": 6, "temperature": 0.0, "top_k": None, "top_p": None, "seed": 0}
OWN = Config(n_layer=2, n_head=3, n_embd=24, d_head=5, n_inner=40, n_positions=9, vocab_size=17)
LAYOUT = {"config": OWN.to_mapping(), "tokens": 7, "batch": 3, "style": "columns"}


def trace_request(spec: Any = "nano-gpt", **said: Any) -> dict[str, Any]:
    usual = {"tokens": [2, 1, 0, 1, 1, 2], "generate": None, "capture": ["*"], "dtype": "float32"}
    return resolve(spec).canonical() | usual | said


class Store:
    """Databases of these tests' own, and the requests in them."""

    def __init__(self, settings: Settings) -> None:
        self.queue: Any = connect(settings.queue_url)
        self.cache = connect(settings.cache_url)

    def ask(self, kind: RequestKind, request: dict[str, Any]) -> str:
        id = request_id(kind, request)
        requests.put(self.queue, id, kind, request, AT, 30, 60)
        return id

    def run(self, kind: RequestKind, request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        id = self.ask(kind, request)
        jobs.run(id)
        return id, pieces.manifest(self.cache, id)

    def array(self, id: str, slot: dict[str, Any]) -> NDArray[Any]:
        """What is stored where a slot of a manifest says."""
        dtype = np.dtype(slot["dtype"])
        start, size = slot["offset"], dtype.itemsize * int(np.prod(slot["shape"], dtype=int))
        content = pieces.read(self.cache, id, start, start + size)
        return np.frombuffer(content, dtype).reshape(slot["shape"])

    def told(self, id: str, event: bytes) -> list[bytes]:
        return [fields[b"data"] for _, fields in self.queue.xrange(f"events:{id}") if fields[b"event"] == event]

    def events(self, id: str) -> list[str]:
        return [fields[b"event"].decode() for _, fields in self.queue.xrange(f"events:{id}")]


@pytest.fixture
def store(servers: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """Two empty databases, which jobs.run is told of by the environment."""
    settings = Settings(queue_url=f"{servers.queue_url}?db=2", cache_url=f"{servers.cache_url}?db=2")
    monkeypatch.setenv("QUEUE_URL", settings.queue_url)
    monkeypatch.setenv("CACHE_URL", settings.cache_url)
    store = Store(settings)
    yield store
    store.queue.flushdb()
    store.cache.flushdb()
