"""Results in the cache, as pieces of bytes and a manifest.

The bytes of a result are stored in pieces of nearly 1 MiB, and its arrays are ranges of the bytes. The manifest (JSON)
is written last, so that its existence means that all pieces were written. If Redis has evicted a piece, reading it
raises `Missing`; partial data is never returned.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, count
from typing import Any, Self

import numpy as np
import orjson
import redis.exceptions
from numpy.typing import NDArray
from redis import Redis
from redis.client import Pipeline

import worker.store.bulk as bulk
from worker.store.stored_bytes import Missing

PIECE = (1 << 20) - 64  # bytes: with its header a value fills an allocation of 1 MiB; the next size is 1.25 MiB
_PIPELINED = 16  # pieces written in a round trip: enough to hide the latency, few enough to bound memory
_CHUNK = 1024  # keys in a round trip

#: Return parts of pieces as one string. Arguments: the prefix of the keys, and a text with the piece number, the first
#: and the last byte of each part. The numbers stay text: formatting one in Lua takes longer than reading a part.
_GATHER = """
local found, n = {}, 0
for piece, first, last in string.gmatch(ARGV[2], "(%d+),(%d+),(%d+)") do
  n = n + 1
  found[n] = redis.call("GETRANGE", ARGV[1] .. piece, first, last)
end
return table.concat(found)
"""

#: Return the manifest if all pieces of the result exist. TOUCH marks all of them as recently used: if Redis evicted one
#: before the others, the rest would be useless.
_COMPLETE = """
local found = redis.call("GET", KEYS[1])
if not found then return false end
for n = 0, math.ceil(string.match(string.sub(found, -ARGV[2]), '"size":(%d+)}$') / ARGV[1]) - 1 do
  if redis.call("TOUCH", KEYS[1] .. ":" .. n) == 0 then return false end
end
return found
"""

_SIZE_DIGITS = 32  # bytes at the end of a manifest that contain the size
_SIZE = re.compile(rb'"size":(\d+)}$').search


class CacheFull(Exception):
    """The cache has no room for a result."""


def _manifest_key(id: str) -> str:
    return f"result:{id}"


def _piece_key(id: str, n: int) -> str:
    return f"result:{id}:{n}"


def _piece_keys(id: str, size: int) -> list[str]:
    return [_piece_key(id, n) for n in range(-(-size // PIECE))]


class CacheWriter:
    """Writes a result: its bytes as they come, then the manifest. Buffers less than a piece.

    As a context manager it deletes an unfinished result. A killed process cannot, and one that lost its connection to
    Redis must not, as another process may be writing the same result by then. So unfinished pieces expire after `ttl`
    seconds, which must be longer than writing takes.
    The methods raise CacheFull if Redis has no room, or makes room by evicting earlier pieces of the same result.
    """

    def __init__(self, cache: Redis, id: str, ttl: int) -> None:
        self.cache, self.id, self.ttl = cache, id, ttl
        self.size = 0  # bytes appended
        self._sent = 0  # pieces in Redis
        self._part = bytearray()  # bytes that do not fill a piece yet
        self._finished = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *raised: object) -> None:
        if not self._finished and not issubclass(kind or Exception, redis.exceptions.RedisError):
            with suppress(
                redis.exceptions.RedisError
            ):  # the exception that is being raised explains more, and the pieces expire
                delete(self.cache, self.id)

    def append(self, content: memoryview) -> None:
        """Append bytes, uint8 [n]; the memory may be reused afterwards."""
        self.size += len(content)
        room = PIECE - len(self._part)
        if len(content) < room:
            self._part += content
            return
        full: list[bytearray | memoryview] = []
        if self._part:
            full, content = [self._part + content[:room]], content[room:]
        over = len(content) // PIECE * PIECE
        full += [content[start : start + PIECE] for start in range(0, over, PIECE)]
        self._part = bytearray(content[over:])
        for start in range(0, len(full), _PIPELINED):
            self._send(full[start : start + _PIPELINED])

    def finish(self, manifest: dict[str, Any]) -> None:
        """Write the last bytes, then the manifest."""
        keys, pipeline = _piece_keys(self.id, self.size), self.cache.pipeline(transaction=False)
        for key in keys[: self._sent]:
            pipeline.persist(key)
        if self._part:
            pipeline.set(keys[-1], bytes(self._part))
        # The size is last in the manifest, where which_done looks for it.
        pipeline.set(_manifest_key(self.id), orjson.dumps(manifest | {"size": self.size}))
        pipeline.exists(_manifest_key(self.id), *keys)
        if self._execute(pipeline) < 1 + len(keys):
            raise self._full()  # writing the last pieces evicted earlier ones
        self._finished = True

    def _send(self, full: Sequence[bytearray | memoryview]) -> None:
        pipeline = self.cache.pipeline(transaction=False)
        if self._sent == 0:
            pipeline.unlink(_manifest_key(self.id))  # of an earlier result that lost a piece
        for n, piece in enumerate(full, start=self._sent):
            pipeline.set(_piece_key(self.id, n), piece, ex=self.ttl)
        pipeline.exists(_piece_key(self.id, 0))
        self._sent += len(full)
        if not self._execute(pipeline):
            raise self._full()

    def _execute(self, pipeline: Pipeline) -> int:
        """Execute the commands; return the reply to the last one."""
        try:
            return int(pipeline.execute()[-1])
        except redis.exceptions.OutOfMemoryError:
            raise self._full() from None

    def _full(self) -> CacheFull:
        return CacheFull(f"the cache has no room for a result of {self.size:,} bytes or more")


@dataclass(frozen=True)
class CachedBytes:
    """The bytes of a finished result in the cache."""

    cache: Redis
    id: str

    gap = 3 << 10

    def stream(self, start: int, stop: int) -> Iterator[bytes]:
        """See StoredBytes."""
        return stream(self.cache, self.id, start, stop)

    def receive(self, wanted: Iterable[tuple[int, memoryview]]) -> Iterator[memoryview]:
        """See StoredBytes."""
        return receive(self.cache, ((self.id, *one) for one in wanted))

    def gather(self, starts: NDArray[np.int64], size: int) -> bytes:
        """See StoredBytes; a part must not be longer than a piece."""
        return gather(self.cache, self.id, starts, size)


def manifest(cache: Redis, id: str) -> dict[str, Any]:
    """Return the manifest of a complete result. Raises Missing if it or any piece does not exist."""
    content = cache.eval(_COMPLETE, 1, _manifest_key(id), PIECE, _SIZE_DIGITS)
    if content is None:
        raise Missing(id)
    parsed: dict[str, Any] = orjson.loads(content)
    return parsed


def read(cache: Redis, id: str, start: int, stop: int) -> bytes:
    """Return bytes `start` to `stop` of a result. Raises Missing if one of its pieces does not exist."""
    return b"".join(stream(cache, id, start, stop))


def stream(cache: Redis, id: str, start: int, stop: int) -> Iterator[bytes]:
    """Yield bytes `start` to `stop` piece by piece, for responses too large for memory. Raises Missing at any piece."""
    window = memoryview(bytearray(min(PIECE, stop - start)))
    return map(bytes, receive(cache, ((id, low, window[: high - low]) for low, high in _cuts(start, stop))))


def receive(cache: Redis, wanted: Iterable[tuple[str, int, memoryview]]) -> Iterator[memoryview]:
    """Fill each buffer in `wanted`, (id, start, buffer), with the bytes of a result from `start` on, and yield it.

    Buffers may share memory, as in `bulk.receive`. Raises Missing if a piece does not exist.
    """
    try:
        yield from bulk.receive(cache, chain.from_iterable(_parts(*one) for one in wanted))
    except bulk.MissingString:
        raise Missing from None


def gather(cache: Redis, id: str, starts: NDArray[np.int64], size: int) -> bytes:
    """Return many short parts of a result joined together: `size` bytes (at most a piece) from each start.

    A script in Redis joins them: a command for each part takes ten times as long. Raises Missing.
    """
    piece, first = np.divmod(starts, PIECE)
    last = first + size - 1
    cuts = np.stack([piece, first, np.minimum(last, PIECE - 1)], 1)
    if (over := last >= PIECE).any():  # a part that continues in the next piece
        rest = np.stack([piece + 1, 0 * first, last - PIECE], 1)
        cuts = np.stack([cuts, rest], 1)[np.stack([over | True, over], 1)]
    text = orjson.dumps(cuts, option=orjson.OPT_SERIALIZE_NUMPY)
    joined: bytes = cache.eval(_GATHER, 0, _piece_key(id, 0)[:-1], text)
    if len(joined) != size * len(starts):
        raise Missing(id)
    return joined


def _cuts(start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Split a range of bytes at the boundaries of pieces."""
    while start < stop:
        end = min(start - start % PIECE + PIECE, stop)
        yield start, end
        start = end


