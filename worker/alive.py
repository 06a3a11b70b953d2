"""Whether this host's worker is alive: `python -m worker.alive` exits with 0 if all its processes sent heartbeats.

A worker of one job size is checked by that: `python -m worker.alive small`.
"""

from __future__ import annotations

import socket
import sys

from redis.exceptions import RedisError

import worker.rq.monitoring as monitoring
from worker.settings import Settings
from worker.store.connection import connect
from worker.store.queues import JOB_SIZES


def main(sizes: list[str]) -> None:
    """Exit with a message if a process of this host is silent."""
    host = socket.gethostname()
    queue = connect(Settings.from_environment().queue_url, timeout=1.0, retries=0)
    try:
        silent = [size for size in sizes or JOB_SIZES if host not in monitoring.hosts(queue, size)]  # type: ignore[arg-type]
    except RedisError as error:
        sys.exit(f"the queue's Redis does not answer: {error}")
    if silent:
        sys.exit(f"no worker of {host} is registered for {' and '.join(silent)} jobs")


if __name__ == "__main__":
    main(sys.argv[1:])
