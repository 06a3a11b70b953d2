"""The command `python -m worker`: runs a worker.

It loads what jobs share, then runs one process for small jobs, one for large jobs, and one that reads checkpoints if
there is a folder of them.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from functools import partial

from redis.exceptions import RedisError

import worker.jobs as jobs
import worker.logs as logs
import worker.reader as reader
from worker.engine.compiled import COMPILED
from worker.failed_jobs import FailedJob
from worker.process import loading
from worker.rq.processes import Processes
from worker.rq.worker import work
from worker.settings import Settings
from worker.store.connection import connect
from worker.store.queues import JOB_SIZES, JobSize

log = logging.getLogger("worker")


def main(sizes: list[str]) -> None:
    """Run jobs of these sizes, by default of all, until SIGTERM or SIGINT. Running jobs are finished first."""
    logs.configure("worker")
    logging.getLogger("rq").setLevel(logging.WARNING)  # RQ logs five lines for each job
    if not {*sizes} <= {*JOB_SIZES}:
        sys.exit(f"{' '.join(sizes)}: the job size must be {' or '.join(JOB_SIZES)}")
    settings = Settings.from_environment()
    with loading():  # before forking, so that the processes share it
        jobs.warm_up(settings)
    chosen = [size for size in JOB_SIZES if not sizes or size in sizes]
    work = {f"{size} jobs": partial(_work, settings, size) for size in chosen}
    if settings.models_dir:
        work["checkpoints"] = partial(reader.run, settings)
    Processes(work).run()
    log.info("stopped")


def _work(settings: Settings, size: JobSize) -> None:
    """Run jobs of a size."""
    kernels = "compiled kernels" if COMPILED else "NumPy only: the kernels are not compiled"
    log.info("ready for %s jobs (process %d, %s)", size, os.getpid(), kernels)
    work(size, connect(settings.queue_url), partial(_prepare, settings), partial(FailedJob, settings))


def _prepare(settings: Settings) -> None:
    """Prepare a standby process, so that its job does not wait."""
    jobs.warm_up(settings)
    with suppress(RedisError):  # if Redis stays down, the job fails
        for url in (settings.queue_url, settings.cache_url):
            connect(url).ping()


if __name__ == "__main__":
    main(sys.argv[1:])