def _parts(id: str, start: int, buffer: memoryview) -> Iterator[bulk.StringRange]:
    for low, high in _cuts(start, start + len(buffer)):
        yield bulk.StringRange(_piece_key(id, low // PIECE), low % PIECE, buffer[low - start : high - start])


def which_done(cache: Redis, ids: Sequence[str]) -> set[str]:
    """Return which of these results are complete. Reads only the end of each manifest."""
    done: set[str] = set()
    for start in range(0, len(ids), _CHUNK):
        chunk, pipeline = ids[start : start + _CHUNK], cache.pipeline(transaction=False)
        for id in chunk:
            pipeline.getrange(_manifest_key(id), -_SIZE_DIGITS, -1)
        ends = map(_SIZE, pipeline.execute())
        sizes = {id: int(end[1]) for id, end in zip(chunk, ends, strict=True) if end}
        for id, size in sizes.items():
            pipeline.exists(*_piece_keys(id, size), _manifest_key(id))
        existing = zip(sizes.items(), pipeline.execute(), strict=True)
        done |= {id for (id, size), count in existing if count == len(_piece_keys(id, size)) + 1}
    return done


def drop_unfinished(cache: Redis, id: str) -> None:
    """Delete the pieces that a dead process wrote of a result, unless the result is finished."""
    if not cache.exists(_manifest_key(id)):
        delete(cache, id)


def delete(cache: Redis, id: str) -> None:
    """Delete a result, complete or not: the manifest first, so that no client reads an incomplete result."""
    content = cache.getdel(_manifest_key(id))
    written = 0 if content is None else len(_piece_keys(id, orjson.loads(content)["size"]))
    for first in count(0, _CHUNK):
        deleted = cache.unlink(*(_piece_key(id, n) for n in range(first, first + _CHUNK)))
        if not deleted and first + _CHUNK >= written:
            return
