"""The soak test: many clients, while workers are killed.

Every accepted request must end, and no process may grow.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess  # nosec B404
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path

import psutil

import service.up.redis_server as redis_server
from bench.clients import Client, Results
from bench.stack import Stack, free_port, process, wait_until_ready
from worker.store.connection import connect

_UNFINISHED = ("queued", "running")
_RESTART_SECONDS = 1.0  # as long as a container takes
_READERS = 16  # threads that wait for the accepted requests to end
_CACHED = 8 << 20  # bytes of cached responses in a process of the API: so few that the cache is full early
_GROWTH, _SLACK = 1.25, 16e6  # allowed memory of the last third, as a factor of the first third, plus bytes


@dataclass
class Report:
    """The results of a soak test."""

    results: Results
    seconds: float
    killed: int
    ended: dict[str, dict[str, int]]  # counts of the final statuses, by kind
    memory: dict[str, list[float]]  # bytes by process, one sample a second
    request_bytes: float  # memory of an accepted request in the Redis server of the queues

    @property
    def problems(self) -> list[str]:
        """Everything that is wrong."""
        found = list(self.results.errors)
        for kind, statuses in self.ended.items():
            found += [
                f"{count} of kind {kind} are {status}" for status, count in statuses.items() if status in _UNFINISHED
            ]
        for name, (first, last) in self.thirds().items():
            if name not in ("redis queue", "redis cache") and last > _GROWTH * first + _SLACK:
                found.append(f"{name} grew from {first / 1e6:.0f} MB to {last / 1e6:.0f} MB")
        return found

    def thirds(self) -> dict[str, tuple[float, float]]:
        """Return the median memory of each process in the first third, without its start, and in the last third."""
        medians = {}
        for name, samples in self.memory.items():
            third = max(1, len(samples) // 3)
            medians[name] = statistics.median(samples[third // 3 : third]), statistics.median(samples[-third:])
        return medians

    def table(self) -> str:
        """Return the report as text."""
        lines = [
            f"{self.results.count:,} requests in {self.seconds:.0f} s, {self.killed} workers killed",
            f"  {'':18}{'requests':>9}{'2xx':>8}{'4xx':>7}{'503':>6}{'other':>7}{'median ms':>11}{'p99 ms':>9}",
        ]
        for kind, counts in sorted(self.results.statuses.items()):
            groups = [sum(n for status, n in counts.items() if status // 100 == group) for group in (2, 4)]
            other = counts.total() - sum(groups) - counts[503]
            seconds = sorted(self.results.seconds[kind])
            median, p99 = seconds[len(seconds) // 2], seconds[min(len(seconds) - 1, round(0.99 * len(seconds)))]
            row = f"{counts.total():>9,}{groups[0]:>8,}{groups[1]:>7,}{counts[503]:>6,}{other:>7,}"
            lines.append(f"  {kind:18}{row}{median * 1e3:>11.0f}{p99 * 1e3:>9.0f}")
        lines.append(f"  {'accepted':18}" + "   ".join(f"{kind}: {ends}" for kind, ends in self.ended.items()))
        lines.append(f"  {'memory, MB':18}{'first third':>12}{'last third':>12}")
        lines += [f"  {name:18}{a / 1e6:>12.0f}{b / 1e6:>12.0f}" for name, (a, b) in sorted(self.thirds().items())]
        lines.append(f"  an accepted request takes {self.request_bytes:,.0f} bytes in the Redis server of the queues")
        return "\n".join(lines + [f"  WRONG: {problem}" for problem in self.problems[:20]])


def run() -> None:
    """Run the soak test and print its report. Exits with 1 if anything is wrong."""
    report = soak(requests=10_000, clients=32, kill_every=10.0)
    print(report.table())
    if report.problems:
        sys.exit(1)


def soak(requests: int, clients: int, kill_every: float, seconds: float = 480.0) -> Report:
    """Send `requests` requests, or for `seconds`, wait until all accepted ones have ended, and return a report."""
    with _running() as (stack, workers, processes):
        results, start, queue = Results(), time.monotonic(), connect(stack.queue_url)
        before = queue.info("memory")["used_memory"]

        def active() -> bool:
            return results.count < requests and time.monotonic() - start < seconds

        memory = _Memory(processes)
        threads: list[threading.Thread] = [Client(stack.port, seed, results, active) for seed in range(clients)]
        killer = _Killer(workers, kill_every, active)
        for thread in (*threads, killer, memory):
            thread.start()
        for thread in (*threads, killer):
            thread.join()
        duration = time.monotonic() - start
        memory.stop.set()
        memory.join()
        ended = _final_statuses(stack, results)
        grown = queue.info("memory")["used_memory"] - before
    request_bytes = grown / sum(map(len, results.accepted.values()))
    return Report(results, duration, killer.killed, ended, memory.samples, request_bytes)


@dataclass
class Workers:
    """Worker processes that are restarted after they are killed."""

    environment: dict[str, str]
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> None:
        command, quiet = [sys.executable, "-m", "worker"], subprocess.DEVNULL
        self.running.append(subprocess.Popen(command, env=self.environment, stdout=quiet, stderr=quiet))  # nosec B603

    def kill(self, which: int, whole: bool) -> None:
        """Kill a worker: the whole worker, which takes its child processes with it, or only its last child process."""
        parent = psutil.Process(self.running[which].pid)
        children = parent.children(recursive=True)
        for victim in [parent] if whole or not children else children[-1:]:
            with suppress(psutil.NoSuchProcess):
                victim.kill()
        if self.running[which].poll() is not None or whole:
            self.running.pop(which).wait()
            time.sleep(_RESTART_SECONDS)
            self.start()

    def stop(self) -> None:
        for worker in self.running:
            worker.terminate()
        for worker in self.running:
            worker.wait(60)


class _Killer(threading.Thread):
    """Kills a worker every few seconds."""

    def __init__(self, workers: Workers, every: float, active: Callable[[], bool]) -> None:
        super().__init__()
        self.workers, self.every, self.active, self.killed = workers, every, active, 0
        self.random = random.Random(0)  # noqa: S311 - the same kills each time  # nosec B311

    def run(self) -> None:
        due = time.monotonic() + self.every
        while self.active():
            if time.monotonic() >= due:
                self.workers.kill(self.random.randrange(len(self.workers.running)), self.random.random() < 0.6)
                self.killed += 1
                due += self.every
            time.sleep(0.1)


class _Memory(threading.Thread):
    """Samples the memory of processes once a second."""

    def __init__(self, processes: dict[str, psutil.Process]) -> None:
        super().__init__()
        self.processes, self.stop = processes, threading.Event()
        self.samples: dict[str, list[float]] = defaultdict(list)

    def run(self) -> None:
        while not self.stop.wait(1.0):
            for name, sampled in self.processes.items():
                with suppress(psutil.NoSuchProcess):
                    self.samples[name].append(sampled.memory_info().rss)


@contextmanager
def _running() -> Iterator[tuple[Stack, Workers, dict[str, psutil.Process]]]:
    """Start two Redis servers, the API and two workers; yield them and the processes whose memory is sampled."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cutaway-")))
        queue = stack.enter_context(redis_server.start("queue", folder))
        cache = stack.enter_context(redis_server.start("cache", folder, "256mb"))
        own = {"QUEUE_URL": queue.url, "CACHE_URL": cache.url, "PORT": str(free_port()), "MODELS_DIR": ""}
        own |= {"MAX_KEPT_BYTES": str(_CACHED)}
        environment = os.environ | own | {"OPENBLAS_NUM_THREADS": "1"}
        api = stack.enter_context(process(["service", "api"], environment))
        workers = Workers(environment)
        stack.callback(workers.stop)
        for _ in range(2):
            workers.start()
        addresses = Stack(queue.url, cache.url, int(own["PORT"]))
        wait_until_ready(addresses)
        arbiter = psutil.Process(api.pid)
        processes = {"redis queue": queue.process.pid, "redis cache": cache.process.pid, "api": arbiter.pid}
        processes |= {f"api process {n}": child.pid for n, child in enumerate(arbiter.children())}
        yield addresses, workers, {name: psutil.Process(pid) for name, pid in processes.items()}


def _final_statuses(stack: Stack, results: Results, timeout: float = 60.0) -> dict[str, dict[str, int]]:
    """Wait until all accepted resources have ended; return the counts of their statuses, by kind.

    Each has its own timeout, as reading one that was evicted computes it again.
    """

    def final_status(path: str) -> str:
        connection, deadline = stack.connect(), time.monotonic() + timeout
        while (status := _status(connection, path)) in _UNFINISHED and time.monotonic() < deadline:
            time.sleep(0.05)
        connection.close()
        return status

    with ThreadPoolExecutor(_READERS) as pool:
        return {kind: dict(Counter(pool.map(final_status, paths))) for kind, paths in results.accepted.items()}


def _status(connection: HTTPConnection, path: str) -> str:
    connection.request("GET", path)
    response = connection.getresponse()
    content = response.read()
    if response.status == 404:
        return "deleted"
    resource = json.loads(content) if response.status == 200 else {"status": "queued"}
    if "traces" in resource:  # a batch
        return "running" if resource["queued"] + resource["running"] else "ended"
    return str(resource["status"])
