"""The worker: `python -m worker`. Loads what jobs share, then runs a process for short jobs and one for long jobs."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from functools import partial

from redis.exceptions import RedisError

import worker.jobs as jobs
import worker.logs as logs
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
    """Take jobs of these sizes, of all by default, until SIGTERM or SIGINT; jobs that run are finished first."""
    logs.configure("worker")
    logging.getLogger("rq").setLevel(logging.WARNING)  # RQ logs five lines a job
    if not {*sizes} <= {*JOB_SIZES}:
        sys.exit(f"{' '.join(sizes)}: what a worker can be told to work on is {' or '.join(JOB_SIZES)}")
    settings = Settings.from_environment()
    with loading():  # before the forks, which share it
        jobs.warm_up(settings)
    Processes([size for size in JOB_SIZES if not sizes or size in sizes], partial(_work, settings)).run()
    log.info("stopped")


def _work(settings: Settings, size: JobSize) -> None:
    """Take jobs of a size, one after another."""
    kernels = "compiled kernels" if COMPILED else "NumPy alone: no compiler built the kernels"
    log.info("ready for %s jobs (process %d, %s)", size, os.getpid(), kernels)
    work(size, connect(settings.queue_url), partial(_prepare, settings), partial(FailedJob, settings))


def _prepare(settings: Settings) -> None:
    """Do in a standby process what its job would wait for."""
    jobs.warm_up(settings)
    with suppress(RedisError):  # if it lasts, the job reports it
        for url in (settings.queue_url, settings.cache_url):
            connect(url).ping()


if __name__ == "__main__":
    main(sys.argv[1:])
