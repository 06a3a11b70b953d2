"""Results in the cache: bytes in pieces first, the manifest (JSON) last, so that a manifest means a whole result.

A result's bytes are one run, cut into pieces of nearly 1 MiB; its arrays are ranges of the run. A piece that Redis
evicted makes the result a miss: readers get `Missing`, never a part.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import redis.exceptions
from redis import Redis

PIECE = (1 << 20) - 64  # bytes: with its header a value fills 1 MiB of Redis' memory; the next size is 1.25 MiB
_AT_ONCE = 16  # pieces a round trip: enough to hide the latency, little enough to bound memory


class Missing(LookupError):
    """A result, or a piece of it, is not in the cache."""


class CacheFull(Exception):
    """The cache takes no more; what was written of the result is gone again."""


def _manifest_key(id: str) -> str:
    return f"result:{id}"


def _piece_key(id: str, n: int) -> str:
    return f"result:{id}:{n}"


def _piece_keys(id: str, size: int) -> list[str]:
    return [_piece_key(id, n) for n in range(-(-size // PIECE))]


def write(cache: Redis, id: str, content: memoryview, manifest: dict[str, Any]) -> None:
    """Store a result. Raises CacheFull where Redis has no room for it."""
    keys, pipeline = _piece_keys(id, len(content)), cache.pipeline(transaction=False)
    try:
        for n, key in enumerate(keys, start=1):
            pipeline.set(key, content[(n - 1) * PIECE : n * PIECE])
            if n % _AT_ONCE == 0:
                pipeline.execute()
        pipeline.set(_manifest_key(id), orjson.dumps(manifest | {"size": len(content)}))
        pipeline.exists(_manifest_key(id), *keys)
        if pipeline.execute()[-1] == 1 + len(keys):
            return  # or else its last pieces evicted the first: it would be a miss for ever
    except redis.exceptions.OutOfMemoryError:
        pass
    cache.unlink(_manifest_key(id), *keys)
    raise CacheFull(f"the cache has no room for a result of {len(content):,} bytes")


def manifest(cache: Redis, id: str) -> dict[str, Any]:
    """The manifest of a finished result. Raises Missing."""
    content = cache.get(_manifest_key(id))
    if content is None:
        raise Missing(id)
    found: dict[str, Any] = orjson.loads(content)
    return found


def read(cache: Redis, id: str, start: int, stop: int) -> bytes:
    """Bytes `start` to `stop` of a result. Raises Missing where one of its pieces is gone."""
    return b"".join(stream(cache, id, start, stop))


def stream(cache: Redis, id: str, start: int, stop: int) -> Iterator[bytes]:
    """The same in pieces, for answers too large to hold. Raises Missing, at any piece."""
    first, last = start // PIECE, -(-stop // PIECE)
    for n in range(first, last, _AT_ONCE):
        pipeline = cache.pipeline(transaction=False)
        wanted = []
        for piece in range(n, min(n + _AT_ONCE, last)):
            low, high = max(start - piece * PIECE, 0), min(stop - piece * PIECE, PIECE)
            wanted.append(high - low)
            if high - low == PIECE:
                pipeline.get(_piece_key(id, piece))
            else:
                pipeline.getrange(_piece_key(id, piece), low, high - 1)
        for size, piece_bytes in zip(wanted, pipeline.execute(), strict=True):
            if piece_bytes is None or len(piece_bytes) != size:
                raise Missing(id)
            yield piece_bytes


def whole(cache: Redis, id: str, size: int) -> bool:
    """Whether every piece of a result of `size` bytes is still there."""
    keys = _piece_keys(id, size)
    return not keys or cache.exists(*keys) == len(keys)


def is_done(cache: Redis, id: str) -> bool:
    """Whether a result is there, whole."""
    try:
        return whole(cache, id, manifest(cache, id)["size"])
    except Missing:
        return False


def forget(cache: Redis, id: str) -> None:
    """Remove a result: the manifest first, so that nobody finds it half there."""
    content = cache.getdel(_manifest_key(id))
    keys = [] if content is None else _piece_keys(id, orjson.loads(content)["size"])
    if keys:
        cache.unlink(*keys)
