"""Whether this host's worker lives: `python -m worker.alive` ends with 0 if all its lanes gave signs of life lately.

A worker of one lane is asked for by that: `python -m worker.alive small`.
"""

from __future__ import annotations

import socket
import sys

from redis import Redis
from redis.exceptions import RedisError
from rq import Queue, Worker

from worker.settings import Settings
from worker.store.connection import connect
from worker.store.queues import LANES, name


def alive(queue: Redis, host: str, lane: str) -> bool:
    """Whether a process of a lane is registered by `host`: RQ's registration expires when it falls silent."""
    jobs = Queue(name(lane, "normal"), connection=queue)  # type: ignore[arg-type]
    return any(worker.hostname == host for worker in Worker.all(queue=jobs))


def main(lanes: list[str]) -> None:
    """Say what is wrong, if anything is."""
    host = socket.gethostname()
    queue = connect(Settings.from_environment().queue_url, timeout=1.0, retries=0)
    try:
        silent = [lane for lane in lanes or LANES if not alive(queue, host, lane)]
    except RedisError as error:
        sys.exit(f"the queue's Redis does not answer: {error}")
    if silent:
        sys.exit(f"no worker of {host} is registered for {' and '.join(silent)} jobs")


if __name__ == "__main__":
    main(sys.argv[1:])
