"""How many requests stand, in a few round trips."""

from __future__ import annotations

from collections.abc import Sequence

from redis import Redis

import worker.rq.jobs as jobs
import worker.store.requests as requests
import worker.store.shared_jobs as shared_jobs
from worker.store.results import Results

UNFINISHED = ("queued", "running")


def standing(queue: Redis, kept: Results, ids: Sequence[str]) -> dict[str, str | None]:
    """How each stands: a status, `lost` (by the cache), `stranded` (its job is gone) or None (nobody asked)."""
    done = kept.which_done(ids)
    left = [id for id in ids if id not in done]
    records = {id: record for id, record in zip(left, requests.get_all(queue, left), strict=True) if record}
    by_job = jobs.statuses(queue, list(dict.fromkeys(record.job or id for id, record in records.items())))
    notes = shared_jobs.get_all(queue, list({record.job for record in records.values() if record.job}))
    found: dict[str, str | None] = dict.fromkeys(ids) | dict.fromkeys(done, "done")
    for id, record in records.items():
        status, noted = by_job[record.job or id], notes.get(record.job or "")
        if record.cancelled or status == "stopped":
            found[id] = "cancelled"
        elif status == "failed" or (noted and id in noted.failures):
            found[id] = "failed"
        elif status == "started":
            found[id] = "running" if noted is None or noted.running == id else "queued"
        else:
            found[id] = "lost" if status == "finished" else "queued" if status else "stranded"
    since = kept.which_done([id for id in found if found[id] in ("lost", "stranded")])
    return found | dict.fromkeys(since, "done")  # they were finished since we looked
