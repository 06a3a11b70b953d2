"""What happens to a request, as a Redis Stream a request: queued, started, progress, done, failed, cancelled."""

from __future__ import annotations

import json
from typing import Any

from redis import Redis

_KEEP = 1000  # events a stream; older ones fall off
_TTL = 86400  # seconds a stream outlives its last event


def _key(id: str) -> str:
    return f"events:{id}"


def publish(queue: Redis, id: str, event: str, **data: Any) -> None:
    """Append an event to the stream of `id`."""
    pipeline = queue.pipeline(transaction=False)
    pipeline.xadd(_key(id), {"event": event, "data": json.dumps(data)}, maxlen=_KEEP, approximate=True)
    pipeline.expire(_key(id), _TTL)
    pipeline.execute()


def latest(queue: Redis, id: str) -> tuple[str, str, dict[str, Any]] | None:
    """The last event: (its id in the stream, its name, its data)."""
    entries = queue.xrevrange(_key(id), count=1)
    return _parse(entries[0]) if entries else None


def wait(queue: Redis, id: str, after: str, timeout: float) -> tuple[str, str | None]:
    """Wait up to `timeout` seconds for events later than `after`: the id of the last one and its name, or None."""
    found: Any = queue.xread({_key(id): after}, block=max(1, int(timeout * 1000)))
    return _parse(found[0][1][-1])[:2] if found else (after, None)


def forget(queue: Redis, id: str) -> None:
    """Remove the stream."""
    queue.delete(_key(id))


def _parse(entry: Any) -> tuple[str, str, dict[str, Any]]:
    id, fields = entry
    return id.decode(), fields[b"event"].decode(), json.loads(fields[b"data"])
