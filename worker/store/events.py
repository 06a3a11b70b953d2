"""Events of requests, in one Redis stream each: queued, started, progress, done, failed, cancelled."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import dropwhile
from typing import Any, NamedTuple

from redis import Redis

ENDS = ("done", "failed", "cancelled")
_MAX_EVENTS = 1000  # of a stream; older ones are dropped
_TTL = 86400  # seconds for which a stream outlives its last event
_LOG = "events"  # the stream with the events of all requests but progress: for clients that watch many
_LOG_MAX_EVENTS = 100_000

#: Append to all streams in one command: a client takes longer to send three than Redis to run them.
_PUBLISH = """
local event, data, log_keep, keep, ttl, at = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
for n = 2, #KEYS do
  if event ~= "progress" then
    redis.call("XADD", KEYS[1], "MAXLEN", "~", log_keep, "*", "of", ARGV[n + 4], "event", event)
  end
  at = redis.call("XADD", KEYS[n], "MAXLEN", "~", keep, "*", "event", event, "data", data)
  redis.call("EXPIRE", KEYS[n], ttl)
end
return at
"""


class Event(NamedTuple):
    """An event, with its id in the stream."""

    id: str
    name: str
    data: dict[str, Any]


def _key(id: str) -> str:
    return f"events:{id}"


def publish(queue: Redis, id: str, event: str, **data: Any) -> str:
    """Append an event to the stream of a request; return its id there."""
    return publish_all(queue, [id], event, **data)


def publish_all(queue: Redis, ids: Sequence[str], event: str, **data: Any) -> str:
    """Append an event to the streams of many requests; return its id in the last."""
    keys = [_LOG, *map(_key, ids)]
    arguments: list[Any] = [event, json.dumps(data), _LOG_MAX_EVENTS, _MAX_EVENTS, _TTL]
    at: Any = queue.eval(_PUBLISH, len(keys), *keys, *arguments, *ids)
    return str(at.decode()) if at else "0"


def latest(queue: Redis, id: str) -> Event | None:
    """Return the last event."""
    entries = queue.xrevrange(_key(id), count=1)
    return _parse(entries[0]) if entries else None


def begin(queue: Redis, id: str) -> str:
    """Return the id of the event before a request's current try: it may have been cancelled and asked for again."""
    newest_first: Any = queue.xrevrange(_key(id))
    earlier = dropwhile(lambda event: event.name in ENDS, map(_parse, newest_first))  # skips the end of this try
    return next((event.id for event in earlier if event.name in ENDS), "0")


def read(queue: Redis, id: str, after: str, timeout: float) -> list[Event]:
    """Return the events after `after`, or wait up to `timeout` seconds for the next ones."""
    found: Any = queue.xread({_key(id): after}, block=max(1, int(timeout * 1000)))
    return [_parse(entry) for entry in found[0][1]] if found else []


def wait(queue: Redis, id: str, after: str, timeout: float) -> tuple[str, str | None]:
    """Wait up to `timeout` seconds for events after `after`; return the id and the name of the last, or None."""
    found = read(queue, id, after, timeout)
    return found[-1][:2] if found else (after, None)


def log(queue: Redis, after: str, timeout: float) -> list[tuple[str, str, str]]:
    """Return the events of all requests after `after`: (id in the log, the request's id, the event)."""
    found: Any = queue.xread({_LOG: after}, block=max(1, int(timeout * 1000)), count=10_000)
    entries = found[0][1] if found else []
    return [(at.decode(), fields[b"of"].decode(), fields[b"event"].decode()) for at, fields in entries]


def log_begin(queue: Redis) -> str | None:
    """Return the id of the oldest entry of the log; None if it is empty."""
    entries: Any = queue.xrange(_LOG, count=1)
    return str(entries[0][0].decode()) if entries else None


def log_end(queue: Redis) -> str:
    """Return the id of the newest entry of the log."""
    entries: Any = queue.xrevrange(_LOG, count=1)
    return str(entries[0][0].decode()) if entries else "0-0"


def logged(queue: Redis, at: str) -> str | None:
    """Return the request of a log entry, or None if there is none (any more)."""
    entries: Any = queue.xrange(_LOG, at, at)
    return str(entries[0][1][b"of"].decode()) if entries else None


def forget(queue: Redis, id: str) -> None:
    """Remove the stream."""
    queue.delete(_key(id))


def _parse(entry: Any) -> Event:
    id, fields = entry
    return Event(id.decode(), fields[b"event"].decode(), json.loads(fields[b"data"]))
