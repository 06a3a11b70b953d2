"""Finished results wherever they are: in the cache, or in the archive where they are too large for it.

Of what is archived the cache has the manifest, too, if it has not evicted it: most questions need no more.
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
from worker.store.runs import Away, Missing, Run
from worker.store.safetensors import Entries

if TYPE_CHECKING:
    import worker.store.archive as archives
    from worker.store.archive import Archive

_PATIENCE = 60.0  # seconds for which a worker tries again to reach the archive


class AlreadyThere(Exception):
    """A result need not be computed: the archive has it."""


def results(settings: Settings, cache: Redis | None = None, patience: float = _PATIENCE) -> Results:
    """The results that are where `settings` say, in this cache."""
    archive = _archive(settings.trace_store, patience) if settings.trace_store else None
    return Results(cache or connect(settings.cache_url), archive, settings.trace_store_above)


@cache
def _archive(url: str, patience: float) -> Archive:
    from worker.store.archive import Archive  # which takes 7 MB

    return Archive(url, patience)


class Results:
    """The cache, and an archive for what is larger than `above` bytes, if there is one."""

    def __init__(self, cache: Redis, archive: Archive | None = None, above: int = 0) -> None:
        self.cache, self.archive, self.above = cache, archive, above

    def manifest(self, id: str) -> dict[str, Any]:
        """The manifest of a finished result that is whole, as far as the cache knows. Raises Missing."""
        with suppress(Missing):
            return pieces.manifest(self.cache, id)
        copy: Any = self.cache.get(_copy_key(id)) if self.archive else None
        if copy is None:
            raise Missing(id)
        known: dict[str, Any] = orjson.loads(copy)
        return known

    def recover(self, id: str) -> dict[str, Any]:
        """The same of one that the cache knows nothing of, but the archive may. Raises Missing and Away."""
        if self.archive is None:
            raise Missing(id)
        found = self.archive.manifest(id)
        with suppress(OutOfMemoryError):
            self.cache.set(_copy_key(id), orjson.dumps(found))
        return found

    def run(self, id: str, manifest: Mapping[str, Any]) -> Run:
        """The bytes of a finished result."""
        if self.archive is None or "archived" not in manifest:
            return pieces.CachedRun(self.cache, id)
        from worker.store.archive import ArchivedRun

        return ArchivedRun(self.archive, id, manifest["archived"], lambda: self.forget(id))

    def which_done(self, ids: Sequence[str]) -> set[str]:
        """Those of many results that the cache knows to be there, whole."""
        found = pieces.which_done(self.cache, ids)
        if self.archive is not None and (left := [id for id in ids if id not in found]):
            pipeline = self.cache.pipeline(transaction=False)
            for id in left:
                pipeline.exists(_copy_key(id))
            found |= {id for id, there in zip(left, pipeline.execute(), strict=True) if there}
        return found

    def writer(self, id: str, patience: int, metadata: Mapping[str, str]) -> Writer:
        """What stores a result; see Writer."""
        return Writer(self, id, patience, metadata)

    def drop_unfinished(self, id: str) -> None:
        """Remove what a killed process wrote of a result, unless it had finished."""
        pieces.drop_unfinished(self.cache, id)
        if self.archive is not None:
            self.archive.tidy(id)

    def forget(self, id: str) -> None:
        """Remove a result or what there is of one. Raises Away."""
        pieces.forget(self.cache, id)
        if self.archive is not None:
            self.archive.forget(id)
            self.cache.unlink(_copy_key(id))


class Writer:
    """Stores a result where its size belongs. As a context it leaves nothing behind that was not finished.

    Beside what the two places raise (CacheFull, Away), `open` raises AlreadyThere.
    """

    def __init__(self, results: Results, id: str, patience: int, metadata: Mapping[str, str]) -> None:
        self.results, self.id, self.patience, self.metadata = results, id, patience, metadata
        self.size = 0  # bytes
        self._stack = ExitStack()
        self._to: pieces.Writer | archives.Writer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: Any) -> None:
        self._stack.__exit__(*raised)

    def open(self, entries: Entries) -> Callable[[memoryview], None]:
        """Begin: the result has these arrays in this order, without gaps. What is given takes their bytes."""
        self.size, archive = safetensors.size(entries), self.results.archive
        if archive is None or self.size <= self.results.above:
            self._to = pieces.Writer(self.results.cache, self.id, self.patience)
        else:
            from worker.store.archive import Writer as ArchiveWriter

            with suppress(Missing, Away):  # if it stays away, writing will say so
                self.results.recover(self.id)
                raise AlreadyThere
            self._to = ArchiveWriter(archive, self.id, entries, self.metadata)
        self._stack.enter_context(self._to)
        return self._to.append

    def finish(self, manifest: dict[str, Any]) -> None:
        """Write the manifest: from now on there is a result."""
        self._to.finish(manifest)
        if not isinstance(self._to, pieces.Writer):
            with suppress(Missing, Away):  # then whoever reads it does
                self.results.recover(self.id)


def _copy_key(id: str) -> str:
    return f"archived:{id}"
