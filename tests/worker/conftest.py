"""Requests for the tests of jobs, and databases that store them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import worker.jobs as jobs
import worker.store.pieces as pieces
import worker.store.requests as requests
from tests.worker.models_of_tests import folder, make_weights, models_dir, reads, run_model, temporary
from worker.families.gpt2 import GPT2Config as Config
from worker.models.lookup import resolve
from worker.requests import LayoutRequest, Request, TraceRequest
from worker.settings import Settings
from worker.store.connection import connect
from worker.store.keys import request_id
from worker.trace.sampling import Sampling

__all__ = ["folder", "make_weights", "models_dir", "reads", "run_model", "temporary"]  # fixtures

AT = "2026-01-02T03:04:05.678Z"
GREEDY = Sampling(max_new_tokens=6)
OWN = Config(n_layer=2, n_head=3, n_embd=24, d_head=5, n_inner=40, n_positions=9, vocab_size=17)
LAYOUT = LayoutRequest(OWN, 7, 3)


def trace_request(spec: Any = "nano-gpt", tokens: Sequence[int] = (2, 1, 0, 1, 1, 2), **fields: Any) -> TraceRequest:
    return TraceRequest(resolve(spec).reference, tuple(tokens), **fields)


class Store:
    """Redis databases for these tests only, and the requests in them."""

    def __init__(self, settings: Settings) -> None:
        self.queue: Any = connect(settings.queue_url)
        self.cache = connect(settings.cache_url)

    def submit(self, request: Request) -> str:
        id = request_id(request)
        requests.put(self.queue, id, request, AT, 30, 60)
        return id

    def run(self, request: Request) -> tuple[str, dict[str, Any]]:
        id = self.submit(request)
        jobs.run(id)
        return id, pieces.manifest(self.cache, id)

    def array(self, id: str, slot: dict[str, Any]) -> NDArray[Any]:
        """Return the stored array of a slot in a manifest."""
        dtype = np.dtype(slot["dtype"])
        start, size = slot["offset"], dtype.itemsize * int(np.prod(slot["shape"], dtype=int))
        content = pieces.read(self.cache, id, start, start + size)
        return np.frombuffer(content, dtype).reshape(slot["shape"])

    def event_data(self, id: str, event: bytes) -> list[bytes]:
        return [fields[b"data"] for _, fields in self.queue.xrange(f"events:{id}") if fields[b"event"] == event]

    def events(self, id: str) -> list[str]:
        return [fields[b"event"].decode() for _, fields in self.queue.xrange(f"events:{id}")]


@pytest.fixture
def store(servers: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """Two empty databases, for which jobs are configured."""
    settings = Settings(queue_url=f"{servers.queue_url}?db=2", cache_url=f"{servers.cache_url}?db=2")
    monkeypatch.setattr(jobs, "_settings", settings)
    store = Store(settings)
    yield store
    store.queue.flushdb()
    store.cache.flushdb()
