"""Whether this host's worker lives: `python -m worker.alive` ends with 0 if it gave a sign of life lately."""

from __future__ import annotations

import socket
import sys

from redis import Redis
from redis.exceptions import RedisError
from rq import Worker

from worker.settings import Settings
from worker.store.connection import connect


def alive(queue: Redis, host: str) -> bool:
    """Whether a worker of `host` is registered: RQ's registration expires when it falls silent."""
    return any(worker.hostname == host for worker in Worker.all(connection=queue))


def main() -> None:
    """Say what is wrong, if anything is."""
    host = socket.gethostname()
    try:
        well = alive(connect(Settings.from_environment().queue_url), host)
    except RedisError as error:
        sys.exit(f"the queue's Redis does not answer: {error}")
    if not well:
        sys.exit(f"no worker of {host} is registered")


if __name__ == "__main__":
    main()
