"""Results too large for the cache, in an object store: a bucket or a folder.

Each is a safetensors object and its manifest, which is written last: a manifest means a complete result. Of the other
object, which any reader of the format understands, only the requested ranges are read.

obstore has threads, which a forked child does not have and would wait for: no process may fork after it has read or
written here.
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

_PART = 8 << 20  # bytes of an upload's part; two are sent while a third fills
_MAX_PARTS = 9_000  # of an object; S3 takes 10,000
_READ_BYTES = 2 << 20  # of one request
_CONCURRENT = 4  # requests
log = logging.getLogger(__name__)


class Archive:
    """The objects under a URL: s3://bucket/prefix, file:///folder, or a folder's path. Opened when first used.

    obstore takes credentials and endpoint from the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL and so on).
    Requests are retried for up to `retry_seconds`; then the methods raise Unavailable.
    """

    def __init__(self, url: str, retry_seconds: float) -> None:
        self.url, self.retry_seconds = url, retry_seconds

    @property
    def folder(self) -> Path | None:
        """The folder, if it is one."""
        scheme, found, rest = self.url.partition("://")
        return Path(rest if found else self.url).absolute() if scheme == "file" or not found else None

    @cached_property
    def store(self) -> ObjectStore:
        """The store of obstore."""
        if self.folder is not None:
            return LocalStore(self.folder, mkdir=True)
        return from_url(
            self.url, retry_config={"max_retries": 10, "retry_timeout": timedelta(seconds=self.retry_seconds)}
        )

    def check(self) -> None:
        """Check that the store can be written to, with an object of one byte. Raises Missing and Unavailable."""
        with _translate_errors("check"):
            store = self.store
            if self.folder is not None and not self.folder.is_dir():
                raise FileNotFoundError(self.folder)  # it existed before; writing would create another
            obstore.put(store, "check", b".")  # an empty one would fit on a full disk

    def manifest(self, id: str) -> dict[str, Any]:
        """Return the manifest of a finished result. Raises Missing."""
        with _translate_errors(id):
            found: dict[str, Any] = orjson.loads(bytes(obstore.get(self.store, f"{id}.json").bytes()))
        return found

    def forget(self, id: str) -> None:
        """Remove a result or parts of one: the manifest first, so that no reader finds it incomplete."""
        for name in (f"{id}.json", f"{id}.safetensors"):
            with suppress(Missing), _translate_errors(id):
                obstore.delete(self.store, name)
        self.clean_up(id)

    def clean_up(self, id: str) -> None:
        """Remove what a dead writer left in a folder; a bucket hides it. Uses no thread: the caller may fork."""
        if self.folder is not None:
            for left in self.folder.glob(f"{id}.*#*"):  # how object_store names an unfinished file
                left.unlink(missing_ok=True)


@dataclass(frozen=True)
class ArchivedBytes:
    """The bytes of a result: those of its object after the first `head`, the header."""

    archive: Archive
    id: str
    head: int
    lost: Callable[[], None]  # called if the object does not exist, although the manifest does

    gap = 64 << 10

    def stream(self, start: int, stop: int) -> Iterator[bytes]:
        """See StoredBytes."""
        blocks = ((low, min(low + _READ_BYTES, stop)) for low in range(start, stop, _READ_BYTES))
        while some := [*islice(blocks, _CONCURRENT)]:
            yield from map(bytes, self._ranges([low for low, _ in some], [high - low for low, high in some]))

    def receive(self, wanted: Iterable[tuple[int, memoryview]]) -> Iterator[memoryview]:
        """See StoredBytes."""
        left = iter(wanted)
        while some := [*islice(left, _CONCURRENT)]:
            found = self._ranges([start for start, _ in some], [len(memory) for _, memory in some])
            for (_, memory), content in zip(some, found, strict=True):
                memory[:] = content
                yield memory

    def gather(self, starts: NDArray[np.int64], size: int) -> bytes:
        """See StoredBytes."""
        return b"".join(self._ranges(starts.tolist(), [size] * len(starts), self.gap))

    def _ranges(self, starts: list[int], sizes: list[int], coalesce: int = 0) -> list[memoryview]:
        name, places = f"{self.id}.safetensors", [self.head + start for start in starts]
        try:
            with _translate_errors(self.id):
                found = obstore.get_ranges(self.archive.store, name, starts=places, lengths=sizes, coalesce=coalesce)
        except Missing:
            self.lost()
            raise
        if [*map(len, found)] != sizes:
            raise Missing(self.id)
        return [memoryview(part) for part in found]


class ArchiveWriter:
    """Stores a result: its bytes as they come, then the manifest. Holds some parts of the bytes.

    As a context manager it discards an unfinished result. What a killed process leaves is no object.
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
            with suppress(Unavailable):  # the first exception says more
                self._end(Unfinished)

    def append(self, content: memoryview) -> None:
        """Add bytes, uint8 [n]; the caller may reuse their memory."""
        self._left -= len(content)
        with _translate_errors(self.id):
            self._file.write(bytes(content))  # a copy, as obstore keeps what it is given

    def finish(self, manifest: dict[str, Any]) -> None:
        """Send the last bytes and the manifest, which completes the result."""
        if self._left:
            raise ValueError(f"{self._left:,} bytes are lacking of what was announced")
        self._end(None)
        self._finished = True
        content = orjson.dumps(manifest | {"archived": len(self.head), "size": self.size})
        with _translate_errors(self.id):
            obstore.put(self.archive.store, f"{self.id}.json", content)

    def _end(self, raised: type[BaseException] | None) -> None:
        """Close the object; with an exception it is discarded."""
        with _translate_errors(self.id):
            self._file.__exit__(raised, raised, None)


class Unfinished(Exception):
    """An object was begun and is discarded."""


@contextmanager
def _translate_errors(id: str) -> Iterator[None]:
    """Raise errors of the store as Missing and Unavailable.

    The log gets their first line alone: a server's answer may hold what was signed, and by whom.
    """
    try:
        yield
    except FileNotFoundError:
        raise Missing(id) from None
    except (BaseError, OSError) as error:
        kind = type(error).__name__
        log.warning("the trace store: %s: %s", kind, str(error).partition("\n")[0].partition(": <")[0])
        raise Unavailable(f"The trace store does not answer, or refuses ({kind}).") from None
