"""Limits on queued jobs and on each client's unfinished requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis import Redis
from werkzeug.exceptions import TooManyRequests

import worker.rq.monitoring as monitoring
from service.jobs.status import UNFINISHED, read_statuses
from service.settings import Settings
from worker.store.results import Results

_RETRY_AFTER = 5  # seconds
_RECORD_SECONDS = 5.0  # seconds after admission by which a request is recorded, if it is recorded at all

#: Add new members to a sorted set unless it would exceed a maximum. Returns the size before, and 1 if they were added.
_ADD = """
local most, ttl, size, new = tonumber(ARGV[1]), ARGV[2], redis.call('ZCARD', KEYS[1]), {}
for n = 3, #ARGV do
  if not redis.call('ZSCORE', KEYS[1], ARGV[n]) then new[#new + 1] = ARGV[n] end
end
if size + #new > most then return {size, 0} end
local now = redis.call('TIME')[1]
for _, id in ipairs(new) do redis.call('ZADD', KEYS[1], now, id) end
redis.call('EXPIRE', KEYS[1], ttl)
return {size, 1}
"""


class Full(TooManyRequests):
    """A limit on queued or unfinished work is reached (429); `Retry-After` says when to retry."""

    def __init__(self, description: str) -> None:
        super().__init__(description, retry_after=_RETRY_AFTER)


class Admission:
    """Admits new requests: all of a batch or none."""

    def __init__(self, settings: Settings, queue: Redis, results: Results) -> None:
        self.settings, self.queue, self.results = settings, queue, results

    def admit(self, client: str, ids: Sequence[str], jobs: int = 1) -> None:
        """Admit a client's new requests, which need `jobs` jobs. Raises Full."""
        if self.settings.max_queued and jobs:
            self._check_queue(jobs)
        if self.settings.max_concurrent and ids:
            self._check_client(client, ids)

    def _check_queue(self, jobs: int) -> None:
        """Raise Full unless the queues have room. Simultaneous requests may together exceed the limit."""
        queued, most = sum(monitoring.waiting(self.queue).values()), self.settings.max_queued
        if queued + jobs > most:
            limit = f"At most {most:,} queued jobs are allowed (MAX_QUEUED)"
            raise Full(f"{limit}: there are {queued:,}, and this request needs {jobs:,} more.")

    def _check_client(self, client: str, ids: Sequence[str]) -> None:
        """Count requests for a client, or raise Full. Only if there is no room are its ended requests dropped."""
        unfinished = 0
        for _ in range(2):
            unfinished, added = self._add(client, ids)
            if added:
                return
            self._drop_ended(client)
        most = self.settings.max_concurrent
        limit = f"At most {most:,} unfinished requests are allowed per client (MAX_CONCURRENT)"
        raise Full(f"{limit}: you have {unfinished:,}, and this would add {len(ids):,}.")

    def _add(self, client: str, ids: Sequence[str]) -> tuple[int, bool]:
        settings = self.settings
        size, added = self.queue.eval(_ADD, 1, _key(client), settings.max_concurrent, settings.result_ttl, *ids)
        return int(size), bool(added)

    def _drop_ended(self, client: str) -> None:
        """Drop a client's ended requests.

        A request that was added just now and is not recorded yet may still have the status of its previous run.
        """
        entries: Any = self.queue.zrange(_key(client), 0, -1, withscores=True)
        now: Any = self.queue.time()
        added_at = {id.decode(): at for id, at in entries}
        ended = [
            id
            for id, status in read_statuses(self.queue, self.results, list(added_at)).items()
            if status == "done" or (status not in UNFINISHED and now[0] - added_at[id] >= _RECORD_SECONDS)
        ]
        if ended:
            self.queue.zrem(_key(client), *ended)


def _key(client: str) -> str:
    return f"unfinished:{client}"
