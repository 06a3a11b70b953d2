"""How many requests stand, in a few round trips."""

from __future__ import annotations

from collections.abc import Sequence

from redis import Redis
from rq.job import Job, JobStatus

import worker.store.requests as requests
import worker.store.shared as shared
from worker.store.results import Results

UNFINISHED = ("queued", "running")
_AT_ONCE = 1000  # commands a round trip


def standing(queue: Redis, kept: Results, ids: Sequence[str]) -> dict[str, str | None]:
    """How each stands: a status, `lost` (by the cache), `stranded` (its job is gone) or None (nobody asked)."""
    done = kept.which_done(ids)
    left = [id for id in ids if id not in done]
    records = {id: record for id, record in zip(left, requests.get_all(queue, left), strict=True) if record}
    jobs = job_statuses(queue, list(dict.fromkeys(record.job or id for id, record in records.items())))
    notes = shared.notes(queue, list({record.job for record in records.values() if record.job}))
    found: dict[str, str | None] = dict.fromkeys(ids) | dict.fromkeys(done, "done")
    for id, record in records.items():
        status, noted = jobs[record.job or id], notes.get(record.job or "")
        if record.cancelled or status == JobStatus.STOPPED:
            found[id] = "cancelled"
        elif status == JobStatus.FAILED or (noted and id in noted.failures):
            found[id] = "failed"
        elif status == JobStatus.STARTED:
            found[id] = "running" if noted is None or noted.running == id else "queued"
        else:
            found[id] = "lost" if status == JobStatus.FINISHED else "queued" if status else "stranded"
    since = kept.which_done([id for id in found if found[id] in ("lost", "stranded")])
    return found | dict.fromkeys(since, "done")  # they were finished since we looked


def job_statuses(queue: Redis, jobs: Sequence[str]) -> dict[str, JobStatus | None]:
    """How each of these jobs stands; None where it is gone."""
    found: dict[str, JobStatus | None] = {}
    for start in range(0, len(jobs), _AT_ONCE):
        portion, pipeline = jobs[start : start + _AT_ONCE], queue.pipeline(transaction=False)
        for job in portion:
            pipeline.hget(Job.key_for(job), "status")
        for job, status in zip(portion, pipeline.execute(), strict=True):
            found[job] = JobStatus(status.decode()) if status else None
    return found
