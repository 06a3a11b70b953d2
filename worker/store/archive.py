"""Results too large for the cache, in a bucket or a folder.

A result is two objects: a safetensors file, of which only the requested ranges are read, and its manifest. The manifest
is written last, so that its existence means that the result is complete.

A process must not fork after it has used an archive: obstore runs threads, which the forked child does not have and
would wait for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np
import obstore
import orjson
from numpy.typing import NDArray
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, from_url

import worker.store.safetensors as safetensors
from worker.store.safetensors import Entries
from worker.store.stored_bytes import Missing, Unavailable

_PART = 8 << 20  # bytes in a part of an upload; two are sent while a third fills
_MAX_PARTS = 9_000  # parts in an upload; S3 allows 10,000
_READ_BYTES = 2 << 20  # bytes read by one request
_CONCURRENT = 4  # requests at once
log = logging.getLogger(__name__)


class Archive:
    """An object store at s3://bucket/prefix, file:///folder or the path of a folder, opened when first used.

    obstore takes credentials and endpoint from the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL and so on).
    Requests are retried for up to `retry_seconds`; then the methods raise Unavailable.
    """

    def __init__(self, url: str, retry_seconds: float) -> None:
        self.url, self.retry_seconds = url, retry_seconds

    @property
    def folder(self) -> Path | None:
        """The folder; None for a bucket."""
        scheme, found, rest = self.url.partition("://")
        return Path(rest if found else self.url).absolute() if scheme == "file" or not found else None

    @cached_property
    def store(self) -> ObjectStore:
        """The obstore client."""
        if self.folder is not None:
            return LocalStore(self.folder, mkdir=True)
        return from_url(
            self.url, retry_config={"max_retries": 10, "retry_timeout": timedelta(seconds=self.retry_seconds)}
        )

    def check(self) -> None:
        """Check that the store can be written to, by writing an object of one byte.

        Raises Unavailable, or Missing if the folder does not exist.
        """
        with _translate_errors("check"):
            store = self.store
            if self.folder is not None and not self.folder.is_dir():
                raise FileNotFoundError(self.folder)  # writing would create it again
            obstore.put(store, "check", b".")  # an empty object would fit on a full disk

    def manifest(self, id: str) -> dict[str, Any]:
        """Return the manifest of a finished result. Raises Missing."""
        with _translate_errors(id):
            found: dict[str, Any] = orjson.loads(bytes(obstore.get(self.store, f"{id}.json").bytes()))
        return found

    def delete(self, id: str) -> None:
        """Delete a result, complete or not: the manifest first, so that no client reads an incomplete result."""
        for name in (f"{id}.json", f"{id}.safetensors"):
            with suppress(Missing), _translate_errors(id):
                obstore.delete(self.store, name)
        self.clean_up(id)

    def clean_up(self, id: str) -> None:
        """Delete the unfinished files of a killed writer from a folder; a bucket does not list unfinished uploads.

        Uses no threads, so the process may fork afterwards.
        """
        if self.folder is not None:
            for unfinished in self.folder.glob(f"{id}.*#*"):  # as object_store names them
                unfinished.unlink(missing_ok=True)


@dataclass(frozen=True)
class ArchivedBytes:
    """The bytes of an archived result: its object without the header of `head` bytes."""

    archive: Archive
    id: str
    head: int
    on_missing: Callable[[], None]  # called if the object does not exist although its manifest does

    gap = 64 << 10

    def stream(self, start: int, stop: int) -> Iterator[bytes]:
        """See StoredBytes."""
        blocks = ((low, min(low + _READ_BYTES, stop)) for low in range(start, stop, _READ_BYTES))
        while batch := [*islice(blocks, _CONCURRENT)]:
            yield from map(bytes, self._ranges([low for low, _ in batch], [high - low for low, high in batch]))

    def receive(self, wanted: Iterable[tuple[int, memoryview]]) -> Iterator[memoryview]:
        """See StoredBytes."""
        remaining = iter(wanted)
        while batch := [*islice(remaining, _CONCURRENT)]:
            contents = self._ranges([start for start, _ in batch], [len(buffer) for _, buffer in batch])
            for (_, buffer), content in zip(batch, contents, strict=True):
                buffer[:] = content
                yield buffer

    def gather(self, starts: NDArray[np.int64], size: int) -> bytes:
        """See StoredBytes."""
        return b"".join(self._ranges(starts.tolist(), [size] * len(starts), self.gap))

    def _ranges(self, starts: list[int], sizes: list[int], coalesce: int = 0) -> list[memoryview]:
        name, offsets = f"{self.id}.safetensors", [self.head + start for start in starts]
        try:
            with _translate_errors(self.id):
                found = obstore.get_ranges(self.archive.store, name, starts=offsets, lengths=sizes, coalesce=coalesce)
        except Missing:
            self.on_missing()
            raise
        if [*map(len, found)] != sizes:
            raise Missing(self.id)
        return [memoryview(part) for part in found]


class ArchiveWriter:
    """Writes a result: its bytes as they come, then the manifest. Buffers up to three parts in memory.

    As a context manager it discards an unfinished result. If the process is killed, no object is created.
    """

    def __init__(self, archive: Archive, id: str, entries: Entries, metadata: Mapping[str, str]) -> None:
        self.archive, self.id = archive, id
        self.head, self.size = safetensors.header(entries, metadata), safetensors.size(entries)
        self._left = len(self.head) + self.size  # bytes not written yet
        self._finished = False

    def __enter__(self) -> Self:
        part = max(_PART, -(-(len(self.head) + self.size) // _MAX_PARTS))
        with _translate_errors(self.id):
            name = f"{self.id}.safetensors"
            self._file = obstore.open_writer(self.archive.store, name, buffer_size=part, max_concurrency=2)
        self.append(memoryview(self.head))
        return self

    def __exit__(self, *raised: object) -> None:
        if not self._finished:
            with suppress(Unavailable):  # the exception that is being raised explains more
                self._end(Unfinished)

    def append(self, content: memoryview) -> None:
        """Append bytes, uint8 [n]; the memory may be reused afterwards."""
        self._left -= len(content)
        with _translate_errors(self.id):
            self._file.write(bytes(content))  # a copy, as obstore holds on to the object

    def finish(self, manifest: dict[str, Any]) -> None:
        """Upload the last bytes, then the manifest. Raises ValueError if bytes are missing."""
        if self._left:
            raise ValueError(f"{self._left:,} bytes of the result were not written")
        self._end(None)
        self._finished = True
        content = orjson.dumps(manifest | {"archived": len(self.head), "size": self.size})
        with _translate_errors(self.id):
            obstore.put(self.archive.store, f"{self.id}.json", content)

    def _end(self, raised: type[BaseException] | None) -> None:
        """Close the object, or discard it if `raised` is an exception."""
        with _translate_errors(self.id):
            self._file.__exit__(raised, raised, None)


class Unfinished(Exception):
    """Passed to obstore to discard an unfinished object."""


@contextmanager
def _translate_errors(id: str) -> Iterator[None]:
    """Raise errors of the store as Missing and Unavailable.

    Only the first line of an error is logged: the rest may contain credentials and signatures.
    """
    try:
        yield
    except FileNotFoundError:
        raise Missing(id) from None
    except (BaseError, OSError) as error:
        kind = type(error).__name__
        log.warning("the trace store: %s: %s", kind, str(error).partition("\n")[0].partition(": <")[0])
        raise Unavailable(f"The trace store is unavailable or refused the request ({kind}).") from None
