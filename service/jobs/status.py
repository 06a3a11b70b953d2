"""The status of many requests, read in a few round trips."""

from __future__ import annotations

from collections.abc import Sequence

from redis import Redis

import worker.rq.jobs as jobs
import worker.store.requests as requests
import worker.store.shared_jobs as shared_jobs
from worker.store.results import Results

UNFINISHED = ("queued", "running")


def read_statuses(queue: Redis, results: Results, ids: Sequence[str]) -> dict[str, str | None]:
    """Return the status of each request, or None if it is unknown.

    Besides the public statuses there are `lost` (finished, but the cache evicted the result) and `stranded` (its job
    is gone).
    """
    done = results.which_done(ids)
    others = [id for id in ids if id not in done]
    records = {id: record for id, record in zip(others, requests.get_all(queue, others), strict=True) if record}
    by_job = jobs.statuses(queue, list(dict.fromkeys(record.job or id for id, record in records.items())))
    shared = shared_jobs.get_all(queue, list({record.job for record in records.values() if record.job}))
    found: dict[str, str | None] = dict.fromkeys(ids) | dict.fromkeys(done, "done")
    for id, record in records.items():
        status, group = by_job[record.job or id], shared.get(record.job or "")
        if record.cancelled or status == "stopped":
            found[id] = "cancelled"
        elif status == "failed" or (group and id in group.failures):
            found[id] = "failed"
        elif status == "started":
            found[id] = "running" if group is None or group.running == id else "queued"
        else:
            found[id] = "lost" if status == "finished" else "queued" if status else "stranded"
    finished_since = results.which_done([id for id in found if found[id] in ("lost", "stranded")])
    return found | dict.fromkeys(finished_since, "done")
