"""Latency of a nano-gpt trace, against an empty RQ job.

The empty job runs in RQ's own worker, which forks when a job arrives, and in ours, which forks in advance.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import time
from functools import partial
from http.client import HTTPConnection

from bench.stack import process, running
from bench.timing import milliseconds
from worker.rq.queue import PriorityQueue, open_queue
from worker.store.connection import connect
from worker.store.queues import choose

PROMPTS = 200
PLAIN = ["--serializer", "json", "plain"]
PAUSE = 0.05  # seconds for the workers to become idle, so that no job waits for the previous one


def run() -> None:
    """Print the latencies and their ratios."""
    with running() as stack, process(["rq.cli", "worker", "--url", stack.queue_url, *PLAIN], dict(os.environ)):
        connection, queue = stack.connect(), connect(stack.queue_url)
        plain, ours = (open_queue(name, queue) for name in ("plain", choose(0, "normal")))
        prompts = ["".join(letters) for letters in itertools.product("ABC", repeat=6)][: PROMPTS + 5]
        names = ("a trace", "an empty job, RQ's worker", "an empty job, our worker")
        latencies: dict[str, list[float]] = {name: [] for name in names}
        for prompt in prompts:
            runs = partial(_trace, connection, prompt), partial(_empty, plain), partial(_empty, ours)
            for times, run_one in zip(latencies.values(), runs, strict=True):
                times.append(run_one())
                time.sleep(PAUSE)
    print(f"nano-gpt, from POST to done ({PROMPTS} different prompts of 6 letters, 6 new ones, everything captured)")
    trace = statistics.median(latencies["a trace"][5:])
    for name, times in latencies.items():
        ratio = trace / statistics.median(times[5:])
        print(f"  {name + ':':27}{milliseconds(times[5:])}   ratio of the trace {ratio:.2f}")
    print("  goal: at most 1.5 times as long as an empty job")


def _trace(connection: HTTPConnection, prompt: str) -> float:
    body = json.dumps({"model": "nano-gpt", "text": prompt, "generate": {"max_new_tokens": 6}})
    start = time.perf_counter()
    connection.request("POST", "/v1/traces", body, {"Content-Type": "application/json", "Prefer": "wait=10"})
    trace = json.loads(connection.getresponse().read())
    taken = time.perf_counter() - start
    assert trace["status"] == "done", trace
    assert trace["output"] == "".join(sorted(prompt)), trace
    return taken


def _empty(jobs: PriorityQueue) -> float:
    """Return the latency of an empty job. Blocking on the stream of results is RQ's fastest way to wait for its end."""
    start = time.perf_counter()
    jobs.enqueue("time.time").latest_result(timeout=10)
    return time.perf_counter() - start
