"""Results in an object store, a bucket or a folder: each a safetensors object, and its manifest, which comes last.

What is larger than a cache should hold lies here. A manifest means a whole result; of the other object, which any
reader of the format understands, only the ranges are read that are asked for.

obstore has threads of its own, which a fork leaves behind, so that a child would wait for them for ever: no process
may fork once it has read or written here.
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
from worker.store.runs import Away, Missing
from worker.store.safetensors import Entries

_PART = 8 << 20  # bytes that are sent at once; of which two are on their way while a third fills
_PARTS = 9_000  # S3 takes 10,000 of an object
_BLOCK = 2 << 20  # bytes that a request reads
_AT_ONCE = 4  # requests on their way together
log = logging.getLogger(__name__)


class Archive:
    """The objects under a URL: s3://bucket/prefix, file:///folder, or a folder's path. Opened when first used.

    Who gets in, and where that is, obstore takes from the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL and so on).
    A store that is away is asked again for up to `patience` seconds. Its methods raise Away then.
    """

    def __init__(self, url: str, patience: float) -> None:
        self.url, self.patience = url, patience

    @property
    def folder(self) -> Path | None:
        """Where it is on this machine, if it is."""
        scheme, found, rest = self.url.partition("://")
        return Path(rest if found else self.url).absolute() if scheme == "file" or not found else None

    @cached_property
    def store(self) -> ObjectStore:
        """obstore's."""
        if self.folder is not None:
            return LocalStore(self.folder, mkdir=True)
        return from_url(self.url, retry_config={"max_retries": 10, "retry_timeout": timedelta(seconds=self.patience)})

    def check(self) -> None:
        """Find out whether anything can be stored now, by writing an object of a byte. Raises Missing and Away."""
        with _honest("check"):
            store = self.store
            if self.folder is not None and not self.folder.is_dir():
                raise FileNotFoundError(self.folder)  # it was there before; writing would make another
            obstore.put(store, "check", b".")  # an empty one would fit on a full disk

    def manifest(self, id: str) -> dict[str, Any]:
        """The manifest of a finished result. Raises Missing."""
        with _honest(id):
            found: dict[str, Any] = orjson.loads(bytes(obstore.get(self.store, f"{id}.json").bytes()))
        return found

    def forget(self, id: str) -> None:
        """Remove a result or what there is of one: the manifest first, so that nobody finds it half there."""
        for name in (f"{id}.json", f"{id}.safetensors"):
            with suppress(Missing), _honest(id):
                obstore.delete(self.store, name)
        self.tidy(id)

    def tidy(self, id: str) -> None:
        """Remove what a killed writer left in a folder; in a bucket nobody sees it. Does no more than a fork allows."""
        if self.folder is not None:
            for left in self.folder.glob(f"{id}.*#*"):  # object_store's name for a file that is not finished
                left.unlink(missing_ok=True)


@dataclass(frozen=True)
class ArchivedRun:
    """The bytes of a result: of its object what follows the first `head` bytes, its header."""

    archive: Archive
    id: str
    head: int
    lost: Callable[[], None]  # called where the object is gone: somebody removed it, and left the manifest

    gap = 64 << 10

    def stream(self, start: int, stop: int) -> Iterator[bytes]:
        """As Run has it."""
        blocks = ((low, min(low + _BLOCK, stop)) for low in range(start, stop, _BLOCK))
        while some := [*islice(blocks, _AT_ONCE)]:
            yield from map(bytes, self._ranges([low for low, _ in some], [high - low for low, high in some]))

    def receive(self, wanted: Iterable[tuple[int, memoryview]]) -> Iterator[memoryview]:
        """As Run has it."""
        left = iter(wanted)
        while some := [*islice(left, _AT_ONCE)]:
            found = self._ranges([start for start, _ in some], [len(memory) for _, memory in some])
            for (_, memory), content in zip(some, found, strict=True):
                memory[:] = content
                yield memory

    def gather(self, starts: NDArray[np.int64], size: int) -> bytes:
        """As Run has it."""
        return b"".join(self._ranges(starts.tolist(), [size] * len(starts), self.gap))

    def _ranges(self, starts: list[int], sizes: list[int], coalesce: int = 0) -> list[memoryview]:
        name, places = f"{self.id}.safetensors", [self.head + start for start in starts]
        try:
            with _honest(self.id):
                found = obstore.get_ranges(self.archive.store, name, starts=places, lengths=sizes, coalesce=coalesce)
        except Missing:
            self.lost()
            raise
        if [*map(len, found)] != sizes:
            raise Missing(self.id)
        return [memoryview(part) for part in found]


class Writer:
    """Writes a result: its bytes as they come, then the manifest. Holds some parts of them.

    As a context it leaves nothing behind that was not finished. What a killed process leaves is not seen by anybody.
    """

    def __init__(self, archive: Archive, id: str, entries: Entries, metadata: Mapping[str, str]) -> None:
        self.archive, self.id = archive, id
        self.head, self.size = safetensors.header(entries, metadata), safetensors.size(entries)
        self._left = len(self.head) + self.size  # bytes that are still to come
        self._finished = False

    def __enter__(self) -> Self:
        part = max(_PART, -(-(len(self.head) + self.size) // _PARTS))
        with _honest(self.id):
            name = f"{self.id}.safetensors"
            self._file = obstore.open_writer(self.archive.store, name, buffer_size=part, max_concurrency=2)
        self.append(memoryview(self.head))
        return self

    def __exit__(self, *raised: object) -> None:
        if not self._finished:
            with suppress(Away):  # what was raised says more
                self._end(Unfinished)

    def append(self, content: memoryview) -> None:
        """Add bytes, uint8 [n]; their memory may be used again when this returns."""
        self._left -= len(content)
        with _honest(self.id):
            self._file.write(bytes(content))  # which it keeps and does not copy

    def finish(self, manifest: dict[str, Any]) -> None:
        """Send what is left, and the manifest: from now on there is a result."""
        if self._left:
            raise ValueError(f"{self._left:,} bytes are lacking of what was announced")
        self._end(None)
        self._finished = True
        content = orjson.dumps(manifest | {"archived": len(self.head), "size": self.size})
        with _honest(self.id):
            obstore.put(self.archive.store, f"{self.id}.json", content)

    def _end(self, raised: type[BaseException] | None) -> None:
        """Close the object; with an exception it is as if nobody had begun it."""
        with _honest(self.id):
            self._file.__exit__(raised, raised, None)


class Unfinished(Exception):
    """An object was begun and is not wanted."""


@contextmanager
def _honest(id: str) -> Iterator[None]:
    """Have errors of the store as Missing and Away. The log gets their first line: what a server answers stays out,
    which may hold what was signed and by whom.
    """
    try:
        yield
    except FileNotFoundError:
        raise Missing(id) from None
    except (BaseError, OSError) as error:
        kind = type(error).__name__
        log.warning("the trace store: %s: %s", kind, str(error).partition("\n")[0].partition(": <")[0])
        raise Away(f"The trace store does not answer, or refuses ({kind}).") from None
