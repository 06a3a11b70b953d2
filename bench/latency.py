"""From POST to done for nano-gpt, beside the round trip of an RQ job that does nothing, in the same worker."""

from __future__ import annotations

import itertools
import json
import statistics
import time
from http.client import HTTPConnection

from rq import Queue

from bench.figures import milliseconds
from bench.stack import running
from worker.store.connection import connect
from worker.store.requests import QUEUE

PROMPTS = 200
PAUSE = 0.02  # seconds for the worker to come to rest, so that neither waits for the other's end


def run() -> None:
    """Print both, and their ratio."""
    with running() as stack:
        connection, jobs = stack.connect(), Queue(QUEUE, connection=connect(stack.queue_url), serializer="json")
        prompts = ["".join(letters) for letters in itertools.product("ABC", repeat=6)][: PROMPTS + 5]
        traces, empty = [], []
        for prompt in prompts:
            traces.append(_trace(connection, prompt))
            time.sleep(PAUSE)
            empty.append(_empty(jobs))
            time.sleep(PAUSE)
    ratio = statistics.median(traces[5:]) / statistics.median(empty[5:])
    print(f"nano-gpt, from POST to done ({PROMPTS} different prompts of 6 letters, 6 new ones, everything captured)")
    print(f"  a trace:                   {milliseconds(traces[5:])}")
    print(f"  an RQ job that is empty:   {milliseconds(empty[5:])}")
    print(f"  ratio of the medians: {ratio:.2f} (goal: at most 1.5)")


def _trace(connection: HTTPConnection, prompt: str) -> float:
    body = json.dumps({"model": "nano-gpt", "text": prompt, "generate": {"max_new_tokens": 6}})
    start = time.perf_counter()
    connection.request("POST", "/v1/traces", body, {"Content-Type": "application/json", "Prefer": "wait=10"})
    answer = json.loads(connection.getresponse().read())
    taken = time.perf_counter() - start
    assert answer["status"] == "done", answer
    assert answer["output"] == "".join(sorted(prompt)), answer
    return taken


def _empty(jobs: Queue) -> float:
    """RQ's own fastest way to hear of the end: blocking on the stream of results."""
    start = time.perf_counter()
    jobs.enqueue("worker.gpt.config.LIMITS.copy").latest_result(timeout=10)
    return time.perf_counter() - start
