"""Finished results, in the cache or the archive.

Results above a size are archived. The cache also holds copies of their manifests, which is all that most requests need.
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

_RETRY_SECONDS = 60.0  # how long a worker retries an unavailable archive


class AlreadyArchived(Exception):
    """The archive already holds this result."""


def results(settings: Settings, cache: Redis | None = None, retry_seconds: float = _RETRY_SECONDS) -> Results:
    """Return the results as configured by `settings`; `cache` replaces the configured cache."""
    archive = _archive(settings.trace_store, retry_seconds) if settings.trace_store else None
    return Results(cache or connect(settings.cache_url), archive, settings.trace_store_above)


@cache
def _archive(url: str, retry_seconds: float) -> Archive:
    from worker.store.archive import Archive  # imported only if used: obstore takes 7 MB of memory

    return Archive(url, retry_seconds)


class Results:
    """Results in a cache and, if they are larger than `above` bytes, in an archive, if there is one."""

    def __init__(self, cache: Redis, archive: Archive | None = None, above: int = 0) -> None:
        self.cache, self.archive, self.above = cache, archive, above

    def manifest(self, id: str) -> dict[str, Any]:
        """Return the manifest of a complete result, looking only in the cache. Raises Missing."""
        with suppress(Missing):
            return pieces.manifest(self.cache, id)
        copy: Any = self.cache.get(_copy_key(id)) if self.archive else None
        if copy is None:
            raise Missing(id)
        manifest: dict[str, Any] = orjson.loads(copy)
        return manifest

    def recover(self, id: str) -> dict[str, Any]:
        """Return a manifest from the archive, and copy it to the cache. Raises Missing and Unavailable."""
        if self.archive is None:
            raise Missing(id)
        manifest = self.archive.manifest(id)
        with suppress(OutOfMemoryError):
            self.cache.set(_copy_key(id), orjson.dumps(manifest))
        return manifest

    def bytes_of(self, id: str, manifest: Mapping[str, Any]) -> StoredBytes:
        """Return the bytes of a finished result."""
        if self.archive is None or "archived" not in manifest:
            return pieces.CachedBytes(self.cache, id)
        from worker.store.archive import ArchivedBytes

        return ArchivedBytes(self.archive, id, manifest["archived"], lambda: self.delete(id))

    def which_done(self, ids: Sequence[str]) -> set[str]:
        """Return which of these results are complete, looking only in the cache."""
        done = pieces.which_done(self.cache, ids)
        if self.archive is not None and (others := [id for id in ids if id not in done]):
            pipeline = self.cache.pipeline(transaction=False)
            for id in others:
                pipeline.exists(_copy_key(id))
            done |= {id for id, exists in zip(others, pipeline.execute(), strict=True) if exists}
        return done

    def writer(self, id: str, ttl: int, metadata: Mapping[str, str]) -> ResultWriter:
        """Return a writer for a result."""
        return ResultWriter(self, id, ttl, metadata)

    def drop_unfinished(self, id: str) -> None:
        """Delete what a dead process wrote of a result, unless the result is finished."""
        pieces.drop_unfinished(self.cache, id)
        if self.archive is not None:
            self.archive.clean_up(id)

    def delete(self, id: str) -> None:
        """Delete a result, complete or not. Raises Unavailable."""
        pieces.delete(self.cache, id)
        if self.archive is not None:
            self.archive.delete(id)
            self.cache.unlink(_copy_key(id))


class ResultWriter:
    """Writes a result to the cache or the archive, depending on its size.

    As a context manager it deletes an unfinished result. The methods raise CacheFull and Unavailable.
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
        """Begin a result that consists of these arrays, in this order and without gaps.

        Returns a function that appends bytes. Raises AlreadyArchived if the archive holds the result.
        """
        self.size, archive = safetensors.size(entries), self.results.archive
        if archive is None or self.size <= self.results.above:
            self._target = pieces.CacheWriter(self.results.cache, self.id, self.ttl)
        else:
            from worker.store.archive import ArchiveWriter

            with suppress(Missing, Unavailable):  # if the archive is still unavailable then, writing raises
                self.results.recover(self.id)
                raise AlreadyArchived
            self._target = ArchiveWriter(archive, self.id, entries, self.metadata)
        self._stack.enter_context(self._target)
        return self._target.append

    def finish(self, manifest: dict[str, Any]) -> None:
        """Write the manifest, which makes the result complete."""
        self._target.finish(manifest)
        if not isinstance(self._target, pieces.CacheWriter):
            with suppress(Missing, Unavailable):  # otherwise the first reader copies the manifest to the cache
                self.results.recover(self.id)


def _copy_key(id: str) -> str:
    return f"archived:{id}"
