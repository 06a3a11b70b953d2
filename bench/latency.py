"""From POST to done for nano-gpt, beside the round trip of an RQ job that does nothing: in RQ's own worker, which
forks when a job has come, and in ours, which has forked before."""

from __future__ import annotations

import itertools
import json
import os
import statistics
import time
from functools import partial
from http.client import HTTPConnection

from bench.figures import milliseconds
from bench.stack import process, running
from worker.rq.queue import PriorityQueue, open_queue
from worker.store.connection import connect
from worker.store.queues import choose

PROMPTS = 200
PLAIN = ["--serializer", "json", "plain"]
PAUSE = 0.05  # seconds for the worker to come to rest, so that neither waits for the other's end


def run() -> None:
    """Print both, and their ratio."""
    with running() as stack, process(["rq.cli", "worker", "--url", stack.queue_url, *PLAIN], dict(os.environ)):
        connection, queue = stack.connect(), connect(stack.queue_url)
        plain, ours = (open_queue(of, queue) for of in ("plain", choose(0, "normal")))
        prompts = ["".join(letters) for letters in itertools.product("ABC", repeat=6)][: PROMPTS + 5]
        taken: dict[str, list[float]] = {"a trace": [], "an empty job, RQ's worker": [], "an empty job, our worker": []}
        for prompt in prompts:
            runs = partial(_trace, connection, prompt), partial(_empty, plain), partial(_empty, ours)
            for times, once in zip(taken.values(), runs, strict=True):
                times.append(once())
                time.sleep(PAUSE)
    print(f"nano-gpt, from POST to done ({PROMPTS} different prompts of 6 letters, 6 new ones, everything captured)")
    trace = statistics.median(taken["a trace"][5:])
    for name, times in taken.items():
        ratio = trace / statistics.median(times[5:])
        print(f"  {name + ':':27}{milliseconds(times[5:])}   the trace takes {ratio:.2f} times as long")
    print("  goal: at most 1.5 times as long as an empty job")


def _trace(connection: HTTPConnection, prompt: str) -> float:
    body = json.dumps({"model": "nano-gpt", "text": prompt, "generate": {"max_new_tokens": 6}})
    start = time.perf_counter()
    connection.request("POST", "/v1/traces", body, {"Content-Type": "application/json", "Prefer": "wait=10"})
    answer = json.loads(connection.getresponse().read())
    taken = time.perf_counter() - start
    assert answer["status"] == "done", answer
    assert answer["output"] == "".join(sorted(prompt)), answer
    return taken


def _empty(jobs: PriorityQueue) -> float:
    """RQ's own fastest way to hear of the end: blocking on the stream of results."""
    start = time.perf_counter()
    jobs.enqueue("time.time").latest_result(timeout=10)
    return time.perf_counter() - start
