"""A soak: many clients, a mix of requests, and a worker killed every few seconds; every accepted request ends."""

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
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path

import psutil

import service.up.redis_server as redis_server
from bench.stack import Stack, free_port, process, wait
from bench.visitors import Seen, Visitor
from worker.store.connection import connect

_UNFINISHED = ("queued", "running")
_RESTARTED_AFTER = 1.0  # seconds, as containers are
_READERS = 16  # that look at once whether all has ended
_KEPT = 8 << 20  # bytes of kept answers in a process of the API: so few that they are full before memory is looked at
_GROWTH, _SLACK = 1.25, 16e6  # how much more memory the last third may take than the first, and bytes on top


@dataclass
class Report:
    """What a soak found."""

    seen: Seen
    seconds: float
    killed: int
    ended: dict[str, dict[str, int]]  # how many of each kind ended how, or did not
    memory: dict[str, list[float]]  # bytes of each process, a sample a second
    request_bytes: float  # that the queue's Redis keeps of a request that was accepted

    @property
    def problems(self) -> list[str]:
        """What is not as it should be."""
        found = list(self.seen.wrong)
        for kind, statuses in self.ended.items():
            found += [
                f"{count} of kind {kind} are {status}" for status, count in statuses.items() if status in _UNFINISHED
            ]
        for name, (first, last) in self.thirds().items():
            if name not in ("redis queue", "redis cache") and last > _GROWTH * first + _SLACK:
                found.append(f"{name} grew from {first / 1e6:.0f} MB to {last / 1e6:.0f} MB")
        return found

    def thirds(self) -> dict[str, tuple[float, float]]:
        """The median memory of each process in the first third, after the beginning, and in the last."""
        found = {}
        for name, samples in self.memory.items():
            third = max(1, len(samples) // 3)
            found[name] = statistics.median(samples[third // 3 : third]), statistics.median(samples[-third:])
        return found

    def table(self) -> str:
        """All of it, for people."""
        lines = [
            f"{self.seen.count:,} requests in {self.seconds:.0f} s, {self.killed} workers killed",
            f"  {'':18}{'requests':>9}{'2xx':>8}{'4xx':>7}{'503':>6}{'other':>7}{'median ms':>11}{'p99 ms':>9}",
        ]
        for kind, counts in sorted(self.seen.statuses.items()):
            groups = [sum(n for status, n in counts.items() if status // 100 == group) for group in (2, 4)]
            other = counts.total() - sum(groups) - counts[503]
            took = sorted(self.seen.took[kind])
            middle, last = took[len(took) // 2], took[min(len(took) - 1, round(0.99 * len(took)))]
            row = f"{counts.total():>9,}{groups[0]:>8,}{groups[1]:>7,}{counts[503]:>6,}{other:>7,}"
            lines.append(f"  {kind:18}{row}{middle * 1e3:>11.0f}{last * 1e3:>9.0f}")
        lines.append(f"  {'what was accepted':18}" + "   ".join(f"{kind}: {ends}" for kind, ends in self.ended.items()))
        lines.append(f"  {'memory, MB':18}{'first third':>12}{'last third':>12}")
        lines += [f"  {name:18}{a / 1e6:>12.0f}{b / 1e6:>12.0f}" for name, (a, b) in sorted(self.thirds().items())]
        lines.append(f"  the queue's Redis keeps {self.request_bytes:,.0f} bytes of an accepted request")
        return "\n".join(lines + [f"  WRONG: {one}" for one in self.problems[:20]])


def run() -> None:
    """Print the table of the whole; fails where anything is wrong."""
    report = soak(requests=10_000, clients=32, kill_every=10.0)
    print(report.table())
    if report.problems:
        sys.exit(1)


def soak(requests: int, clients: int, kill_every: float, seconds: float = 480.0) -> Report:
    """Have so many requests made, or for so long, and all that was accepted ended."""
    with _running() as (stack, workers, processes):
        seen, began, queue = Seen(), time.monotonic(), connect(stack.queue_url)
        before = queue.info("memory")["used_memory"]

        def going_on() -> bool:
            return seen.count < requests and time.monotonic() - began < seconds

        memory = _Memory(processes)
        visitors: list[threading.Thread] = [Visitor(stack.port, seed, seen, going_on) for seed in range(clients)]
        killer = _Killer(workers, kill_every, going_on)
        for thread in (*visitors, killer, memory):
            thread.start()
        for thread in (*visitors, killer):
            thread.join()
        took = time.monotonic() - began
        memory.enough.set()
        memory.join()
        ended = _ended(stack, seen)
        kept = (queue.info("memory")["used_memory"] - before) / sum(map(len, seen.accepted.values()))
    return Report(seen, took, killer.killed, ended, memory.samples, kept)


@dataclass
class Workers:
    """Processes that are started again where they were killed."""

    environment: dict[str, str]
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> None:
        command, quiet = [sys.executable, "-m", "worker"], subprocess.DEVNULL
        self.running.append(subprocess.Popen(command, env=self.environment, stdout=quiet, stderr=quiet))  # nosec B603

    def kill(self, which: int, whole: bool) -> None:
        """Kill one: itself, which takes all that it started with it, or only those that compute."""
        found = psutil.Process(self.running[which].pid)
        computing = found.children(recursive=True)
        for one in [found] if whole or not computing else computing[-1:]:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        if self.running[which].poll() is not None or whole:
            self.running.pop(which).wait()
            time.sleep(_RESTARTED_AFTER)
            self.start()

    def stop(self) -> None:
        for worker in self.running:
            worker.terminate()
        for worker in self.running:
            worker.wait(60)


class _Killer(threading.Thread):
    """Kills a worker every few seconds."""

    def __init__(self, workers: Workers, every: float, going_on: object) -> None:
        super().__init__()
        self.workers, self.every, self.going_on, self.killed = workers, every, going_on, 0
        self.random = random.Random(0)  # noqa: S311 - the same deaths each time  # nosec B311

    def run(self) -> None:
        due = time.monotonic() + self.every
        while self.going_on():  # type: ignore[operator]
            if time.monotonic() >= due:
                self.workers.kill(self.random.randrange(len(self.workers.running)), self.random.random() < 0.6)
                self.killed += 1
                due += self.every
            time.sleep(0.1)


class _Memory(threading.Thread):
    """Looks once a second how much memory the processes take that live on."""

    def __init__(self, processes: dict[str, psutil.Process]) -> None:
        super().__init__()
        self.processes, self.enough = processes, threading.Event()
        self.samples: dict[str, list[float]] = defaultdict(list)

    def run(self) -> None:
        while not self.enough.wait(1.0):
            for name, one in self.processes.items():
                with suppress(psutil.NoSuchProcess):
                    self.samples[name].append(one.memory_info().rss)


@contextmanager
def _running() -> Iterator[tuple[Stack, Workers, dict[str, psutil.Process]]]:
    """Two Redis, the API, two workers, and the processes whose memory counts."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cutaway-")))
        queue = stack.enter_context(redis_server.start("queue", folder))
        cache = stack.enter_context(redis_server.start("cache", folder, "256mb"))
        own = {"QUEUE_URL": queue.url, "CACHE_URL": cache.url, "PORT": str(free_port()), "MODELS_DIR": ""}
        own |= {"MAX_KEPT_BYTES": str(_KEPT)}
        environment = os.environ | own | {"OPENBLAS_NUM_THREADS": "1"}
        api = stack.enter_context(process(["service", "api"], environment))
        workers = Workers(environment)
        stack.callback(workers.stop)
        for _ in range(2):
            workers.start()
        found = Stack(queue.url, cache.url, int(own["PORT"]))
        wait(found)
        arbiter = psutil.Process(api.pid)
        processes = {"redis queue": queue.process.pid, "redis cache": cache.process.pid, "api": arbiter.pid}
        processes |= {f"api process {n}": child.pid for n, child in enumerate(arbiter.children())}
        yield found, workers, {name: psutil.Process(pid) for name, pid in processes.items()}


def _ended(stack: Stack, seen: Seen, patience: float = 60.0) -> dict[str, dict[str, int]]:
    """How everything ended that was accepted, once it has. What the cache has evicted by then is computed again, as it
    is read: each has its own time.
    """

    def ended(path: str) -> str:
        connection, deadline = stack.connect(), time.monotonic() + patience
        while (status := _status(connection, path)) in _UNFINISHED and time.monotonic() < deadline:
            time.sleep(0.05)
        connection.close()
        return status

    with ThreadPoolExecutor(_READERS) as pool:
        return {kind: dict(Counter(pool.map(ended, paths))) for kind, paths in seen.accepted.items()}


def _status(connection: HTTPConnection, path: str) -> str:
    connection.request("GET", path)
    answer = connection.getresponse()
    content = answer.read()
    if answer.status == 404:
        return "forgotten"
    told = json.loads(content) if answer.status == 200 else {"status": "queued"}
    if "traces" in told:  # a batch
        return "running" if told["queued"] + told["running"] else "ended"
    return str(told["status"])
