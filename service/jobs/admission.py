"""What is let in: as many jobs as may wait, and as many unfinished requests as a caller may have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis import Redis
from werkzeug.exceptions import TooManyRequests

import worker.rq.monitoring as monitoring
from service.jobs.status import UNFINISHED, standing
from service.settings import Settings
from worker.store.results import Results

_ASK_AGAIN = 5  # seconds
_SETTLED = 5.0  # seconds after which what was let in is written down, if it ever is

#: Add what is not in a set to it, if no more than so many are in it then: what was in it, and whether it was added.
_TAKE = """
local most, ttl, held, new = tonumber(ARGV[1]), ARGV[2], redis.call('ZCARD', KEYS[1]), {}
for n = 3, #ARGV do
  if not redis.call('ZSCORE', KEYS[1], ARGV[n]) then new[#new + 1] = ARGV[n] end
end
if held + #new > most then return {held, 0} end
local now = redis.call('TIME')[1]
for _, id in ipairs(new) do redis.call('ZADD', KEYS[1], now, id) end
redis.call('EXPIRE', KEYS[1], ttl)
return {held, 1}
"""


class Full(TooManyRequests):
    """There is too much to do already for what is asked; `Retry-After` is when to ask again."""

    def __init__(self, description: str) -> None:
        super().__init__(description, retry_after=_ASK_AGAIN)


class Admission:
    """Lets new requests in, all that come together or none."""

    def __init__(self, settings: Settings, queue: Redis, kept: Results) -> None:
        self.settings, self.queue, self.kept = settings, queue, kept

    def admit(self, caller: str, ids: Sequence[str], jobs: int = 1) -> None:
        """Let a caller's new requests in, which take so many jobs. Raises Full."""
        if self.settings.max_queued and jobs:
            self._check_queue(jobs)
        if self.settings.max_concurrent and ids:
            self._take(caller, ids)

    def _check_queue(self, jobs: int) -> None:
        """Those who ask at the same moment may each find room: together they may be that many too many."""
        waiting, most = sum(monitoring.waiting(self.queue).values()), self.settings.max_queued
        if waiting + jobs > most:
            told = f"{waiting:,} jobs wait here, and at most {most:,} may (MAX_QUEUED)"
            raise Full(f"{told}: the {jobs:,} that this takes do not fit now.")

    def _take(self, caller: str, ids: Sequence[str]) -> None:
        """Count them as the caller's. What of theirs has ended is looked for only where there is no room."""
        held = 0
        for _ in range(2):
            held, taken = self._add(caller, ids)
            if taken:
                return
            self._drop_ended(caller)
        most = self.settings.max_concurrent
        told = f"At most {most:,} unfinished requests are allowed for each caller (MAX_CONCURRENT)"
        raise Full(f"{told}: you have {held:,}, and these would be {len(ids):,} more.")

    def _add(self, caller: str, ids: Sequence[str]) -> tuple[int, bool]:
        settings = self.settings
        held, taken = self.queue.eval(_TAKE, 1, _key(caller), settings.max_concurrent, settings.result_ttl, *ids)
        return int(held), bool(taken)

    def _drop_ended(self, caller: str) -> None:
        """What was taken just now may look as if it had ended: as it stood before, until it is written down anew."""
        entries: Any = self.queue.zrange(_key(caller), 0, -1, withscores=True)
        now: Any = self.queue.time()
        taken = {id.decode(): at for id, at in entries}
        ended = [
            id
            for id, status in standing(self.queue, self.kept, list(taken)).items()
            if status == "done" or (status not in UNFINISHED and now[0] - taken[id] >= _SETTLED)
        ]
        if ended:
            self.queue.zrem(_key(caller), *ended)


def _key(caller: str) -> str:
    return f"unfinished:{caller}"
