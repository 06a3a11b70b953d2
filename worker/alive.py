"""The command `python -m worker.alive`: the health check of a worker.

Exits with 0 if this host has a live worker process for each job size. For a worker of one size, pass the size:
`python -m worker.alive small`.
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
    """Exit with a message if this host has no live process for one of the sizes."""
    host = socket.gethostname()
    queue = connect(Settings.from_environment().queue_url, timeout=1.0, retries=0)
    try:
        missing = [size for size in sizes or JOB_SIZES if host not in monitoring.hosts(queue, size)]  # type: ignore[arg-type]
    except RedisError as error:
        sys.exit(f"the Redis server of the queues is unavailable: {error}")
    if missing:
        sys.exit(f"host {host} has no live worker for {' and '.join(missing)} jobs")


if __name__ == "__main__":
    main(sys.argv[1:])
