"""SHA-256 of large files, computed once: remembered in this process and, where a file can be written, in one."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import orjson

_TICK = 0.02  # seconds: the clock of files may be as coarse


class Stamp(NamedTuple):
    """What tells that a file is the one it was: size and inode, and when (in ns) its content and itself changed."""

    size: int
    inode: int
    modified: int
    changed: int


class ChangedError(ValueError):
    """A file that is another one now, or is being written."""


_known: dict[Path, tuple[Stamp, str]] = {}
_locks: defaultdict[Path, Lock] = defaultdict(Lock)


def stamp(path: Path) -> Stamp | None:
    """The stamp of a file, links followed; None where there is none. Raises OSError."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return Stamp(found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns)


def of(path: Path, as_of: Stamp) -> str:
    """The SHA-256, in hex, of the file at `path` whose stamp was `as_of`. Raises ChangedError and OSError.

    A file that has the stamp of one seen before is not read again, neither by this process nor by the next.
    """
    with _locks[path]:  # whoever asks for the same at the same time waits for the one that reads
        known = _known.get(path)
        if known is None or known[0] != as_of:
            digest = _recorded(path, as_of)
            if digest is None:
                digest = _computed(path, as_of)
                _record(path, as_of, digest)
            known = _known[path] = as_of, digest
        return known[1]


def _computed(path: Path, as_of: Stamp) -> str:
    age = time.time() - as_of.changed / 1e9
    if 0 <= age < _TICK:  # another change could still leave the same stamp
        time.sleep(_TICK - age)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if stamp(path) != as_of:
        raise ChangedError(f"{path.name} changed while it was read: ask again")
    return digest


def _recorded(path: Path, as_of: Stamp) -> str | None:
    for place in _places(path):
        with suppress(OSError, orjson.JSONDecodeError):
            told = orjson.loads(place.read_bytes())
            if isinstance(told, dict) and told.get("stamp") == [*as_of] and isinstance(told.get("sha256"), str):
                return str(told["sha256"])
    return None


def _record(path: Path, as_of: Stamp, digest: str) -> None:
    """Write it down in the first place that takes it; where none does, only this process knows it."""
    content = orjson.dumps({"stamp": [*as_of], "sha256": digest})
    for place in _places(path):
        with suppress(OSError), tempfile.NamedTemporaryFile(dir=place.parent, prefix=".", delete=False) as written:
            try:
                written.write(content)
                written.flush()
                os.replace(written.name, place)
            except OSError:
                os.unlink(written.name)
                raise
            return


def _places(path: Path) -> Iterator[Path]:
    """Beside the file; else in a folder for temporary files that is this user's own."""
    yield path.with_name(f".{path.name}.sha256.json")
    folder = Path(tempfile.gettempdir()) / f"cutaway-{os.getuid()}"
    with suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
            yield folder / f"{hashlib.sha256(bytes(path)).hexdigest()}.json"
