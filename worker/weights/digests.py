"""SHA-256 of large files, cached in memory and on disk.

A process whose requests must not wait for a large file sets `look_elsewhere`.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import orjson

SMALL = 64 << 20  # bytes of a file that is always read at once: a fraction of a second
_BLOCK = 1 << 20  # bytes hashed at a time
_TICK = 0.02  # seconds: possible resolution of file timestamps
_MAX_RECORD = 1024  # bytes of a record file that are read


class Stamp(NamedTuple):
    """Identifies a version of a file: size, inode, and the times (in ns) its content and inode changed."""

    size: int
    inode: int
    modified: int
    changed: int


class ChangedError(ValueError):
    """A file that changed, or is being written."""


class UnreadError(Exception):
    """A file that another process reads, or will read; `done` of its bytes are read."""

    def __init__(self, done: int) -> None:
        super().__init__()
        self.done = done


Elsewhere = Callable[[Path, Stamp], str | None]
_elsewhere: Elsewhere = lambda path, stamp: None  # noqa: E731 - reassigned below
_known: dict[Path, tuple[Stamp, str]] = {}
_locks: defaultdict[Path, Lock] = defaultdict(Lock)


def stamp(path: Path) -> Stamp | None:
    """Return the stamp of a file, following links; None if it does not exist. Raises OSError."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return Stamp(found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns)


def look_elsewhere(find: Elsewhere) -> None:
    """Ask `find` for the digest of a large file before this process reads it.

    It returns None if the file is to be read here, and raises UnreadError if it must not be.
    """
    global _elsewhere
    _elsewhere = find


def sha256(path: Path, as_of: Stamp) -> str:
    """Return the SHA-256, in hex, of the file whose stamp was `as_of`. Raises ChangedError, UnreadError and OSError.

    A file with a known stamp is not read again, neither by this process nor by later ones.
    """
    with _locks[path]:  # one thread reads the file, others wait
        known = _known.get(path)
        if known is None or known[0] != as_of:
            digest = _load(path, as_of)
            if digest is None and as_of.size > SMALL:
                digest = _elsewhere(path, as_of)
                if digest is not None:
                    _save(path, as_of, digest)
            if digest is None:
                digest = read(path, as_of)
            known = _known[path] = as_of, digest
        return known[1]


def read(path: Path, as_of: Stamp, progress: Callable[[int], None] | None = None) -> str:
    """Read a file here, unless its digest is on disk, and return its SHA-256. Raises ChangedError and OSError.

    `progress` gets the number of bytes read so far.
    """
    digest = _load(path, as_of)
    if digest is None:
        digest = _computed(path, as_of, progress)
        _save(path, as_of, digest)
    return digest


def _computed(path: Path, as_of: Stamp, progress: Callable[[int], None] | None) -> str:
    age = time.time() - as_of.changed / 1e9
    if 0 <= age < _TICK:  # another change could still leave the same stamp
        time.sleep(_TICK - age)
    digest, block, done = hashlib.sha256(), memoryview(bytearray(_BLOCK)), 0
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(block):
            digest.update(block[:size])
            done += size
            if progress is not None:
                progress(done)
    if stamp(path) != as_of:
        raise ChangedError(f"{path.name} changed while it was read: try again")
    return digest.hexdigest()


def _load(path: Path, as_of: Stamp) -> str | None:
    for file in _record_files(path):
        with suppress(OSError, orjson.JSONDecodeError):
            if not file.is_file():  # opening a FIFO would block
                continue
            with file.open("rb") as opened:
                record = orjson.loads(opened.read(_MAX_RECORD))
            if isinstance(record, dict) and record.get("stamp") == [*as_of] and isinstance(record.get("sha256"), str):
                return str(record["sha256"])
    return None


def _save(path: Path, as_of: Stamp, digest: str) -> None:
    """Write the digest to the first record file that is writable; if none is, it is only cached in memory."""
    content = orjson.dumps({"stamp": [*as_of], "sha256": digest})
    for file in _record_files(path):
        with suppress(OSError), tempfile.NamedTemporaryFile(dir=file.parent, prefix=".", delete=False) as written:
            try:
                written.write(content)
                written.flush()
                os.replace(written.name, file)
            except OSError:
                os.unlink(written.name)
                raise
            return


def _record_files(path: Path) -> Iterator[Path]:
    """Yield the files that may hold a digest: next to the file, or in a private temporary folder of this user."""
    yield path.with_name(f".{path.name}.sha256.json")
    folder = Path(tempfile.gettempdir()) / f"cutaway-{os.getuid()}"
    with suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
            yield folder / f"{hashlib.sha256(bytes(path)).hexdigest()}.json"
