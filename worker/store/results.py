"""Finished results, in the cache or, if they are too large for it, in the archive.

The cache also holds the manifests of archived results until it evicts them: most requests need no more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import cache
from typing import TYPE_CHECKING, Any, Self

import orjson
from redis import Redis
from redis.exceptions import OutOfMemoryError

import worker.store.pieces as pieces
import worker.store.safetensors as safetensors
from worker.settings import Settings
from worker.store.connection import connect
from worker.store.safetensors import Entries
from worker.store.stored_bytes import Missing, StoredBytes, Unavailable

if TYPE_CHECKING:
    import worker.store.archive as archives
    from worker.store.archive import Archive

_RETRY_SECONDS = 60.0  # for which a worker tries to reach the archive


class AlreadyThere(Exception):
    """The archive has this result."""


def results(settings: Settings, cache: Redis | None = None, retry_seconds: float = _RETRY_SECONDS) -> Results:
    """Return the results where `settings` place them, in this cache or that of the settings."""
    archive = _archive(settings.trace_store, retry_seconds) if settings.trace_store else None
    return Results(cache or connect(settings.cache_url), archive, settings.trace_store_above)


@cache
def _archive(url: str, retry_seconds: float) -> Archive:
    from worker.store.archive import Archive  # it takes 7 MB of memory

    return Archive(url, retry_seconds)


class Results:
    """The cache, and an archive, if there is one, for results larger than `above` bytes."""

    def __init__(self, cache: Redis, archive: Archive | None = None, above: int = 0) -> None:
        self.cache, self.archive, self.above = cache, archive, above

    def manifest(self, id: str) -> dict[str, Any]:
        """Return the manifest of a finished result that is complete, as far as the cache knows. Raises Missing."""
        with suppress(Missing):
            return pieces.manifest(self.cache, id)
        copy: Any = self.cache.get(_copy_key(id)) if self.archive else None
        if copy is None:
            raise Missing(id)
        known: dict[str, Any] = orjson.loads(copy)
        return known

    def recover(self, id: str) -> dict[str, Any]:
        """Return a manifest from the archive, and store it in the cache again. Raises Missing and Unavailable."""
        if self.archive is None:
            raise Missing(id)
        found = self.archive.manifest(id)
        with suppress(OutOfMemoryError):
            self.cache.set(_copy_key(id), orjson.dumps(found))
        return found

    def bytes_of(self, id: str, manifest: Mapping[str, Any]) -> StoredBytes:
        """Return the bytes of a finished result."""
        if self.archive is None or "archived" not in manifest:
            return pieces.CachedBytes(self.cache, id)
        from worker.store.archive import ArchivedBytes

        return ArchivedBytes(self.archive, id, manifest["archived"], lambda: self.forget(id))

    def which_done(self, ids: Sequence[str]) -> set[str]:
        """Return those of many results that are complete, as far as the cache knows."""
        found = pieces.which_done(self.cache, ids)
        if self.archive is not None and (left := [id for id in ids if id not in found]):
            pipeline = self.cache.pipeline(transaction=False)
            for id in left:
                pipeline.exists(_copy_key(id))
            found |= {id for id, there in zip(left, pipeline.execute(), strict=True) if there}
        return found

    def writer(self, id: str, ttl: int, metadata: Mapping[str, str]) -> ResultWriter:
        """Return a writer for a result."""
        return ResultWriter(self, id, ttl, metadata)

    def drop_unfinished(self, id: str) -> None:
        """Remove what a dead process wrote of a result, unless it had finished."""
        pieces.drop_unfinished(self.cache, id)
        if self.archive is not None:
            self.archive.clean_up(id)

    def forget(self, id: str) -> None:
        """Remove a result or parts of one. Raises Unavailable."""
        pieces.forget(self.cache, id)
        if self.archive is not None:
            self.archive.forget(id)
            self.cache.unlink(_copy_key(id))


class ResultWriter:
    """Stores a result in the cache or the archive, by its size. As a context manager it removes an unfinished result.

    Raises what the writers of the two raise (CacheFull, Unavailable); `open` raises AlreadyThere.
    """

    def __init__(self, results: Results, id: str, ttl: int, metadata: Mapping[str, str]) -> None:
        self.results, self.id, self.ttl, self.metadata = results, id, ttl, metadata
        self.size = 0  # bytes
        self._stack = ExitStack()
        self._target: pieces.CacheWriter | archives.ArchiveWriter

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: Any) -> None:
        self._stack.__exit__(*raised)

    def open(self, entries: Entries) -> Callable[[memoryview], None]:
        """Begin a result of these arrays in this order, without gaps; return what takes their bytes."""
        self.size, archive = safetensors.size(entries), self.results.archive
        if archive is None or self.size <= self.results.above:
            self._target = pieces.CacheWriter(self.results.cache, self.id, self.ttl)
        else:
            from worker.store.archive import ArchiveWriter

            with suppress(Missing, Unavailable):  # if it stays unavailable, writing raises
                self.results.recover(self.id)
                raise AlreadyThere
            self._target = ArchiveWriter(archive, self.id, entries, self.metadata)
        self._stack.enter_context(self._target)
        return self._target.append

    def finish(self, manifest: dict[str, Any]) -> None:
        """Write the manifest, which completes the result."""
        self._target.finish(manifest)
        if not isinstance(self._target, pieces.CacheWriter):
            with suppress(Missing, Unavailable):  # then the first read does
                self.results.recover(self.id)


def _copy_key(id: str) -> str:
    return f"archived:{id}"
