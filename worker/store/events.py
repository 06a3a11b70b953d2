"""Events of requests, in a Redis stream for each request.

The events are queued, started, progress, done, failed and cancelled. One more stream, the log, has the events of all
requests except progress, for clients that watch many requests.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import dropwhile
from typing import Any, NamedTuple

from redis import Redis

ENDS = ("done", "failed", "cancelled")
_MAX_EVENTS = 1000  # in a stream; older ones are dropped
_TTL = 86400  # seconds after its last event until a stream expires
_LOG = "events"
_LOG_MAX_EVENTS = 100_000

#: Append to all streams in one command: sending three takes longer than running them.
_PUBLISH = """
local event, data, log_max, max, ttl, at = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
for n = 2, #KEYS do
  if event ~= "progress" then
    redis.call("XADD", KEYS[1], "MAXLEN", "~", log_max, "*", "of", ARGV[n + 4], "event", event)
  end
  at = redis.call("XADD", KEYS[n], "MAXLEN", "~", max, "*", "event", event, "data", data)
  redis.call("EXPIRE", KEYS[n], ttl)
end
return at
"""


class Event(NamedTuple):
    """An event and its id in the stream."""

    id: str
    name: str
    data: dict[str, Any]


def _key(id: str) -> str:
    return f"events:{id}"


def publish(queue: Redis, id: str, event: str, **data: Any) -> str:
    """Append an event to the stream of a request; return the event's id."""
    return publish_all(queue, [id], event, **data)


def publish_all(queue: Redis, ids: Sequence[str], event: str, **data: Any) -> str:
    """Append an event to the streams of many requests; return its id in the last stream."""
    keys = [_LOG, *map(_key, ids)]
    arguments: list[Any] = [event, json.dumps(data), _LOG_MAX_EVENTS, _MAX_EVENTS, _TTL]
    at: Any = queue.eval(_PUBLISH, len(keys), *keys, *arguments, *ids)
    return str(at.decode()) if at else "0"


def latest(queue: Redis, id: str) -> Event | None:
    """Return the last event of a request, or None."""
    entries = queue.xrevrange(_key(id), count=1)
    return _parse(entries[0]) if entries else None


def before_current_run(queue: Redis, id: str) -> str:
    """Return the id of the last event before the current run of a request, "0" if it is the first run.

    A request that was cancelled or failed can be submitted again.
    """
    newest_first: Any = queue.xrevrange(_key(id))
    earlier = dropwhile(lambda event: event.name in ENDS, map(_parse, newest_first))  # skip the end of this run
    return next((event.id for event in earlier if event.name in ENDS), "0")


def read(queue: Redis, id: str, after: str, timeout: float) -> list[Event]:
    """Return the events after the id `after`; wait up to `timeout` seconds if there are none yet."""
    found: Any = queue.xread({_key(id): after}, block=max(1, int(timeout * 1000)))
    return [_parse(entry) for entry in found[0][1]] if found else []


def wait(queue: Redis, id: str, after: str, timeout: float) -> tuple[str, str | None]:
    """Wait up to `timeout` seconds for events after the id `after`; return the last one's id and name.

    Returns `after` and None if there are none.
    """
    found = read(queue, id, after, timeout)
    return found[-1][:2] if found else (after, None)


def log(queue: Redis, after: str, timeout: float) -> list[tuple[str, str, str]]:
    """Return the log entries after the id `after` as (entry id, request id, event name).

    Waits up to `timeout` seconds if there are none yet.
    """
    found: Any = queue.xread({_LOG: after}, block=max(1, int(timeout * 1000)), count=10_000)
    entries = found[0][1] if found else []
    return [(at.decode(), fields[b"of"].decode(), fields[b"event"].decode()) for at, fields in entries]


def log_start(queue: Redis) -> str | None:
    """Return the id of the oldest log entry, or None if the log is empty."""
    entries: Any = queue.xrange(_LOG, count=1)
    return str(entries[0][0].decode()) if entries else None


def log_end(queue: Redis) -> str:
    """Return the id of the newest log entry, "0-0" if the log is empty."""
    entries: Any = queue.xrevrange(_LOG, count=1)
    return str(entries[0][0].decode()) if entries else "0-0"


def logged_request(queue: Redis, entry: str) -> str | None:
    """Return the id of the request of a log entry, or None if the entry does not exist (any more)."""
    entries: Any = queue.xrange(_LOG, entry, entry)
    return str(entries[0][1][b"of"].decode()) if entries else None


def delete(queue: Redis, id: str) -> None:
    """Delete the stream of a request."""
    queue.delete(_key(id))


def _parse(entry: Any) -> Event:
    id, fields = entry
    return Event(id.decode(), fields[b"event"].decode(), json.loads(fields[b"data"]))
