"""The jobs of requests: put into RQ's queues, moved up, stopped."""

from __future__ import annotations

from contextlib import suppress

from redis import Redis
from rq import Queue, Retry
from rq.command import send_stop_job_command
from rq.exceptions import DuplicateJobError, InvalidJobOperation, NoSuchJobError
from rq.job import Job, JobStatus

import service.jobs.rq_jobs as rq_jobs
import worker.logs as logs
import worker.store.events as events
import worker.store.queues as queues
import worker.store.requests as requests
from service.jobs.rq_jobs import TRIES
from service.settings import Settings
from worker.store.results import Results


class Jobs:
    """What waits for workers, over the queue's Redis."""

    def __init__(self, settings: Settings, queue: Redis, results: Results) -> None:
        self.settings, self.redis, self.results = settings, queue, results
        self.queues = {name: Queue(name, connection=queue, serializer="json") for name in queues.NAMES}

    def get(self, id: str) -> Job | None:
        """A job; None where there is none."""
        try:
            return Job.fetch(id, connection=self.redis, serializer="json")
        except NoSuchJobError:
            return None

    def position(self, job: Job) -> int:
        """How many jobs are taken before this one."""
        pipeline = self.redis.pipeline(transaction=False)
        pipeline.lpos(self.queues[job.origin].key, job.id)
        for name in queues.ahead(job.origin):
            pipeline.llen(self.queues[name].key)
        place, *before = pipeline.execute()
        return 0 if place is None else place + sum(before)  # one that is in no queue is just being taken

    def enqueue(self, id: str, timeout: int, queue: str, carried: dict[str, str] | None = None) -> None:
        """Have a request that is recorded computed by a job of its own.

        `carried` tells of who asked first, as `logs.carried` has it: whoever asks now, where nothing is said.
        """
        events.publish(self.redis, id, "queued")  # first: it may start at once
        for _ in range(2):
            try:
                self.queues[queue].enqueue(
                    requests.JOB,
                    id,
                    job_id=id,
                    unique=True,
                    job_timeout=timeout,
                    result_ttl=self.settings.failure_ttl,
                    failure_ttl=self.settings.failure_ttl,
                    retry=Retry(max=TRIES - 1, enqueue_at_front=True),
                    meta=carried or logs.carried(),
                )
                return
            except DuplicateJobError:
                job = self.get(id)
                if job and job.get_status(refresh=False) in (JobStatus.QUEUED, JobStatus.STARTED):
                    return  # somebody asked for the same at the same moment
                if job:
                    rq_jobs.delete(job)  # RQ refuses a second job of an id, ended or not

    def prioritize(self, id: str) -> bool:
        """Have a request that waits with a low priority wait with the others; whether it did."""
        record = requests.get(self.redis, id)
        if record is None or queues.priority(record.queue) == "normal":
            return False
        queue = queues.with_priority(record.queue, "normal")
        requests.change(self.redis, [id], job=None, queue=queue)  # a job that it shares passes it over from now on
        if record.job is not None:
            together = self.get(record.job)
            self.enqueue(id, record.timeout, queue, together.meta if together else None)
            return True
        return rq_jobs.move(id, self.queues[record.queue], self.queues[queue])

    def stop(self, id: str) -> None:
        """Stop the job of its own that computes a request, and remove what it wrote."""
        job = self.get(id)
        if job is None:
            return
        if rq_jobs.take_out(job):
            self.results.drop_unfinished(id)  # where it was tried before, by a worker that died
            job.delete()
            return
        with suppress(InvalidJobOperation):  # it ended meanwhile
            send_stop_job_command(self.redis, id, serializer="json")
        if not rq_jobs.ends(job):  # asked for again, it must not be taken for the job that ends
            self.results.drop_unfinished(id)  # its worker died, and it with it

    def delete(self, id: str) -> None:
        """Delete the job of its own that computed a request, if there is one."""
        job = self.get(id)
        if job is not None:
            rq_jobs.delete(job)
